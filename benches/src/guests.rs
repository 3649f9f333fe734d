//! The clients of a crowd: thousands of connections that wait for the server to stop.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use h2::client::SendRequest;
use http::Request;
use http::StatusCode;
use taskgroup::BoxError as Failed;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::call;
use crate::words::words;

words! {
    /// What each of the clients does when the server is told to stop.
    pub enum Guests {
        /// It has had one answer over HTTP/1, and keeps its connection.
        Idle = "idle HTTP/1",
        /// The same over HTTP/2.
        IdleHttp2 = "idle HTTP/2",
        /// The same over gRPC.
        IdleGrpc = "idle gRPC",
        /// It has a websocket.
        Websocket = "websocket",
        /// It waits for an answer over HTTP/1 that never comes.
        Busy = "busy HTTP/1",
        /// The same over HTTP/2.
        BusyHttp2 = "busy HTTP/2",
    }
}

impl Guests {
    /// Whether they are cut at the end of the grace, and before that keep the server waiting.
    pub fn are_cut(self) -> bool {
        matches!(self, Self::Busy | Self::BusyHttp2)
    }
}

/// How many connect at once. The queue of the listener has room for them.
const AT_ONCE: usize = 100;

/// The longest that a server may take to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connections, each in a task that ends with whether its client was told as its protocol wants it.
pub struct Crowd(JoinSet<Result<bool, Failed>>);

impl Crowd {
    /// Returns when all are connected, and are what they are to be.
    pub async fn come(
        guests: Guests,
        address: SocketAddr,
        count: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut crowd = JoinSet::new();
        let mut coming = stream::iter(0..count)
            .map(|_| Guest::come(guests, address))
            .buffer_unordered(AT_ONCE);
        while let Some(guest) = coming.next().await {
            let guest = guest.map_err(|error| error as Box<dyn Error>)?;
            crowd.spawn(guest.told());
        }
        Ok(Self(crowd))
    }

    /// Waits until all connections are closed, and returns how many clients were told.
    pub async fn told(self) -> Result<usize, Box<dyn Error>> {
        let ends = timeout(PATIENCE, self.0.join_all()).await?;
        Ok(ends.iter().filter(|end| matches!(end, Ok(true))).count())
    }
}

enum Guest {
    Idle(TcpStream),
    Busy(TcpStream),
    Websocket(TcpStream),
    IdleHttp2(Http2),
    BusyHttp2(Http2, h2::client::ResponseFuture),
}

struct Http2 {
    /// Without it the client would close the connection.
    sender: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Guest {
    async fn come(guests: Guests, address: SocketAddr) -> Result<Self, Failed> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match guests {
            Guests::Idle => {
                ask(
                    &mut stream,
                    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
                    "Hello, World!",
                )
                .await?;
                Ok(Self::Idle(stream))
            }
            Guests::Busy => {
                let request = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
                stream.write_all(request.as_bytes()).await?;
                Ok(Self::Busy(stream))
            }
            Guests::Websocket => {
                let request = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
                ask(&mut stream, request, "\r\n\r\n").await?;
                Ok(Self::Websocket(stream))
            }
            Guests::IdleHttp2 => {
                let http2 = Http2::begin(stream).await?;
                let mut sender = http2.sender.clone().ready().await?;
                let (response, _) = sender.send_request(get("/"), true)?;
                let mut body = response.await?.into_body();
                while let Some(data) = body.data().await {
                    data?;
                }
                Ok(Self::IdleHttp2(http2))
            }
            Guests::IdleGrpc => {
                let http2 = Http2::begin(stream).await?;
                call(http2.sender.clone(), address).await?;
                Ok(Self::IdleHttp2(http2))
            }
            Guests::BusyHttp2 => {
                let http2 = Http2::begin(stream).await?;
                let mut sender = http2.sender.clone().ready().await?;
                let (response, _) = sender.send_request(get("/slow"), true)?;
                Ok(Self::BusyHttp2(http2, response))
            }
        }
    }

    async fn told(self) -> Result<bool, Failed> {
        match self {
            Self::Idle(mut stream) => Ok(stream.read(&mut [0]).await? == 0),
            Self::Busy(mut stream) => {
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                Ok(answer.starts_with(b"HTTP/1.1 503"))
            }
            Self::Websocket(mut stream) => {
                // A Close is one small frame without a mask: its code, then the reason.
                let mut head = [0; 4];
                stream.read_exact(&mut head).await?;
                let [kind, length, code @ ..] = head;
                stream
                    .read_exact(&mut vec![0; usize::from(length) - 2])
                    .await?;
                // The answer has a mask, of zeros.
                let [high, low] = code;
                stream
                    .write_all(&[0x88, 0x82, 0, 0, 0, 0, high, low])
                    .await?;
                let is_over = stream.read(&mut [0]).await? == 0;
                Ok(is_over && kind == 0x88 && u16::from_be_bytes(code) == 1001)
            }
            Self::IdleHttp2(http2) => Ok(http2.connection.await?.is_ok()),
            Self::BusyHttp2(http2, response) => {
                let is_told = response.await?.status() == StatusCode::SERVICE_UNAVAILABLE;
                http2.connection.await?.ok();
                Ok(is_told)
            }
        }
    }
}

impl Http2 {
    async fn begin(stream: TcpStream) -> Result<Self, Failed> {
        let (sender, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        Ok(Self { sender, connection })
    }
}

fn get(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = format!("http://a{path}").parse().unwrap_or_default();
    request
}

/// Sends a request, and reads until `end`.
async fn ask(stream: &mut TcpStream, request: &str, end: &str) -> Result<(), Failed> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the server has closed the connection".into());
        }
    }
    Ok(())
}
