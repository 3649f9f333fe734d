//! Real child processes: signals and exit statuses. Unix only.
//!
//! This binary runs itself again with a role in its environment, so `main` is both the runner of
//! the tests and the `main` of each child. libtest cannot do that, hence `harness = false`.

#[cfg(unix)]
mod asked;
#[cfg(unix)]
mod child;
#[cfg(all(unix, feature = "process"))]
mod children;
#[cfg(unix)]
mod ends;
#[cfg(unix)]
mod exit;
#[cfg(unix)]
mod hangs;
#[cfg(unix)]
mod lifecycle;
#[cfg(unix)]
mod lives;
#[cfg(unix)]
mod mains;
#[cfg(unix)]
mod platform;
#[cfg(unix)]
mod program;
#[cfg(unix)]
mod roles;
#[cfg(unix)]
mod runner;
#[cfg(unix)]
mod signals;
#[cfg(all(target_os = "linux", feature = "axum"))]
mod sockets;
#[cfg(all(unix, feature = "systemd"))]
mod systemd;
#[cfg(unix)]
mod watchdog;

#[cfg(unix)]
fn main() -> taskgroup::Exit {
    match std::env::var(child::ROLE) {
        Ok(role) => roles::play(&role),
        Err(_) => runner::run(&[
            #[cfg(feature = "process")]
            children::TESTS,
            exit::TESTS,
            lifecycle::TESTS,
            platform::TESTS,
            program::TESTS,
            signals::TESTS,
            #[cfg(all(target_os = "linux", feature = "axum"))]
            sockets::TESTS,
            #[cfg(feature = "systemd")]
            systemd::TESTS,
            watchdog::TESTS,
        ]),
    }
}

#[cfg(not(unix))]
fn main() {}
