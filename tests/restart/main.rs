//! Restart in place, with real processes, under load, and with processes that die at every step.
//!
//! This binary runs itself again as the service, as tests/process does.

#[cfg(unix)]
mod at_every_step;
#[cfg(unix)]
mod fails;
#[cfg(unix)]
mod peer;
#[cfg(unix)]
mod hands_over;
#[cfg(unix)]
#[path = "../process/runner.rs"]
mod runner;
#[cfg(unix)]
mod service;
#[cfg(unix)]
mod told;
#[cfg(unix)]
mod world;

#[cfg(unix)]
fn main() -> taskgroup::Exit {
    match std::env::var(service::ROLE).as_deref() {
        Ok("service") => taskgroup::main(service::run),
        Ok(_) => taskgroup::main(service::ask),
        Err(_) => runner::run(&[
            at_every_step::TESTS,
            fails::TESTS,
            hands_over::TESTS,
            told::TESTS,
        ]),
    }
}

#[cfg(not(unix))]
fn main() {}
