//! `orders demo`: what a newcomer sees first.

use crate::service::{Process, fresh_path, orders};

/// The number before a word of the report.
#[track_caller]
fn number(report: &str, word: &str) -> u64 {
    let words: Vec<&str> = report
        .split_whitespace()
        .map(|it| it.trim_matches(','))
        .collect();
    let place = words
        .iter()
        .position(|it| *it == word)
        .unwrap_or_else(|| panic!("{word}: {report}"));
    words[place - 1]
        .parse()
        .unwrap_or_else(|_| panic!("{word}: {report}"))
}

#[test]
fn the_demo_counts_every_request_and_ends_as_the_service_does() {
    let mut command = orders();
    command.args([
        "demo",
        "--db",
        &format!("sqlite:{}", fresh_path("sqlite").display()),
    ]);
    let end = Process::spawn(command).wait();
    end.assert_code(0);

    let (timeline, report) = end.stdout.split_once("\nrequests").expect("a report");
    assert!(timeline.contains("SIGTERM"), "{timeline}");
    let (sent, answered, lost) = (
        number(report, "sent"),
        number(report, "answered"),
        number(report, "lost"),
    );
    assert!(sent > 0);
    assert_eq!(sent, answered + lost, "{report}");
    assert!(
        number(report, "were") > 0,
        "nothing was in flight: {report}"
    );
    assert!(report.contains(" 201, "));
    let orders = report.split_once("orders").unwrap().1;
    assert_eq!(number(orders, "answered"), number(orders, "of"), "{orders}");
}
