//! [`Server`]: a server behind the gate that a test starts and stops.

use std::net::SocketAddr;
use std::time::Duration;

use taskgroup::server::{DrainReport, Serve, Server as Startable};
use taskgroup::{CancellationToken, SidecarError};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::wait::{PLENTY, is_closed, soon, turns};

/// For what is to be cut.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
pub(crate) const NO_TIME: Duration = Duration::from_millis(20);

pub(crate) type Outcome = Result<(), SidecarError>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: CancellationToken,
    pub(crate) task: JoinHandle<Outcome>,
    report: oneshot::Receiver<DrainReport>,
}

impl Server {
    /// Runs what `serve` makes of a listener.
    pub(crate) async fn run<S: Startable>(serve: impl FnOnce(TcpListener) -> Serve<S>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let (sender, report) = oneshot::channel();
        let serve = serve(listener).on_report(move |report| sender.send(report.clone()).unwrap());
        let task = tokio::spawn(serve.run(&token));
        Self {
            address,
            token,
            task,
            report,
        }
    }

    /// Waits for the end of a stop that has begun.
    pub(crate) async fn stopped(self) -> (Outcome, DrainReport) {
        let outcome = soon(self.task).await.unwrap();
        (outcome, self.report.await.unwrap())
    }

    pub(crate) async fn stop(self) -> (Outcome, DrainReport) {
        self.token.cancel();
        self.stopped().await
    }

    /// Begins the stop and waits until the socket is closed.
    ///
    /// The server runs in the same thread, so it does all that it can do at once while this yields.
    pub(crate) async fn begin_stop(&self) {
        self.token.cancel();
        is_closed(self.address).await;
        turns().await;
        assert!(!self.task.is_finished());
    }
}

/// All that comes until the connection ends, in whatever way.
pub(crate) async fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = soon(client.read_to_end(&mut answer)).await;
    answer
}

/// With much time for everything but the linger.
pub(crate) fn patient<S>(serve: Serve<S>) -> Serve<S> {
    serve.grace(PLENTY).idle_grace(PLENTY).linger(NO_TIME)
}
