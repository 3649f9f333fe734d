//! Fifty components on a paused clock: the longest chain decides the time, to the tick.

use std::collections::BTreeMap;
use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Lifecycle, Report, StepKind};
use tokio::time::sleep;

const DOMAINS: usize = 8;

/// What a component takes to start and to stop, and what it comes after.
struct Part {
    name: String,
    start: Duration,
    stop: Duration,
    after: Vec<String>,
}

fn part(name: String, start: u64, stop: u64, after: &[String]) -> Part {
    Part {
        name,
        start: Duration::from_millis(start),
        stop: Duration::from_millis(stop),
        after: after.to_vec(),
    }
}

/// Eight domains behind a gateway, and a queue for all; no two of the same sort take as long.
fn parts() -> Vec<Part> {
    let mut parts = vec![part("queue".into(), 900, 170, &[])];
    for domain in 0..DOMAINS {
        let next = (domain + 1) % DOMAINS;
        let name = |part: &str| format!("{part}-{domain}");
        let own = domain as u64;
        parts.push(part(name("db"), 500 + 3 * own, 700 - 5 * own, &[]));
        parts.push(part(name("cache"), 90 + 7 * own, 30 + 11 * own, &[]));
        let stores = [name("db"), name("cache")];
        parts.push(part(name("repository"), 10 + own, 40 + 13 * own, &stores));
        let uses = [name("repository"), "queue".into()];
        parts.push(part(name("worker"), 60 - own, 600 + 17 * own, &uses));
        parts.push(part(name("grpc"), 20 + 9 * own, 200 + 19 * own, &uses[..1]));
        let backs = [name("grpc"), format!("grpc-{next}")];
        parts.push(part(name("http"), 25 + 2 * own, 250 - 23 * own, &backs));
    }
    let servers: Vec<_> = (0..DOMAINS)
        .map(|domain| format!("http-{domain}"))
        .collect();
    parts.push(part("gateway".into(), 33, 300, &servers));
    assert_eq!(parts.len(), 50);
    parts
}

/// How long the longest chain up to each takes; `before` names those that come before it.
fn ends<'a>(
    parts: &'a [Part],
    took: impl Fn(&Part) -> Duration,
    before: impl Fn(&'a Part) -> Vec<&'a str>,
) -> BTreeMap<&'a str, Duration> {
    let mut ends = BTreeMap::new();
    while ends.len() < parts.len() {
        for part in parts {
            let before: Option<Vec<Duration>> = before(part)
                .into_iter()
                .map(|name| ends.get(name).copied())
                .collect();
            if let Some(before) = before {
                let begins = before.into_iter().max().unwrap_or_default();
                ends.insert(part.name.as_str(), begins + took(part));
            }
        }
    }
    ends
}

fn starts(parts: &[Part]) -> BTreeMap<&str, Duration> {
    ends(
        parts,
        |part| part.start,
        |part| part.after.iter().map(String::as_str).collect(),
    )
}

fn stops(parts: &[Part]) -> BTreeMap<&str, Duration> {
    let users = |of: &Part| {
        let users = parts.iter().filter(|part| part.after.contains(&of.name));
        users.map(|part| part.name.as_str()).collect()
    };
    ends(parts, |part| part.stop, users)
}

fn component(part: &Part) -> Component {
    let (start, stop) = (part.start, part.stop);
    let run = move |ctx: taskgroup::lifecycle::Context| async move {
        sleep(start).await;
        ctx.ready();
        ctx.stopping().await;
        Ok::<(), BoxError>(sleep(stop).await)
    };
    Component::new(part.name.clone(), run).after(part.after.clone())
}

/// When each step of this kind ended, from `zero` on.
fn ended(report: &Report, kind: StepKind, zero: Duration) -> BTreeMap<&str, Duration> {
    let steps = report.timeline.iter().filter(|step| step.kind == kind);
    steps
        .map(|step| (step.subject.as_str(), step.ended - zero))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_of_fifty_starts_and_stops_when_the_longest_chain_up_to_it_is_through() {
    let parts = parts();
    let mut lifecycle = Lifecycle::new("shop").budget(Duration::from_secs(60));
    for part in &parts {
        lifecycle = lifecycle.component(component(part));
    }
    let handle = lifecycle.handle();
    let stop = tokio::spawn(async move {
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("the test is over");
    });
    let report = lifecycle.run().await.unwrap();
    stop.await.unwrap();
    assert!(report.is_clean(), "{report}");

    let starts = starts(&parts);
    assert_eq!(ended(&report, StepKind::Start, Duration::ZERO), starts);
    assert_eq!(report.stop_began, *starts.values().max().unwrap());

    let stops = stops(&parts);
    assert_eq!(ended(&report, StepKind::Stop, report.stop_began), stops);
    let longest = *stops.values().max().unwrap();
    assert_eq!(report.took(), longest);

    let sum: Duration = parts.iter().map(|part| part.stop).sum();
    assert!(longest < sum / 7, "{longest:?} of {sum:?}");
}
