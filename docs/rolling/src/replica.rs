//! The processes behind the load balancer.

use std::env;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use taskgroup::BoxError;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

/// A port that stays ours while nobody listens on it.
///
/// It is bound and never listened on: a server that reuses addresses, as Tokio's and HAProxy do, can
/// have it, and the system does not give it to a connection in the meantime. Connecting to it is
/// refused.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _socket: TcpSocket,
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    command: Command,
    /// The control socket, if it is replaced in place.
    control: Option<PathBuf>,
    /// The process that has taken over last, which is no child of this one.
    replaced_by: Option<Pid>,
    port: Port,
    child: Child,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            address: socket.local_addr()?,
            _socket: socket,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Builds `orders` the way this program was built, and says where it is. Without cargo, it is
/// expected beside this program.
pub(crate) async fn build_orders() -> Result<PathBuf, BoxError> {
    if let Some(cargo) = env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "orders"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if !build.status().await?.success() {
            return Err("`orders` could not be built".into());
        }
    }
    let orders = env::current_exe()?.with_file_name("orders");
    if !orders.exists() {
        return Err(format!("there is no {}: build it first", orders.display()).into());
    }
    Ok(orders)
}

impl Replica {
    /// Adds the address to serve on to `command`, and returns when the replica says that it is ready.
    /// Its log goes to a file in `dir`.
    pub(crate) async fn start(
        mut command: Command,
        name: usize,
        dir: &Path,
        in_place: bool,
    ) -> Result<Self, BoxError> {
        let port = Port::reserve()?;
        let control = in_place.then(|| dir.join(format!("control-{name}")));
        if let Some(control) = &control {
            command.arg("--control").arg(control);
        }
        command
            .args(["--http", &port.address().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join(format!("replica-{name}.log")))?)
            .kill_on_drop(true);
        let child = spawn(&mut command).await?;
        Ok(Self {
            command,
            control,
            replaced_by: None,
            port,
            child,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Restarts it in place, or sends SIGTERM, waits for the end, which has to be a good one, and starts anew.
    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        if let Some(control) = &self.control {
            let mut command = Command::new(env::current_exe()?);
            let replacing = command.arg("in-place").arg("--control").arg(control);
            let output = replacing.output().await?;
            let said = String::from_utf8(output.stdout)?;
            let pid = said.trim().strip_prefix("ready ").ok_or_else(|| {
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                format!("a replica was not replaced: {error}")
            })?;
            self.replaced_by = Pid::from_raw(pid.parse()?);
            let status = self.child.wait().await?;
            return match status.success() {
                true => Ok(()),
                false => Err(format!("a replica did not end well: {status}").into()),
            };
        }
        let id = self.child.id().ok_or("a replica is gone")?;
        let pid = Pid::from_raw(id.try_into()?).ok_or("a replica has no id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait().await?;
        if !status.success() {
            return Err(format!("a replica did not end well: {status}").into());
        }
        self.child = spawn(&mut self.command).await?;
        Ok(())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(pid) = self.replaced_by {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns when the replica says that it is ready.
async fn spawn(command: &mut Command) -> Result<Child, BoxError> {
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("the replica has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    if line.starts_with("ready") {
        Ok(child)
    } else {
        Err(format!("a replica did not get ready, but said {line:?}").into())
    }
}
