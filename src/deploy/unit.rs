//! Units of systemd, and their drop-ins.

use std::time::Duration;

use super::facts::Facts;
use super::facts::Limit;
use super::facts::Unit;
use super::source::At;
use super::source::Source;
use super::source::duration;

const SECOND: Duration = Duration::from_secs(1);

/// The variable with which a unit hands its limit to the service.
const TIMEOUT_STOP: &str = "TIMEOUT_STOP_SEC";

pub(super) fn read(source: &Source<'_>, facts: &mut Facts) {
    let settings = settings(source);
    let last = |key: &str| {
        let found = settings.iter().rev().find(|(name, _)| name == key);
        found
            .map(|(_, value)| value.clone())
            .filter(|value| !value.value.is_empty())
    };
    let time = |key: &str| {
        let text = last(key)?;
        let time = duration(&text.value, SECOND)?;
        Some(text.map(|_| time))
    };
    let start = last("ExecStart");
    let place = start
        .as_ref()
        .map_or_else(|| source.place(1), |start| start.place.clone());
    // A drop-in alone says nothing about the times that it leaves out.
    let is_whole = start.is_some();
    let stop = time("TimeoutStopSec").or_else(|| time("TimeoutSec"));
    if is_whole || stop.is_some() {
        facts.limits.push(Limit {
            platform: "systemd".to_owned(),
            setting: "TimeoutStopSec",
            is_default: stop.is_none(),
            total: stop.unwrap_or_else(|| At {
                value: 90 * SECOND,
                place: place.clone(),
            }),
            pre_stop: Duration::ZERO,
            handed: handed(&settings),
            handed_pre_stop: None,
            ceiling: None,
        });
    }
    facts.commands.extend(start);
    facts.stop_signals.extend(last("KillSignal"));
    let kill_mode = last("KillMode");
    let all_are_told = kill_mode
        .as_ref()
        .is_none_or(|mode| mode.value == "control-group");
    if is_whole && all_are_told {
        let place = kill_mode
            .as_ref()
            .map_or_else(|| place.clone(), |mode| mode.place.clone());
        let who = "systemd with KillMode=control-group".to_owned();
        facts.repeated_signals.push((who, false, place));
    }
    facts.units.push(Unit {
        kind: last("Type"),
        exec_stop: last("ExecStop"),
        watchdog: time("WatchdogSec"),
        start: time("TimeoutStartSec").or_else(|| time("TimeoutSec")),
        kill_mode,
    });
}

/// The settings of the section `[Service]`, in the order of the file.
fn settings(source: &Source<'_>) -> Vec<(String, At<String>)> {
    let mut section = "";
    let mut settings = Vec::new();
    for (number, line) in source.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name;
        } else if let ("Service", Some((key, value))) = (section, line.split_once('=')) {
            settings.push((
                key.trim().to_owned(),
                source.at(number, value.trim().to_owned()),
            ));
        }
    }
    settings
}

fn handed(settings: &[(String, At<String>)]) -> Option<(&'static str, At<Duration>)> {
    let variables = settings.iter().filter(|(name, _)| name == "Environment");
    let mut values = variables.filter_map(|(_, text)| {
        let mut words = text
            .value
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']));
        let value = words.find_map(|word| word.strip_prefix(TIMEOUT_STOP)?.strip_prefix('='))?;
        let time = duration(value, SECOND)?;
        Some((TIMEOUT_STOP, text.clone().map(|_| time)))
    });
    values.next()
}
