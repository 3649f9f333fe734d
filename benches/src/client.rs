//! The clients of the servers: one request after the other to count, many at once to time.

use std::error::Error;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream as BlockingStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use axum::body::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use taskgroup::BoxError as Failed;

use crate::server::HELLO;
use crate::server::Server;
use crate::valgrind::output;

/// How long a server is loaded in one round.
const LOAD: Duration = Duration::from_secs(1);

/// Connections to axum, or streams on each connection to tonic, that are busy under load.
const BUSY: usize = 32;

/// What one client at a time asks for, over one connection.
pub fn ask(server: Server, address: SocketAddr, times: usize) -> Result<(), Box<dyn Error>> {
    match server {
        Server::Axum | Server::GatedAxum => get(address, times),
        Server::Tonic | Server::GatedTonic => runtime()?
            .block_on(call_often(address, times))
            .map_err(plain),
    }
}

/// What a server has done while many asked at once.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub answers: f64,
    pub seconds: f64,
}

/// Loads a server for one round.
pub fn load(server: Server, address: SocketAddr) -> Result<Load, Box<dyn Error>> {
    match server {
        Server::Axum | Server::GatedAxum => wrk(address),
        Server::Tonic | Server::GatedTonic => {
            runtime()?.block_on(call_at_once(address)).map_err(plain)
        }
    }
}

fn plain(error: Failed) -> Box<dyn Error> {
    error
}

fn runtime() -> Result<Runtime, Box<dyn Error>> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn get(address: SocketAddr, times: usize) -> Result<(), Box<dyn Error>> {
    let mut stream = BlockingStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let mut answer = [0; 1024];
    for _ in 0..times {
        stream.write_all(request.as_bytes())?;
        // It is small, and written at once.
        let length = stream.read(&mut answer)?;
        if !answer[..length].ends_with(HELLO.as_bytes()) {
            return Err("axum gave another answer".into());
        }
    }
    Ok(())
}

fn wrk(address: SocketAddr) -> Result<Load, Box<dyn Error>> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads=1", &format!("--connections={BUSY}")])
        .arg(format!("--duration={}s", LOAD.as_secs()))
        .arg(format!("http://{address}/"));
    let text = output(&mut wrk)?;
    // `130673 requests in 1.00s, 18.94MB read`.
    let answers = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let (answers, rest) = answers.ok_or_else(|| format!("wrk counted nothing: {text}"))?;
    let seconds = rest.split_once("s,").map(|(seconds, _)| seconds);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("not all requests were answered: {text}").into());
    }
    Ok(Load {
        answers: answers.parse()?,
        seconds: seconds.ok_or("wrk told no time")?.parse()?,
    })
}

/// wrk does not speak gRPC.
async fn call_at_once(address: SocketAddr) -> Result<Load, Failed> {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..2 {
        let sender = connect(address).await?;
        for _ in 0..BUSY / 2 {
            let (sender, is_over) = (sender.clone(), Arc::clone(&is_over));
            callers.push(tokio::spawn(async move {
                let mut answered = 0;
                while !is_over.load(Ordering::Relaxed) {
                    call(sender.clone(), address).await?;
                    answered += 1;
                }
                Ok::<_, Failed>(answered)
            }));
        }
    }
    let begin = Instant::now();
    tokio::time::sleep(LOAD).await;
    is_over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for caller in callers {
        answered += caller.await??;
    }
    Ok(Load {
        answers: f64::from(answered),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

async fn call_often(address: SocketAddr, times: usize) -> Result<(), Failed> {
    let sender = connect(address).await?;
    for _ in 0..times {
        call(sender.clone(), address).await?;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.ready().await?)
}

/// An empty message, uncompressed.
const MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

pub async fn call(sender: SendRequest<Bytes>, address: SocketAddr) -> Result<(), Failed> {
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = sender.ready().await?.send_request(request, false)?;
    stream.send_data(MESSAGE, true)?;
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
