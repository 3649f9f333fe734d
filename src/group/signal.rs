//! A [`Signal`] is sent by an operating system or a terminal to stop a process.

use std::fmt;

/// A signal of the operating system, under its common name.
///
/// The variants exist on every platform so that code which matches on a [`Cause`](crate::Cause)
/// compiles everywhere. Which of them can be caught depends on the platform.
///
/// # Examples
///
/// ```
/// use taskgroup::Signal;
///
/// assert_eq!(Signal::Terminate.to_string(), "SIGTERM");
/// assert_eq!(Signal::Interrupt.number(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT, sent by Ctrl-C in the terminal, and the console's Ctrl-C event on Windows.
    Interrupt,
    /// SIGTERM, the polite stop by a supervisor. Unix only.
    Terminate,
    /// SIGHUP, sent when the terminal went away. Unix only.
    Hangup,
    /// SIGQUIT, sent by Ctrl-\ in the terminal. Unix only.
    Quit,
    /// SIGUSR1. Unix only.
    User1,
    /// SIGUSR2. Unix only.
    User2,
    /// The console's Ctrl-Break event. Windows only.
    Break,
    /// The console window is being closed. Windows only.
    Close,
    /// The system is shutting down. Windows only.
    Shutdown,
}

/// The numbers of SIGUSR1 and SIGUSR2, the only ones here that differ between platforms. Checked
/// against the C library's in signals/unix.rs.
const USER: [u8; 2] = if cfg!(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
)) {
    [30, 31]
} else if cfg!(any(
    target_os = "solaris",
    target_os = "illumos",
    all(
        target_os = "linux",
        any(target_arch = "mips", target_arch = "mips64")
    ),
)) {
    [16, 17]
} else {
    [10, 12]
};

impl Signal {
    /// Returns the signal's number on this platform, the `n` of an exit status of 128 + n.
    ///
    /// SIGUSR1 and SIGUSR2 are 10 and 12 on Linux, 30 and 31 on macOS and the BSDs. The others have one
    /// number everywhere.
    ///
    /// The console events of Windows have no number, so each counts as the Unix signal with the same
    /// meaning. `Break` counts as SIGINT, `Close` and `Shutdown` as SIGTERM.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt | Self::Break => 2,
            Self::Quit => 3,
            Self::User1 => USER[0],
            Self::User2 => USER[1],
            Self::Terminate | Self::Close | Self::Shutdown => 15,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
            Self::Quit => "SIGQUIT",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Break => "Ctrl-Break",
            Self::Close => "console close",
            Self::Shutdown => "system shutdown",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
