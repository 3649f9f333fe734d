//! What is done to a listening socket of the system before it is used, and before it is closed.

use std::io;

#[cfg(unix)]
pub(super) use self::unix::{prepare, prepare_unix, refuse_more};

/// Makes a socket ready to be used, and returns whether another process holds it too.
#[cfg(not(unix))]
pub(super) fn prepare(listener: &impl std::os::windows::io::AsSocket) -> io::Result<bool> {
    let listener = listener.as_socket().try_clone_to_owned()?;
    std::net::TcpListener::from(listener).set_nonblocking(true)?;
    Ok(false)
}

#[cfg(unix)]
mod unix {
    use super::*;

    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixListener;

    use socket2::{Domain, SockRef, Type};

    /// Makes a socket ready to be used, and returns whether another process holds it too.
    pub(in super::super) fn prepare<T: AsFd + AsRawFd>(listener: &T) -> io::Result<bool> {
        let domain = SockRef::from(listener).local_addr()?.domain();
        if domain != Domain::IPV4 && domain != Domain::IPV6 {
            return Err(wrong("it is not a socket of TCP"));
        }
        check(listener)?;
        let was_inherited = close_on_exec(listener)?;
        Ok(was_inherited || is_of_systemd(listener))
    }

    /// The same for a Unix socket.
    pub(in super::super) fn prepare_unix<T: AsFd + AsRawFd>(listener: &T) -> io::Result<bool> {
        if SockRef::from(listener).local_addr()?.domain() != Domain::UNIX {
            return Err(wrong("it is not a Unix socket"));
        }
        check(listener)?;
        let was_inherited = close_on_exec(listener)?;
        Ok(was_inherited || is_of_systemd(listener) || is_made_by_another(listener))
    }

    fn check(listener: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(listener);
        if socket.r#type()? != Type::STREAM {
            return Err(wrong("it is not a socket of streams"));
        }
        if !listens(&socket)? {
            return Err(wrong("it is not listening"));
        }
        // Another process may have changed it, because the flag belongs to the socket.
        if !socket.nonblocking()? {
            socket.set_nonblocking(true)?;
        }
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn listens(socket: &SockRef<'_>) -> io::Result<bool> {
        socket.is_listener()
    }

    /// The first accept tells.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    fn listens(_socket: &SockRef<'_>) -> io::Result<bool> {
        Ok(true)
    }

    fn wrong(why: &'static str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, why)
    }

    /// Keeps the socket from the children of this process, and returns whether it would have been theirs.
    ///
    /// Where the system does not tell, the socket counts as made by this process.
    fn close_on_exec<T: AsFd + AsRawFd>(listener: &T) -> io::Result<bool> {
        const O_CLOEXEC: u32 = 0o2_000_000;
        let info = format!("/proc/self/fdinfo/{}", listener.as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        SockRef::from(listener).set_cloexec(true)?;
        Ok(flags.is_some_and(|flags| flags & O_CLOEXEC == 0))
    }

    /// Returns whether the descriptor is one of those that systemd passed to this process.
    ///
    /// The variables may have been removed since, so the environment with which the process was started counts.
    fn is_of_systemd(listener: &impl AsRawFd) -> bool {
        let environment = std::fs::read("/proc/self/environ").unwrap_or_default();
        let get = |name: &[u8]| {
            let mut variables = environment.split(|byte| *byte == 0);
            let value = variables.find_map(|variable| variable.strip_prefix(name))?;
            std::str::from_utf8(value).ok()?.parse::<i32>().ok()
        };
        let own = i32::try_from(std::process::id()).ok();
        let is_for_us = get(b"LISTEN_PID=").is_none_or(|pid| Some(pid) == own);
        // Other managers of this kind number them as they like.
        let first = get(b"LISTEN_FDS_FIRST_FD=").unwrap_or(3);
        let count = get(b"LISTEN_FDS=").unwrap_or(0);
        is_for_us && (first..first.saturating_add(count)).contains(&listener.as_raw_fd())
    }

    /// Linux remembers which process has made a Unix socket listen.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn is_made_by_another(listener: &impl AsFd) -> bool {
        let maker = || {
            let copy = listener.as_fd().try_clone_to_owned()?;
            let stream = std::os::unix::net::UnixStream::from(copy);
            tokio::net::UnixStream::from_std(stream)?.peer_cred()
        };
        let pid = maker().ok().and_then(|maker| maker.pid());
        pid.and_then(|pid| u32::try_from(pid).ok()) != Some(std::process::id())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn is_made_by_another(_listener: &impl AsFd) -> bool {
        false
    }

    /// Refuses new connections. Those that wait can still be accepted.
    ///
    /// Between the last accept and the close, a client could connect and be reset otherwise.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(in super::super) fn refuse_more(listener: &UnixListener) {
        let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Read);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(in super::super) fn refuse_more(_listener: &UnixListener) {}
}
