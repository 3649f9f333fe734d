//! How does a service without a framework stop as well as one of axum does?
//!
//! `serve` takes any tower service that answers HTTP. The hint that the server stops is in the extensions of
//! each request. Run it with `cargo run --features http --example tower_service`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use taskgroup::server::Stop;
use taskgroup::{BoxError, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower_service::Service;

/// Answers when the stop begins, and says when a request is there.
#[derive(Clone)]
struct Slow {
    entered: mpsc::Sender<()>,
}

impl Service<Request<Incoming>> for Slow {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let entered = self.entered.clone();
        Box::pin(async move {
            let _ = entered.send(()).await;
            if let Some(stop) = request.extensions().get::<Stop>() {
                stop.stopping().await;
            }
            Ok(Response::new("answered in the drain\n".into()))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (entered, mut entering) = mpsc::channel(1);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut group = TaskGroup::new();
    let server = taskgroup::serve("http", listener, Slow { entered })
        .grace(Duration::from_secs(5))
        .on_report(|report| println!("{report}"));
    group.task("http").spawn(server.run(group.token()));

    let mut client = TcpStream::connect(address).await?;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: example\r\n\r\n")
        .await?;
    entering.recv().await;
    group.cancel();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    println!("{answer}");
    Ok(group.wait().await?)
}
