//! What the files say, in the words of the rules and not of the platforms.

use std::time::Duration;

use super::source::At;
use super::source::Place;
use crate::lifecycle::Plan;
use crate::lifecycle::PlannedComponent;

/// What the service does at a stop.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) budget: Duration,
    pub(super) lame_duck: Duration,
    /// The longest grace of a component.
    pub(super) grace: Duration,
    /// How long the start may take.
    pub(super) start: Duration,
    pub(super) slowest_request: Option<Duration>,
    /// `None`: an idle connection stays open.
    pub(super) idle_timeout: Option<Duration>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) signals: Vec<String>,
    pub(super) second_signal_forces: bool,
    pub(super) watchdog: Duration,
    pub(super) longest_block: Duration,
}

impl Service {
    pub(super) fn of(plan: &Plan) -> Self {
        let budget = plan.budget();
        let longest_start = |level| {
            let at_level = plan
                .components()
                .filter(|component| component.start_level() == level);
            at_level.map(PlannedComponent::start_timeout).max()
        };
        let levels = (0..).map_while(|level| match level {
            0 => Some(longest_start(0).unwrap_or_default()),
            _ => longest_start(level),
        });
        let one_by_one = levels.fold(Duration::ZERO, Duration::saturating_add);
        Self {
            budget: budget.total(),
            lame_duck: budget.lame_duck_time(),
            grace: plan
                .components()
                .map(PlannedComponent::grace)
                .max()
                .unwrap_or_default(),
            start: budget.start_time().min(one_by_one),
            slowest_request: None,
            idle_timeout: None,
            header_timeout: None,
            signals: vec!["SIGINT".to_owned(), "SIGTERM".to_owned()],
            second_signal_forces: true,
            watchdog: budget.total(),
            longest_block: Duration::ZERO,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) limits: Vec<Limit>,
    pub(super) detections: Vec<Detection>,
    pub(super) request_timeouts: Vec<(String, At<Duration>)>,
    pub(super) idle: Vec<(String, At<Duration>)>,
    pub(super) commands: Vec<At<String>>,
    pub(super) stop_signals: Vec<At<String>>,
    pub(super) workloads: Vec<Workload>,
    pub(super) pod_budgets: Vec<PodBudget>,
    pub(super) autoscalers: Vec<(String, u64)>,
    pub(super) node_shutdowns: Vec<At<Duration>>,
    /// What sends a signal more than once: the platform, and whether it is certain.
    pub(super) repeated_signals: Vec<(String, bool, Place)>,
    pub(super) units: Vec<Unit>,
    pub(super) haproxies: Vec<Haproxy>,
    pub(super) images: Vec<Image>,
    pub(super) deregistrations: Vec<(String, At<Duration>)>,
    /// Platforms that deregister before they send the signal.
    pub(super) deregister_first: Vec<(String, Place)>,
    pub(super) scrapes: Vec<At<Duration>>,
}

/// After what time the platform kills.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) platform: String,
    pub(super) setting: &'static str,
    pub(super) total: At<Duration>,
    /// Whether the file says so, or the platform's default counts.
    pub(super) is_default: bool,
    pub(super) pre_stop: Duration,
    /// The variable that hands the limit to the process, and its value.
    pub(super) handed: Option<(&'static str, At<Duration>)>,
    /// The variable that hands over the time of the hook beside it.
    pub(super) handed_pre_stop: Option<At<Duration>>,
    /// The most that the platform allows, and its name.
    pub(super) ceiling: Option<(&'static str, Duration)>,
}

/// After what time a router sends nothing new.
#[derive(Debug)]
pub(super) struct Detection {
    pub(super) router: String,
    pub(super) time: At<Duration>,
    pub(super) pre_stop: Duration,
    pub(super) is_assumed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) place: Place,
    pub(super) path: Option<String>,
    pub(super) period: Duration,
    pub(super) failures: u32,
    pub(super) timeout: Duration,
    /// The grace of a pod that this probe has failed.
    pub(super) grace: Option<At<Duration>>,
}

/// A Deployment or its like.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) replicas: u64,
    pub(super) labels: Vec<(String, String)>,
    pub(super) pre_stop: Option<At<Duration>>,
    /// The program of an `exec` hook.
    pub(super) pre_stop_program: Option<At<String>>,
    pub(super) image: Option<String>,
    pub(super) grace: At<Duration>,
    pub(super) readiness: Option<Probe>,
    pub(super) liveness: Option<Probe>,
    pub(super) startup: Option<Probe>,
    pub(super) rollout: Rollout,
    pub(super) mesh: Option<Mesh>,
}

/// How replicas are replaced.
#[derive(Debug)]
pub(super) enum Rollout {
    Recreate(Place),
    Rolling {
        unavailable: At<u64>,
        surge: u64,
    },
    /// Something else than a Deployment.
    Other,
}

/// A mesh proxy that is a plain container beside the service.
#[derive(Debug)]
pub(super) enum Mesh {
    Istio {
        drain: At<Duration>,
        exits_when_idle: bool,
        minimum: Duration,
    },
    Linkerd {
        proxy_waits: At<Duration>,
        grace: At<Duration>,
    },
}

#[derive(Debug)]
pub(super) struct PodBudget {
    pub(super) place: Place,
    pub(super) min_available: Option<At<String>>,
    pub(super) max_unavailable: Option<At<String>>,
    pub(super) selector: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) kind: Option<At<String>>,
    pub(super) kill_mode: Option<At<String>>,
    pub(super) exec_stop: Option<At<String>>,
    pub(super) watchdog: Option<At<Duration>>,
    pub(super) start: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(super) struct Haproxy {
    pub(super) marked_down: Option<At<()>>,
    pub(super) servers: Option<Place>,
    pub(super) redispatch: bool,
    pub(super) retries: Option<At<u64>>,
    pub(super) hard_stop: Option<At<Duration>>,
}

#[derive(Debug)]
pub(super) struct Image {
    pub(super) base: At<String>,
    pub(super) stop_signal: Option<At<String>>,
    pub(super) starts: Option<At<String>>,
}

impl Image {
    /// Whether the image has neither a shell nor `sleep`.
    pub(super) fn is_bare(name: &str) -> bool {
        name == "scratch"
            || name.contains("distroless")
            || name.contains("cgr.dev/chainguard/static")
    }
}
