//! The broker: JetStream, with the streams of the orders, of the events and of the dead letters.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::{AckKind, Message, PublishMessage};
use async_nats::jetstream::{Context, stream};
use async_nats::{Client, ConnectOptions, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use taskgroup::pipeline::{Receipt, Received, Source};
use taskgroup::{BoxError, CancellationToken};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use crate::options::Options;
use crate::store::Store;

/// The subject of the orders, and the name of their stream.
pub(crate) const ORDERS: (&str, &str) = ("orders.new", "ORDERS");
pub(crate) const EVENTS: (&str, &str) = ("events.stored", "EVENTS");
pub(crate) const DEAD_LETTERS: (&str, &str) = ("orders.dead", "DEAD_LETTERS");

/// The name that all consumers of orders share, so that each order goes to one of them.
const CONSUMER: &str = "store";

/// How long the broker may take for an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long a request for orders stays at the broker. A stop waits for its end: it cannot be withdrawn, and
/// nats-server 2.9 loses sight of an order that is given back while nobody is there for a request that still waits.
const REQUEST: Duration = Duration::from_millis(500);

/// How long after that the broker has surely forgotten the request.
const MARGIN: Duration = Duration::from_millis(100);

/// How many orders of a request that is over were not delivered.
const NOT_DELIVERED: &str = "Nats-Pending-Messages";

/// A cheap handle on the connection.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    client: Client,
    jetstream: Context,
}

impl Broker {
    /// Connects, and makes what is missing there.
    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        let client = ConnectOptions::new()
            .name("consumer")
            .connection_timeout(ANSWER)
            .connect(url)
            .await?;
        let context = ContextBuilder::new().timeout(ANSWER);
        let jetstream = context.build(client.clone());
        for (subject, name) in [ORDERS, EVENTS, DEAD_LETTERS] {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subject.to_owned()],
                ..stream::Config::default()
            };
            jetstream.get_or_create_stream(config).await?;
        }
        Ok(Self { client, jetstream })
    }

    /// Publishes a message, and returns when the broker has it. The broker drops a further one with this id.
    pub(crate) async fn publish(
        &self,
        subject: &'static str,
        id: &str,
        payload: Bytes,
    ) -> Result<(), BoxError> {
        let message = PublishMessage::build().payload(payload).message_id(id);
        let confirmed = self.jetstream.send_publish(subject, message).await?;
        confirmed.await?;
        Ok(())
    }

    /// Subscribes to the orders. Nothing is fetched before there is room for it.
    pub(crate) async fn orders(
        &self,
        options: &Options,
        store: Store,
        pause: CancellationToken,
    ) -> Result<Orders, BoxError> {
        let config = Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: options.ack_wait,
            // Our own attempts are counted in the database, where a hand-back does not count.
            max_deliver: -1,
            max_ack_pending: 10_000,
            ..Config::default()
        };
        let stream = self.jetstream.get_stream(ORDERS.1).await?;
        let consumer = stream.get_or_create_consumer(CONSUMER, config).await?;
        let inbox = self.client.new_inbox();
        let subscriber = self.client.subscribe(inbox.clone()).await?;
        Ok(Orders {
            jetstream: self.jetstream.clone(),
            consumer,
            inbox,
            subscriber,
            asked: 0,
            over: Instant::now(),
            store,
            pause,
            is_draining: false,
        })
    }

    /// Returns how many messages a stream has, by its name.
    pub(crate) async fn count(&self, stream: &str) -> Result<u64, BoxError> {
        let stream = self.jetstream.get_stream(stream).await?;
        Ok(stream.get_info().await?.state.messages)
    }

    /// Returns how many orders no consumer has acknowledged.
    pub(crate) async fn open_orders(&self) -> Result<u64, BoxError> {
        let stream = self.jetstream.get_stream(ORDERS.1).await?;
        let consumer: PullConsumer = stream.get_consumer(CONSUMER).await?;
        let info = consumer.get_info().await?;
        Ok(info.num_pending + info.num_ack_pending as u64)
    }

    /// Sends what is still to be sent, and closes the connection.
    pub(crate) async fn close(&self) -> Result<(), BoxError> {
        timeout(ANSWER, self.client.flush()).await??;
        Ok(self.client.drain().await?)
    }
}

/// The orders that the broker delivers.
pub(crate) struct Orders {
    jetstream: Context,
    consumer: PullConsumer,
    inbox: String,
    subscriber: Subscriber,
    /// How many orders the broker was asked for and has not delivered.
    asked: usize,
    /// When the last request is over.
    over: Instant,
    store: Store,
    /// Fires when no more orders are wanted.
    pause: CancellationToken,
    /// What the broker has sent by then still comes, and the subscription ends behind it.
    is_draining: bool,
}

impl Source for Orders {
    type Item = Bytes;
    type Receipt = Delivery;

    async fn next(&mut self, room: usize) -> Result<Option<Received<Bytes, Delivery>>, BoxError> {
        loop {
            let is_paused = self.pause.is_cancelled();
            if !is_paused && self.asked <= room / 2 {
                self.ask_for(room - self.asked).await?;
            }
            if is_paused && self.asked == 0 && !self.is_draining {
                // What the broker has sent by then still comes, and the subscription ends behind it.
                self.is_draining = true;
                self.subscriber.drain().await?;
            }
            let message = tokio::select! {
                biased;
                () = self.pause.cancelled(), if !is_paused => continue,
                message = self.subscriber.next() => message,
                () = sleep_until(self.over), if self.asked > 0 => {
                    self.asked = 0;
                    continue;
                }
            };
            let Some(message) = message else {
                return match self.is_draining {
                    true => Ok(None),
                    false => Err("the subscription has ended".into()),
                };
            };
            if message.status.is_some() {
                self.asked = self.asked.saturating_sub(not_delivered(&message));
                continue;
            }
            self.asked = self.asked.saturating_sub(1);
            let context = self.jetstream.clone();
            return self.received(Message { message, context }).await.map(Some);
        }
    }
}

impl Orders {
    async fn ask_for(&mut self, orders: usize) -> Result<(), BoxError> {
        let batch = BatchConfig {
            batch: orders,
            expires: Some(REQUEST),
            ..BatchConfig::default()
        };
        self.asked += orders;
        self.over = Instant::now() + REQUEST + MARGIN;
        let inbox = self.inbox.clone().into();
        Ok(self.consumer.request_batch(batch, inbox).await?)
    }

    async fn received(&self, message: Message) -> Result<Received<Bytes, Delivery>, BoxError> {
        let (sequence, delivery) = {
            let info = message.info()?;
            (info.stream_sequence, info.delivered)
        };
        debug!(sequence, delivery, "orders: fetched");
        // Of one that comes for the first time nothing can be known.
        let begun = match delivery {
            1 => 0,
            _ => self.store.begun(sequence).await?,
        };
        let payload = message.payload.clone();
        let receipt = Delivery {
            message: Arc::new(message),
            sequence,
            delivery,
        };
        Ok(Received::new(payload, receipt).attempt(begun + 1))
    }
}

fn not_delivered(status: &async_nats::Message) -> usize {
    let headers = status.headers.as_ref();
    let count = headers.and_then(|headers| headers.get(NOT_DELIVERED));
    count
        .and_then(|count| count.as_str().parse().ok())
        .unwrap_or_default()
}

/// What acknowledges an order.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    message: Arc<Message>,
    /// Its number in the stream, which is the same in each delivery.
    pub(crate) sequence: u64,
    /// Which delivery it is, from 1 upwards.
    pub(crate) delivery: i64,
}

impl Delivery {
    /// Tells the broker that the order is still worked on.
    pub(crate) async fn extend(&self) -> Result<(), BoxError> {
        self.message.ack_with(AckKind::Progress).await
    }
}

impl Receipt for Delivery {
    async fn ack(&self) -> Result<(), BoxError> {
        self.message.double_ack_with(AckKind::Ack).await
    }
}

/// Gives orders back, all at once, and returns when the broker has confirmed that. Each may wait before it is delivered
/// again.
pub(crate) async fn give_back(
    deliveries: impl IntoIterator<Item = (&Delivery, Option<Duration>)>,
) -> Result<(), BoxError> {
    let given = deliveries.into_iter().map(|(delivery, wait)| {
        let nak = AckKind::Nak(wait);
        async move { delivery.message.double_ack_with(nak).await }
    });
    let given = join_all(given).await;
    let count = given.len();
    info!("broker: {count} orders given back");
    let failed: Vec<_> = given.into_iter().filter_map(Result::err).collect();
    match failed.first() {
        Some(first) => Err(failure(failed.len(), count, &**first)),
        None => Ok(()),
    }
}

fn failure(failed: usize, count: usize, first: &dyn Error) -> BoxError {
    format!("{failed} of {count} orders could not be given back: {first}").into()
}
