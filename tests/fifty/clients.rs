//! The parent: clients that count, and the facts about the child.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::http::Request;
use h2::client::SendRequest;
use rustix::process::Signal;
use taskgroup::BoxError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::child::Child;
use crate::shop::SERVERS;
use crate::support::wait::soon;

const RUNS: usize = 20;

/// How many clients ask each server again and again.
const BUSY: u32 = 2;

crate::tests![fifty_components_under_load_lose_no_request_and_leak_nothing_twenty_times_in_a_row];

fn fifty_components_under_load_lose_no_request_and_leak_nothing_twenty_times_in_a_row() {
    for _ in 0..RUNS {
        run();
    }
}

fn run() {
    let mut child = Child::start("shop");
    let addresses: Vec<_> = (0..SERVERS).map(|_| Server::parse(&child.line())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let count = Count::default();
    let clients = runtime.block_on(async { clients(&addresses, &count) });
    child.expect("each server has a request in hand");
    let warm = count.warm.acquire_many(SERVERS * BUSY);
    drop(runtime.block_on(soon(warm)).unwrap());

    child.send(Signal::TERM);
    for fact in [
        "the report is clean: received SIGTERM",
        "each component had work in flight, and has done it",
        "the longest chain decided the time",
        "0 tasks are left",
        "0 descriptors are left",
    ] {
        child.expect(fact);
    }
    child.expect_code(0);

    for client in runtime.block_on(soon(clients.join_all())) {
        client.unwrap();
    }
    let (asked, answered) = count.requests();
    assert_eq!(asked, answered, "{} were lost", asked - answered);
    // Before the stop each client has asked more than once, each held request is one, and the last
    // answer that a client gets says that there will be none after it.
    assert!(asked > (SERVERS * (2 * BUSY + 1)) as usize, "{asked}");
}

fn clients(servers: &[Server], count: &Count) -> JoinSet<Result<(), BoxError>> {
    let mut clients = JoinSet::new();
    for &server in servers {
        match server {
            Server::Http(address) => {
                clients.spawn(http_held(address, count.clone()));
                for _ in 0..BUSY {
                    clients.spawn(http_busy(address, count.clone()));
                }
            }
            Server::Grpc(address) => {
                clients.spawn(grpc_held(address, count.clone()));
                for _ in 0..BUSY {
                    clients.spawn(grpc_busy(address, count.clone()));
                }
            }
        }
    }
    clients
}

#[derive(Clone, Copy)]
enum Server {
    Http(SocketAddr),
    Grpc(SocketAddr),
}

impl Server {
    /// Reads `http 127.0.0.1:1234`.
    #[track_caller]
    fn parse(line: &str) -> Self {
        match line.split_once(' ') {
            Some(("http", address)) => Self::Http(address.parse().unwrap()),
            Some(("grpc", address)) => Self::Grpc(address.parse().unwrap()),
            _ => panic!("the child says: {line}"),
        }
    }
}

#[derive(Clone)]
struct Count {
    /// Those of which a byte may have been sent.
    asked: Arc<AtomicUsize>,
    /// Those that were answered as a whole, and well.
    answered: Arc<AtomicUsize>,
    /// Has a permit for each busy client that was answered twice.
    warm: Arc<Semaphore>,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            asked: Arc::default(),
            answered: Arc::default(),
            warm: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Count {
    /// Counts what `answer` is the answer to.
    async fn request<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = answer.await?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    fn requests(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.asked), read(&self.answered))
    }
}

async fn http_held(address: SocketAddr, count: Count) -> Result<(), BoxError> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    count.request(get(&mut stream, "/held")).await?;
    Ok(())
}

/// Asks on one connection until the server says that it closes it.
async fn http_busy(address: SocketAddr, count: Count) -> Result<(), BoxError> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    for asked in 1.. {
        if let Next::Leave = count.request(get(&mut stream, "/")).await? {
            break;
        }
        if asked == 2 {
            count.warm.add_permits(1);
        }
    }
    Ok(())
}

enum Next {
    Ask,
    Leave,
}

async fn get(stream: &mut BufReader<TcpStream>, path: &str) -> Result<Next, BoxError> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(format!("{path}: the answer ends after {lines:?}").into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
    let length = header("content-length: ").ok_or("no length")?.parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if lines[0] != "http/1.1 200 ok" {
        let body = String::from_utf8_lossy(&body);
        return Err(format!("{path}: {}: {body}", lines[0]).into());
    }
    Ok(match header("connection: ") {
        Some("close") => Next::Leave,
        _ => Next::Ask,
    })
}

async fn grpc_held(address: SocketAddr, count: Count) -> Result<(), BoxError> {
    // An answer may come with the end of its connection.
    let mut client = GrpcClient::connect(address).await?;
    let sender = client.ready().await.ok_or("it was not there")?;
    count.request(check(sender, b"\x0a\x04held")).await
}

/// Calls on one connection until the server says that it takes no more.
async fn grpc_busy(address: SocketAddr, count: Count) -> Result<(), BoxError> {
    let mut client = GrpcClient::connect(address).await?;
    for asked in 1.. {
        let Some(sender) = client.ready().await else {
            break;
        };
        count.request(check(sender, b"")).await?;
        if asked == 2 {
            count.warm.add_permits(1);
        }
    }
    Ok(())
}

/// A client that does not connect anew unseen by the code that counts.
struct GrpcClient {
    sender: SendRequest<Bytes>,
    _connection: JoinSet<()>,
}

impl GrpcClient {
    async fn connect(address: SocketAddr) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        let mut tasks = JoinSet::new();
        // How it ends is seen by those who use it.
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            _connection: tasks,
        })
    }

    /// Returns nothing when the server has said goodbye.
    async fn ready(&mut self) -> Option<SendRequest<Bytes>> {
        self.sender.clone().ready().await.ok()
    }
}

/// Calls `grpc.health.v1.Health/Check` with this message.
async fn check(mut sender: SendRequest<Bytes>, message: &'static [u8]) -> Result<(), BoxError> {
    let request = Request::post("http://shop/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = sender.send_request(request, false)?;
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len())?];
    framed.extend_from_slice(message);
    stream.send_data(framed.into(), true)?;
    let mut body = response.await?.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().and_then(|all| all.get("grpc-status"));
    match status.map(|status| status.as_bytes()) {
        Some(b"0") => Ok(()),
        _ => Err(format!("the call ended with {status:?}").into()),
    }
}
