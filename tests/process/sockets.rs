//! A listening socket that another process holds too, and a process that is ended in the last call of its server.

use std::future::pending;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::Signal;
use taskgroup::process::Watchdog;
use taskgroup::server::Listening;
use taskgroup::server::axum::serve;
use taskgroup::{BoxError, CancellationToken, Exit};

use crate::child::Child;
use crate::hangs::BUDGET;
use crate::hangs::hang;
use crate::roles::say;
use crate::roles::stopped_by_signals;
use crate::tests;

tests![
    x14_a_second_signal_gives_back_a_socket_that_its_server_has_made_deaf,
    x14_the_watchdog_gives_it_back,
    x14_after_a_sigkill_the_next_server_gives_it_back,
    s12_a_socket_that_systemd_has_passed_is_never_deaf_and_keeps_its_queue,
];

/// How long a client waits that is never connected. A packet that is not dropped takes no time here.
const NEVER: Duration = Duration::from_millis(100);

/// A client whose first packet was dropped asks again after a second.
const AGAIN: Duration = Duration::from_secs(10);

pub(crate) fn play(role: &str) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut group = stopped_by_signals();
        if role == "sockets_watched" {
            Watchdog::new(BUDGET).arm(&group).unwrap().keep();
        }
        let token = group.token().clone();
        match role {
            "sockets_next" => drop(group.spawn(serves())),
            "sockets_passed" => drop(group.spawn(async move { stops_unless_deaf(&token).await })),
            _ => drop(group.spawn(async move { hangs_when_deaf(&token).await })),
        }
        Exit::from(group.wait().await)
    })
}

/// The socket that the parent has handed on.
fn inherited() -> TcpListener {
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    listener
}

async fn serves() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::from_std(inherited())?;
    let server = serve("http", listener, axum::Router::new());
    let token = CancellationToken::new();
    let mut server = Box::pin(server.run(&token));
    poll_fn(|cx| Poll::Ready(assert!(server.as_mut().poll(cx).is_pending()))).await;
    say("serving");
    // It accepts nothing, which is left to the parent.
    pending().await
}

/// Blocks the only thread as soon as the server has made the socket deaf.
async fn hangs_when_deaf(token: &CancellationToken) -> Result<(), BoxError> {
    let listener = inherited();
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    stops(Listening::from(listener), address, token).await
}

/// The same with the socket that was passed as systemd does it.
async fn stops_unless_deaf(token: &CancellationToken) -> Result<(), BoxError> {
    let listener = ListenFd::from_env().take_tcp_listener(0)?.unwrap();
    let address = listener.local_addr()?;
    stops(Listening::from(listener), address, token).await
}

async fn stops(
    listener: Listening,
    address: SocketAddr,
    token: &CancellationToken,
) -> Result<(), BoxError> {
    let server = serve("http", listener, axum::Router::new());
    let mut server = Box::pin(server.run(token));
    say("serving");
    let served = poll_fn(|cx| {
        let polled = server.as_mut().poll(cx);
        if token.is_cancelled() && is_deaf(address) {
            hang();
        }
        polled
    });
    Ok(served.await?)
}

fn is_deaf(address: SocketAddr) -> bool {
    let refused = TcpStream::connect_timeout(&address, NEVER).err();
    refused.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// A socket of the parent, and a child that is about to hang with it, deaf.
fn deaf_child(role: &str) -> (TcpListener, Child) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = Child::start_on(role, OwnedFd::from(listener.try_clone().unwrap()));
    child.expect("serving").send(Signal::TERM).expect("hanging");
    assert!(is_deaf(listener.local_addr().unwrap()));
    (listener, child)
}

/// The parent, which holds the same socket, is connected to and accepts.
#[track_caller]
fn expect_heard(listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect_timeout(&address, AGAIN).unwrap();
    let client = client.local_addr().unwrap();
    // Others that the child has made may come before it.
    while listener.accept().unwrap().1 != client {}
}

fn x14_a_second_signal_gives_back_a_socket_that_its_server_has_made_deaf() {
    let (listener, mut child) = deaf_child("sockets_deaf");
    child.send(Signal::TERM).expect_code(143);
    expect_heard(&listener);
}

fn s12_a_socket_that_systemd_has_passed_is_never_deaf_and_keeps_its_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = OwnedFd::from(listener.try_clone().unwrap());
    let mut child = Child::start_passed("sockets_passed", socket);

    child.expect("serving").send(Signal::TERM).expect_code(0);

    // Those that the child has made while it looked are in the queue, and so is everybody after them.
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok());
    listener.set_nonblocking(false).unwrap();
    expect_heard(&listener);
}

fn x14_the_watchdog_gives_it_back() {
    let (listener, mut child) = deaf_child("sockets_watched");
    child.expect_code(1);
    let report = child.rest_of_stderr();
    assert!(!report.contains("ended with it"), "{report}");
    expect_heard(&listener);
}

fn x14_after_a_sigkill_the_next_server_gives_it_back() {
    let (listener, mut child) = deaf_child("sockets_deaf");
    child.send(Signal::KILL).expect_killed_by(Signal::KILL);
    let next = OwnedFd::from(listener.try_clone().unwrap());
    Child::start_on("sockets_next", next).expect("serving");
    expect_heard(&listener);
}
