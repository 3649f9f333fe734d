//! How does a server that blocks its thread become a member of a group?
//!
//! `cargo run --example blocking_server`

use std::io;
use std::sync::Arc;
use std::time::Duration;

use taskgroup::{BoxError, Sidecar, TaskGroup};
use tiny_http::{Response, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Arc::new(Server::http("127.0.0.1:0")?);
    let address = server.server_addr().to_string();

    // Weak, so that the server is dropped at the end of `run`: unblocked it answers nobody, but its
    // socket accepts until it is dropped.
    let handle = Arc::downgrade(&server);
    let run = move || {
        for request in server.incoming_requests() {
            request.respond(Response::from_string("hello"))?;
        }
        io::Result::Ok(())
    };
    let stop = move |_grace| {
        if let Some(server) = handle.upgrade() {
            server.unblock();
        }
    };

    let mut group = TaskGroup::new();
    let http = Sidecar::new("http").grace(Duration::from_secs(5));
    group
        .task("http")
        .spawn(http.serve_blocking(group.token(), run, stop));

    let mut client = TcpStream::connect(address).await?;
    let request = b"GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
    client.write_all(request).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    println!("the thread `http` says {:?}", answer.lines().last());

    group.cancel();
    group.wait().await?;
    println!("the thread has been joined");
    Ok(())
}
