//! Checks deployment files against the stop of a service.
//!
//! A [`Checker`] knows the plan of a lifecycle. It reads Kubernetes manifests, systemd units, Dockerfiles, Compose files,
//! settings of HAProxy, nginx, ECS, Fly, Nomad, Cloud Run, Heroku and Prometheus, and returns [`Findings`]. The rules have the
//! ids D01 to D20, which `docs/production.md` lists.
//!
//! ```
//! use taskgroup::deploy::Checker;
//! use taskgroup::lifecycle::{Budget, Component, Lifecycle};
//!
//! # fn main() -> Result<(), taskgroup::BoxError> {
//! let http = Component::new("http", async |ctx| { ctx.ready(); Ok(ctx.stopping().await) });
//! let plan = Lifecycle::new("orders").budget(Budget::kubernetes()).component(http).plan()?;
//! let unit = "[Service]\nType=notify\nKillMode=mixed\nExecStart=/usr/bin/orders\nTimeoutStopSec=20\n";
//! let findings = Checker::new(&plan).check([("orders.service", unit)]);
//! assert!(findings.has_errors());
//! assert!(findings.to_string().contains("orders.service:5: error D01: 28s + 1s = 29s is more than 20s"));
//! # Ok(())
//! # }
//! ```
//!
//! [`Plan::forecast`] says how long a stop is likely to take, from the [`StopTimes`] of its components.

mod forecast;
mod finding;
mod source;
mod yaml;
mod facts;
mod command;
mod kubernetes;
mod unit;
mod balancer;
mod image;
mod platform;
mod rules;

use std::path::Path;
use std::time::Duration;

pub use self::finding::Finding;
pub use self::finding::Findings;
pub use self::finding::Severity;
pub use self::forecast::Forecast;
pub use self::forecast::StopTimes;

use self::facts::Facts;
use self::facts::Service;
use self::source::Format;
use self::source::Source;
use crate::group::signal::Signal;
use crate::lifecycle::Plan;

/// Compares deployment files with the stop that a plan describes.
///
/// The budget, the lame duck, the graces and the start timeouts come from the [`Plan`]. What a plan cannot say has a method here. A
/// value that is neither in a file nor given is assumed, and [`Findings::assumptions`] lists it.
#[must_use = "a checker does nothing until `check` is called"]
#[derive(Clone, Debug)]
pub struct Checker {
    service: Service,
}

impl Checker {
    /// Returns a checker for the service that `plan` describes.
    ///
    /// It expects the signals SIGINT and SIGTERM, a second signal that forces the exit, a watchdog that fires at the end of
    /// the budget, and servers that keep idle connections open forever. These are the defaults of this crate.
    pub fn new(plan: &Plan) -> Self {
        Self {
            service: Service::of(plan),
        }
    }

    /// Sets how long the slowest request takes that must be answered.
    ///
    /// Without it, the timeout of a balancer's request is taken as the upper bound.
    pub fn slowest_request(mut self, takes: Duration) -> Self {
        self.service.slowest_request = Some(takes);
        self
    }

    /// Sets after how long the servers close an idle connection.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.service.idle_timeout = Some(timeout);
        self
    }

    /// Sets the header timeout of servers that count it between two requests, as hyper's own does.
    ///
    /// The servers of this crate count theirs from the first byte of a request, so they do not need this.
    pub fn header_timeout_between_requests(mut self, timeout: Duration) -> Self {
        self.service.header_timeout = Some(timeout);
        self
    }

    /// Sets the signals that stop the service.
    pub fn signals(mut self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.service.signals = signals
            .into_iter()
            .map(|signal| signal.to_string())
            .collect();
        self
    }

    /// Sets whether a second signal ends the process at once.
    pub fn second_signal_forces(mut self, forces: bool) -> Self {
        self.service.second_signal_forces = forces;
        self
    }

    /// Sets after how long the watchdog ends the process, if that is not the end of the budget.
    pub fn watchdog(mut self, fires_after: Duration) -> Self {
        self.service.watchdog = fires_after;
        self
    }

    /// Sets the longest time for which the service blocks the thread that feeds systemd's watchdog. 0 by default.
    pub fn longest_block(mut self, takes: Duration) -> Self {
        self.service.longest_block = takes;
        self
    }

    /// Checks `files`, each a path and its text.
    ///
    /// The path decides the format, together with the text where the path says too little. Files that belong to one deployment are
    /// checked together: a rule may compare a manifest with the balancer in front of it. A file of an unknown format and a
    /// template that is not rendered are findings with the id `D00`.
    pub fn check<P, T>(&self, files: impl IntoIterator<Item = (P, T)>) -> Findings
    where
        P: AsRef<Path>,
        T: AsRef<str>,
    {
        let mut facts = Facts::default();
        let mut findings = Findings::default();
        for (path, text) in files {
            let source = Source::new(path.as_ref(), text.as_ref());
            if let Err(finding) = read(&source, &mut facts) {
                findings.push(finding);
            }
        }
        rules::check(&self.service, &facts, &mut findings);
        findings.sort();
        findings
    }
}

/// Reads one file into the facts.
fn read(source: &Source<'_>, facts: &mut Facts) -> Result<(), Finding> {
    if let Some(line) = source.template_line() {
        let what = "this is a template that is not rendered";
        return Err(source.refused(line, what, "check the output of the template engine"));
    }
    match source.format() {
        Some(Format::Yaml) => {
            for document in yaml::documents(source)? {
                if !platform::read_yaml(source, &document, facts) {
                    kubernetes::read(source, &document, facts);
                }
            }
        }
        Some(Format::Unit) => unit::read(source, facts),
        Some(Format::Haproxy) => balancer::read_haproxy(source, facts),
        Some(Format::Nginx) => balancer::read_nginx(source, facts),
        Some(Format::Dockerfile) => image::read(source, facts),
        Some(Format::Fly) => platform::read_fly(source, facts),
        Some(Format::Nomad) => platform::read_nomad(source, facts),
        Some(Format::Procfile) => platform::read_procfile(source, facts),
        None => {
            let change = "name it as its platform does";
            return Err(source.refused(1, "the format of this file is unknown", change));
        }
    }
    Ok(())
}
