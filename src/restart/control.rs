//! [`Control`]: the socket at which a process can be asked to hand over.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::RestartError;
use super::wire::Wire;

/// The socket at which a process can be asked to hand over. Its path is removed when this is dropped, unless
/// another process has put its own there.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl Control {
    /// Listens at `path`, for processes of the same user only. It is made beside it and renamed, so that the path
    /// is never missing.
    pub(super) fn bind(path: &Path) -> Result<Self, RestartError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let bind = || {
            let _ = fs::remove_file(&beside);
            let listener = UnixListener::bind(&beside)?;
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
            let metadata = fs::symlink_metadata(&beside)?;
            fs::rename(&beside, path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        };
        let (listener, file) = bind().map_err(|error| at(path, error))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file,
        })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Connects to the process that listens at `path`, if there is one.
pub(super) async fn connect(path: &Path) -> Result<Option<Wire>, RestartError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let why = io::Error::other("a file that is not a socket is there");
            return Err(at(path, why));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => Wire::new(stream).map(Some).map_err(|error| at(path, error)),
        // The process that has made it is dead.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

pub(super) fn at(path: &Path, error: io::Error) -> RestartError {
    RestartError::io(path.display().to_string(), error)
}

impl Drop for Control {
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.path);
        let is_own = file.is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_own {
            let _ = fs::remove_file(&self.path);
        }
    }
}
