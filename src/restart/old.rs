//! What a process does that may be replaced.

use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::control::Control;
use super::error::RestartError;
use super::shared::{Outcome, Shared, Stage};
use super::wire::{Speaker, VERSION, Wire};
use crate::group::lock::lock;
use crate::group::log;
use crate::group::time::Rounded;

/// How long a process that has connected may take to say what it wants.
const KNOCKING: Duration = Duration::from_secs(5);

/// How long the new process may take to accept. No process accepts meanwhile.
const ACCEPTING: Duration = Duration::from_secs(1);

/// How long the news of the end of a child may take, once the other has said why.
const MOMENT: Duration = Duration::from_secs(1);

/// The connections to the processes that have taken over. Only the end of this process closes them, so that the
/// end of file is exactly that.
static KEPT: Mutex<Vec<Speaker>> = Mutex::new(Vec::new());

/// Waits for processes that want something.
pub(super) async fn wait(shared: &Arc<Shared>, control: Control) {
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = control.accept() => match accepted {
                Ok(stream) => drop(talks.spawn(talk(Arc::clone(shared), stream))),
                // There are too many descriptors.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = talks.join_next() => {}
        }
    }
}

async fn talk(shared: Arc<Shared>, stream: UnixStream) {
    let said = async {
        let mut wire = Wire::new(stream)?;
        let line = timeout(KNOCKING, wire.receive())
            .await??
            .unwrap_or_default();
        answer(&shared, wire, &line).await
    };
    if let Err(error) = said.await {
        log::guarded(|| {
            tracing::debug!(target: "taskgroup", "a process at {} has left: {error}", shared.path.display());
        });
    }
}

async fn answer(shared: &Arc<Shared>, mut wire: Wire, line: &str) -> std::io::Result<()> {
    let words: Vec<_> = line.split(' ').collect();
    let (word, version, pid) = match *words.as_slice() {
        [word, version] => (word, version, None),
        [word, version, pid] => (word, version, pid.parse().ok()),
        _ => ("", "", None),
    };
    if version.parse() != Ok(VERSION) {
        let why = format!(
            "this process speaks version {VERSION} of the protocol, and was asked {line:?}"
        );
        return wire.send(&format!("REFUSED {why}"), None).await;
    }
    match (word, pid) {
        ("HELLO", Some(pid)) => match Turn::begin(shared, pid) {
            Ok(turn) => {
                #[cfg(feature = "systemd")]
                if shared.notify_reload {
                    crate::process::systemd::reloading();
                }
                let handed_over = hand_over(shared, &mut wire).await;
                turn.end(wire, handed_over).await;
                Ok(())
            }
            Err(why) => wire.send(&format!("REFUSED {why}"), None).await,
        },
        ("RESTART", _) => {
            let answer = match start_another(shared).await {
                Ok(pid) => format!("DONE {pid}"),
                Err(error) if error.is_refused() => format!("REFUSED {}", error.why()),
                Err(error) => format!("FAILED {}", error.why()),
            };
            wire.send(&answer, None).await
        }
        _ => {
            wire.send(&format!("REFUSED {line:?} is no question"), None)
                .await
        }
    }
}

/// The time in which one process is at the door. However it ends, the next one can come.
struct Turn {
    shared: Arc<Shared>,
    pid: u32,
}

impl Turn {
    fn begin(shared: &Arc<Shared>, pid: u32) -> Result<Self, String> {
        let mut stage = shared.stage.lock();
        let stops = shared.is_stopping();
        let outcome = match &mut *stage {
            Stage::Serving if !stops => None,
            Stage::StartsAnother(outcome) if !stops => outcome.take(),
            other => return Err(other.why_not()),
        };
        *stage = Stage::Busy(pid, outcome);
        Ok(Self {
            shared: Arc::clone(shared),
            pid,
        })
    }

    async fn end(self, wire: Wire, handed_over: Result<(), String>) {
        let pid = self.pid;
        match handed_over {
            Ok(()) => self.shared.end(pid, wire).await,
            Err(why) => {
                log::guarded(|| {
                    tracing::warn!(target: "taskgroup", "process {pid} has not taken over, this one goes on: {why}");
                });
                #[cfg(feature = "systemd")]
                if self.shared.notify_reload {
                    crate::process::systemd::reloaded();
                }
                self.tell(Err(RestartError::failed(why)));
            }
        }
    }

    /// Tells whoever has started the process at the door how it went.
    fn tell(&self, result: Result<u32, RestartError>) {
        let mut stage = self.shared.stage.lock();
        let Stage::Busy(_, outcome) = &mut *stage else {
            return;
        };
        let outcome = outcome.take();
        *stage = Stage::Serving;
        drop(stage);
        if let Some(outcome) = outcome {
            let _ = outcome.send(result);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.tell(Err(RestartError::failed(
            "the process at the door has left",
        )));
    }
}

impl Stage {
    /// Why no restart can begin now.
    fn why_not(&self) -> String {
        let own = std::process::id();
        match self {
            Self::Starting => format!("process {own} is still starting"),
            Self::StartsAnother(_) => format!("process {own} is already starting another"),
            Self::Busy(pid, _) => format!("process {own} is already handing over to process {pid}"),
            Self::HandedOver(pid) => {
                format!("process {own} has handed over to process {pid}, and is still there")
            }
            Self::Serving => format!("process {own} is stopping"),
        }
    }
}

/// Hands the sockets over to the process at the other end. An error says why this one keeps them.
async fn hand_over(shared: &Shared, wire: &mut Wire) -> Result<(), String> {
    let until = Instant::now().checked_add(shared.timeout);
    let offered = async {
        offer(shared, wire).await?;
        tokio::select! {
            line = wire.receive() => line,
            () = shared.stopping() => {
                wire.send("ABORT the old process is stopping", None).await?;
                Ok(Some("FAILED this process is stopping".to_owned()))
            }
        }
    };
    let line = match until {
        Some(until) => timeout_at(until, offered).await,
        None => Ok(offered.await),
    };
    match line {
        Ok(Ok(Some(line))) if line == "READY" => {}
        Ok(Ok(Some(line))) => {
            return Err(line.strip_prefix("FAILED ").unwrap_or(&line).to_owned());
        }
        Ok(Ok(None) | Err(_)) => return Err("it has ended before it was ready".to_owned()),
        Err(_) => {
            let limit = Rounded(shared.timeout);
            let _ = wire
                .send(&format!("ABORT it was not ready within {limit}"), None)
                .await;
            return Err(format!("it was not ready within {limit}"));
        }
    }
    if !shared.hatch.shut() {
        let _ = wire.send("ABORT the old process is stopping", None).await;
        return Err("this process is stopping".to_owned());
    }
    // From here on no process accepts, until the new one does or this one goes on.
    let paused = Paused(shared);
    let accepting = async {
        wire.send("YOURS", None).await?;
        tokio::select! {
            line = wire.receive() => line,
            () = shared.stopping() => Ok(Some("FAILED this process is stopping".to_owned())),
        }
    };
    let why = match timeout(ACCEPTING, accepting).await {
        Ok(Ok(Some(line))) if line == "ACCEPTING" => {
            if shared.hatch.hand_over() {
                return Ok(());
            }
            "this process is stopping".to_owned()
        }
        Ok(Ok(Some(line))) => line.strip_prefix("FAILED ").unwrap_or(&line).to_owned(),
        Ok(Ok(None) | Err(_)) => return Err("it has ended before it accepted".to_owned()),
        Err(_) => format!("it has not accepted within {}", Rounded(ACCEPTING)),
    };
    let _ = wire.send(&format!("ABORT {why}"), None).await;
    drop(paused);
    Err(why)
}

/// No process accepts. Unless the sockets are handed over, this process goes on.
struct Paused<'a>(&'a Shared);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.hatch.open();
    }
}

async fn offer(shared: &Shared, wire: &Wire) -> std::io::Result<()> {
    wire.send(&format!("OLD {}", std::process::id()), None)
        .await?;
    let sockets = shared.sockets.lock().clone();
    for (key, descriptor) in shared.hatch.descriptors() {
        let Some(named) = sockets.iter().find(|named| named.key == key) else {
            continue;
        };
        let line = format!("OFFER {} {}", u8::from(named.is_shared), named.name);
        wire.send(&line, Some(descriptor.as_fd())).await?;
    }
    wire.send("END", None).await
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stops.is_cancelled() || self.hatch.is_stopped()
    }

    /// Waits until this process stops, or one of its servers.
    async fn stopping(&self) {
        while !self.is_stopping() {
            tokio::select! {
                () = self.stops.cancelled() => {}
                () = self.hatch.changed() => {}
            }
        }
    }

    /// Another process accepts on the sockets from here on. This one ends.
    async fn end(&self, pid: u32, wire: Wire) {
        let before = std::mem::replace(&mut *self.stage.lock(), Stage::HandedOver(pid));
        let outcome = match before {
            Stage::Busy(_, outcome) => outcome,
            _ => None,
        };
        let new = wire.speaker();
        lock(&KEPT).push(new.clone());
        self.tell_leases(new.clone());
        #[cfg(feature = "systemd")]
        crate::process::systemd::handed_over(pid).await;
        new.say("MAIN");
        self.handed_over.send_replace(Some(pid));
        if let Some(outcome) = outcome {
            let _ = outcome.send(Ok(pid));
        }
    }

    /// Says which leases this process still has. No more are taken.
    fn tell_leases(&self, new: Speaker) {
        let leases = self.leases.lock();
        for (name, wanted) in &*leases {
            new.say(&format!("LEASE {name}"));
            wanted.cancel();
        }
        new.say("LEASED");
        // Under the lock, so that each is given up after it was named.
        *self.successor.lock() = Some(new);
    }
}

/// The time in which another process is started. However it ends, the next one can be.
struct Starting<'a>(&'a Shared);

impl<'a> Starting<'a> {
    fn begin(shared: &'a Shared, outcome: Outcome) -> Result<Self, RestartError> {
        let stops = shared.is_stopping();
        let mut stage = shared.stage.lock();
        if stops || !matches!(*stage, Stage::Serving) {
            return Err(RestartError::refused(stage.why_not()));
        }
        *stage = Stage::StartsAnother(Some(outcome));
        Ok(Self(shared))
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let mut stage = self.0.stage.lock();
        if let Stage::StartsAnother(_) = *stage {
            *stage = Stage::Serving;
        }
    }
}

/// A new process that is killed when this is dropped, unless it has taken over.
struct Started<'a> {
    child: Child,
    shared: &'a Shared,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if !matches!(*self.shared.stage.lock(), Stage::HandedOver(_)) {
            let _ = self.child.start_kill();
        }
    }
}

/// Starts the program again, and waits until it has taken over.
pub(super) async fn start_another(shared: &Shared) -> Result<u32, RestartError> {
    let (sender, mut outcome) = oneshot::channel();
    let starting = Starting::begin(shared, sender)?;
    let io = |error| RestartError::io("the new process cannot be started", error);
    let child = shared.program.start().map_err(io)?;
    let mut started = Started { child, shared };
    // The process itself is timed from its first word on.
    let limit = shared.timeout.saturating_add(MOMENT);
    let why = tokio::select! {
        biased;
        result = &mut outcome => match result {
            Ok(Ok(pid)) => return Ok(pid),
            Ok(Err(error)) => match timeout(MOMENT, started.child.wait()).await {
                Ok(status) if error.why().starts_with("it has ended") => ended(status),
                _ => error.why().to_owned(),
            },
            Err(_) => "there was no answer".to_owned(),
        },
        status = started.child.wait() => {
            // It may have said why, or may even have accepted.
            let is_at_the_door = !matches!(*shared.stage.lock(), Stage::StartsAnother(_));
            let limit = if is_at_the_door { MOMENT } else { Duration::ZERO };
            match timeout(limit, &mut outcome).await {
                Ok(Ok(Ok(pid))) => return Ok(pid),
                Ok(Ok(Err(error))) if !error.why().starts_with("it has ended") => {
                    error.why().to_owned()
                }
                _ => ended(status),
            }
        }
        () = sleep(limit) => {
            format!("the new process was not ready within {}", Rounded(shared.timeout))
        }
    };
    let _ = started.child.start_kill();
    let _ = started.child.wait().await;
    drop(starting);
    Err(RestartError::failed(why))
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("the new process has ended before it accepted: {status}"),
        Err(error) => format!("the new process is lost: {error}"),
    }
}
