//! Tells systemd how a service starts and stops (feature `systemd`, Unix only).
//!
//! [`observer`] sends to the socket in `NOTIFY_SOCKET`, which systemd sets for a unit of
//! `Type=notify`. Without that variable it does nothing, so the same binary runs anywhere.
//!
//! | message | when |
//! |---|---|
//! | `READY=1` | all components are ready |
//! | `STATUS=…` | with every step, for `systemctl status`: `draining: waiting for http, worker` |
//! | `STOPPING=1` | the stop was triggered, by whatever except a reload or a handover |
//! | `RELOADING=1`, `MONOTONIC_USEC=…` | the stop was triggered for [`Cause::Reload`](crate::Cause::Reload): the `READY=1` of the next lifecycle ends the reload |
//! | `EXTEND_TIMEOUT_USEC=…` | then, and again while the stop runs |
//! | `MAINPID=…`, `READY=1` | another process has taken over ([restart in place](crate::restart)); nothing follows |
//! | `WATCHDOG=1` | every half of `WATCHDOG_USEC`, from the begin of the start to the end of the stop |
//!
//! - **The watchdog is a task of the runtime**, so a runtime whose threads are all blocked sends no
//!   keep-alive, and systemd acts as `WatchdogSec` demands. It is left out when `WATCHDOG_PID` names another
//!   process.
//! - **The stop is extended by ten seconds at most**, and again when half of them are over. It is never
//!   extended beyond the budget, except for one second to exit in. systemd therefore does not kill a stop
//!   that is within its time, even if that is longer than `TimeoutStopSec`, and it does not wait for one
//!   whose runtime is blocked.
//! - **Nothing waits for systemd.** A message that it does not take is kept and joined with later ones. It is
//!   tried again ten times a second while the socket is full, and each second while it is gone. If steps come
//!   by the thousand, it sends 20 messages a second.
//! - **Nothing fails because of it.** An invalid or missing socket is logged once, at WARN.
//!
//! The environment is not changed. Children of the service inherit `NOTIFY_SOCKET`, and `NotifyAccess=main`
//! makes systemd ignore them.
//!
//! # The unit
//!
//! ```ini
//! [Service]
//! Type=notify
//! NotifyAccess=main
//! ExecStart=/usr/bin/orders
//! TimeoutStopSec=40
//! Environment=TIMEOUT_STOP_SEC=40
//! WatchdogSec=20
//! KillMode=mixed
//! Restart=on-failure
//! ```
//!
//! - `Type=notify` makes `systemctl start`, and units with `After=`, wait for `READY=1`, and not only until
//!   the process exists.
//! - `NotifyAccess=main` keeps children from reporting that the service is ready or alive.
//! - `TimeoutStopSec` has to be more than the budget, so that systemd does not kill a stop that is still in
//!   time. The [watchdog](crate::lifecycle::Lifecycle::watchdog) of the lifecycle comes first, and names what
//!   hung. [`Budget::detect`](crate::lifecycle::Budget::detect) reads it from the variable beside it.
//! - `WatchdogSec` has to be more than twice as long as the runtime may ever be blocked.
//! - `KillMode=mixed` sends SIGTERM to the service alone, which stops its children in its own order. By
//!   default all of them get it at once. What is left at the end is still killed.
//!
//! A start that takes long needs a `TimeoutStartSec`, because it is not extended.
//!
//! # Examples
//!
//! ```
//! use taskgroup::lifecycle::{Budget, Component, Lifecycle};
//! use taskgroup::process::systemd;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), taskgroup::BoxError> {
//! let report = Lifecycle::new("orders")
//!     .budget(Budget::detect())
//!     .component(Component::job("migrate", |_| async { Ok(()) }))
//!     .observe(systemd::observer())
//!     .run()
//!     .await?;
//! assert!(report.is_clean());
//! # Ok(())
//! # }
//! ```

mod socket;
mod progress;
mod outbox;
#[cfg(feature = "restart")]
mod handover;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::outbox::Outbox;
use self::socket::Socket;
use crate::group::lock::lock;
use crate::group::log;
use crate::lifecycle::Event;

#[cfg(feature = "restart")]
pub(crate) use self::handover::{handed_over, hold_back, let_go, reloaded, reloading};

/// How long to wait before trying a full socket again.
const FULL: Duration = Duration::from_millis(100);

/// How long to wait before trying a missing socket again.
const GONE: Duration = Duration::from_secs(1);

/// Returns an observer that tells [systemd](self) how a lifecycle starts and stops, for
/// [`Lifecycle::observe`].
///
/// This call reads the environment. It uses `NOTIFY_SOCKET`, a path or an abstract name that begins with `@`
/// (on Linux), and `WATCHDOG_USEC` with `WATCHDOG_PID`. An invalid value is logged at WARN, and counts as
/// unset.
///
/// It is for the outermost lifecycle of a process. Its task is spawned at the first event, and aborted when
/// the run has ended. systemd's watchdog then gets no more keep-alives.
///
/// [`Lifecycle::observe`]: crate::lifecycle::Lifecycle::observe
pub fn observer() -> impl FnMut(&Event) + Send + 'static {
    let socket = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
    let mut observer = socket.and_then(|address| Observer::new(&address, watchdog_from_env()));
    move |event| {
        if let Some(observer) = &mut observer {
            observer.on(event);
        }
    }
}

/// Returns the watchdog timeout that systemd sets for this process, if there is one.
fn watchdog_from_env() -> Option<Duration> {
    let micros = env::var("WATCHDOG_USEC").ok()?;
    let pid = env::var("WATCHDOG_PID").ok();
    // A process that takes over inherits the variable of the old one, and beats in its place.
    #[cfg(feature = "restart")]
    let pid = pid.filter(|_| !handover::takes_over());
    watchdog(&micros, pid.as_deref(), std::process::id()).unwrap_or_else(|wrong| {
        warn(&wrong);
        None
    })
}

fn watchdog(micros: &str, pid: Option<&str>, own: u32) -> Result<Option<Duration>, String> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return Ok(None);
    }
    match micros.parse() {
        Ok(0) => Ok(None),
        Ok(micros) => Ok(Some(Duration::from_micros(micros))),
        Err(_) => Err(format!("WATCHDOG_USEC is {micros:?}")),
    }
}

fn warn(what: &str) {
    log::guarded(|| tracing::warn!(target: "taskgroup", "systemd is not told: {what}"));
}

/// Aborts its task when it is dropped, which is when the run ends.
struct Observer {
    notifier: Arc<Notifier>,
    task: JoinSet<()>,
}

struct Notifier {
    socket: Socket,
    outbox: Mutex<Outbox>,
    /// Something is due earlier than the time that the task waits for.
    changed: Notify,
    has_warned: AtomicBool,
}

impl Observer {
    fn new(address: &OsStr, watchdog: Option<Duration>) -> Option<Self> {
        match Socket::open(address) {
            Ok(socket) => Some(Self {
                notifier: Arc::new(Notifier {
                    socket,
                    outbox: Mutex::new(Outbox::new(watchdog)),
                    changed: Notify::new(),
                    has_warned: AtomicBool::new(false),
                }),
                task: JoinSet::new(),
            }),
            Err(error) => {
                warn(&format!("NOTIFY_SOCKET is {address:?}: {error}"));
                None
            }
        }
    }

    fn on(&mut self, event: &Event) {
        if self.task.is_empty() {
            self.task.spawn(Arc::clone(&self.notifier).keep());
        }
        self.notifier.on(event);
    }
}

impl Notifier {
    fn on(&self, event: &Event) {
        let mut outbox = self.lock();
        let (now, before) = (Instant::now(), outbox.next());
        if outbox.on(event, now) {
            self.send(&mut outbox, now);
        }
        if outbox.next() != before {
            self.changed.notify_one();
        }
    }

    /// Does what is due at each time.
    async fn keep(self: Arc<Self>) {
        loop {
            match self.tick() {
                // Either of them is a reason to look again.
                Some(at) => drop(timeout_at(at, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    fn tick(&self) -> Option<Instant> {
        let mut outbox = self.lock();
        let now = Instant::now();
        if outbox.tick(now) {
            self.send(&mut outbox, now);
        }
        outbox.next()
    }

    /// Never blocks.
    fn send(&self, outbox: &mut Outbox, now: Instant) {
        #[cfg(feature = "restart")]
        match handover::turn() {
            handover::Turn::Ours => {}
            handover::Turn::NotYet => return outbox.refused(now, FULL),
            handover::Turn::Over => return outbox.sent(),
        }
        let Err(error) = self.socket.send(&outbox.text()) else {
            return outbox.sent();
        };
        let is_full = error.kind() == io::ErrorKind::WouldBlock;
        outbox.refused(now, if is_full { FULL } else { GONE });
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            warn(&error.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use tokio::time::sleep;

    use super::*;
    use crate::lifecycle::{Budget, Component, Context, Lifecycle};

    const SECOND: Duration = Duration::from_secs(1);

    /// The other end, at a path of its own.
    struct Manager {
        socket: UnixDatagram,
        path: PathBuf,
    }

    impl Manager {
        fn new(name: &str) -> Self {
            let file = format!("taskgroup-{}-{name}", std::process::id());
            let path = env::temp_dir().join(file);
            drop(std::fs::remove_file(&path));
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { socket, path }
        }

        fn observer(&self, watchdog: Option<Duration>) -> impl FnMut(&Event) + Send + 'static {
            let mut observer = Observer::new(self.path.as_os_str(), watchdog).unwrap();
            move |event| observer.on(event)
        }

        /// Sends until the socket has no room for any sender.
        fn fill(&self) {
            loop {
                // Each sender has its own limit.
                let sender = UnixDatagram::unbound().unwrap();
                sender.set_nonblocking(true).unwrap();
                if sender.send_to(b"full", &self.path).is_err() {
                    return;
                }
                while sender.send_to(b"full", &self.path).is_ok() {}
            }
        }

        /// Returns all messages that have come, each in one line.
        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 4096];
            let mut heard = Vec::new();
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                heard.push(text.trim_end().replace('\n', " | "));
            }
            heard
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.path));
        }
    }

    fn component(name: &'static str, stop: Duration) -> Component {
        Component::new(name, move |ctx: Context| async move {
            ctx.ready();
            ctx.stopping().await;
            Ok(sleep(stop).await)
        })
    }

    /// Runs, stops after `time`, and returns all messages. A queue holds at most ten.
    async fn stopped_after(lifecycle: Lifecycle, time: Duration, manager: &Manager) -> Vec<String> {
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        let stop = tokio::spawn(async move {
            assert_eq!(handle.ready().await, Ok(()));
            sleep(time).await;
            handle.stop("enough");
        });
        let mut heard = Vec::new();
        while !run.is_finished() {
            heard.extend(manager.heard());
            sleep(Duration::from_millis(10)).await;
        }
        stop.await.unwrap();
        run.await.unwrap().unwrap();
        heard.extend(manager.heard());
        heard
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        assert_eq!(watchdog("2000000", None, 7), Ok(Some(2 * SECOND)));
        assert_eq!(watchdog("2000000", Some("7"), 7), Ok(Some(2 * SECOND)));
        assert_eq!(watchdog("2000000", Some("8"), 7), Ok(None));
        assert_eq!(watchdog("2000000", Some("I"), 7), Ok(None));
        assert_eq!(watchdog("0", None, 7), Ok(None));
        assert_eq!(watchdog("soon", Some("8"), 7), Ok(None));
        assert!(watchdog("soon", Some("7"), 7).is_err());
        assert!(watchdog("-1", None, 7).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_manager_hears_every_step_in_words() {
        let manager = Manager::new("steps");
        let lifecycle = Lifecycle::new("orders")
            .budget(Budget::new(20 * SECOND).lame_duck(2 * SECOND))
            .component(component("db", SECOND))
            .component(component("http", 2 * SECOND).after(["db"]))
            .component(component("worker", 4 * SECOND).after(["db"]))
            .observe(manager.observer(None));

        assert_eq!(
            stopped_after(lifecycle, SECOND, &manager).await,
            [
                "STATUS=starting: waiting for db",
                "STATUS=starting: waiting for http",
                "STATUS=starting: waiting for http, worker",
                "STATUS=starting: waiting for worker",
                "READY=1 | STATUS=ready",
                "STOPPING=1 | EXTEND_TIMEOUT_USEC=10000000 | STATUS=stopping: cancelled on request: enough",
                "STATUS=lame duck: still serving, for 2s",
                "STATUS=draining: waiting for http",
                "STATUS=draining: waiting for http, worker",
                "STATUS=draining: waiting for worker",
                "EXTEND_TIMEOUT_USEC=10000000",
                "STATUS=draining: waiting for db",
                "STATUS=stopped in 7s",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stop_is_extended_in_time_and_never_beyond_the_budget() {
        let manager = Manager::new("extend");
        let lifecycle = Lifecycle::new("orders")
            .budget(21 * SECOND)
            .component(component("db", 3600 * SECOND))
            .observe(manager.observer(None));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        manager.heard();
        handle.stop("enough");
        let began = Instant::now();

        let mut until = Duration::ZERO;
        let mut count = 0;
        while !run.is_finished() {
            sleep(Duration::from_millis(10)).await;
            for message in manager.heard() {
                let Some(rest) = message.split("EXTEND_TIMEOUT_USEC=").nth(1) else {
                    continue;
                };
                let micros = rest.split(' ').next().unwrap().parse().unwrap();
                let at = began.elapsed();
                assert!(
                    count == 0 || at + SECOND / 2 < until,
                    "late: {at:?} of {until:?}"
                );
                until = at + Duration::from_micros(micros);
                assert!(until <= 22 * SECOND + SECOND / 10, "{until:?}");
                count += 1;
            }
        }
        assert!(count >= 4, "{count}");
        assert!(until > 21 * SECOND, "{until:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_every_half_of_its_time_until_all_is_over() {
        let manager = Manager::new("watchdog");
        let lifecycle = Lifecycle::new("orders")
            .budget(20 * SECOND)
            .component(component("db", 5 * SECOND))
            .observe(manager.observer(Some(2 * SECOND)));
        let time = 10 * SECOND + SECOND / 2;
        let heard = stopped_after(lifecycle, time, &manager).await;
        let is_fed = |message: &&String| message.contains("WATCHDOG=1");
        let fed = heard.iter().filter(is_fed).count();

        // At 0 s, 1 s, … 15 s.
        assert_eq!(fed, 16);
        sleep(10 * SECOND).await;
        assert_eq!(manager.heard(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_pauses_blocks_nothing_and_gets_the_last_message() {
        let manager = Manager::new("full");
        manager.fill();
        let lifecycle = Lifecycle::new("orders")
            .component(component("db", SECOND))
            .observe(manager.observer(Some(2 * SECOND)));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("enough");
        sleep(SECOND / 2).await;

        assert!(manager.heard().iter().all(|message| message == "full"));
        sleep(SECOND / 5).await;
        assert_eq!(
            manager.heard(),
            [
                "READY=1 | STOPPING=1 | EXTEND_TIMEOUT_USEC=10000000 | STATUS=draining: waiting for db | WATCHDOG=1"
            ]
        );
        assert_eq!(run.await.unwrap().unwrap().took(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_steps_are_few_messages() {
        let manager = Manager::new("thousand");
        let mut lifecycle = Lifecycle::new("orders").observe(manager.observer(None));
        for index in 0..1_000 {
            let name = format!("c{index}");
            lifecycle = lifecycle.component(Component::new(name, |ctx| async move {
                ctx.ready();
                Ok(ctx.stopping().await)
            }));
        }
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        let mut heard = manager.heard();
        handle.stop("enough");
        run.await.unwrap().unwrap();
        heard.extend(manager.heard());

        assert!(heard.len() < 50, "{heard:#?}");
        assert!(heard.iter().any(|message| message.contains("READY=1")));
        assert!(heard.last().unwrap().contains("STATUS=stopped in"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_gone_changes_nothing() {
        let manager = Manager::new("gone");
        std::fs::remove_file(&manager.path).unwrap();
        let lifecycle = Lifecycle::new("orders")
            .component(component("db", SECOND))
            .observe(manager.observer(Some(SECOND)));
        assert_eq!(stopped_after(lifecycle, SECOND, &manager).await, [""; 0]);
    }
}
