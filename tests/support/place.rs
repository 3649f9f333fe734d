//! [`Place`]: a directory for the socket files of one test.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed with all that is in it when it is dropped.
pub(crate) struct Place(PathBuf);

impl Place {
    /// `name` is that of one test.
    pub(crate) fn new(name: &str) -> Self {
        let directory = format!("taskgroup-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(directory);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, file: impl AsRef<Path>) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
