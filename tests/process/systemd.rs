//! systemd as the service sees it: a datagram socket and some variables. Both sides are here.

use std::fs;
use std::future::pending;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::process::systemd;
use taskgroup::{Cause, Exit, Signals, TaskGroup};
use tokio::task::spawn_blocking;

use crate::child::Child;
use crate::roles::listen;
use crate::roles::log_to_stderr;
use crate::roles::runtime;
use crate::roles::say;
use crate::tests;

tests![
    l11_systemd_hears_of_a_start_and_of_a_long_stop,
    l22_a_reload_is_told_as_one_and_not_as_a_stop,
    l11_an_abstract_socket_will_do,
    l11_a_blocked_runtime_does_not_feed_systemds_watchdog,
    l11_the_watchdog_of_another_process_is_not_fed,
    l11_a_socket_that_nobody_reads_does_not_hold_up_the_stop,
    l11_without_a_socket_nothing_is_said,
    l11_a_bad_address_is_a_warning_and_no_failure,
];

/// What the stop of the child may take.
const BUDGET: Duration = Duration::from_secs(6);

/// A message that does not come is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

const HALF_A_SECOND: (&str, &str) = ("WATCHDOG_USEC", "500000");

pub(crate) fn play(role: &str) -> Exit {
    log_to_stderr();
    runtime().block_on(async {
        match role {
            "systemd_service" => service().await,
            "systemd_reload" => reloaded().await,
            "systemd_blocked" => {
                let blocks = async {
                    spawn_blocking(listen).await.unwrap();
                    for _ in 0..2 {
                        tokio::spawn(async { hang() });
                    }
                    pending::<()>().await;
                };
                tokio::join!(service(), blocks).0
            }
            _ => unreachable!("no role {role}"),
        }
    })
}

/// Stops when it is told a line.
async fn service() -> Exit {
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        say("stopping");
        Ok(spawn_blocking(listen).await?)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(BUDGET)
        .component(worker)
        .stop_on(Signals::terminate().unwrap())
        .observe(systemd::observer());
    let handle = lifecycle.handle();
    tokio::spawn(async move {
        let _ = handle.ready().await;
        say("ready");
    });
    Exit::from(lifecycle.run().await)
}

/// Is reloaded once, when it is told a line, and stops on a signal.
async fn reloaded() -> Exit {
    let mut group = TaskGroup::new();
    group.cancel_on(Signals::terminate().unwrap());
    for round in 0.. {
        let worker = Component::new("worker", |ctx| async move {
            ctx.ready();
            Ok(ctx.stopping().await)
        });
        let lifecycle = Lifecycle::new("orders")
            .component(worker)
            .stop_on(group.spawner())
            .stop_on(async move {
                match round {
                    0 => spawn_blocking(listen).await.unwrap(),
                    _ => pending().await,
                }
                Cause::Reload
            })
            .observe(systemd::observer());
        let report = lifecycle.run().await.unwrap();
        if report.cause != Cause::Reload {
            assert!(group.wait().await.is_ok());
            return Exit::from(report);
        }
    }
    unreachable!()
}

fn hang() {
    say("hanging");
    loop {
        thread::sleep(Duration::MAX);
    }
}

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = temporary(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    fn start(&self, role: &str, variables: &[(&str, &str)]) -> Child {
        start(role, self.path.to_str(), variables)
    }

    /// Waits for the next message.
    fn message(&self) -> io::Result<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer)?;
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for a message with this in it, and returns what came until then, too.
    #[track_caller]
    fn expect(&self, part: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(part) {
            match self.message() {
                Ok(message) => heard.push_str(&message),
                Err(error) => panic!("no {part:?} but {error} after {heard:?}"),
            }
        }
        heard
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn temporary(name: &str) -> PathBuf {
    let file = format!("taskgroup-{}-process-{name}", std::process::id());
    let path = std::env::temp_dir().join(file);
    drop(fs::remove_file(&path));
    path
}

fn start(role: &str, socket: Option<&str>, variables: &[(&str, &str)]) -> Child {
    let socket = socket.map(|socket| ("NOTIFY_SOCKET", socket));
    let variables: Vec<_> = socket.iter().chain(variables).copied().collect();
    Child::start_in(role, &variables)
}

fn l11_systemd_hears_of_a_start_and_of_a_long_stop() {
    let manager = Manager::new("long");
    let mut child = manager.start("systemd_service", &[HALF_A_SECOND]);
    let heard = manager.expect("READY=1\n");
    assert!(
        heard.contains("STATUS=starting: waiting for worker\n"),
        "{heard}"
    );
    assert!(heard.contains("STATUS=ready\n"), "{heard}");
    manager.expect("WATCHDOG=1\n");

    child.expect("ready").send(Signal::TERM).expect("stopping");
    let heard = manager.expect("STOPPING=1\n");
    assert!(!heard.contains("EXTEND_TIMEOUT_USEC=1"), "{heard}");
    assert!(heard.contains("EXTEND_TIMEOUT_USEC=7000000\n"), "{heard}");
    assert!(heard.contains("STATUS=stopping: "), "{heard}");
    assert!(heard.contains("SIGTERM"), "{heard}");
    manager.expect("STATUS=draining: waiting for worker\n");
    manager.expect("WATCHDOG=1\n");
    // Before the seven seconds are over, and for what is left of the six and one more.
    let heard = manager.expect("EXTEND_TIMEOUT_USEC=");
    let extended = heard.split("EXTEND_TIMEOUT_USEC=").nth(1).unwrap();
    let micros: u64 = extended.lines().next().unwrap().parse().unwrap();
    assert!((1_000_000..=3_500_000).contains(&micros), "{micros}");

    child.tell("go");
    manager.expect("STATUS=stopped in ");
    child.expect_code(0);
}

fn l22_a_reload_is_told_as_one_and_not_as_a_stop() {
    let manager = Manager::new("reload");
    let before = now();
    let mut child = manager.start("systemd_reload", &[]);
    manager.expect("READY=1\n");
    child.tell("reload");
    let heard = manager.expect("READY=1\n");
    assert!(heard.contains("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    assert!(!heard.contains("STOPPING=1"), "{heard}");
    let since = heard.split("MONOTONIC_USEC=").nth(1).unwrap();
    let since: u128 = since.lines().next().unwrap().parse().unwrap();
    assert!((before..=now()).contains(&since), "{before} {since}");

    child.send(Signal::TERM);
    let heard = manager.expect("STOPPING=1\n");
    assert!(!heard.contains("RELOADING=1"), "{heard}");
    child.expect_code(0);
}

/// The clock of systemd, in microseconds.
fn now() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap().as_micros()
}

fn l11_an_abstract_socket_will_do() {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;

        let name = format!("taskgroup-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let path = PathBuf::new();
        let manager = Manager { socket, path };
        let mut child = start("systemd_service", Some(&format!("@{name}")), &[]);
        manager.expect("READY=1\n");
        child.send(Signal::TERM).tell("go");
        manager.expect("STOPPING=1\n");
        child.expect_code(0);
    }
}

fn l11_a_blocked_runtime_does_not_feed_systemds_watchdog() {
    let manager = Manager::new("blocked");
    let mut child = manager.start("systemd_blocked", &[HALF_A_SECOND]);
    for _ in 0..3 {
        manager.expect("WATCHDOG=1\n");
    }
    child.expect("ready").tell("block");
    child.expect("hanging").expect("hanging");

    // What was on its way, and then nothing for four times as long as it would be fed.
    let (long_enough, soon) = (Duration::from_secs(1), Duration::from_millis(1));
    manager.socket.set_read_timeout(Some(soon)).unwrap();
    while manager.message().is_ok() {}
    manager.socket.set_read_timeout(Some(long_enough)).unwrap();
    let silence = manager.message().unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
}

fn l11_the_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new("other");
    let short = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut child = manager.start("systemd_service", &short);
    child.expect("ready").send(Signal::TERM).expect("stopping");
    child.tell("go");

    let heard = manager.expect("STATUS=stopped in ");
    assert!(heard.contains("READY=1\n"), "{heard}");
    assert!(!heard.contains("WATCHDOG"), "{heard}");
    child.expect_code(0);
}

fn l11_a_socket_that_nobody_reads_does_not_hold_up_the_stop() {
    let manager = Manager::new("unread");
    loop {
        // A sender has a limit of its own.
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        if sender.send_to(b"full", &manager.path).is_err() {
            break;
        }
        while sender.send_to(b"full", &manager.path).is_ok() {}
    }
    let mut child = manager.start("systemd_service", &[HALF_A_SECOND]);
    child.expect("ready").send(Signal::TERM).expect("stopping");
    child.tell("go").expect_code(0);

    let logged = child.rest_of_stderr();
    assert_eq!(logged.matches("systemd is not told").count(), 1, "{logged}");
    manager.socket.set_nonblocking(true).unwrap();
    while let Ok(message) = manager.message() {
        assert_eq!(message, "full");
    }
}

fn l11_without_a_socket_nothing_is_said() {
    for socket in [None, Some("")] {
        let mut child = start("systemd_service", socket, &[HALF_A_SECOND]);
        child.expect("ready").send(Signal::TERM).expect("stopping");
        child.tell("go").expect_code(0);
        let logged = child.rest_of_stderr();
        assert!(!logged.contains("systemd"), "{logged}");
    }
}

fn l11_a_bad_address_is_a_warning_and_no_failure() {
    let bad = [("WATCHDOG_USEC", "soon")];
    let mut child = start("systemd_service", Some("no/path"), &bad);
    let warning = child.expect_logged("NOTIFY_SOCKET is \"no/path\"");
    assert!(warning.contains("WARN"), "{warning}");
    child.expect("ready").send(Signal::TERM).expect("stopping");
    child.tell("go").expect_code(0);
}
