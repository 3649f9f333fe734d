//! How does a loop of my own around hyper stop as well as `axum::serve` does?
//!
//! The gate gives it an acceptor, a token to be told to stop by, and a layer for each connection. All
//! else is yours: protocols, settings of hyper, tasks. Run it with
//! `cargo run --features axum --example hyper_loop`.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use taskgroup::server::{Acceptor, Serve, Server, Stop};
use taskgroup::{BoxError, CancellationToken, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_layer::Layer;

async fn serve(
    mut acceptor: Acceptor,
    stop: CancellationToken,
    app: Router,
) -> Result<(), BoxError> {
    let mut connections = JoinSet::new();
    while let Some((io, _peer)) = stop.run_until_cancelled(acceptor.accept()).await {
        // One line is the gate's: its layer around the service of this connection.
        let service = TowerToHyperService::new(io.layer().layer(app.clone()));
        let stop = stop.clone();
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(io);
            let connection = builder.serve_connection_with_upgrades(io, service);
            tokio::pin!(connection);
            if stop
                .run_until_cancelled(connection.as_mut())
                .await
                .is_none()
            {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn server(listener: TcpListener, app: Router) -> Serve<impl Server> {
    taskgroup::serve("http", listener, |acceptor, stop| {
        serve(acceptor, stop, app)
    })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (entered, mut entering) = tokio::sync::mpsc::channel(1);
    let slow = async move |stop: axum::Extension<Stop>| {
        let _ = entered.send(()).await;
        stop.stopping().await;
        "answered in the drain\n"
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut group = TaskGroup::new();
    let server = server(listener, Router::new().route("/", get(slow)))
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
