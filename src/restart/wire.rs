//! [`Wire`]: lines, and descriptors with them, between two processes of one user.

use std::collections::VecDeque;
use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The version of the protocol.
pub(super) const VERSION: u32 = 1;

/// A line is no longer than this. The names of sockets are far shorter.
const LONGEST: usize = 64 * 1024;

/// A peer that is gone is an error, and no SIGPIPE. On Apple's systems, Rust ignores SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// No child gets a descriptor that is received. Apple's systems have no flag for it.
#[cfg(not(target_vendor = "apple"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// Lines, and descriptors with them, between two processes of one user.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Arc<UnixStream>,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Wire {
    /// Refuses a peer of another user. Root may do what it likes anyway.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?.uid();
        let own = rustix::process::geteuid().as_raw();
        if peer != own && peer != 0 {
            let why = format!("the process at the other end belongs to user {peer}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self {
            stream: Arc::new(stream),
            bytes: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Sends a line, and a descriptor with it.
    pub(super) async fn send(
        &self,
        line: &str,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let line = text(line);
        let mut descriptor = descriptor;
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            let sending = || send(&self.stream, rest, descriptor);
            let sent = self.stream.async_io(Interest::WRITABLE, sending).await?;
            // It has gone with the first byte.
            descriptor = None;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Returns what says something to the other process while this waits for it.
    pub(super) fn speaker(&self) -> Speaker {
        Speaker(Arc::clone(&self.stream))
    }

    /// Receives a line, or `None` when the other process has ended.
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.bytes.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).replace("%0A", "\n");
                return Ok(Some(line.replace("%25", "%")));
            }
            if self.bytes.len() > LONGEST {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line without an end",
                ));
            }
            let receiving = || receive(&self.stream);
            let received = self.stream.async_io(Interest::READABLE, receiving).await;
            let (bytes, descriptors) = match received {
                // The other process was killed with something unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                received => received?,
            };
            self.descriptors.extend(descriptors);
            if bytes.is_empty() {
                return Ok(None);
            }
            self.bytes.extend(bytes);
        }
    }

    /// Takes the descriptor that has come with the last line.
    pub(super) fn descriptor(&mut self) -> io::Result<OwnedFd> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "no descriptor has come");
        self.descriptors.pop_front().ok_or_else(missing)
    }
}

/// Says something to the other process, and keeps the connection to it.
#[derive(Clone, Debug)]
pub(super) struct Speaker(Arc<UnixStream>);

impl Speaker {
    /// Sends a line if that is possible at once. There is room for hundreds of them.
    pub(super) fn say(&self, line: &str) {
        let _ = send(&self.0, &text(line), None);
    }
}

/// Whatever a name contains, a line is a line.
fn text(line: &str) -> Vec<u8> {
    let mut line = line.replace('%', "%25").replace('\n', "%0A").into_bytes();
    line.push(b'\n');
    line
}

fn send(
    stream: &UnixStream,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = [IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(stream.as_fd(), &bytes, &mut ancillary, NO_SIGNAL)?;
    Ok(sent)
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 4096];
    let received = rustix::net::recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        CLOSE_ON_EXEC,
    )?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = rights.flatten().collect();
    #[cfg(target_vendor = "apple")]
    for descriptor in &descriptors {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        let why = "there was no room for a descriptor that was sent";
        return Err(io::Error::other(why));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}
