//! Writing to stderr past the lock of the standard library: a thread that hangs may hold that.

#[cfg(unix)]
use std::fs::File;
use std::io;
use std::io::Write;
#[cfg(unix)]
use std::os::fd::AsFd;

/// Writes `text` as a line of its own, in one piece, its error ignored.
///
/// It may block as long as nobody reads what is there. With no descriptor left, and where there are none,
/// it waits for the lock too.
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
