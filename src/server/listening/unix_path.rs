//! [`UnixPath`]: the path of a Unix socket, which is removed with it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
#[cfg(all(feature = "restart", unix))]
use std::sync::Arc;

#[cfg(all(feature = "restart", unix))]
use crate::server::hatch::Hatch;

/// The path of a Unix socket that this process has made. The path is removed when this is dropped, unless the
/// file is another one by then.
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    file: File,
    /// Says whether this process has the socket when it ends.
    #[cfg(all(feature = "restart", unix))]
    hatch: Option<Arc<Hatch>>,
}

/// Which file it is, its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File(u64, u64);

impl UnixPath {
    /// Listens at `path`. A socket file without a listener is replaced.
    pub(super) fn bind(path: PathBuf) -> io::Result<(UnixListener, Self)> {
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(&path)?;
                UnixListener::bind(&path)
            }
            bound => bound,
        };
        let listener = listener.map_err(|error| named(&path, &error))?;
        Ok((listener, Self::of(path)?))
    }

    /// Takes the file that is at `path` now for its own.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let file = file_at(&path).map_err(|error| named(&path, &error))?;
        Ok(Self {
            path,
            file,
            #[cfg(all(feature = "restart", unix))]
            hatch: None,
        })
    }

    #[cfg(all(feature = "restart", unix))]
    pub(super) fn only_if_ours(&mut self, hatch: &Arc<Hatch>) {
        self.hatch = Some(Arc::clone(hatch));
    }
}

/// Removes the file at `path` if it is a socket without a listener.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |why: &str| {
        let why = format!("{}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, why))
    };
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("a file that is not a socket is there");
    }
    let file = file_at(path)?;
    match UnixStream::connect(path) {
        // It may be another file by now, which somebody listens at.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if file_at(path)? != file {
                return in_use("another process has just begun to listen there");
            }
            fs::remove_file(path).map_err(|error| named(path, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(path, &error)),
        Ok(_) => in_use("another process listens there"),
    }
}

fn file_at(path: &Path) -> io::Result<File> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(File(metadata.dev(), metadata.ino()))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        #[cfg(all(feature = "restart", unix))]
        if self.hatch.as_ref().is_some_and(|hatch| !hatch.is_ours()) {
            return;
        }
        if file_at(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
