//! A report draws itself: the picture in the README is the one that the example makes.

use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Lifecycle, Report};

#[path = "../examples/picture.rs"]
#[allow(dead_code, unreachable_pub)]
mod example;

const PICTURE: &str = include_str!("../docs/shutdown.svg");
const PAGE: &str = include_str!("../docs/shutdown.md");

/// The text without the directory of this test, which the example does not have.
fn of_the_example(text: &str) -> String {
    text.replace("tests/../", "")
}

#[tokio::test(start_paused = true)]
async fn the_picture_of_the_readme_is_the_one_that_the_example_draws() {
    let report = example::forced().await.unwrap();
    assert!(report.was_forced());
    assert!(
        of_the_example(&report.to_svg()) == PICTURE,
        "draw it anew: cargo run --features svg --example picture -- docs/shutdown.svg"
    );
}

#[tokio::test(start_paused = true)]
async fn the_reports_on_the_page_are_those_that_the_example_prints() {
    for report in [
        example::clean().await.unwrap(),
        example::forced().await.unwrap(),
    ] {
        let text = of_the_example(&report.to_string());
        assert!(PAGE.contains(&format!("```text\n{text}\n```")), "{text}");
    }
}

fn critical(report: &Report) -> Vec<&str> {
    let steps = report.timeline.iter().filter(|step| step.critical);
    steps.map(|step| &*step.subject).collect()
}

#[tokio::test(start_paused = true)]
async fn the_critical_chain_is_what_the_stop_took_its_time_for() {
    let clean = example::clean().await.unwrap();
    assert_eq!(
        critical(&clean),
        ["orders", "http", "grpc", "database", "flush traces"]
    );
    let took = |report: &Report| {
        let steps = report.timeline.iter().filter(|step| step.critical);
        steps
            .map(taskgroup::lifecycle::TimelineStep::took)
            .sum::<Duration>()
    };
    assert_eq!(took(&clean), clean.took());
    let forced = example::forced().await.unwrap();
    assert_eq!(
        critical(&forced),
        ["orders", "http", "grpc", "database", "flush traces"]
    );
}

/// Stops components that take these times, each `after` the ones before the colon.
async fn stop(parts: Vec<(&'static str, u64, Vec<&'static str>)>) -> Report {
    let mut lifecycle = Lifecycle::new("orders");
    for (name, takes, after) in parts {
        let part = Component::new(name, async move |ctx| {
            ctx.ready();
            ctx.stopping().await;
            Ok(tokio::time::sleep(Duration::from_millis(takes)).await)
        });
        lifecycle = lifecycle.component(part.after(after));
    }
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    handle.stop("a deployment");
    run.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_component_outside_the_chain_is_not_critical_though_it_ends_at_the_same_time() {
    let report = stop(vec![
        ("database", 100, vec![]),
        ("http", 500, vec!["database"]),
        ("worker", 500, vec![]),
    ])
    .await;
    assert_eq!(critical(&report), ["http", "database"]);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_of_parallel_components_is_the_critical_one() {
    let report = stop(vec![
        ("database", 0, vec![]),
        ("fast", 10, vec!["database"]),
        ("slow", 90, vec!["database"]),
    ])
    .await;
    assert_eq!(critical(&report), ["slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_takes_no_time_has_no_critical_chain() {
    let report = stop(vec![("database", 0, vec![])]).await;
    assert_eq!(critical(&report), [""; 0]);
    assert!(!report.to_svg().contains("critical chain"));
}

/// The parts of a picture: tags and texts, without the description.
fn drawn(report: &Report) -> String {
    let svg = report.to_svg();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    // A blank line would end the picture inside a page in Markdown.
    assert!(svg.lines().all(|line| !line.trim().is_empty()), "{svg}");
    let (_, drawn) = svg.split_once("</style>").unwrap();
    drawn.to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_was_forced_is_red_and_says_why() {
    let forced = drawn(&example::forced().await.unwrap());
    assert!(forced.contains("class=\"bad\""));
    assert!(forced.contains("timed out after 5s"));
    assert!(forced.contains("FORCED"));
    assert!(forced.contains("task `orders/http/GET /report`"));
    assert!(forced.contains("% of 28s"));
    let clean = drawn(&example::clean().await.unwrap());
    assert!(!clean.contains("class=\"bad\"") && clean.contains(">clean<"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_shows_its_bars_too() {
    let lifecycle = Lifecycle::new("orders").component(Component::new("http", async |_| {
        tokio::time::sleep(Duration::from_millis(40)).await;
        Err("address in use".into())
    }));
    let svg = drawn(&lifecycle.run().await.unwrap());
    assert!(
        svg.contains("FAILED to start") && svg.contains("failed: address in use"),
        "{svg}"
    );
}

#[tokio::test(start_paused = true)]
async fn any_name_is_escaped() {
    let name = "<&\">\u{1b}\n";
    let lifecycle = Lifecycle::new(name).component(Component::job(name, async |_| Ok(())));
    let svg = lifecycle.run().await.unwrap().to_svg();
    assert!(!svg.contains(name) && !svg.contains('\u{1b}'));
    assert!(svg.contains("&lt;&amp;\"&gt;"), "{svg}");
}

#[tokio::test(start_paused = true)]
async fn a_nested_lifecycle_has_a_panel_of_its_own() {
    let inner = Lifecycle::new("billing").component(Component::job("mail", async |_| Ok(())));
    let outer = Lifecycle::new("shop").component(Component::lifecycle(inner));
    let svg = drawn(&outer.run().await.unwrap());
    assert!(svg.contains(">shop<") && svg.contains(">billing<"), "{svg}");
}

#[tokio::test(start_paused = true)]
async fn of_many_components_those_that_went_wrong_are_drawn() {
    let mut lifecycle = Lifecycle::new("orders");
    for number in 0..300 {
        let deaf = Component::new(format!("part-{number}"), async move |ctx| {
            ctx.ready();
            ctx.stopping().await;
            if number == 250 {
                return Err(BoxError::from("disk full"));
            }
            Ok(())
        });
        lifecycle = lifecycle.component(deaf);
    }
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    handle.stop("a deployment");
    let svg = drawn(&run.await.unwrap().unwrap());
    assert!(svg.contains("part-250") && svg.contains("disk full"));
    assert!(svg.contains("200 more steps are not drawn"));
}
