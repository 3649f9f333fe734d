//! Listeners of every kind, and what is refused.

use std::fs;
use std::io;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::Extensions;
use axum::routing::get;
use rustix::net::{AddressFamily, SocketType};
use taskgroup::server::{
    Acceptor, Address, DrainReport, Incoming, Listener, Listening, serve_loop,
};
use taskgroup::{CancellationToken, SidecarError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::support::place::Place;
use crate::support::server::NO_TIME;
use crate::support::wait::{PLENTY, soon, turns};

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// A server on this listener.
struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<(), SidecarError>>,
    report: oneshot::Receiver<DrainReport>,
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

fn run(listener: impl Into<Listening>, app: Router) -> Running {
    let (sender, report) = oneshot::channel();
    let token = CancellationToken::new();
    let server = taskgroup::server::axum::serve("http", listener, app)
        .grace(PLENTY)
        .linger(NO_TIME)
        .on_report(|report| sender.send(report.clone()).unwrap());
    let task = tokio::spawn(server.run(&token));
    Running {
        token,
        task,
        report,
    }
}

impl Running {
    async fn stop(self) -> DrainReport {
        self.token.cancel();
        soon(self.task).await.unwrap().unwrap();
        self.report.await.unwrap()
    }
}

/// Why a server does not even start on this listener.
async fn refused(listener: impl Into<Listening>, app: Router) -> String {
    let refused = soon(run(listener, app).task).await.unwrap().unwrap_err();
    let source = std::error::Error::source(&refused).unwrap();
    assert!(source.is::<taskgroup::BuildError>(), "{refused:?}");
    source.to_string()
}

async fn answer<C: AsyncReadExt + AsyncWriteExt + Unpin>(mut client: C) -> String {
    client.write_all(HELLO).await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Which user is at the other end of a Unix socket.
#[derive(Clone)]
struct User(u32);

impl Connected<Incoming<'_>> for User {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        let stream = incoming.transport().downcast_ref::<UnixStream>().unwrap();
        Self(stream.peer_cred().unwrap().uid())
    }
}

#[tokio::test]
async fn s12_a_unix_socket_is_served_and_its_path_stays_with_whoever_made_it() {
    let place = Place::new("unix");
    let path = place.join("http.sock");
    let app = get(async |ConnectInfo(User(uid)): ConnectInfo<User>| uid.to_string());
    let app = Router::new().route("/", app);
    let (sender, report) = oneshot::channel();
    let token = CancellationToken::new();
    let listener = UnixListener::bind(&path).unwrap();
    let app = app.into_make_service_with_connect_info::<User>();
    let server = taskgroup::server::axum::serve("http", listener, app)
        .on_report(|report| sender.send(report.clone()).unwrap());
    let server = tokio::spawn(server.run(&token));

    let answer = answer(UnixStream::connect(&path).await.unwrap()).await;

    let own = rustix::process::getuid().as_raw();
    assert!(answer.ends_with(&format!("\r\n\r\n{own}")), "{answer}");
    token.cancel();
    soon(server).await.unwrap().unwrap();
    assert!(report.await.unwrap().is_clean());
    assert!(path.exists());
}

#[tokio::test]
async fn s12_who_waits_in_the_queue_of_a_unix_socket_at_the_stop_is_answered_and_no_more_come() {
    let place = Place::new("backlog");
    let path = place.join("http.sock");
    let server = run(Listening::unix(&path).unwrap(), hello());
    turns().await;
    // The server runs in this thread, so it does not see them before the stop.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = StdUnixStream::connect(&path).unwrap();
        client.write_all(HELLO).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(UnixStream::from_std(client).unwrap());
    }

    server.token.cancel();
    while path.exists() {
        tokio::task::yield_now().await;
    }

    assert!(StdUnixStream::connect(&path).is_err());
    for mut client in clients {
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    }
    let report = server.stop().await;
    assert_eq!((report.connections_at_stop(), report.answered()), (20, 20));
}

#[tokio::test]
async fn s12_one_server_listens_on_tcp_and_on_a_unix_socket() {
    let place = Place::new("both");
    let path = place.join("http.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let app = get(async |ConnectInfo(peer): ConnectInfo<Address>| peer.to_string());
    let app = Router::new().route("/", app);
    let token = CancellationToken::new();
    let app = app.into_make_service_with_connect_info::<Address>();
    let server = taskgroup::server::axum::serve("http", tcp, app)
        .also_on(Listening::unix(&path).unwrap())
        .run(&token);
    let server = tokio::spawn(server);

    let client = TcpStream::connect(address).await.unwrap();
    let me = client.local_addr().unwrap().to_string();
    assert!(answer(client).await.ends_with(&me));
    let client = UnixStream::connect(&path).await.unwrap();
    assert!(answer(client).await.ends_with("(unnamed)"));

    token.cancel();
    soon(server).await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn s12_a_socket_file_that_a_dead_process_has_left_is_replaced() {
    let place = Place::new("stale");
    let path = place.join("http.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let server = run(Listening::unix(&path).unwrap(), hello());

    let client = UnixStream::connect(&path).await.unwrap();
    assert!(answer(client).await.ends_with("hello"));
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn s12_a_path_that_another_listens_at_is_not_touched() {
    let place = Place::new("taken");
    let path = place.join("http.sock");
    let owner = StdUnixListener::bind(&path).unwrap();

    let error = Listening::unix(&path).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let expected = format!("{}: another process listens there", path.display());
    assert_eq!(error.to_string(), expected);
    StdUnixStream::connect(&path).unwrap();
    drop(owner);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let error = Listening::unix(&path).unwrap_err();
    let expected = "a file that is not a socket is there";
    assert!(error.to_string().ends_with(expected), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    let error = Listening::unix(place.join("missing/http.sock")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("missing/http.sock"), "{error}");
}

#[tokio::test]
async fn s12_a_path_at_which_another_listens_by_now_is_not_removed() {
    let place = Place::new("inode");
    let path = place.join("http.sock");
    let server = run(Listening::unix(&path).unwrap(), hello());
    turns().await;
    // The next process has made its own file, and put it in this place.
    let next = StdUnixListener::bind(place.join("next.sock")).unwrap();
    fs::rename(place.join("next.sock"), &path).unwrap();

    server.stop().await;

    StdUnixStream::connect(&path).unwrap();
    next.accept().unwrap();
}

#[tokio::test]
async fn s12_the_stop_of_a_shared_socket_only_closes_the_descriptor() {
    let place = Place::new("shared");
    let path = place.join("http.sock");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = StdUnixListener::bind(&path).unwrap();
    let mine = Listening::from(tcp.try_clone().unwrap()).shared();
    let also = Listening::from(unix.try_clone().unwrap()).shared();
    let token = CancellationToken::new();
    let server = taskgroup::serve("http", mine, hello()).also_on(also);
    let server = tokio::spawn(server.run(&token));
    turns().await;
    let first = StdUnixStream::connect(&path).unwrap();
    let waits = std::net::TcpStream::connect(address).unwrap();

    token.cancel();
    soon(server).await.unwrap().unwrap();

    // Those who waited are left to the other process, and more come.
    let more = std::net::TcpStream::connect(address).unwrap();
    for client in [waits, more] {
        assert_eq!(tcp.accept().unwrap().1, client.local_addr().unwrap());
    }
    StdUnixStream::connect(&path).unwrap();
    unix.accept().unwrap();
    drop(first);
    unix.accept().unwrap();
}

#[tokio::test]
async fn s12_a_socket_in_blocking_mode_is_set_right() {
    // As it is made, blocking.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = run(listener, hello());
    let client = TcpStream::connect(address).await.unwrap();
    assert!(answer(client).await.ends_with("hello"));
    server.stop().await;

    // And one that another process has set so, after Tokio took it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.into_std().unwrap();
    let other = listener.try_clone().unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    other.set_nonblocking(false).unwrap();
    let server = run(listener, hello());
    // A server that blocks its only thread would hang this.
    turns().await;
    let client = TcpStream::connect(address).await.unwrap();
    assert!(answer(client).await.ends_with("hello"));
    server.stop().await;
}

fn socket(family: AddressFamily, kind: SocketType) -> OwnedFd {
    rustix::net::socket(family, kind, None).unwrap()
}

#[tokio::test]
async fn s12_what_does_not_listen_or_is_of_another_kind_is_refused_by_name() {
    let quiet = socket(AddressFamily::INET, SocketType::STREAM);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&quiet, &any).unwrap();
    let quiet = std::net::TcpListener::from(quiet);
    let address = quiet.local_addr().unwrap();
    assert_eq!(
        refused(quiet, hello()).await,
        format!("server `http`: `listener` cannot be {address}: it is not listening")
    );

    let datagrams = socket(AddressFamily::INET, SocketType::DGRAM);
    let refusal = refused(std::net::TcpListener::from(datagrams), hello()).await;
    assert!(
        refusal.ends_with("it is not a socket of streams"),
        "{refusal}"
    );

    let place = Place::new("kinds");
    let unix = StdUnixListener::bind(place.join("http.sock")).unwrap();
    let unix = std::net::TcpListener::from(OwnedFd::from(unix));
    let refusal = refused(unix, hello()).await;
    assert!(
        refusal.starts_with("server `http`: `listener` cannot be"),
        "{refusal}"
    );

    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = StdUnixListener::from(OwnedFd::from(tcp));
    let refusal = refused(tcp, hello()).await;
    assert!(
        refusal.starts_with("server `http`: `listener` cannot be"),
        "{refusal}"
    );
}

#[tokio::test]
async fn s12_an_app_that_wants_an_ip_address_is_refused_where_clients_have_none() {
    let place = Place::new("addresses");
    let path = place.join("http.sock");
    let app = hello().into_make_service_with_connect_info::<SocketAddr>();
    let listener = Listening::unix(&path).unwrap();
    let server = taskgroup::server::axum::serve("http", listener, app);

    let refused = server.run(&CancellationToken::new()).await.unwrap_err();

    let expected = format!(
        "server `http`: `listener` cannot be {}: its clients have no `SocketAddr`, which the app \
         takes as connect info",
        path.display()
    );
    let source = std::error::Error::source(&refused).unwrap();
    assert_eq!(source.to_string(), expected);
    assert!(!path.exists());
}

/// Streams in memory, each with a name.
struct InMemory(mpsc::Receiver<io::Result<DuplexStream>>);

impl Listener for InMemory {
    type Io = DuplexStream;
    type Addr = &'static str;

    async fn accept(&mut self) -> io::Result<(DuplexStream, &'static str)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream?, "a client")),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<&'static str> {
        Ok("memory")
    }

    fn extensions(&self, _io: &DuplexStream, peer: &&'static str, extensions: &mut Extensions) {
        extensions.insert(ConnectInfo(peer.len()));
    }
}

#[tokio::test]
async fn s12_a_listener_of_ones_own_is_served_also_at_the_stop() {
    let (sender, streams) = mpsc::channel(8);
    let app = get(async |ConnectInfo(length): ConnectInfo<usize>| length.to_string());
    let server = run(
        Listening::own(InMemory(streams)),
        Router::new().route("/", app),
    );

    // What fails for one of them only is asked for again at once.
    let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
    sender.send(Err(aborted)).await.unwrap();
    let (client, stream) = duplex(1024);
    sender.send(Ok(stream)).await.unwrap();
    let answer = answer(client).await;
    assert!(answer.ends_with("\r\n\r\n8"), "{answer}");

    // They are connected when the stop begins, and no task has seen them yet.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (mut client, stream) = duplex(1024);
        client.write_all(HELLO).await.unwrap();
        sender.send(Ok(stream)).await.unwrap();
        waiting.push(client);
    }
    let report = server.stop().await;
    assert_eq!(report.answered(), 3);
    for mut client in waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\n8"), "{answer}");
    }
    assert!(sender.is_closed());
}

#[tokio::test]
async fn s12_a_loop_of_ones_own_knows_where_it_listens_and_who_is_there() {
    let place = Place::new("loop");
    let path = place.join("echo.sock");
    let token = CancellationToken::new();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let listener = UnixListener::bind(&path).unwrap();
    let server = serve_loop("echo", listener, async move |mut acceptor: Acceptor, _| {
        sender.send(acceptor.local_addr()?.to_string()).unwrap();
        loop {
            let (mut io, peer) = acceptor.accept().await;
            let peer: &tokio::net::unix::SocketAddr = peer.downcast_ref().unwrap();
            sender.send(format!("{peer:?}")).unwrap();
            tokio::spawn(async move {
                let byte = io.read_u8().await.unwrap();
                io.write_u8(byte).await.unwrap();
            });
        }
    });
    let server = tokio::spawn(server.run(&token));

    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_u8(b'x').await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');

    assert_eq!(seen.recv().await.as_deref().map(Path::new), Some(&*path));
    assert_eq!(seen.recv().await.unwrap(), "(unnamed)");
    drop(client);
    token.cancel();
    // It goes on accepting, and so does not end when it is told.
    soon(server).await.unwrap().unwrap_err();
}
