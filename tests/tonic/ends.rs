//! Ends that are no stop.

use tokio::net::TcpStream;

use crate::calls::{Calls, call};
use crate::support::server::{Server, read_to_end};
use crate::support::wait::soon;

async fn three_calls(server: &Server, calls: &Calls) -> TcpStream {
    let mut client = server.client().await;
    tokio::spawn(async move { client.check(call("hangs")).await });
    for kind in ["events", "flood"] {
        let watch = soon(server.client().await.watch(call(kind))).await.unwrap();
        // The client keeps it until the connection ends.
        tokio::spawn(async move {
            let mut watch = watch.into_inner();
            while let Ok(Some(_)) = watch.message().await {
                tokio::task::yield_now().await;
            }
        });
    }
    let silent = TcpStream::connect(server.address).await.unwrap();
    server.settle().await;
    calls.alive.reaches(3).await;
    silent
}

#[tokio::test]
async fn r3_dropping_the_future_leaves_nothing() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve).await;
    let silent = three_calls(&server, &calls).await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    calls.alive.reaches(0).await;
    read_to_end(silent).await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn r3_dropping_the_future_in_the_drain_leaves_nothing() {
    let calls = Calls::default();
    let server = Server::start(&calls, |serve| serve).await;
    let silent = three_calls(&server, &calls).await;
    server.begin_stop().await;

    server.task.abort();
    assert!(soon(server.task).await.unwrap_err().is_cancelled());

    calls.alive.reaches(0).await;
    read_to_end(silent).await;
}
