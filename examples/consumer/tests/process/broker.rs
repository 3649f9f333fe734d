//! A `nats-server` on a free port, with its data in a directory of its own, and a client of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use taskgroup::testing::{Binary, Process};
use tokio::runtime::{Builder, Runtime};

use crate::support::{PATIENCE, fresh_path, wait_until};

pub(crate) struct Broker {
    server: Process,
    directory: PathBuf,
    pub(crate) url: String,
    runtime: Runtime,
    jetstream: Context,
}

/// What the broker knows of its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// All orders up to this one are acknowledged.
    pub(crate) floor: u64,
    /// The last order that was delivered.
    pub(crate) delivered: u64,
    /// How many were delivered, and are not acknowledged.
    pub(crate) pending: u64,
}

impl State {
    pub(crate) fn acknowledged(&self) -> u64 {
        // nats-server 2.9 counts one back when it finds nobody for it.
        self.delivered.saturating_sub(self.pending)
    }
}

fn server(directory: &Path, port: &str) -> Process {
    let listen = ["--addr", "127.0.0.1", "--port", port, "--jetstream"];
    Binary::new("nats-server")
        .args(listen)
        .args([Path::new("--store_dir"), directory])
        .args([Path::new("--ports_file_dir"), directory])
        .patience(PATIENCE)
        .start()
}

/// The file in which the server says where it listens; it is there when the server is ready.
#[track_caller]
fn url_of(server: &Process, directory: &Path) -> String {
    let file = directory.join(format!("nats-server_{}.ports", server.id()));
    let mut url = None;
    server.until("the ports of the broker", |_| {
        let ports = fs::read(&file).unwrap_or_default();
        let ports: Option<Value> = serde_json::from_slice(&ports).ok();
        url = ports.and_then(|ports| Some(ports["nats"][0].as_str()?.to_owned()));
        url.is_some()
    });
    url.expect("a URL")
}

/// A normal order of one piece of tea.
pub(crate) fn order(id: u64) -> Value {
    json!({ "id": id, "item": "tea", "quantity": 1 })
}

impl Broker {
    /// Returns `None` if there is no `nats-server` here.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        if Command::new("nats-server")
            .arg("--version")
            .output()
            .is_err()
        {
            // Not by `eprintln!`, which is shown for tests that fail only.
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: no nats-server here (Debian: nats-server)"
            );
            return None;
        }
        let directory = fresh_path("nats");
        fs::create_dir_all(&directory).unwrap();
        let server = server(&directory, "-1");
        let url = url_of(&server, &directory);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let jetstream = runtime.block_on(async {
            let client = async_nats::connect(&url).await.expect("a connection");
            jetstream::new(client)
        });
        Some(Self {
            server,
            directory,
            url,
            runtime,
            jetstream,
        })
    }

    /// The broker hangs until it [goes on](Self::go_on).
    pub(crate) fn hang(&self) {
        self.send_signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.send_signal(Signal::CONT);
    }

    fn send_signal(&self, signal: Signal) {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("the broker can be signalled");
    }

    /// Kills the server, and starts it again at the same address with the same data.
    #[track_caller]
    pub(crate) fn kill_and_restart(&mut self) {
        self.server.kill();
        self.server.wait();
        let (_, port) = self.url.rsplit_once(':').unwrap();
        self.server = server(&self.directory, port);
        assert_eq!(url_of(&self.server, &self.directory), self.url);
    }

    /// Sends orders, which are at the broker when this returns.
    #[track_caller]
    pub(crate) fn send(&self, orders: impl IntoIterator<Item = Value>) {
        self.runtime.block_on(async {
            for order in orders {
                let payload = serde_json::to_vec(&order).unwrap();
                self.send_raw(payload).await;
            }
        });
    }

    /// Sends something that is no order.
    #[track_caller]
    pub(crate) fn send_text(&self, text: &str) {
        self.runtime.block_on(self.send_raw(text.into()));
    }

    async fn send_raw(&self, payload: Vec<u8>) {
        let message = PublishMessage::build().payload(payload.into());
        let sent = self.jetstream.send_publish("orders.new", message).await;
        sent.unwrap().await.expect("the broker has the order");
    }

    async fn consumer(&self) -> Result<PullConsumer, async_nats::Error> {
        let stream = self.jetstream.get_stream("ORDERS").await?;
        stream.get_consumer("store").await
    }

    #[track_caller]
    pub(crate) fn state(&self) -> State {
        // A broker that was killed is not there at once.
        let begin = Instant::now();
        loop {
            let info = self.runtime.block_on(async {
                let info = self.consumer().await?.get_info().await?;
                Ok::<_, async_nats::Error>(info)
            });
            match info {
                Ok(info) => {
                    return State {
                        floor: info.ack_floor.stream_sequence,
                        delivered: info.delivered.stream_sequence,
                        pending: info.num_ack_pending as u64,
                    };
                }
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// Waits until so many orders are with consumers, and not acknowledged.
    #[track_caller]
    pub(crate) fn wait_for_held(&self, held: u64) {
        wait_until("the orders that are fetched", || {
            self.state().pending == held
        });
    }

    /// The payloads of a stream, by the ids of their messages.
    #[track_caller]
    fn messages(&self, stream: &str) -> BTreeMap<String, Vec<Value>> {
        let mut messages = BTreeMap::<_, Vec<_>>::new();
        self.runtime.block_on(async {
            let stream = self.jetstream.get_stream(stream).await.expect("the stream");
            let state = stream.get_info().await.expect("its state").state;
            let all = state.first_sequence..=state.last_sequence;
            for sequence in all.filter(|_| state.messages > 0) {
                let message = stream.get_raw_message(sequence).await.expect("a message");
                let id = message.headers.get(NATS_MESSAGE_ID).expect("an id");
                let payload = serde_json::from_slice(&message.payload);
                let payload = payload.unwrap_or_else(|_| {
                    Value::from(String::from_utf8_lossy(&message.payload).as_ref())
                });
                messages.entry(id.to_string()).or_default().push(payload);
            }
        });
        messages
    }

    /// How often an event was published, by the id of its order.
    #[track_caller]
    pub(crate) fn events(&self) -> BTreeMap<u64, usize> {
        let mut events = BTreeMap::new();
        for (id, payloads) in self.messages("EVENTS") {
            for payload in payloads {
                let order = payload["order"].as_u64().expect("the id of an order");
                assert_eq!(id, format!("order-{order}"));
                *events.entry(order).or_default() += 1;
            }
        }
        events
    }

    #[track_caller]
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        self.messages("DEAD_LETTERS")
            .into_values()
            .flatten()
            .collect()
    }

    /// Takes orders as another consumer does, until there are so many. Returns the number of the delivery of each, by its
    /// id, and when it had the last. They come again when the broker has waited for their acknowledgement.
    #[track_caller]
    pub(crate) fn take(&self, count: usize) -> (BTreeMap<u64, i64>, Instant) {
        self.runtime.block_on(async {
            let consumer = self.consumer().await.expect("the consumer");
            let mut taken = BTreeMap::new();
            let begin = Instant::now();
            while taken.len() < count {
                assert!(begin.elapsed() < PATIENCE, "{} of {count}", taken.len());
                let batch = consumer.fetch().max_messages(count - taken.len());
                let batch = batch.expires(Duration::from_secs(1)).messages().await;
                let mut batch = batch.expect("a batch");
                while let Some(message) = batch.next().await {
                    let message = message.expect("a message");
                    let order: Value = serde_json::from_slice(&message.payload).unwrap();
                    let delivered = message.info().expect("its number").delivered;
                    taken.insert(order["id"].as_u64().unwrap(), delivered);
                }
            }
            (taken, Instant::now())
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
