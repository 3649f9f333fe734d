//! Servers as components: S2, S4, S8, with real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Extension;
use axum::routing::get;
use axum::{Router, extract::State};
use taskgroup::lifecycle::{Budget, ComponentState, Context, Handle, PlanError, Provided, Report};
use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::server::Stop;
use taskgroup::{End, SidecarError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, pause, resume};

use crate::support::{SECOND, STOP_FAILED, obedient, wrong};

/// What a handler does when it has a request: says so, and waits for the stop.
async fn until_the_stop(
    State(entered): State<mpsc::UnboundedSender<()>>,
    Extension(stop): Extension<Stop>,
) -> &'static str {
    entered.send(()).unwrap();
    stop.stopping().await;
    "done"
}

async fn for_ever(State(entered): State<mpsc::UnboundedSender<()>>) -> &'static str {
    entered.send(()).unwrap();
    std::future::pending().await
}

struct Running {
    run: JoinHandle<Result<Report, PlanError>>,
    handle: Handle,
    address: SocketAddr,
    entered: mpsc::UnboundedReceiver<()>,
}

impl Running {
    /// A server, with much more grace than its component has, in front of a database.
    async fn start(lame_duck: Duration) -> Self {
        Self::start_by(false, lame_duck).await
    }

    /// Runs the server by the context of its component, or by the token of that.
    async fn start_by(token: bool, lame_duck: Duration) -> Self {
        let (sender, entered) = mpsc::unbounded_channel();
        let bound = Provided::new("address");
        let http = Component::using(bound.provider());
        let http = http.run("http", {
            async move |ctx: Context, bound| {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let address = listener.local_addr()?;
                let app = Router::new()
                    .route("/stop", get(until_the_stop))
                    .route("/hang", get(for_ever))
                    .route("/", get(async || "hello"))
                    .with_state(sender);
                let server = taskgroup::server::axum::serve("http", listener, app)
                    .grace(60 * SECOND)
                    .linger(Duration::ZERO);
                let serving = match token {
                    true => server.run(ctx.token()),
                    false => server.run(&ctx),
                };
                bound.set(address);
                ctx.ready();
                Ok(serving.await?)
            }
        });
        let lifecycle = Lifecycle::new("orders")
            .budget(Budget::new(1000 * SECOND).lame_duck(lame_duck))
            .component(obedient("db"))
            .component(http.after(["db"]).grace(5 * SECOND));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        Self {
            run,
            handle,
            address: bound.wait().await,
            entered,
        }
    }

    async fn request(&mut self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        self.entered.recv().await.unwrap();
        client
    }
}

#[tokio::test]
async fn requests_in_flight_are_answered_and_counted() {
    for token in [false, true] {
        let mut running = Running::start_by(token, Duration::ZERO).await;
        let mut clients = [
            running.request("/stop").await,
            running.request("/stop").await,
        ];
        running.handle.stop("enough");
        for client in &mut clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("done"), "{answer}");
        }
        let report = running.run.await.unwrap().unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.in_flight, 2);
    }
}

#[tokio::test]
async fn a_server_has_no_more_than_its_component_and_reports_what_was_cut_by_context_or_token() {
    for token in [false, true] {
        let mut running = Running::start_by(token, Duration::ZERO).await;
        let client = running.request("/hang").await;
        pause();
        running.handle.stop("enough");
        let report = running.run.await.unwrap().unwrap();
        drop(client);
        assert_eq!(report.errors.len(), 1, "{report}");
        let error = &report.errors[0];
        assert_eq!(wrong(error), STOP_FAILED, "it was not forced from outside");
        let source = std::error::Error::source(error.task_error().unwrap()).unwrap();
        let sidecar = source.downcast_ref::<SidecarError>().unwrap();
        assert!(sidecar.is_timed_out());
        assert!(sidecar.drain_report().is_some());
        assert!(report.was_forced());
        assert!(report.took() <= 5 * SECOND, "{report}");
        assert_eq!(report.in_flight, 1);
        assert_eq!(
            running.handle.state("db"),
            Some(ComponentState::Ended(End::Done))
        );
        resume();
    }
}

/// The head of an answer over a connection that stays open.
async fn head(client: &mut TcpStream) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"hello") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// Lets time pass in one step, so that sockets have no part in it.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn the_second_half_of_the_lame_duck_of_the_whole_sends_clients_away() {
    let running = Running::start(200 * SECOND).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    assert!(!head(&mut client).await.contains("connection: close"));
    assert!(running.handle.readiness().is_ready());

    running.handle.stop("enough");
    pass(50 * SECOND).await;
    assert!(!running.handle.readiness().is_ready());
    assert!(!head(&mut client).await.contains("connection: close"));
    let mut new = TcpStream::connect(running.address).await.unwrap();
    assert!(!head(&mut new).await.contains("connection: close"));

    pass(100 * SECOND).await;
    assert!(head(&mut client).await.contains("connection: close"));
    assert_eq!(running.handle.state("http"), Some(ComponentState::Running));

    running.handle.stop_now("the load balancer has noticed");
    drop((client, new));
    let report = running.run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        running.handle.state("db"),
        Some(ComponentState::Ended(End::Done))
    );
}
