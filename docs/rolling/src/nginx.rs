//! nginx in front of two replicas, as a child in the foreground.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use taskgroup::BoxError;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::balancer::program;
use crate::replica::Port;

/// Killed when dropped. Without a master, so that nothing is left then.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) front: SocketAddr,
    _child: Child,
    _port: Port,
}

/// What nginx says about itself.
pub(crate) async fn version() -> Result<String, BoxError> {
    let output = Command::new(program("nginx", "nginx-light").await?)
        .arg("-v")
        .output()
        .await?;
    let text = String::from_utf8(output.stderr)?;
    let version = text.rsplit('/').next().unwrap_or_default();
    Ok(format!("nginx {}", version.trim()))
}

impl Nginx {
    /// Keeps its configuration and logs in `dir`, and returns when it takes connections.
    pub(crate) async fn start(replicas: [SocketAddr; 2], dir: &Path) -> Result<Self, BoxError> {
        let port = Port::reserve()?;
        let front = port.address();
        let file = dir.join("nginx.conf");
        fs::write(&file, config(front, replicas, dir))?;
        let child = Command::new(program("nginx", "nginx-light").await?)
            .arg("-c")
            .arg(fs::canonicalize(&file)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("nginx.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        while TcpStream::connect(front).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            front,
            _child: child,
            _port: port,
        })
    }
}

/// nginx has no probe. It asks the other replica when a connection is refused, which is its default, and never
/// takes a replica out.
fn config(front: SocketAddr, [first, second]: [SocketAddr; 2], dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  upstream orders {{
    server {first} max_fails=0;
    server {second} max_fails=0;
    keepalive 16;
  }}
  server {{
    listen {front};
    location / {{
      proxy_pass http://orders;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_next_upstream error timeout;
    }}
  }}
}}
"
    )
}
