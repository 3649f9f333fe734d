//! Manifests of Kubernetes.

use std::time::Duration;

use super::command;
use super::facts::Detection;
use super::facts::Facts;
use super::facts::Limit;
use super::facts::Mesh;
use super::facts::PodBudget;
use super::facts::Probe;
use super::facts::Rollout;
use super::facts::Workload;
use super::source::At;
use super::source::Source;
use super::source::duration;
use super::yaml::Node;

const SECOND: Duration = Duration::from_secs(1);

/// The variable with which a manifest hands its grace period to the service.
const GRACE_PERIOD: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

/// The same for the time of its preStop hook.
const PRE_STOP: &str = "PRE_STOP_SECONDS";

/// Reads one document. Kinds that say nothing about a stop are left out.
pub(super) fn read(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    match document.text_at(&["kind"]) {
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod") => {
            read_workload(source, document, facts);
        }
        Some("PodDisruptionBudget") => facts.pod_budgets.push(PodBudget {
            place: source.place(document.line),
            min_available: text_at(source, document, &["spec", "minAvailable"]),
            max_unavailable: text_at(source, document, &["spec", "maxUnavailable"]),
            selector: pairs(document, &["spec", "selector", "matchLabels"]),
        }),
        Some("HorizontalPodAutoscaler") => {
            let target = document.text_at(&["spec", "scaleTargetRef", "name"]);
            let least = number_at(document, &["spec", "minReplicas"]).unwrap_or(1);
            facts
                .autoscalers
                .extend(target.map(|name| (name.to_owned(), least)));
        }
        Some("Ingress") => read_ingress(source, document, facts),
        Some("KubeletConfiguration") => {
            let total = time_at(source, document, &["shutdownGracePeriod"]);
            let critical = time_at(source, document, &["shutdownGracePeriodCriticalPods"]);
            let critical = critical.map_or(Duration::ZERO, |time| time.value);
            facts
                .node_shutdowns
                .extend(total.map(|time| time.map(|total| total.saturating_sub(critical))));
        }
        Some("ServiceMonitor" | "PodMonitor") => {
            let endpoints = [["spec", "endpoints"], ["spec", "podMetricsEndpoints"]];
            let endpoints = endpoints.iter().flat_map(|path| document.list_at(path));
            facts
                .scrapes
                .extend(endpoints.filter_map(|endpoint| time_at(source, endpoint, &["interval"])));
        }
        _ => {}
    }
}

fn read_workload(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    let kind = document.text_at(&["kind"]).unwrap_or_default();
    let (pod, labelled) = match kind {
        "Pod" => (document.get(&["spec"]), document.get(&["metadata"])),
        _ => (
            document.get(&["spec", "template", "spec"]),
            document.get(&["spec", "template", "metadata"]),
        ),
    };
    let Some(pod) = pod else { return };
    let name = document
        .text_at(&["metadata", "name"])
        .unwrap_or("without a name")
        .to_owned();
    let proxies = ["istio-proxy", "linkerd-proxy"];
    let is_proxy = |node: &&Node| {
        node.text_at(&["name"])
            .is_some_and(|name| proxies.contains(&name))
    };
    let containers = pod.list_at(&["containers"]);
    let own = containers
        .iter()
        .find(|node| node.text_at(&["name"]) == Some(name.as_str()));
    let Some(container) = own.or_else(|| containers.iter().find(|node| !is_proxy(node))) else {
        return;
    };
    let said = time_at(source, pod, &["terminationGracePeriodSeconds"]);
    let is_default = said.is_none();
    let grace = said.unwrap_or_else(|| source.at(pod.line, 30 * SECOND));
    let (pre_stop, pre_stop_program) = pre_stop(source, container);
    let waits = pre_stop.as_ref().map_or(Duration::ZERO, |time| time.value);
    let readiness = probe(source, container, "readinessProbe");
    facts.limits.push(Limit {
        platform: format!("Kubernetes ({name})"),
        setting: "terminationGracePeriodSeconds",
        total: grace.clone(),
        is_default,
        pre_stop: waits,
        handed: handed(source, container, GRACE_PERIOD),
        handed_pre_stop: handed(source, container, PRE_STOP).map(|(_, time)| time),
        ceiling: None,
    });
    facts.detections.push(Detection {
        router: format!("the endpoint controller of `{name}`"),
        time: source.at(pod.line, 5 * SECOND),
        pre_stop: waits,
        is_assumed: true,
    });
    if let Some(probe) = &readiness {
        facts.detections.push(Detection {
            router: format!("the readiness probe of `{name}`"),
            time: At {
                value: (probe.period * probe.failures).saturating_add(probe.timeout),
                place: probe.place.clone(),
            },
            pre_stop: waits,
            is_assumed: false,
        });
    }
    read_command(source, container, facts);
    let annotations = labelled.map_or_else(Vec::new, |labelled| pairs(labelled, &["annotations"]));
    let labels = labelled.map_or_else(Vec::new, |labelled| pairs(labelled, &["labels"]));
    let scrape = time_at(
        source,
        labelled.unwrap_or(pod),
        &["annotations", "prometheus.io/interval"],
    );
    facts.scrapes.extend(scrape);
    facts.workloads.push(Workload {
        replicas: number_at(document, &["spec", "replicas"]).unwrap_or(1),
        rollout: rollout(source, document, kind),
        mesh: mesh(
            source,
            pod,
            labelled,
            &[labels.as_slice(), annotations.as_slice()].concat(),
        ),
        image: container.text_at(&["image"]).map(str::to_owned),
        liveness: probe(source, container, "livenessProbe"),
        startup: probe(source, container, "startupProbe"),
        name,
        labels,
        pre_stop,
        pre_stop_program,
        grace,
        readiness,
    });
}

fn read_command(source: &Source<'_>, container: &Node, facts: &mut Facts) {
    let Some(command) = container.get(&["command"]) else {
        return;
    };
    let arguments = container.get(&["args"]).map_or_else(Vec::new, Node::words);
    let words = [command.words(), arguments].concat();
    facts
        .commands
        .push(source.at(command.line, words.join(" ")));
}

/// The delay of a load balancer of AWS is in an annotation of the Ingress.
fn read_ingress(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    let path = [
        "metadata",
        "annotations",
        "alb.ingress.kubernetes.io/target-group-attributes",
    ];
    let Some(attributes) = document.get(&path) else {
        return;
    };
    let delay = attributes
        .text()
        .into_iter()
        .flat_map(|text| text.split(','));
    let delay = delay.filter_map(|pair| {
        pair.trim()
            .strip_prefix("deregistration_delay.timeout_seconds=")
    });
    let delay = delay
        .filter_map(|text| duration(text, SECOND))
        .map(|time| source.at(attributes.line, time));
    facts
        .deregistrations
        .extend(delay.map(|time| ("the target group".to_owned(), time)));
}

/// The time of the hook, and the program that it runs. A hook over HTTP takes a time that the file does not say.
fn pre_stop(source: &Source<'_>, container: &Node) -> (Option<At<Duration>>, Option<At<String>>) {
    let Some(hook) = container.get(&["lifecycle", "preStop"]) else {
        return (None, None);
    };
    if let Some(time) = time_at(source, hook, &["sleep", "seconds"]) {
        return (Some(time), None);
    }
    let Some(exec) = hook.get(&["exec", "command"]) else {
        return (Some(source.at(hook.line, Duration::ZERO)), None);
    };
    let words = exec.words();
    let program = words
        .first()
        .map(|word| source.at(exec.line, command::name(word).to_owned()));
    let line = words.join(" ");
    let sleeps = line
        .split_once("sleep ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let sleeps = sleeps.and_then(|time| duration(time.trim_matches(['"', '\'', ';']), SECOND));
    (
        Some(source.at(exec.line, sleeps.unwrap_or_default())),
        program,
    )
}

/// A time that the manifest hands to the service in this variable.
fn handed(
    source: &Source<'_>,
    container: &Node,
    name: &'static str,
) -> Option<(&'static str, At<Duration>)> {
    let variables = container.list_at(&["env"]);
    let variable = variables
        .iter()
        .find(|node| node.text_at(&["name"]) == Some(name))?;
    Some((name, time_at(source, variable, &["value"])?))
}

fn probe(source: &Source<'_>, container: &Node, name: &str) -> Option<Probe> {
    let probe = container.get(&[name])?;
    let seconds = |key, default| {
        time_at(source, probe, &[key]).map_or(default, |time: At<Duration>| time.value)
    };
    let path = probe.get(&["httpGet", "path"]);
    Some(Probe {
        place: source.place(path.map_or(probe.line, |path| path.line)),
        path: path.and_then(Node::text).map(str::to_owned),
        period: seconds("periodSeconds", 10 * SECOND),
        failures: number_at(probe, &["failureThreshold"])
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(3),
        timeout: seconds("timeoutSeconds", SECOND),
        grace: time_at(source, probe, &["terminationGracePeriodSeconds"]),
    })
}

fn rollout(source: &Source<'_>, document: &Node, kind: &str) -> Rollout {
    if kind != "Deployment" {
        return Rollout::Other;
    }
    let replicas = number_at(document, &["spec", "replicas"]).unwrap_or(1);
    let strategy = document.get(&["spec", "strategy"]);
    let kind =
        strategy.and_then(|node| Some((node.get(&["type"])?.line, node.text_at(&["type"])?)));
    if let Some((line, "Recreate")) = kind {
        return Rollout::Recreate(source.place(line));
    }
    let line = strategy.map_or(document.line, |node| node.line);
    let share = |key| strategy.and_then(|node| text_at(source, node, &["rollingUpdate", key]));
    let default = || source.at(line, "25%".to_owned());
    let unavailable = share("maxUnavailable").unwrap_or_else(default);
    let surge = share("maxSurge").unwrap_or_else(default);
    Rollout::Rolling {
        unavailable: unavailable.map(|text| share_of(replicas, &text, false).unwrap_or(0)),
        surge: share_of(replicas, &surge.value, true).unwrap_or(0),
    }
}

/// A number, or a percentage of `whole` that is rounded up or down.
pub(super) fn share_of(whole: u64, text: &str, up: bool) -> Option<u64> {
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().ok();
    };
    let hundredths = whole.checked_mul(percent.parse().ok()?)?;
    Some(match up {
        true => hundredths.div_ceil(100),
        false => hundredths / 100,
    })
}

/// The mesh proxy beside the service, unless it is a native sidecar, which ends after the service.
fn mesh(
    source: &Source<'_>,
    pod: &Node,
    labelled: Option<&Node>,
    marks: &[(String, String)],
) -> Option<Mesh> {
    let says = |key: &str| {
        marks
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    let native = pod
        .list_at(&["initContainers"])
        .iter()
        .any(|node| node.text_at(&["restartPolicy"]) == Some("Always"));
    let beside = |name| {
        pod.list_at(&["containers"])
            .iter()
            .any(|node| node.text_at(&["name"]) == Some(name))
    };
    let annotated = |key: &str| {
        let node = labelled?.get(&["annotations", key])?;
        Some((node.line, node.text()?))
    };
    let time = |key: &str, default| match annotated(key) {
        Some((line, text)) => source.at(line, duration(text, SECOND).unwrap_or(default)),
        None => source.at(pod.line, default),
    };
    let istio = says("sidecar.istio.io/inject") == Some("true") || beside("istio-proxy");
    if istio && !native && says("sidecar.istio.io/nativeSidecar") != Some("true") {
        let settings = annotated("proxy.istio.io/config");
        let find = |key: &str| {
            let (line, text) = settings?;
            let rest = &text[text.find(key)? + key.len()..];
            let value = rest.trim_start_matches([':', '"', '\'', ' ']);
            let end = value
                .find(['\n', ',', '}', '"', '\''])
                .unwrap_or(value.len());
            Some((line, value[..end].trim().to_owned()))
        };
        let seconds = |key, default| match find(key) {
            Some((line, text)) => source.at(line, duration(&text, SECOND).unwrap_or(default)),
            None => source.at(settings.map_or(pod.line, |(line, _)| line), default),
        };
        return Some(Mesh::Istio {
            drain: seconds("terminationDrainDuration", 5 * SECOND),
            exits_when_idle: find("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
                .is_some_and(|(_, text)| text == "true"),
            minimum: seconds("MINIMUM_DRAIN_DURATION", 5 * SECOND).value,
        });
    }
    let linkerd = says("linkerd.io/inject") == Some("enabled") || beside("linkerd-proxy");
    let is_native = says("config.alpha.linkerd.io/proxy-enable-native-sidecar") == Some("true")
        || says("config.beta.linkerd.io/proxy-enable-native-sidecar") == Some("true");
    (linkerd && !native && !is_native).then(|| Mesh::Linkerd {
        proxy_waits: time(
            "config.alpha.linkerd.io/proxy-wait-before-exit-seconds",
            Duration::ZERO,
        ),
        grace: time("config.linkerd.io/shutdown-grace-period", 120 * SECOND),
    })
}

fn text_at(source: &Source<'_>, node: &Node, path: &[&str]) -> Option<At<String>> {
    let node = node.get(path)?;
    Some(source.at(node.line, node.text()?.to_owned()))
}

fn time_at(source: &Source<'_>, node: &Node, path: &[&str]) -> Option<At<Duration>> {
    let node = node.get(path)?;
    Some(source.at(node.line, duration(node.text()?, SECOND)?))
}

fn number_at(node: &Node, path: &[&str]) -> Option<u64> {
    node.text_at(path)?.parse().ok()
}

fn pairs(node: &Node, path: &[&str]) -> Vec<(String, String)> {
    let entries = node.get(path).map_or(&[][..], Node::map);
    let pair = |(key, value): &(String, Node)| Some((key.clone(), value.text()?.to_owned()));
    entries.iter().filter_map(pair).collect()
}
