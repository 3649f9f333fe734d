//! The Windows engine of [`Signals`](crate::Signals): console events and one thread.
//!
//! Windows calls a console handler on a thread of its own, so no runtime of the program is needed
//! to see an event: the thread here has a runtime for itself, without a reactor. The second event
//! exits from that thread.

use std::future::poll_fn;
use std::io;
use std::process;
use std::task::Context;
use std::task::Poll;
use std::thread;

use tokio::runtime;
use tokio::signal::windows;
use tokio_util::sync::CancellationToken;

use crate::signal::Signal;

use super::watched::Watched;

/// Owns the thread's life: dropping it ends the thread, without waiting for it.
#[derive(Debug)]
pub(super) struct Listener {
    closed: CancellationToken,
}

/// One console event, listened to since it was made.
struct Event {
    watched: Watched,
    kind: Kind,
}

enum Kind {
    C(windows::CtrlC),
    Break(windows::CtrlBreak),
    Close(windows::CtrlClose),
    Shutdown(windows::CtrlShutdown),
}

pub(super) fn can_be_caught(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::Interrupt | Signal::Break | Signal::Close | Signal::Shutdown
    )
}

/// Registers the set and starts the thread that calls `deliver`.
pub(super) fn listen(
    set: &[Watched],
    deliver: impl Fn(Signal) + Send + 'static,
) -> io::Result<Listener> {
    let mut events = set
        .iter()
        .copied()
        .map(Event::new)
        .collect::<io::Result<Vec<_>>>()?;
    let runtime = runtime::Builder::new_current_thread().build()?;
    let closed = CancellationToken::new();
    let listener = Listener {
        closed: closed.clone(),
    };
    thread::Builder::new()
        .name("taskgroup-signals".into())
        .spawn(move || {
            let mut armed = false;
            let listening = async {
                loop {
                    let watched = poll_fn(|cx| poll_next(&mut events, cx)).await;
                    match watched.status {
                        Some(status) if armed => process::exit(i32::from(status)),
                        status => armed |= status.is_some(),
                    }
                    deliver(watched.signal);
                }
            };
            runtime.block_on(closed.run_until_cancelled(listening))
        })?;
    Ok(listener)
}

/// A process cannot die of a console event.
pub(super) fn die_of(_signal: Signal) {}

fn poll_next(events: &mut [Event], cx: &mut Context<'_>) -> Poll<Watched> {
    for event in events {
        if event.poll(cx).is_ready() {
            return Poll::Ready(event.watched);
        }
    }
    Poll::Pending
}

impl Event {
    fn new(watched: Watched) -> io::Result<Self> {
        let kind = match watched.signal {
            Signal::Break => windows::ctrl_break().map(Kind::Break),
            Signal::Close => windows::ctrl_close().map(Kind::Close),
            Signal::Shutdown => windows::ctrl_shutdown().map(Kind::Shutdown),
            _ => windows::ctrl_c().map(Kind::C),
        };
        let kind = kind.map_err(|error| watched.refused(&error))?;
        Ok(Self { watched, kind })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        match &mut self.kind {
            Kind::C(event) => event.poll_recv(cx),
            Kind::Break(event) => event.poll_recv(cx),
            Kind::Close(event) => event.poll_recv(cx),
            Kind::Shutdown(event) => event.poll_recv(cx),
        }
    }
}

impl Drop for Listener {
    /// The thread may still be inside the call it makes for the last event; it makes no other one.
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
