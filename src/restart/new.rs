//! What a process does that takes over from another.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::control::at;
use super::error::RestartError;
use super::offer::Offer;
use super::shared::{Shared, Stage};
use super::wire::VERSION;
use super::wire::Wire;
use crate::group::log;
use crate::group::time::Rounded;

/// The process that is taken over from, and what it has.
pub(super) struct Old {
    pub(super) wire: Wire,
    pub(super) pid: u32,
    pub(super) offers: Vec<Offer>,
}

/// Asks the old process for its sockets.
pub(super) async fn ask(mut wire: Wire, path: &Path, limit: Duration) -> Result<Old, RestartError> {
    let asking = async {
        let hello = format!("HELLO {VERSION} {}", std::process::id());
        wire.send(&hello, None).await?;
        let (mut pid, mut offers) = (0, Vec::new());
        loop {
            let Some(line) = wire.receive().await? else {
                return Ok(Err(RestartError::failed("the old process has ended")));
            };
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "REFUSED" => return Ok(Err(RestartError::refused(rest))),
                "OLD" => pid = rest.parse().unwrap_or_default(),
                "OFFER" => offers.push(Offer::new(rest, wire.descriptor()?)?),
                "END" => return Ok(Ok((pid, offers))),
                _ => {
                    let why = format!("the old process says {line:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
    };
    let asked = timeout(limit, asking).await.unwrap_or_else(|_| {
        let why = format!("the old process has not answered within {}", Rounded(limit));
        Ok(Err(RestartError::failed(why)))
    });
    let (pid, offers) = asked.map_err(|error| at(path, error))??;
    Ok(Old { wire, pid, offers })
}

/// How the wait for the old process has ended.
enum End {
    Ours,
    /// It has ended, and whatever it had is ours.
    Alone,
    /// It keeps its sockets.
    Refused(String),
    /// This process stops.
    GaveUp,
}

/// Takes the sockets over, and waits until the old process is gone. `false` if the old process keeps them.
pub(super) async fn take_over(shared: &Arc<Shared>, mut wire: Wire) -> bool {
    let end = wait(shared, &mut wire).await;
    let is_alone = match end {
        End::Ours | End::Alone if !shared.hatch.open() => {
            let _ = wire.send("FAILED it stops", None).await;
            return false;
        }
        // An old process that does not hear it is dead.
        End::Ours => wire.send("ACCEPTING", None).await.is_err(),
        End::Alone => true,
        End::Refused(why) => {
            shared.refused.send_replace(Some(why));
            return false;
        }
        End::GaveUp => return false,
    };
    // Those that this process has not asked for.
    for offer in std::mem::take(&mut *shared.offers.lock()) {
        log::guarded(|| {
            let Offer { name, address, .. } = &offer;
            tracing::warn!(target: "taskgroup", "listener `{name}` of the old process, at {address}, is no longer used");
        });
    }
    shared.ours.cancel();
    if !is_alone {
        if let Some(why) = until_its_end(shared, &mut wire).await {
            shared.refused.send_replace(Some(why));
            return false;
        }
    }
    #[cfg(feature = "systemd")]
    crate::process::systemd::let_go();
    shared.of_old.send_replace(Some(HashSet::new()));
    shared.alone.cancel();
    let mut stage = shared.stage.lock();
    if matches!(*stage, Stage::Starting) {
        *stage = Stage::Serving;
    }
    true
}

async fn wait(shared: &Arc<Shared>, wire: &mut Wire) -> End {
    let ready = async {
        shared.ready.cancelled().await;
        while !shared.hatch.is_served() {
            shared.hatch.changed().await;
        }
    };
    let mut ready = std::pin::pin!(ready);
    loop {
        tokio::select! {
            () = &mut ready => break,
            () = shared.stops.cancelled() => return End::GaveUp,
            line = wire.receive() => match line {
                Ok(Some(line)) => match line.strip_prefix("ABORT ") {
                    Some(why) => return End::Refused(why.to_owned()),
                    None => continue,
                },
                // The old process is dead, and no other process has its sockets.
                Ok(None) | Err(_) => {
                    ready.await;
                    return End::Alone;
                }
            },
        }
    }
    if wire.send("READY", None).await.is_err() {
        return End::Alone;
    }
    match timeout(shared.timeout, wire.receive()).await {
        Ok(Ok(Some(line))) if line == "YOURS" => End::Ours,
        Ok(Ok(Some(line))) => End::Refused(line.strip_prefix("ABORT ").unwrap_or(&line).to_owned()),
        Ok(Ok(None) | Err(_)) => End::Alone,
        Err(_) => End::Refused(format!(
            "the old process has not answered within {}",
            Rounded(shared.timeout)
        )),
    }
}

/// Listens to the old process until it has ended. Returns why it has taken the sockets back, if it has.
async fn until_its_end(shared: &Arc<Shared>, wire: &mut Wire) -> Option<String> {
    let mut leases = HashSet::new();
    while let Ok(Some(line)) = wire.receive().await {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "ABORT" => return Some(rest.to_owned()),
            "LEASE" => drop(leases.insert(rest.to_owned())),
            // That were all of them.
            "LEASED" => {
                shared
                    .of_old
                    .send_replace(Some(std::mem::take(&mut leases)));
            }
            // The old process has told the service manager of this one, which has its turn now.
            #[cfg(feature = "systemd")]
            "MAIN" => crate::process::systemd::let_go(),
            "GIVEN" => shared.of_old.send_modify(|leases| {
                if let Some(leases) = leases {
                    leases.remove(rest);
                }
            }),
            _ => {}
        }
    }
    None
}
