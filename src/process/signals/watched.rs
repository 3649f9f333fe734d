//! The settings of each signal in a set.

use std::io;

use crate::group::signal::Signal;

/// A signal of a set, with the exit status if it comes second. With `None` it never ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) signal: Signal,
    pub(super) status: Option<u8>,
}

impl Watched {
    /// Says for which signal the system refused a handler.
    pub(super) fn refused(self, error: &io::Error) -> io::Error {
        let message = format!("cannot listen for {}: {error}", self.signal);
        io::Error::new(error.kind(), message)
    }
}
