//! Settings of HAProxy and nginx.

use std::time::Duration;

use super::facts::Detection;
use super::facts::Facts;
use super::facts::Haproxy;
use super::source::Source;
use super::source::duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// HAProxy closes half of its idle connections this often.
const POOL_PURGE_DELAY: Duration = Duration::from_secs(5);

pub(super) fn read_haproxy(source: &Source<'_>, facts: &mut Facts) {
    let mut haproxy = Haproxy::default();
    let mut check_timeout = Duration::ZERO;
    let mut purge = source.at(1, POOL_PURGE_DELAY);
    let mut checks = Vec::new();
    for (number, line) in source.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let time = |text: &str| duration(text, MILLISECOND);
        match words.as_slice() {
            ["timeout", "check", text, ..] => check_timeout = time(text).unwrap_or_default(),
            ["timeout", "server", text, ..] => {
                let limit = time(text).map(|time| {
                    (
                        "HAProxy's `timeout server`".to_owned(),
                        source.at(number, time),
                    )
                });
                facts.request_timeouts.extend(limit);
            }
            ["hard-stop-after", text, ..] => {
                haproxy.hard_stop = time(text).map(|time| source.at(number, time));
            }
            ["retries", text, ..] => {
                haproxy.retries = text.parse().ok().map(|n| source.at(number, n));
            }
            ["option", "redispatch", ..] => haproxy.redispatch = true,
            ["no", "option", "redispatch", ..] => haproxy.redispatch = false,
            [kind @ ("server" | "default-server"), rest @ ..] => {
                let after =
                    |name: &str| Some(*rest.get(rest.iter().position(|word| *word == name)? + 1)?);
                if rest
                    .windows(2)
                    .any(|pair| pair == ["on-marked-down", "shutdown-sessions"])
                {
                    haproxy.marked_down = Some(source.at(number, ()));
                }
                if let Some(delay) = after("pool-purge-delay").and_then(time) {
                    purge = source.at(number, delay);
                }
                if *kind == "server" {
                    haproxy.servers.get_or_insert_with(|| source.place(number));
                }
                if rest.contains(&"check") {
                    let every = after("inter").and_then(time).unwrap_or(2 * SECOND);
                    let falls = after("fall")
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(3);
                    checks.push(source.at(number, every.saturating_mul(falls)));
                }
            }
            _ => {}
        }
    }
    let slowest = checks.into_iter().max_by_key(|check| check.value);
    facts.detections.extend(slowest.map(|check| Detection {
        router: "HAProxy".to_owned(),
        time: check.map(|time| time.saturating_add(check_timeout)),
        pre_stop: Duration::ZERO,
        is_assumed: false,
    }));
    if let Some(place) = &haproxy.servers {
        // The line of a server, where the setting would stand.
        if purge.place.line == 1 {
            purge.place = place.clone();
        }
        facts
            .idle
            .push(("HAProxy".to_owned(), purge.map(|delay| 3 * delay)));
    }
    facts.haproxies.push(haproxy);
}

pub(super) fn read_nginx(source: &Source<'_>, facts: &mut Facts) {
    let mut block = Vec::new();
    let mut keeps = None;
    let mut upstream = false;
    let mut idle = source.at(1, 60 * SECOND);
    let mut read_timeout = None;
    for (number, line) in source.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_suffix('{') {
            let name = name.split_whitespace().next().unwrap_or_default();
            upstream |= name == "upstream";
            block.push(name.to_owned());
            continue;
        }
        if line.starts_with('}') {
            block.pop();
            continue;
        }
        let words: Vec<_> = line.trim_end_matches(';').split_whitespace().collect();
        let in_upstream = block.last().is_some_and(|name| name == "upstream");
        match words.as_slice() {
            ["keepalive", ..] if in_upstream => keeps = Some(number),
            ["keepalive_timeout", text, ..] if in_upstream => {
                idle = source.at(number, duration(text, SECOND).unwrap_or(60 * SECOND));
            }
            ["proxy_read_timeout", text, ..] => {
                read_timeout = duration(text, SECOND).map(|time| source.at(number, time));
            }
            _ => {}
        }
    }
    if let Some(line) = keeps {
        if idle.place.line == 1 {
            idle.place = source.place(line);
        }
        facts.idle.push(("nginx".to_owned(), idle));
    }
    if upstream {
        let limit = read_timeout.unwrap_or_else(|| source.at(1, 60 * SECOND));
        facts
            .request_timeouts
            .push(("nginx's `proxy_read_timeout`".to_owned(), limit));
    }
}
