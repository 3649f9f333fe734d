//! Compose, ECS, Cloud Run, Fly, Nomad, Heroku and Prometheus.

use std::time::Duration;

use super::facts::Facts;
use super::facts::Limit;
use super::source::At;
use super::source::Source;
use super::source::duration;
use super::yaml::Node;

const SECOND: Duration = Duration::from_secs(1);

/// Reads a document that is not a manifest of Kubernetes. Returns whether it was one.
pub(super) fn read_yaml(source: &Source<'_>, document: &Node, facts: &mut Facts) -> bool {
    if document
        .text_at(&["apiVersion"])
        .is_some_and(|version| version.starts_with("serving.knative.dev"))
    {
        facts.limits.push(limit(
            source,
            "Cloud Run",
            "the limit",
            None,
            (document.line, 10 * SECOND),
        ));
        return true;
    }
    if document.get(&["containerDefinitions"]).is_some() {
        read_ecs(source, document, facts);
        return true;
    }
    if document.get(&["scrape_configs"]).is_some() {
        read_prometheus(source, document, facts);
        return true;
    }
    if document.get(&["kind"]).is_none() && document.get(&["services"]).is_some() {
        read_compose(source, document, facts);
        return true;
    }
    false
}

fn read_compose(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    let services = document.get(&["services"]).map_or(&[][..], Node::map);
    // Databases and the like beside the service have times of their own.
    let built: Vec<_> = services
        .iter()
        .filter(|(_, node)| node.get(&["build"]).is_some())
        .collect();
    let chosen: Vec<_> = if built.is_empty() {
        services.iter().collect()
    } else {
        built
    };
    for (name, service) in chosen {
        let platform = format!("Docker ({name})");
        let said = time_at(source, service, "stop_grace_period");
        facts.limits.push(limit(
            source,
            &platform,
            "stop_grace_period",
            said,
            (service.line, 10 * SECOND),
        ));
        facts
            .stop_signals
            .extend(text_at(source, service, "stop_signal"));
        if let Some(node) = service.get(&["command"]) {
            let words = match node.text() {
                Some(text) => text.to_owned(),
                None => node.words().join(" "),
            };
            facts.commands.push(source.at(node.line, words));
        }
    }
}

fn read_ecs(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    let fargate = document
        .list_at(&["requiresCompatibilities"])
        .iter()
        .any(|node| node.text() == Some("FARGATE"));
    for container in document.list_at(&["containerDefinitions"]) {
        if container.text_at(&["essential"]) == Some("false") {
            continue;
        }
        let said = time_at(source, container, "stopTimeout");
        let mut limit = limit(
            source,
            "ECS",
            "stopTimeout",
            said,
            (container.line, 30 * SECOND),
        );
        limit.ceiling = fargate.then_some(("Fargate", 120 * SECOND));
        facts.limits.push(limit);
        let place = source.place(container.line);
        facts.deregister_first.push(("ECS".to_owned(), place));
        if let Some(node) = container.get(&["command"]) {
            facts
                .commands
                .push(source.at(node.line, node.words().join(" ")));
        }
    }
}

fn read_prometheus(source: &Source<'_>, document: &Node, facts: &mut Facts) {
    let global = document
        .get(&["global"])
        .and_then(|node| time_at(source, node, "scrape_interval"));
    let jobs = document.list_at(&["scrape_configs"]).iter();
    let default = source.at(document.line, 60 * SECOND);
    let of_job = |job| {
        time_at(source, job, "scrape_interval")
            .or_else(|| global.clone())
            .unwrap_or_else(|| default.clone())
    };
    facts.scrapes.extend(jobs.map(of_job));
}

/// The lines `key = value` of a file, in TOML as in Nomad's language.
fn assignments<'a>(source: &Source<'a>) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
    source.lines().filter_map(|(number, line)| {
        let (key, value) = line.split_once('=')?;
        Some((number, key.trim(), value.trim().trim_matches('"')))
    })
}

pub(super) fn read_fly(source: &Source<'_>, facts: &mut Facts) {
    let find = |key| assignments(source).find(|(_, name, _)| *name == key);
    let said = find("kill_timeout")
        .and_then(|(line, _, text)| Some(source.at(line, duration(text, SECOND)?)));
    let mut limit = limit(source, "Fly", "kill_timeout", said, (1, 5 * SECOND));
    limit.ceiling = Some(("Fly", 300 * SECOND));
    facts.limits.push(limit);
    let (line, _, signal) = find("kill_signal").unwrap_or((1, "kill_signal", "SIGINT"));
    facts.stop_signals.push(source.at(line, signal.to_owned()));
}

pub(super) fn read_nomad(source: &Source<'_>, facts: &mut Facts) {
    let find = |key| assignments(source).find(|(_, name, _)| *name == key);
    let time =
        |key| find(key).and_then(|(line, _, text)| Some(source.at(line, duration(text, SECOND)?)));
    let most = time("max_kill_timeout").map_or(30 * SECOND, |time| time.value);
    let mut limit = limit(
        source,
        "Nomad",
        "kill_timeout",
        time("kill_timeout"),
        (1, 5 * SECOND),
    );
    limit.ceiling = Some(("the client's max_kill_timeout", most));
    facts.limits.push(limit);
    let docker = assignments(source).any(|(_, key, value)| (key, value) == ("driver", "docker"));
    let default = if docker { "SIGTERM" } else { "SIGINT" };
    let (line, _, signal) = find("kill_signal").unwrap_or((1, "kill_signal", default));
    facts.stop_signals.push(source.at(line, signal.to_owned()));
}

pub(super) fn read_procfile(source: &Source<'_>, facts: &mut Facts) {
    facts
        .limits
        .push(limit(source, "Heroku", "the limit", None, (1, 30 * SECOND)));
    facts
        .repeated_signals
        .push(("Heroku".to_owned(), true, source.place(1)));
    let commands = source.lines().filter_map(|(line, text)| {
        Some(source.at(line, text.split_once(':')?.1.trim().to_owned()))
    });
    facts.commands.extend(commands);
}

fn limit(
    source: &Source<'_>,
    platform: &str,
    setting: &'static str,
    said: Option<At<Duration>>,
    (line, default): (usize, Duration),
) -> Limit {
    Limit {
        platform: platform.to_owned(),
        setting,
        is_default: said.is_none(),
        total: said.unwrap_or_else(|| source.at(line, default)),
        pre_stop: Duration::ZERO,
        handed: None,
        handed_pre_stop: None,
        ceiling: None,
    }
}

fn time_at(source: &Source<'_>, node: &Node, key: &str) -> Option<At<Duration>> {
    let node = node.get(&[key])?;
    Some(source.at(node.line, duration(node.text()?, SECOND)?))
}

fn text_at(source: &Source<'_>, node: &Node, key: &str) -> Option<At<String>> {
    let node = node.get(&[key])?;
    Some(source.at(node.line, node.text()?.to_owned()))
}
