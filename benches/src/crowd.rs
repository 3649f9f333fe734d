//! A server with thousands of connections, in a process of its own, that is stopped and watches how long
//! everything else on its threads has to wait.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::process;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::ws::CloseFrame;
use axum::extract::ws::Message;
use axum::extract::ws::WebSocket;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::close_code;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;
use taskgroup::CancellationToken;
use taskgroup::server::DEFAULT_LINGER;
use taskgroup::server::Stop;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;

use crate::server::HELLO;
use crate::server::Server;
use crate::server::health;
use crate::wall::process_on_cpu;

/// From the stop to the cut. Long enough for a part in which nothing happens.
pub const GRACE: Duration = Duration::from_secs(4);

/// The part of the drain in which nothing happens, from the stop. The watch pauses then, because it costs more
/// than what it watches.
const QUIET: [Duration; 2] = [Duration::from_millis(2_000), Duration::from_millis(3_500)];

/// What a process with a crowd has seen of its stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Processor time of the whole stop, in milliseconds.
    pub cpu: f64,
    /// The longest processor time without a turn for another task, from the stop to the end of the linger, from
    /// there to the cut, and from the cut on, in milliseconds.
    pub gaps: [f64; 3],
    /// Processor time per second while everybody waits, in milliseconds.
    pub waiting: f64,
    pub cut: usize,
    pub stuck: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            gaps: [stop, linger, end],
            waiting,
            cut,
            stuck,
        } = self;
        write!(out, "{cpu} {stop} {linger} {end} {waiting} {cut} {stuck}")
    }
}

impl FromStr for Seen {
    type Err = Box<dyn Error>;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<f64> = line
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [cpu, stop, linger, end, waiting, cut, stuck] = words[..] else {
            return Err(format!("the server has said `{line}`").into());
        };
        Ok(Self {
            cpu,
            gaps: [stop, linger, end],
            waiting,
            cut: cut as usize,
            stuck: stuck as usize,
        })
    }
}

/// Serves until a line is read from the standard input, and then stops. Says first where, and last what it has
/// seen.
pub fn serve(server: Server, workers: usize) -> Result<(), Box<dyn Error>> {
    crate::job::allow_descriptors()?;
    let runtime = match workers {
        1 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()?,
    };
    let token = CancellationToken::new();
    let told = token.clone();
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        stdin.read_line(&mut String::new()).ok();
        told.cancel();
        stdin.read_to_end(&mut Vec::new()).ok();
        process::exit(0);
    });
    let serving = async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        let watch = Watch::begin(token.clone());
        let (cut, stuck) = run(server, listener, token).await?;
        let seen = Seen {
            cut,
            stuck,
            ..watch.end()
        };
        writeln!(io::stdout(), "{seen}")?;
        pending::<Result<(), taskgroup::BoxError>>().await
    };
    match runtime.block_on(async { tokio::spawn(serving).await }) {
        Ok(end) => end.map_err(|error| error as Box<dyn Error>),
        Err(panic) => Err(panic.into()),
    }
}

/// Returns how many requests were cut, and how many are stuck.
async fn run(
    server: Server,
    listener: TcpListener,
    token: CancellationToken,
) -> Result<(usize, usize), taskgroup::BoxError> {
    let live = Arc::new(Live::default());
    let (sender, reports) = mpsc::channel();
    let end = match server {
        Server::Axum => {
            let app = stock(&token, &live);
            let server = axum::serve(listener, app);
            server
                .with_graceful_shutdown(token.cancelled_owned())
                .await?;
            Ok(())
        }
        Server::GatedAxum => {
            taskgroup::server::axum::serve("http", listener, gated(&live))
                .grace(GRACE)
                .on_report(move |report| drop(sender.send(report.clone())))
                .run(&token)
                .await
        }
        Server::Tonic => {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            tonic::transport::Server::builder()
                .add_routes(health())
                .serve_with_incoming_shutdown(
                    incoming.with_nodelay(Some(true)),
                    token.cancelled_owned(),
                )
                .await?;
            Ok(())
        }
        Server::GatedTonic => {
            taskgroup::server::tonic::serve("grpc", listener, health())
                .grace(GRACE)
                .on_report(move |report| drop(sender.send(report.clone())))
                .run(&token)
                .await
        }
    };
    // The stock server does not wait for its websockets.
    live.all_gone().await;
    match reports.try_recv() {
        Ok(report) => Ok((report.requests_cut(), report.stuck())),
        Err(_) => end.map(|()| (0, 0)).map_err(Into::into),
    }
}

fn gated(live: &Arc<Live>) -> Router {
    let socket = |upgrade: WebSocketUpgrade, Extension(live): Extension<Arc<Live>>, stop: Stop| async move {
        upgrade.on_upgrade(async move |socket| {
            let _live = live.one();
            let mut socket = taskgroup::server::axum::ws::WebSocket::new(socket, stop);
            while let Some(Ok(message)) = socket.recv().await {
                let _ = socket.send(message).await;
            }
        })
    };
    routes()
        .route("/ws", any(socket))
        .layer(Extension(Arc::clone(live)))
}

/// What a user of axum writes by hand.
fn stock(token: &CancellationToken, live: &Arc<Live>) -> Router {
    let token = token.clone();
    let socket = |upgrade: WebSocketUpgrade, Extension(live): Extension<Arc<Live>>| async move {
        upgrade.on_upgrade(async move |socket| {
            let _live = live.one();
            echo(socket, &token).await;
        })
    };
    routes()
        .route(
            "/ws",
            any(async move |a, b| -> Response { socket(a, b).await }),
        )
        .layer(Extension(Arc::clone(live)))
}

async fn echo(mut socket: WebSocket, token: &CancellationToken) {
    while let Some(received) = token.run_until_cancelled(socket.recv()).await {
        let Some(Ok(message)) = received else { return };
        if socket.send(message).await.is_err() {
            return;
        }
    }
    let frame = CloseFrame {
        code: close_code::AWAY,
        reason: "the server is shutting down".into(),
    };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

fn routes() -> Router {
    Router::new()
        .route("/", get(async || HELLO))
        .route("/slow", get(async || pending::<()>().await))
}

/// How many websockets are alive.
#[derive(Default)]
struct Live {
    count: AtomicUsize,
    gone: Notify,
}

struct One<'a>(&'a Live);

impl Live {
    fn one(&self) -> One<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        One(self)
    }

    async fn all_gone(&self) {
        while self.count.load(Ordering::Relaxed) > 0 {
            self.gone.notified().await;
        }
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.gone.notify_one();
        }
    }
}

/// Has a turn every millisecond, from the stop on, and notes how much processor time there was in between.
#[derive(Clone)]
struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    stop: Option<Instant>,
    begin: Duration,
    last: Duration,
    quiet: [Duration; 2],
    gaps: [Duration; 3],
}

impl Watch {
    fn begin(token: CancellationToken) -> Self {
        let watch = Self(Arc::default());
        tokio::spawn(watch.clone().watch(token));
        watch
    }

    async fn watch(self, token: CancellationToken) {
        token.cancelled().await;
        let stop = Instant::now();
        let now = process_on_cpu();
        *self.lock() = Watched {
            stop: Some(stop),
            begin: now,
            last: now,
            ..Watched::default()
        };
        self.tick_until(stop + QUIET[0]).await;
        self.lock().quiet[0] = process_on_cpu();
        sleep_until(stop + QUIET[1]).await;
        {
            let mut watched = self.lock();
            watched.quiet[1] = process_on_cpu();
            watched.last = watched.quiet[1];
        }
        self.tick_until(stop + Duration::from_secs(3600)).await;
    }

    async fn tick_until(&self, end: Instant) {
        while Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
            self.lock().tick();
        }
    }

    /// Returns all but what the server has counted itself.
    fn end(self) -> Seen {
        let mut watched = self.lock();
        watched.tick();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let [from, to] = watched.quiet;
        let quiet = (QUIET[1] - QUIET[0]).as_secs_f64();
        Seen {
            cpu: milliseconds(watched.last - watched.begin),
            gaps: watched.gaps.map(milliseconds),
            waiting: milliseconds(to.saturating_sub(from)) / quiet,
            ..Seen::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn tick(&mut self) {
        let now = process_on_cpu();
        let since = self.stop.map_or(Duration::ZERO, |stop| stop.elapsed());
        let phase = match since {
            _ if since < DEFAULT_LINGER => 0,
            _ if since < GRACE => 1,
            _ => 2,
        };
        self.gaps[phase] = self.gaps[phase].max(now - self.last);
        self.last = now;
    }
}
