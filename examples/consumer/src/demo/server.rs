//! A `nats-server` on a free port, with its data in a directory of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use taskgroup::BoxError;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(10);

/// It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    url: String,
}

/// The file in which the server says where it listens.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let directory = env::temp_dir().join(format!("consumer-demo-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let mut command = Command::new("nats-server");
        command
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream"])
            .arg("--store_dir")
            .arg(&directory)
            .arg("--ports_file_dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        // A Ctrl-C at the terminal is for the consumer alone.
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().map_err(|error| {
            format!("cannot start `nats-server` (Debian: nats-server): {error}")
        })?;
        let file = format!("nats-server_{}.ports", child.id().unwrap_or_default());
        let url = timeout(START, url(&directory.join(file))).await?;
        Ok(Self {
            child,
            directory,
            url,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) async fn stop(mut self) -> Result<(), BoxError> {
        self.child.kill().await?;
        Ok(fs::remove_dir_all(&self.directory)?)
    }
}

/// Waits until the file has the address.
async fn url(file: &Path) -> String {
    loop {
        let ports = fs::read(file).ok();
        let ports = ports.and_then(|ports| serde_json::from_slice::<Ports>(&ports).ok());
        if let Some(url) = ports.and_then(|ports| ports.nats.into_iter().next()) {
            return url;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
