//! [`Peer`]: the other side of the protocol, in the process of the test, which can leave at any step.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

pub(crate) struct Peer {
    stream: UnixStream,
    bytes: VecDeque<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self {
            stream,
            bytes: VecDeque::new(),
            descriptors: Vec::new(),
        }
    }

    pub(crate) fn connect(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// Asks for the sockets, again and again until it is its turn.
    pub(crate) fn admitted(path: &Path, pid: u32) -> Self {
        loop {
            let mut peer = Self::connect(path);
            peer.send(&format!("HELLO 1 {pid}"));
            match peer.line() {
                Some(line) if line.starts_with("REFUSED") => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return peer,
            }
        }
    }

    pub(crate) fn send(&self, line: &str) {
        self.pass(line, None);
    }

    pub(crate) fn pass(&self, line: &str, descriptor: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let line = format!("{line}\n");
        let bytes = [IoSlice::new(line.as_bytes())];
        let stream = self.stream.as_fd();
        let _ = sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL);
    }

    /// `None` when the other side has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 1024];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.stream, &mut parts, &mut ancillary, flags).ok()?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if received.bytes == 0 {
                return None;
            }
            self.bytes.extend(&bytes[..received.bytes]);
        }
    }

    /// Reads up to and with this line.
    #[track_caller]
    pub(crate) fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self
                .line()
                .unwrap_or_else(|| panic!("{last} has not come: {lines:?}"));
            lines.push(line.clone());
            if line == last {
                return lines;
            }
        }
    }
}
