//! The servers that are measured: the stock ones, and the same behind the gate.

use std::error::Error;
use std::fs;
use std::future::pending;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::process;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use axum::Router;
use axum::routing::get;
use taskgroup::CancellationToken;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::words::words;

words! {
    /// The server.
    pub enum Server {
        /// `axum::serve` with its graceful shutdown.
        Axum = "axum",
        /// `taskgroup::server::axum::serve`.
        GatedAxum = "taskgroup::server::axum",
        /// tonic's `Server` with its graceful shutdown.
        Tonic = "tonic",
        /// `taskgroup::server::tonic::serve`.
        GatedTonic = "taskgroup::server::tonic",
    }
}

/// What a client of axum gets.
pub const HELLO: &str = "Hello, World!";

/// Serves on a thread of its own until the standard input ends, and says first where.
pub fn serve(server: Server) -> Result<(), Box<dyn Error>> {
    thread::spawn(|| {
        io::stdin().read_to_end(&mut Vec::new()).ok();
        process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        run(server, listener).await
    })
}

async fn run(server: Server, listener: TcpListener) -> Result<(), Box<dyn Error>> {
    let token = CancellationToken::new();
    let signal = token.clone().cancelled_owned();
    match server {
        Server::Axum => {
            axum::serve(listener, hello())
                .with_graceful_shutdown(signal)
                .await?;
        }
        Server::GatedAxum => {
            taskgroup::server::axum::serve("http", listener, hello())
                .run(&token)
                .await?;
        }
        Server::Tonic => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(
                    taskgroup::server::tonic::DEFAULT_KEEPALIVE_INTERVAL,
                ))
                .add_routes(health())
                .serve_with_incoming_shutdown(incoming, signal)
                .await?;
        }
        Server::GatedTonic => {
            taskgroup::server::tonic::serve("grpc", listener, health())
                .run(&token)
                .await?;
        }
    }
    pending().await
}

fn hello() -> Router {
    Router::new().route("/", get(async || HELLO))
}

/// The health service: a unary call that needs no generated code here.
pub fn health() -> Routes {
    let (_, service) = tonic_health::server::health_reporter();
    Routes::new(service)
}

/// A server in a process of its own, until it is dropped.
pub struct Running {
    process: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Runs a command that ends in [`serve`].
    pub fn start(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.as_mut().ok_or("it has no output")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().parse()?;
        Ok(Self { process, address })
    }

    /// The time it has had on a processor so far, in nanoseconds. It has one thread that works.
    pub fn on_cpu(&self) -> Result<f64, Box<dyn Error>> {
        let path = format!("/proc/{}/schedstat", self.process.id());
        let times = fs::read_to_string(path)?;
        let time = times.split_ascii_whitespace().next();
        Ok(time.ok_or("the kernel keeps no times")?.parse()?)
    }

    /// Lets it end; returns what it wrote to the standard error.
    pub fn end(mut self) -> Result<String, Box<dyn Error>> {
        drop(self.process.stdin.take());
        let mut text = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        let status = self.process.wait()?;
        if status.success() {
            Ok(text)
        } else {
            Err(format!("the server ended with {status}:\n{text}").into())
        }
    }
}

/// It ends by itself when its standard input does.
impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}
