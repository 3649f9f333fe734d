//! Detects what the process runs under, from its environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::IsTerminal;

/// Kubernetes sets it in every container.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";

/// Where a manifest repeats its `terminationGracePeriodSeconds`.
pub(super) const GRACE_PERIOD: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// Where a manifest repeats the time of its preStop hook.
pub(super) const PRE_STOP: &str = "PRE_STOP_SECONDS";

/// Where the other platforms' limits can be repeated.
pub(super) const STOP_TIMEOUT: &str = "STOP_TIMEOUT_SECONDS";

/// What each of the other platforms sets.
const OTHERS: [(&str, &str, Platform); 5] = [
    ("ECS_CONTAINER_METADATA_URI_V4", "ECS", Platform::Ecs),
    ("K_SERVICE", "Cloud Run", Platform::CloudRun),
    ("FLY_APP_NAME", "Fly", Platform::Fly),
    ("NOMAD_ALLOC_ID", "Nomad", Platform::Nomad),
    ("DYNO", "Heroku", Platform::Heroku),
];

/// The process that systemd has started. Older versions do not set it.
const MAIN_PROCESS: &str = "SYSTEMD_EXEC_PID";

/// systemd sets it for a unit of `Type=notify`.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Where a unit repeats its `TimeoutStopSec`.
pub(super) const TIMEOUT_STOP: &str = "TIMEOUT_STOP_SEC";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Kubernetes,
    Ecs,
    CloudRun,
    Fly,
    Nomad,
    Heroku,
    Systemd,
    Local,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) platform: Platform,
    pub(super) why: String,
    /// The variable with the limit of the platform, if it is set, and its value.
    pub(super) limit: Option<(&'static str, OsString)>,
    /// The same for the time of a hook.
    pub(super) pre_stop: Option<(&'static str, OsString)>,
}

/// Everything that the detection looks at.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) variables: HashMap<&'static str, OsString>,
    pub(super) pid: u32,
    /// Whether stdin or stderr is a terminal.
    pub(super) is_terminal: bool,
}

impl Surroundings {
    pub(super) fn now() -> Self {
        let names = [
            KUBERNETES,
            GRACE_PERIOD,
            MAIN_PROCESS,
            NOTIFY_SOCKET,
            TIMEOUT_STOP,
            PRE_STOP,
            STOP_TIMEOUT,
        ];
        let others = OTHERS.iter().map(|(variable, ..)| *variable);
        let read = |name| Some((name, std::env::var_os(name)?));
        Self {
            variables: names.into_iter().chain(others).filter_map(read).collect(),
            pid: std::process::id(),
            is_terminal: is_terminal(),
        }
    }

    /// The most certain comes first, since a pod may have a terminal, and a terminal may run in a unit.
    pub(super) fn found(&self) -> Found {
        if self.has(KUBERNETES) {
            let why = format!("Kubernetes: {KUBERNETES} is set");
            return self.platform(Platform::Kubernetes, why, Some(GRACE_PERIOD));
        }
        for (variable, name, platform) in OTHERS {
            if self.has(variable) {
                let why = format!("{name}: {variable} is set");
                return self.platform(platform, why, Some(STOP_TIMEOUT));
            }
        }
        // The processes that a unit starts inherit its variables, and a shell in a terminal is one of them.
        if self.is(MAIN_PROCESS, &self.pid.to_string()) {
            let why = format!("systemd: {MAIN_PROCESS} is this process");
            return self.platform(Platform::Systemd, why, Some(TIMEOUT_STOP));
        }
        if self.has(NOTIFY_SOCKET) {
            let why = format!("systemd: {NOTIFY_SOCKET} is set");
            return self.platform(Platform::Systemd, why, Some(TIMEOUT_STOP));
        }
        let why = match self.is_terminal {
            true => "a terminal: stdin or stderr is one",
            false => "no platform and no terminal",
        };
        self.platform(Platform::Local, why.to_owned(), None)
    }

    fn platform(&self, platform: Platform, why: String, limit: Option<&'static str>) -> Found {
        let value = |name| Some((name, self.variables.get(name)?.clone()));
        Found {
            platform,
            why,
            limit: limit.and_then(value),
            pre_stop: (platform == Platform::Kubernetes)
                .then_some(PRE_STOP)
                .and_then(value),
        }
    }

    fn has(&self, variable: &str) -> bool {
        self.variables
            .get(variable)
            .is_some_and(|value| !value.is_empty())
    }

    fn is(&self, variable: &str, value: &str) -> bool {
        self.variables.get(variable).is_some_and(|it| it == value)
    }
}

/// Returns whether a person may press Ctrl-C.
pub(in crate::lifecycle) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}
