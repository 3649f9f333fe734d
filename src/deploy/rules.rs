//! The rules D01 to D20. `docs/production.md` lists them.
//!
//! The file is longer than others of this crate, so that the twenty rules can be read side by side.
//!
//! The names in the formulas: *P* is the time of the preStop hook, *B* the budget, *E* one second for the delivery of the signal and
//! the exit, *G* the limit of the platform, *L* the lame duck.

use std::time::Duration;

use super::command;
use super::facts::Facts;
use super::facts::Image;
use super::facts::Mesh;
use super::facts::Probe;
use super::facts::Rollout;
use super::facts::Service;
use super::facts::Workload;
use super::finding::Finding;
use super::finding::Findings;
use super::finding::Severity;
use super::finding::Severity::Error;
use super::finding::Severity::Warning;
use super::kubernetes::share_of;
use super::source::Place;
use crate::group::time::Rounded;

/// For the delivery of the signal, and for the exit.
const EXIT: Duration = Duration::from_secs(1);

/// Checks every rule.
pub(super) fn check(service: &Service, facts: &Facts, findings: &mut Findings) {
    let mut rules = Rules {
        service,
        facts,
        findings,
    };
    rules.the_stop_fits();
    rules.the_number_handed_over_is_the_one_that_counts();
    rules.the_stop_is_noticed();
    rules.there_is_one_wait();
    rules.requests_finish();
    rules.the_balancer_closes_idle_connections_first();
    rules.a_header_timeout_does_not_close_idle_connections();
    rules.the_mesh_outlives_the_service();
    rules.liveness_is_not_readiness();
    rules.the_signal_arrives();
    rules.the_hook_can_run();
    rules.a_rollout_keeps_capacity();
    rules.a_node_can_be_drained();
    rules.the_platform_allows_it();
    rules.the_watchdog_comes_first();
    rules.repeated_signals_do_no_harm();
    rules.the_unit_waits();
    rules.the_balancer_lets_requests_finish();
    rules.deregistration_and_start_have_time();
    rules.the_stop_is_scraped();
}

struct Rules<'a> {
    service: &'a Service,
    facts: &'a Facts,
    findings: &'a mut Findings,
}

/// A time as it is printed.
fn time(duration: Duration) -> String {
    Rounded(duration).to_string()
}

impl Rules<'_> {
    fn find(
        &mut self,
        severity: Severity,
        id: &'static str,
        place: &Place,
        found: String,
        change: impl Into<String>,
    ) {
        let place = (place.file.as_path(), place.line);
        self.findings
            .push(Finding::new(severity, id, place, found, change));
    }

    /// `P + B + E` in numbers, without the parts that are zero.
    fn sum(&self, pre_stop: Duration) -> (Duration, String) {
        let parts = [pre_stop, self.service.budget, EXIT];
        let total = parts
            .iter()
            .fold(Duration::ZERO, |sum, part| sum.saturating_add(*part));
        let parts: Vec<_> = parts
            .iter()
            .filter(|part| !part.is_zero())
            .map(|part| time(*part))
            .collect();
        (total, format!("{} = {}", parts.join(" + "), time(total)))
    }

    /// D01: `P + B + E ≤ G`.
    fn the_stop_fits(&mut self) {
        for limit in &self.facts.limits {
            let (needed, sum) = self.sum(limit.pre_stop);
            let (total, setting) = (limit.total.value, limit.setting);
            if needed > total {
                let default = if limit.is_default { " by default" } else { "" };
                let found = format!(
                    "{sum} is more than {}, {}'s {setting}{default}",
                    time(total),
                    limit.platform
                );
                let change = format!("set {setting} to {} or shorten the budget", time(needed));
                self.find(Error, "D01", &limit.total.place, found, change);
            }
        }
    }

    /// D02: the variable says `G − P`, or `G` with `P` in a variable of its own.
    fn the_number_handed_over_is_the_one_that_counts(&mut self) {
        for limit in &self.facts.limits {
            let Some((variable, handed)) = &limit.handed else {
                continue;
            };
            let has = limit.total.value.saturating_sub(limit.pre_stop);
            let hook = limit.handed_pre_stop.as_ref();
            let hook = hook.map_or(Duration::ZERO, |hook| hook.value);
            let has = has.saturating_add(hook);
            if handed.value != has {
                let with_hook = match hook {
                    Duration::ZERO => String::new(),
                    hook => format!(" with PRE_STOP_SECONDS {}", time(hook)),
                };
                let found = format!(
                    "{variable} is {}{with_hook}, and the process has {} - {} = {}",
                    time(handed.value),
                    time(limit.total.value),
                    time(limit.pre_stop),
                    time(has.saturating_sub(hook))
                );
                self.find(
                    Error,
                    "D02",
                    &handed.place,
                    found,
                    format!("set it to {}", has.as_secs_f64()),
                );
            }
        }
    }

    /// D03: `P + L ≥ D`.
    fn the_stop_is_noticed(&mut self) {
        for detection in &self.facts.detections {
            let (waits, needed) = (
                detection.pre_stop.saturating_add(self.service.lame_duck),
                detection.time.value,
            );
            let router = &detection.router;
            if detection.is_assumed {
                self.findings
                    .assume(format!("{router} notices a stop after {}", time(needed)));
            }
            if waits < needed {
                let severity = if detection.is_assumed { Warning } else { Error };
                let found = format!(
                    "preStop {} + lame duck {} = {} is less than the {} after which {router} notices the stop",
                    time(detection.pre_stop),
                    time(self.service.lame_duck),
                    time(waits),
                    time(needed)
                );
                let change = format!(
                    "set the lame duck to {}",
                    time(needed.saturating_sub(detection.pre_stop))
                );
                self.find(severity, "D03", &detection.time.place, found, change);
            }
        }
    }

    /// D04: not both a preStop and a lame duck.
    fn there_is_one_wait(&mut self) {
        for workload in &self.facts.workloads {
            let Some(pre_stop) = &workload.pre_stop else {
                continue;
            };
            let lame_duck = self.service.lame_duck;
            if !pre_stop.value.is_zero() && !lame_duck.is_zero() && workload.mesh.is_none() {
                let found = format!(
                    "preStop {} and lame duck {} add up to {}",
                    time(pre_stop.value),
                    time(lame_duck),
                    time(pre_stop.value.saturating_add(lame_duck))
                );
                let change = "remove the preStop, which covers only the stops of the platform";
                self.find(Warning, "D04", &pre_stop.place, found, change);
            }
        }
    }

    /// The slowest request, or the least upper bound in a file.
    fn slowest_request(&mut self) -> Option<(Duration, Option<Place>, String)> {
        if let Some(takes) = self.service.slowest_request {
            return Some((takes, None, "the slowest request".to_owned()));
        }
        let bound = self
            .facts
            .request_timeouts
            .iter()
            .min_by_key(|(_, limit)| limit.value)?;
        let (what, limit) = bound;
        self.findings.assume(format!(
            "a request takes {} at most, {what}",
            time(limit.value)
        ));
        Some((limit.value, Some(limit.place.clone()), what.clone()))
    }

    /// D05: `g ≥ Q`.
    fn requests_finish(&mut self) {
        let Some((slowest, place, what)) = self.slowest_request() else {
            return;
        };
        let place = place.or_else(|| {
            self.facts
                .limits
                .first()
                .map(|limit| limit.total.place.clone())
        });
        let Some(place) = place else { return };
        if self.service.grace < slowest {
            let found = format!(
                "the longest grace of a component, {}, is less than {}, {what}",
                time(self.service.grace),
                time(slowest)
            );
            self.find(
                Warning,
                "D05",
                &place,
                found,
                "lengthen the grace, or shorten the timeout of a request",
            );
        }
    }

    /// What an idle timeout has to be at least: `Ib + max(5, min(15, Ib / 4))`.
    fn idle_needed(kept: Duration) -> Duration {
        let (least, most) = (Duration::from_secs(5), Duration::from_secs(15));
        kept.saturating_add((kept / 4).min(most).max(least))
    }

    /// D06: `Is ≥ Ib + max(5, min(15, Ib / 4))`.
    fn the_balancer_closes_idle_connections_first(&mut self) {
        let Some(timeout) = self.service.idle_timeout else {
            return;
        };
        for (balancer, kept) in &self.facts.idle {
            let needed = Self::idle_needed(kept.value);
            if timeout < needed {
                let found = format!(
                    "the idle timeout of the service, {}, is less than {}, and {balancer} keeps an idle connection for {}",
                    time(timeout),
                    time(needed),
                    time(kept.value)
                );
                let change = format!(
                    "set the idle timeout to {}, or let the balancer close earlier",
                    time(needed)
                );
                self.find(Error, "D06", &kept.place, found, change);
            }
        }
    }

    /// D07: as D06, for a header timeout that runs between requests.
    fn a_header_timeout_does_not_close_idle_connections(&mut self) {
        let Some(timeout) = self.service.header_timeout else {
            return;
        };
        for (balancer, kept) in &self.facts.idle {
            let needed = Self::idle_needed(kept.value);
            if timeout < needed {
                let found = format!(
                    "the header timeout, {}, runs between requests and is less than {}, and {balancer} keeps an idle connection for {}",
                    time(timeout),
                    time(needed),
                    time(kept.value)
                );
                let change = "count the header timeout from the first byte of a request";
                self.find(Error, "D07", &kept.place, found, change);
            }
        }
    }

    /// D08: a proxy that is a plain container outlives the service.
    fn the_mesh_outlives_the_service(&mut self) {
        for workload in &self.facts.workloads {
            let pre_stop = workload
                .pre_stop
                .as_ref()
                .map_or(Duration::ZERO, |time| time.value);
            let service = pre_stop.saturating_add(self.service.budget);
            match &workload.mesh {
                Some(Mesh::Istio {
                    drain,
                    exits_when_idle,
                    minimum,
                }) => {
                    let waits = if *exits_when_idle {
                        *minimum >= pre_stop
                    } else {
                        drain.value >= service
                    };
                    if !waits {
                        let (has, needs) = if *exits_when_idle {
                            (*minimum, pre_stop)
                        } else {
                            (drain.value, service)
                        };
                        let found = format!(
                            "the proxy drains for {}, and the service needs {}",
                            time(has),
                            time(needs)
                        );
                        let change = "use native sidecars, or set terminationDrainDuration to what the service needs";
                        self.find(Error, "D08", &drain.place, found, change);
                    }
                    self.mesh_fits(workload, drain.value, &drain.place);
                }
                Some(Mesh::Linkerd { proxy_waits, grace }) => {
                    if proxy_waits.value <= pre_stop {
                        let found = format!(
                            "the proxy waits for {} before it stops, and the preStop of the service takes {}",
                            time(proxy_waits.value),
                            time(pre_stop)
                        );
                        let change =
                            "use native sidecars, or set proxy-wait-before-exit-seconds to more";
                        self.find(Error, "D08", &proxy_waits.place, found, change);
                    }
                    self.mesh_fits(workload, grace.value, &grace.place);
                }
                None => {}
            }
        }
    }

    fn mesh_fits(&mut self, workload: &Workload, drain: Duration, place: &Place) {
        if drain > workload.grace.value {
            let found = format!(
                "the proxy drains for {}, and the pod is killed after {}",
                time(drain),
                time(workload.grace.value)
            );
            self.find(
                Error,
                "D08",
                place,
                found,
                "shorten the drain of the proxy, or lengthen the grace period",
            );
        }
    }

    /// D09: different paths, and a liveness probe that stays 200 in the drain.
    fn liveness_is_not_readiness(&mut self) {
        for workload in &self.facts.workloads {
            let Some(liveness) = &workload.liveness else {
                continue;
            };
            let path = liveness.path.as_deref();
            let same = workload
                .readiness
                .as_ref()
                .and_then(|probe| probe.path.as_deref())
                == path;
            if path.is_some() && (same || path.is_some_and(|path| path.ends_with("/readyz"))) {
                let found = format!(
                    "the liveness probe asks `{}`, which is 503 in the drain",
                    path.unwrap_or_default()
                );
                self.find(Error, "D09", &liveness.place, found, "ask `/livez`");
            }
            let Some(grace) = &liveness.grace else {
                continue;
            };
            let (needed, sum) = self.sum(
                workload
                    .pre_stop
                    .as_ref()
                    .map_or(Duration::ZERO, |time| time.value),
            );
            if needed > grace.value {
                let found = format!(
                    "{sum} is more than {}, the probe's own grace period",
                    time(grace.value)
                );
                self.find(
                    Error,
                    "D09",
                    &grace.place,
                    found,
                    format!("set it to {}", needed.as_secs_f64()),
                );
            }
        }
    }

    /// D10: no shell in between, and a signal that is registered.
    fn the_signal_arrives(&mut self) {
        for started in &self.facts.commands {
            if let Some(why) = command::swallows_signal(&started.value) {
                let change = "start the program in the exec form, or with `exec` in the shell";
                self.find(Error, "D10", &started.place, why, change);
            }
        }
        for signal in &self.facts.stop_signals {
            let name = signal.value.trim_matches('"').to_ascii_uppercase();
            let name = if name.starts_with("SIG") {
                name
            } else {
                format!("SIG{name}")
            };
            let balancer = self
                .facts
                .images
                .iter()
                .any(|image| image.stop_signal.as_ref() == Some(signal) && runs_nginx(image));
            if !self.service.signals.contains(&name) && !balancer {
                let found = format!(
                    "{name} is sent, and the service has registered {}",
                    self.service.signals.join(" and ")
                );
                self.find(
                    Error,
                    "D10",
                    &signal.place,
                    found,
                    "send SIGTERM, or register the signal",
                );
            }
        }
    }

    /// D11: the program of the hook is in the image.
    fn the_hook_can_run(&mut self) {
        let base = self
            .facts
            .images
            .last()
            .map(|image| image.base.value.as_str());
        for workload in &self.facts.workloads {
            let Some(program) = &workload.pre_stop_program else {
                continue;
            };
            let image = workload
                .image
                .as_deref()
                .filter(|image| Image::is_bare(image));
            let Some(image) = image.or(base.filter(|base| Image::is_bare(base))) else {
                continue;
            };
            if ["sh", "bash", "sleep", "ash", "env"].contains(&program.value.as_str()) {
                let found = format!(
                    "the hook runs `{}`, which the image `{image}` does not have",
                    program.value
                );
                self.find(
                    Error,
                    "D11",
                    &program.place,
                    found,
                    "use the `sleep` action of the hook",
                );
            }
        }
    }

    /// D12: `N − unavailable ≥ 1`.
    fn a_rollout_keeps_capacity(&mut self) {
        for workload in &self.facts.workloads {
            match &workload.rollout {
                Rollout::Recreate(place) => {
                    let found = "Recreate stops all pods before it starts new ones".to_owned();
                    self.find(
                        Warning,
                        "D12",
                        place,
                        found,
                        "use RollingUpdate with maxUnavailable 0 and maxSurge 1",
                    );
                }
                Rollout::Rolling { unavailable, surge } => {
                    let left = workload.replicas.saturating_sub(unavailable.value);
                    let few = workload.replicas <= 3 && unavailable.value > 0;
                    if workload.replicas > 0 && (left == 0 || few) {
                        let found = format!(
                            "{} replicas - {} unavailable leave {left} in a rollout",
                            workload.replicas, unavailable.value
                        );
                        self.find(
                            Error,
                            "D12",
                            &unavailable.place,
                            found,
                            "set maxUnavailable to 0 and maxSurge to 1",
                        );
                    } else if unavailable.value == 0 && *surge == 0 {
                        let found =
                            "maxUnavailable 0 and maxSurge 0 let no rollout begin".to_owned();
                        self.find(Error, "D12", &unavailable.place, found, "set maxSurge to 1");
                    }
                }
                Rollout::Other => {}
            }
        }
    }

    /// D13: a disruption budget that allows one, for pods that exist.
    fn a_node_can_be_drained(&mut self) {
        for budget in &self.facts.pod_budgets {
            let selects = |workload: &&Workload| {
                budget
                    .selector
                    .iter()
                    .all(|label| workload.labels.contains(label))
            };
            let selected = self.facts.workloads.iter().find(selects);
            let Some(workload) = selected.filter(|_| !budget.selector.is_empty()) else {
                if !self.facts.workloads.is_empty() {
                    let found = "the selector of the PodDisruptionBudget matches no pod".to_owned();
                    self.find(
                        Error,
                        "D13",
                        &budget.place,
                        found,
                        "use the labels of the pods",
                    );
                }
                continue;
            };
            let scaled = self
                .facts
                .autoscalers
                .iter()
                .find(|(name, _)| *name == workload.name);
            let least = scaled.map_or(workload.replicas, |(_, least)| *least);
            if let Some(min) = &budget.min_available {
                let kept = share_of(least, &min.value, true).unwrap_or(0);
                if kept >= least {
                    let found = format!(
                        "minAvailable {} of {least} replicas allows no disruption",
                        min.value
                    );
                    self.find(Error, "D13", &min.place, found, "use maxUnavailable 1");
                }
            }
            if let Some(max) = &budget.max_unavailable {
                if share_of(least, &max.value, true) == Some(0) {
                    let found = format!("maxUnavailable {} allows no disruption", max.value);
                    self.find(Error, "D13", &max.place, found, "use maxUnavailable 1");
                }
            }
        }
    }

    /// D14: the bounds of the platform.
    fn the_platform_allows_it(&mut self) {
        for limit in &self.facts.limits {
            let Some((platform, most)) = limit.ceiling else {
                continue;
            };
            if limit.total.value > most {
                let found = format!(
                    "{} {} is more than {}, the most of {platform}",
                    limit.setting,
                    time(limit.total.value),
                    time(most)
                );
                self.find(
                    Error,
                    "D14",
                    &limit.total.place,
                    found,
                    "shorten it, and the budget with it",
                );
            }
        }
        for workload in &self.facts.workloads {
            let most = Duration::from_secs(600);
            if workload.grace.value > most {
                let found = format!(
                    "the autoscaler of a cluster waits for 10min, and not for {}",
                    time(workload.grace.value)
                );
                self.find(
                    Warning,
                    "D14",
                    &workload.grace.place,
                    found,
                    "shorten terminationGracePeriodSeconds",
                );
            }
        }
        let hooks = self
            .facts
            .workloads
            .iter()
            .filter_map(|workload| workload.pre_stop.as_ref());
        let pre_stop = hooks.map(|hook| hook.value).max().unwrap_or_default();
        for phase in &self.facts.node_shutdowns {
            let (needed, sum) = self.sum(pre_stop);
            if needed > phase.value {
                let found = format!(
                    "{sum} is more than {}, which a node leaves to its pods",
                    time(phase.value)
                );
                self.find(
                    Error,
                    "D14",
                    &phase.place,
                    found,
                    "lengthen shutdownGracePeriod",
                );
            }
        }
    }

    /// D15: the watchdog fires before the platform kills.
    fn the_watchdog_comes_first(&mut self) {
        for limit in &self.facts.limits {
            let killed_after = limit.total.value.saturating_sub(limit.pre_stop);
            if self.service.watchdog > self.service.budget && self.service.watchdog >= killed_after
            {
                let found = format!(
                    "the watchdog fires after {}, and {} kills after {}",
                    time(self.service.watchdog),
                    limit.platform,
                    time(killed_after)
                );
                self.find(
                    Error,
                    "D15",
                    &limit.total.place,
                    found,
                    "let the watchdog fire at the end of the budget",
                );
            }
        }
    }

    /// D16: a second signal that the platform sends forces nothing.
    fn repeated_signals_do_no_harm(&mut self) {
        if !self.service.second_signal_forces {
            return;
        }
        for (platform, certain, place) in &self.facts.repeated_signals {
            let severity = if *certain { Error } else { Warning };
            let found = format!(
                "{platform} may send the signal more than once, and a second one ends the service at once"
            );
            let change = match certain {
                true => "let only SIGINT force the exit",
                false => "use KillMode=mixed",
            };
            self.find(severity, "D16", place, found, change);
        }
    }

    /// D17: the unit of systemd.
    fn the_unit_waits(&mut self) {
        for unit in &self.facts.units {
            if let Some(mode) = unit
                .kill_mode
                .as_ref()
                .filter(|mode| !["mixed", "control-group"].contains(&mode.value.as_str()))
            {
                let found = format!("KillMode={} leaves processes behind", mode.value);
                self.find(Error, "D17", &mode.place, found, "use KillMode=mixed");
            }
            if let Some(stop) = &unit.exec_stop {
                let found = format!("systemd signals what is left when `{}` returns", stop.value);
                self.find(
                    Error,
                    "D17",
                    &stop.place,
                    found,
                    "remove ExecStop, since SIGTERM stops the service",
                );
            }
            match &unit.kind {
                Some(kind) if kind.value == "notify-reload" => {
                    let found =
                        "Type=notify-reload needs systemd 253, and older versions ignore it"
                            .to_owned();
                    self.find(
                        Warning,
                        "D17",
                        &kind.place,
                        found,
                        "use Type=notify, or check the version",
                    );
                }
                Some(kind) if !TYPES.contains(&kind.value.as_str()) => {
                    let found = format!("Type={} is unknown to systemd", kind.value);
                    self.find(Error, "D17", &kind.place, found, "use Type=notify");
                }
                _ => {}
            }
            if let Some(watchdog) = &unit.watchdog {
                let needed = self.service.longest_block.saturating_mul(2);
                if watchdog.value < needed {
                    let found = format!(
                        "WatchdogSec {} is less than 2 × {}, the longest block",
                        time(watchdog.value),
                        time(self.service.longest_block)
                    );
                    self.find(
                        Error,
                        "D17",
                        &watchdog.place,
                        found,
                        format!("set it to {}", time(needed)),
                    );
                }
            }
            if let Some(start) = unit
                .start
                .as_ref()
                .filter(|start| start.value < self.service.start)
            {
                let found = format!(
                    "TimeoutStartSec {} is less than the start may take, {}",
                    time(start.value),
                    time(self.service.start)
                );
                self.find(
                    Error,
                    "D17",
                    &start.place,
                    found,
                    "lengthen it, or set a start deadline in the budget",
                );
            }
        }
    }

    /// D18: the balancer.
    fn the_balancer_lets_requests_finish(&mut self) {
        let slowest = self.slowest_request();
        for haproxy in &self.facts.haproxies {
            if let Some(marked) = &haproxy.marked_down {
                let found =
                    "`on-marked-down shutdown-sessions` cuts the requests of the drain".to_owned();
                self.find(Error, "D18", &marked.place, found, "remove it");
            }
            let Some(servers) = &haproxy.servers else {
                continue;
            };
            if !haproxy.redispatch {
                let found = "without `option redispatch` a retry goes to the server that refused"
                    .to_owned();
                self.find(Warning, "D18", servers, found, "add `option redispatch`");
            }
            if let Some(retries) = haproxy
                .retries
                .as_ref()
                .filter(|retries| retries.value == 0)
            {
                let found = "without a retry, a refused request is lost".to_owned();
                self.find(
                    Warning,
                    "D18",
                    &retries.place,
                    found,
                    "set `retries` to 1 or more",
                );
            }
            if let (Some(stop), Some((slowest, _, what))) = (&haproxy.hard_stop, &slowest) {
                if stop.value < *slowest {
                    let found = format!(
                        "hard-stop-after {} is less than {}, {what}",
                        time(stop.value),
                        time(*slowest)
                    );
                    self.find(Error, "D18", &stop.place, found, "lengthen it");
                }
            }
        }
        for image in self.facts.images.iter().filter(|image| runs_nginx(image)) {
            let signal = image.stop_signal.as_ref();
            if signal.is_none_or(|signal| signal.value != "SIGQUIT") {
                let place = signal.map_or(&image.base.place, |signal| &signal.place);
                let found = "SIGTERM is the fast stop of nginx".to_owned();
                self.find(Error, "D18", place, found, "set STOPSIGNAL SIGQUIT");
            }
        }
    }

    /// D19: the deregistration, and the start.
    fn deregistration_and_start_have_time(&mut self) {
        let slowest = self.slowest_request();
        for (what, delay) in &self.facts.deregistrations {
            if let Some((slowest, _, request)) = slowest
                .as_ref()
                .filter(|(slowest, ..)| *slowest > delay.value)
            {
                let found = format!(
                    "{what} drops connections after {}, and {request} takes {}",
                    time(delay.value),
                    time(*slowest)
                );
                self.find(
                    Warning,
                    "D19",
                    &delay.place,
                    found,
                    "lengthen the deregistration delay",
                );
            }
        }
        for (platform, place) in &self.facts.deregister_first {
            if !self.service.lame_duck.is_zero() {
                let found = format!(
                    "{platform} deregisters before it sends the signal, so the lame duck of {} is lost time",
                    time(self.service.lame_duck)
                );
                self.find(Warning, "D19", place, found, "set the lame duck to 0");
            }
        }
        for workload in &self.facts.workloads {
            let Some(probe) = &workload.startup else {
                continue;
            };
            let allowed = probe.period.saturating_mul(probe.failures);
            if allowed < self.service.start {
                let Probe {
                    period, failures, ..
                } = probe;
                let found = format!(
                    "the startup probe allows {} × {failures} = {}, and the start may take {}",
                    time(*period),
                    time(allowed),
                    time(self.service.start)
                );
                self.find(
                    Error,
                    "D19",
                    &probe.place,
                    found,
                    "raise failureThreshold, or set a start deadline in the budget",
                );
            }
        }
    }

    /// D20: a scrape falls into the time before the service stops.
    fn the_stop_is_scraped(&mut self) {
        let hooks = self
            .facts
            .workloads
            .iter()
            .filter_map(|workload| workload.pre_stop.as_ref());
        let waits = hooks
            .map(|hook| hook.value)
            .max()
            .unwrap_or_default()
            .saturating_add(self.service.lame_duck);
        for scrape in &self.facts.scrapes {
            if scrape.value > waits / 2 {
                let found = format!(
                    "a scrape every {} may miss the stop, whose first {} are visible",
                    time(scrape.value),
                    time(waits)
                );
                self.find(
                    Warning,
                    "D20",
                    &scrape.place,
                    found,
                    format!("scrape every {}, or push in the cleanup", time(waits / 2)),
                );
            }
        }
    }
}

/// The types of services that systemd 252 knows.
const TYPES: [&str; 7] = [
    "simple", "exec", "forking", "oneshot", "dbus", "notify", "idle",
];

fn runs_nginx(image: &Image) -> bool {
    let base = image.base.value.rsplit('/').next().unwrap_or_default();
    let starts = image
        .starts
        .as_ref()
        .and_then(|started| started.value.split_whitespace().next());
    base.split(':').next() == Some("nginx")
        && starts.is_none_or(|program| command::name(program) == "nginx")
}
