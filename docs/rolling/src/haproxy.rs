//! HAProxy in front of two replicas, as a child in the foreground.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use taskgroup::BoxError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::balancer::program;
use crate::replica::Port;

/// How often HAProxy asks a replica whether it is ready.
pub(crate) const CHECK_MS: u32 = 200;
/// After so many answers in a row that are not 2xx, HAProxy sends nothing there.
pub(crate) const FALL: u32 = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Http,
    Tcp,
    /// nginx is in front, not HAProxy.
    Nginx,
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct HaProxy {
    pub(crate) front: SocketAddr,
    console: SocketAddr,
    _child: Child,
    _ports: [Port; 2],
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Nginx => "nginx",
        })
    }
}

/// The beginning of what HAProxy says about itself.
pub(crate) async fn version() -> Result<String, BoxError> {
    let output = Command::new(program("haproxy", "haproxy").await?)
        .arg("-v")
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

impl HaProxy {
    /// `replicas` are called by their places: 0 and 1. Keeps its configuration and log in `dir`.
    pub(crate) async fn start(
        mode: Mode,
        replicas: [SocketAddr; 2],
        dir: &Path,
    ) -> Result<Self, BoxError> {
        let ports = [Port::reserve()?, Port::reserve()?];
        let [front, console] = [ports[0].address(), ports[1].address()];
        let file = dir.join("haproxy.cfg");
        fs::write(&file, config(mode, front, console, replicas))?;
        let child = Command::new(program("haproxy", "haproxy").await?)
            .arg("-db")
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("haproxy.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            front,
            console,
            _child: child,
            _ports: ports,
        })
    }

    /// Waits until requests are sent to this replica.
    pub(crate) async fn sees(&self, replica: usize) {
        let name = replica.to_string();
        loop {
            let csv = self.statistics().await.unwrap_or_default();
            if status(&csv, &name) == Some("UP") {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn statistics(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.console).await?;
        stream.write_all(b"show stat\n").await?;
        let mut csv = String::new();
        stream.read_to_string(&mut csv).await?;
        Ok(csv)
    }
}

fn config(
    mode: Mode,
    front: SocketAddr,
    console: SocketAddr,
    [first, second]: [SocketAddr; 2],
) -> String {
    format!(
        "global
  stats socket ipv4@{console} level user
defaults
  timeout connect 1s
  timeout check 1s
  timeout client 30s
  timeout server 30s
  retries 0
listen orders
  mode {mode}
  bind {front}
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter {CHECK_MS}ms fall {FALL}
  server 0 {first}
  server 1 {second}
"
    )
}

/// What HAProxy's table says about a server: `UP`, `UP 1/2` when a check has failed, `DOWN`.
fn status<'a>(csv: &'a str, server: &str) -> Option<&'a str> {
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next()?;
    let column = |name| head.iter().position(|it| *it == name);
    let (name, status) = (column("svname")?, column("status")?);
    let line = lines.find(|line| line.get(name) == Some(&server))?;
    line.get(status).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "\
# pxname,svname,scur,status,weight
orders,FRONTEND,1,OPEN,
orders,0,1,UP,1
orders,1,0,UP 1/2,1
orders,BACKEND,1,UP,2
";

    #[test]
    fn the_status_of_a_server_is_found_by_its_name() {
        assert_eq!(status(CSV, "0"), Some("UP"));
        assert_eq!(status(CSV, "1"), Some("UP 1/2"));
        assert_eq!(status(CSV, "2"), None);
        assert_eq!(status("", "0"), None);
    }
}
