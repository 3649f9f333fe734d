//! Sidecars of servers that block a thread.
//!
//! Real threads do not know of paused time, so the clock is the real one: what succeeds has plenty
//! of it, and what hangs on purpose is given a short grace.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use taskgroup::{CancellationToken, End, Sidecar, SidecarError};
use tiny_http::{Response, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

type Outcome = Result<(), SidecarError>;

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);
/// For servers that never stop.
const SHORT: Duration = Duration::from_millis(20);

fn requests() -> Sidecar {
    Sidecar::new("requests").grace(PLENTY)
}

fn fired() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// A server that runs until the other end of its channel is dropped.
fn until_closed(channel: Receiver<()>) -> impl FnOnce() -> io::Result<()> + Send {
    move || {
        let _ = channel.recv();
        Ok(())
    }
}

fn closes(channel: Sender<()>) -> impl FnOnce(Duration) + Send {
    move |_grace| drop(channel)
}

// tiny_http.

#[tokio::test]
async fn r27_tiny_http_answers_what_it_has_begun_and_its_socket_is_closed() {
    let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
    let address = server.server_addr().to_ip().unwrap();
    let (entered, seen) = oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let unblock = {
        let server = Arc::downgrade(&server);
        move |_grace| {
            if let Some(server) = server.upgrade() {
                server.unblock();
            }
        }
    };
    let token = CancellationToken::new();
    let sidecar = tokio::spawn(requests().serve_blocking(
        &token,
        move || {
            let mut entered = Some(entered);
            for request in server.incoming_requests() {
                entered.take().unwrap().send(()).unwrap();
                let _ = released.recv();
                request.respond(Response::from_string("done"))?;
            }
            io::Result::Ok(())
        },
        unblock,
    ));
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    seen.await.unwrap();

    token.cancel();
    drop(release);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    sidecar.await.unwrap().unwrap();
    // The last reference to the server was that of `run`. Its own thread closes the socket.
    while TcpStream::connect(address).await.is_ok() {
        thread::yield_now();
    }
}

// The thread.

#[tokio::test]
async fn server_runs_on_a_thread_of_its_name_and_stop_on_a_helper() {
    let (names, seen) = mpsc::channel();
    let (stop, channel) = mpsc::channel();
    let stop_names = names.clone();
    let outcome: Outcome = Sidecar::new("req\0uests")
        .grace(PLENTY)
        .serve_blocking(
            &fired(),
            move || {
                names
                    .send(thread::current().name().map(str::to_owned))
                    .unwrap();
                until_closed(channel)()
            },
            move |grace| {
                assert_eq!(grace, PLENTY - Duration::from_millis(100));
                stop_names
                    .send(thread::current().name().map(str::to_owned))
                    .unwrap();
                closes(stop)(grace);
            },
        )
        .await;
    outcome.unwrap();
    let mut seen: Vec<_> = seen.iter().map(Option::unwrap).collect();
    seen.sort();
    assert_eq!(seen, ["requests", "requests-stop"]);
}

#[tokio::test]
async fn nothing_runs_before_the_first_poll() {
    let (ran, seen) = mpsc::channel::<()>();
    let sidecar = requests().serve_blocking(
        &fired(),
        move || ran.send(()).map_err(io::Error::other),
        |_grace| unreachable!(),
    );
    drop(sidecar);
    assert!(seen.recv().is_err());
}

#[tokio::test]
async fn server_has_ended_only_when_its_thread_has_been_joined() {
    let (release, released) = mpsc::channel::<()>();
    let (stop, channel) = mpsc::channel();
    let run = move || {
        thread_end::on_end(move || {
            let _ = released.recv();
        });
        until_closed(channel)()
    };
    let outcome: Outcome = requests()
        .grace(SHORT)
        .serve_blocking(&fired(), run, closes(stop))
        .await;
    let error = format!("{:#}", outcome.unwrap_err());
    assert!(
        error.ends_with("still running: thread `requests`"),
        "{error}"
    );
    drop(release);
}

// The outcomes.

#[tokio::test]
async fn server_that_returns_by_itself_has_ended_early_and_is_not_asked_to_stop() {
    let outcome: Outcome = requests()
        .serve_blocking(
            &CancellationToken::new(),
            || io::Result::Ok(()),
            |_grace| unreachable!(),
        )
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.end(), End::EndedEarly);
    assert_eq!(
        format!("{error:#}"),
        "server `requests` ended before it was asked to stop",
    );
}

#[tokio::test]
async fn server_that_fails_or_panics_is_told() {
    let token = CancellationToken::new();
    let failed: Outcome = requests()
        .serve_blocking(&token, || Err("disk full"), |_grace| ())
        .await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.end(), End::Failed);
    assert_eq!(format!("{failed:#}"), "server `requests` failed: disk full");

    let run = || -> io::Result<()> { panic!("boom") };
    let panicked: Outcome = requests().serve_blocking(&token, run, |_grace| ()).await;
    let panicked = panicked.unwrap_err();
    assert_eq!(panicked.end(), End::Panicked);
    assert_eq!(format!("{panicked:#}"), "server `requests` panicked: boom");
}

#[tokio::test]
async fn server_that_fails_or_panics_while_draining_says_so() {
    let (stop, channel) = mpsc::channel::<()>();
    let run = move || {
        let _ = channel.recv();
        Err("disk full")
    };
    let failed: Outcome = requests().serve_blocking(&fired(), run, closes(stop)).await;
    assert_eq!(
        format!("{:#}", failed.unwrap_err()),
        "server `requests` failed while draining: disk full",
    );

    let (stop, channel) = mpsc::channel::<()>();
    let run = move || -> io::Result<()> {
        let _ = channel.recv();
        panic!("boom")
    };
    let panicked: Outcome = requests().serve_blocking(&fired(), run, closes(stop)).await;
    assert_eq!(
        format!("{:#}", panicked.unwrap_err()),
        "server `requests` panicked while draining: boom",
    );
}

#[tokio::test]
async fn r27_thread_that_does_not_join_is_named_and_does_not_hold_the_caller() {
    let (release, channel) = mpsc::channel();
    let outcome: Outcome = requests()
        .grace(SHORT)
        .serve_blocking(&fired(), until_closed(channel), |_grace| ())
        .await;
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(
        format!("{error:#}"),
        "server `requests` did not drain within 20ms: still running: thread `requests`",
    );
    drop(release);
}

#[test]
fn thread_that_does_not_join_does_not_hold_the_end_of_the_runtime() {
    let (release, channel) = mpsc::channel();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let outcome: Outcome = runtime.block_on(requests().grace(SHORT).serve_blocking(
        &fired(),
        until_closed(channel),
        |_grace| (),
    ));
    drop(runtime);
    assert!(outcome.unwrap_err().is_timed_out());
    drop(release);
}

#[tokio::test]
async fn stop_function_that_hangs_is_named_too() {
    let (release, channel) = mpsc::channel::<()>();
    let (release_stop, stop_channel) = mpsc::channel::<()>();
    let outcome: Outcome = requests()
        .grace(SHORT)
        .serve_blocking(&fired(), until_closed(channel), move |_grace| {
            let _ = stop_channel.recv();
        })
        .await;
    assert_eq!(
        format!("{:#}", outcome.unwrap_err()),
        "server `requests` did not drain within 20ms: \
         still running: threads `requests` and `requests-stop`",
    );
    drop((release, release_stop));
}

#[tokio::test]
async fn stop_function_that_hangs_does_not_spoil_a_stopped_server() {
    let (stop, channel) = mpsc::channel::<()>();
    let (release_stop, stop_channel) = mpsc::channel::<()>();
    let outcome: Outcome = requests()
        .grace(Duration::from_secs(1))
        .serve_blocking(&fired(), until_closed(channel), move |_grace| {
            drop(stop);
            let _ = stop_channel.recv();
        })
        .await;
    outcome.unwrap();
    drop(release_stop);
}

#[tokio::test]
async fn stop_function_that_panics_is_told_and_the_server_has_its_grace() {
    let (stop, channel) = mpsc::channel::<()>();
    let outcome: Outcome = requests()
        .serve_blocking(&fired(), until_closed(channel), move |_grace| {
            // Unwinding drops the sender, which stops the server.
            let _stop = stop;
            panic!("no handle");
        })
        .await;
    let error = outcome.unwrap_err();
    assert!(error.is_stop_panicked());
    assert_eq!(error.end(), End::Panicked);
    assert_eq!(
        format!("{error:#}"),
        "server `requests` drained (its stop function panicked: no handle)",
    );
}

// Drop.

/// Polls a future once.
async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) {
    let mut future = future;
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn drop_asks_a_running_server_to_stop_with_no_grace_and_waits_for_nothing() {
    let (graces, asked) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let (stop, channel) = mpsc::channel();
    {
        let mut sidecar = pin!(requests().serve_blocking(
            &CancellationToken::new(),
            move || {
                let outcome = until_closed(channel)();
                ended.send(()).unwrap();
                outcome
            },
            move |grace| {
                graces.send(grace).unwrap();
                closes(stop)(grace);
            },
        ));
        poll_once(sidecar.as_mut()).await;
    }
    assert_eq!(asked.recv(), Ok(Duration::ZERO));
    assert_eq!(end.recv(), Ok(()));
    assert!(asked.recv().is_err(), "asked once");
}

#[tokio::test]
async fn drop_while_draining_does_not_ask_again() {
    let (graces, asked) = mpsc::channel();
    let (release, channel) = mpsc::channel();
    {
        let mut sidecar = pin!(requests().serve_blocking(
            &fired(),
            until_closed(channel),
            move |grace| graces.send(grace).unwrap(),
        ));
        poll_once(sidecar.as_mut()).await;
    }
    assert_eq!(asked.recv(), Ok(PLENTY - Duration::from_millis(100)));
    assert!(asked.recv().is_err());
    drop(release);
}

#[tokio::test]
async fn drop_does_not_ask_a_server_that_has_ended() {
    let held = Arc::new(());
    let (ended, end) = mpsc::channel();
    let (release, released) = mpsc::channel();
    {
        let stop_held = held.clone();
        let mut sidecar = pin!(requests().serve_blocking(
            &CancellationToken::new(),
            move || {
                thread_end::on_end(move || ended.send(()).unwrap());
                until_closed(released)()
            },
            move |_grace| {
                let _held = stop_held;
                unreachable!("asked a server that has ended");
            },
        ));
        poll_once(sidecar.as_mut()).await;
        drop(release);
        assert_eq!(end.recv(), Ok(()));
    }
    assert_eq!(Arc::strong_count(&held), 1);
}

/// Calls a function at the very end of a thread, after all else in it.
mod thread_end {
    use std::cell::RefCell;

    struct Last(Box<dyn Fn()>);

    impl Drop for Last {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    pub(super) fn on_end(call: impl Fn() + 'static) {
        LAST.with(|last| *last.borrow_mut() = Some(Last(Box::new(call))));
    }
}
