//! What the service manager is told of a restart in place, and by whom.
//!
//! It believes one process at a time. The new one says nothing before it accepts, and the old one nothing after
//! that. The news that the main process is another comes from the old one, together with the word that the
//! service is ready.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::outbox::monotonic;
use super::socket::{Socket, parse};
use crate::group::lock::lock;
use crate::group::log;

/// A peer that is gone is an error, and no SIGPIPE. On Apple's systems, Rust ignores SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// How long the manager may take to read what was sent before.
const BARRIER: Duration = Duration::from_secs(1);

/// Whose turn it is to talk to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Ours,
    /// It is that of the process from which this one takes over.
    NotYet,
    /// It is that of the process that has taken over.
    Over,
}

static TURN: Mutex<(Turn, bool)> = Mutex::new((Turn::Ours, false));

pub(super) fn turn() -> Turn {
    lock(&TURN).0
}

/// Returns whether this process takes over from another, or has done so.
pub(super) fn takes_over() -> bool {
    lock(&TURN).1
}

/// Says nothing until [`let_go`].
pub(crate) fn hold_back() {
    *lock(&TURN) = (Turn::NotYet, true);
}

pub(crate) fn let_go() {
    lock(&TURN).0 = Turn::Ours;
}

/// Says that a restart begins, which the manager has asked for.
pub(crate) fn reloading() {
    say(&format!(
        "RELOADING=1\nMONOTONIC_USEC={}\n",
        monotonic().as_micros()
    ));
}

/// Says that the restart is over, and that this process goes on.
pub(crate) fn reloaded() {
    say("READY=1\n");
}

/// Says that the main process is another one, and waits until the manager has read it.
pub(crate) async fn handed_over(pid: u32) {
    lock(&TURN).0 = Turn::Over;
    say(&format!("MAINPID={pid}\nREADY=1\n"));
    // What a process sends right before its end may be lost.
    let Some(read) = address().and_then(|address| barrier(&address).ok()) else {
        return;
    };
    let _ = timeout(BARRIER, read).await;
}

fn say(message: &str) {
    let Some(address) = address() else { return };
    let sent = Socket::open(&address).and_then(|socket| socket.send(message));
    if let Err(error) = sent {
        log::guarded(|| {
            tracing::warn!(target: "taskgroup", "systemd is not told of the restart: {error}");
        });
    }
}

fn address() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// Sends a descriptor, which the manager closes when it has read all messages before. Returns what waits for that.
fn barrier(address: &OsStr) -> io::Result<impl Future<Output = ()> + use<>> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&parse(address.as_bytes())?)?;
    let (mut ours, theirs) = tokio::net::UnixStream::pair()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [theirs.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let message = [IoSlice::new(b"BARRIER=1")];
    rustix::net::sendmsg(socket.as_fd(), &message, &mut ancillary, NO_SIGNAL)?;
    drop(theirs);
    Ok(async move {
        let _ = ours.read_u8().await;
    })
}
