//! Waiting, for what has to come and for what can go on now.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{advance, pause, resume, timeout};

/// More than any machine needs. It only keeps a test that fails from hanging.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = Location::caller();
    async move {
        match timeout(PLENTY, future).await {
            Ok(output) => output,
            Err(_) => panic!("it hangs: {place}"),
        }
    }
}

/// Waits until the socket of a server is closed: then another one can listen there.
///
/// A connection that is made in the last moment before is not refused at once, so this does not connect.
#[track_caller]
pub(crate) fn is_closed(address: SocketAddr) -> impl Future<Output = ()> {
    soon(async move {
        while std::net::TcpListener::bind(address).is_err() {
            yield_now().await;
        }
    })
}

/// Lets all tasks of this thread do what they can do now.
pub(crate) async fn turns() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

/// Lets time pass without waiting for it, in steps that give every timer its chance.
pub(crate) async fn pass(time: Duration) {
    const STEPS: u32 = 10;
    for _ in 0..STEPS {
        pause();
        advance(time / STEPS).await;
        resume();
        turns().await;
    }
}
