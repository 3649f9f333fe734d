//! `orders demo`: what a newcomer sees first.

use taskgroup::testing::Binary;

use crate::service::{fresh_path, orders, unread};

fn demo() -> Binary {
    let database = format!("sqlite:{}", fresh_path("sqlite").display());
    orders().args(["demo", "--db", &database])
}

/// The number before a word of the report.
#[track_caller]
fn number(report: &str, word: &str) -> u64 {
    let words = report.split_whitespace().map(|it| it.trim_matches(','));
    let words: Vec<&str> = words.collect();
    let place = words.iter().position(|it| *it == word);
    let number = place.and_then(|place| words[place - 1].parse().ok());
    number.unwrap_or_else(|| panic!("no number of {word}: {report}"))
}

#[test]
fn the_demo_counts_every_request_and_ends_as_the_service_does() {
    let end = demo().start().wait();
    end.assert_code(0);

    let (timeline, report) = end.stdout().split_once("\nrequests").expect("a report");
    let mut rest = timeline;
    for event in [
        "SIGTERM",
        "server `http` drained",
        "server `grpc` drained",
        "database: closed",
        "server `metrics` drained",
    ] {
        rest = rest
            .split_once(event)
            .unwrap_or_else(|| panic!("no {event}: {timeline}"))
            .1;
    }

    let answered = number(report, "answered");
    assert_eq!(
        number(report, "sent"),
        answered + number(report, "lost"),
        "{report}"
    );
    assert!(
        number(report, "were") > 0,
        "nothing was in flight: {report}"
    );
    assert!(!report.contains("with an error"), "{report}");
    let (report, drains) = report.split_once("drains").expect("the drains");
    for server in ["http", "grpc"] {
        assert!(
            drains.contains(&format!("server `{server}` drained in ")),
            "{drains}"
        );
    }
    let (_, timeline) = drains
        .split_once("\norders: clean, stopped in ")
        .expect("the timeline");
    for step in [
        "stop  http ",
        "stop  worker ",
        "stop  grpc ",
        "stop  database ",
        "stop  metrics ",
    ] {
        assert!(timeline.contains(step), "{timeline}");
    }
    let orders = report.split_once("orders").expect("a line about orders").1;
    assert!(number(orders, "answered") > 0, "{report}");
    assert_eq!(number(orders, "answered"), number(orders, "of"), "{report}");
}

#[test]
fn the_demo_ends_as_the_service_does_when_its_output_is_not_read() {
    demo().start_with(unread).wait().assert_code(0);
}

#[test]
fn the_demo_draws_its_stop() {
    let picture = fresh_path("svg");
    let path = picture.to_str().expect("a path in UTF-8");
    demo().args(["--svg", path]).start().wait().assert_code(0);
    let svg = std::fs::read_to_string(&picture).expect("a picture");
    for row in [">http<", ">grpc<", ">worker<", ">database<", ">metrics<"] {
        assert!(svg.contains(row), "no {row}: {svg}");
    }
    assert!(svg.contains("critical chain: http"), "{svg}");
    std::fs::remove_file(picture).expect("a file to remove");
}

#[cfg(target_os = "linux")]
#[test]
fn a_short_soak_ends_well_and_prints_what_was_held() {
    let end = orders().args(["soak", "--length", "1"]).start().wait();
    end.assert_code(0);
    let out = end.stdout();
    assert!(out.starts_with("1 runs of 2s"), "{out}");
    assert!(
        out.contains("tasks  descriptors  threads   memory"),
        "{out}"
    );
}
