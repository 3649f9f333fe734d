//! Writes to stderr without the lock of the standard library, which a hanging thread may hold.

#[cfg(unix)]
use std::fs::File;
use std::io;
use std::io::Write;
#[cfg(unix)]
use std::os::fd::AsFd;
use std::time::Duration;

use crate::group::log::bounded;

/// Writes `text` as its own line within `limit`, even if something hangs.
///
/// Another thread writes it. If the system cannot start one, this thread writes.
pub(crate) fn last_words(text: String, limit: Duration) {
    let written = bounded::within(limit, text, |text| write_line(&text));
    if let Err(text) = written {
        write_line_here(&text, limit);
    }
}

/// Writes `text` as its own line on this thread, or as much as stderr accepts within `limit`.
#[cfg(all(unix, feature = "signal"))]
pub(crate) fn write_line_here(text: &str, limit: Duration) {
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::time::Instant;

    /// A pipe that is ready for writing takes this much without blocking.
    const PIECE: usize = 512;

    let stderr = io::stderr();
    let line = format!("{text}\n");
    let mut rest = line.as_bytes();
    let began = Instant::now();
    while !rest.is_empty() {
        let left = limit.saturating_sub(began.elapsed());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let written = match poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], left) {
            Ok(0) => return,
            Ok(_) => nix::unistd::write(stderr.as_fd(), &rest[..rest.len().min(PIECE)]),
            Err(error) => Err(error),
        };
        match written {
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Writes `text` as its own line on this thread, for as long as that takes.
#[cfg(not(all(unix, feature = "signal")))]
pub(crate) fn write_line_here(text: &str, _limit: Duration) {
    write_line(text);
}

/// Writes `text` as its own line in one piece, and ignores errors.
///
/// It may block as long as the pipe is full and has no reader. If no descriptor is left, or the
/// platform has none, it waits for the lock too.
pub(crate) fn write_line(text: &str) {
    let line = format!("{text}\n");
    #[cfg(unix)]
    if let Ok(mut stderr) = without_its_lock() {
        return drop(stderr.write_all(line.as_bytes()));
    }
    drop(io::stderr().write_all(line.as_bytes()));
}

#[cfg(unix)]
fn without_its_lock() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}
