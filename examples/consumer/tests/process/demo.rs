//! The demo and the plan, as a reader sees them.

use taskgroup::Signal;

use crate::broker::Broker;
use crate::consumer::{Database, consumer};

/// The number before a word of the report.
#[track_caller]
fn number(report: &str, word: &str) -> u64 {
    let words = report.split_whitespace().map(|it| it.trim_matches(','));
    let words: Vec<&str> = words.collect();
    let place = words.iter().position(|it| *it == word);
    let number = place.and_then(|place| words[place - 1].parse().ok());
    number.unwrap_or_else(|| panic!("no number of {word}: {report}"))
}

#[track_caller]
fn assert_in_order(text: &str, events: &[&str]) {
    let mut rest = text;
    for event in events {
        let found = rest.split_once(event);
        rest = found.unwrap_or_else(|| panic!("no {event}: {text}")).1;
    }
}

#[test]
fn the_demo_shows_the_order_of_the_stop_and_every_order_is_somewhere() {
    if Broker::start().is_none() {
        return;
    }
    let end = consumer(&["demo"]).start().wait();
    end.assert_code(0);
    let steps = [
        "SIGTERM",
        "orders: paused",
        "orders: drained",
        "events: flushed",
    ];
    for last in ["database: closed", "broker: closed"] {
        assert_in_order(end.stdout(), &[&steps[..], &[last]].concat());
    }
    let (_, report) = end.stdout().split_once("\norders ").expect("the sums");
    let (orders, rest) = report.split_once("\nrest ").expect("the rest");
    let (sent, rows) = (number(orders, "sent"), number(orders, "of"));
    assert_eq!(sent, rows + number(rest, "are"), "{report}");
    assert_eq!(number(orders, "events"), rows, "{report}");
    let (_, timeline) = rest
        .split_once("\nconsumer: clean, stopped in ")
        .expect("the timeline");
    for step in ["orders", "events", "database", "broker"] {
        assert!(timeline.contains(&format!("stop  {step} ")), "{timeline}");
    }
}

#[test]
fn the_plan_shows_what_stops_before_what() {
    let end = consumer(&["--plan"]).start().wait();
    end.assert_code(0);
    println!("{}", end.stdout());
    assert_in_order(end.stdout(), &["orders", "events", "broker"]);
}

/// The manifest in `deploy/` is for these options, and its numbers fit the plan.
#[test]
fn the_manifest_in_deploy_fits_the_plan() {
    let manifest = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kubernetes/consumer.yaml"
    );
    let options = ["--probes=127.0.0.1:0", "--check-deploy", manifest];
    let end = consumer(&options).start().wait();
    end.assert_code(0);
    assert!(!end.stdout().contains(": error "), "{}", end.stdout());
}

#[test]
fn the_probes_answer_while_it_runs() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let database = Database::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let process = database.start(&broker, &["--probes", &address.to_string()]);
    process.ready_http(address, "/readyz");
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
}
