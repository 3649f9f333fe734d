//! What each component gets of the budget, and what the plan says of it.

use std::time::Duration;

use taskgroup::lifecycle::{Budget, Component, Lifecycle, Plan};

use crate::support::{SECOND, errors, obedient};

fn grace(plan: &Plan, name: &str) -> Duration {
    let mut components = plan.components();
    components.find(|it| it.name() == name).unwrap().grace()
}

fn pool(name: &'static str) -> Component {
    Component::resource(name, |_| async { Ok(()) }, |(), _| async { Ok(()) })
}

#[test]
fn a_resource_gets_little_and_those_that_drain_the_rest_the_first_to_stop_the_most() {
    let plan = Lifecycle::new("orders")
        .budget(Budget::kubernetes())
        .component(pool("database"))
        .component(obedient("grpc").after(["database"]))
        .component(obedient("http").after(["grpc"]))
        .plan()
        .unwrap();
    let milli = Duration::from_millis;
    assert_eq!(grace(&plan, "http"), milli(13_200));
    assert_eq!(grace(&plan, "grpc"), milli(6_600));
    assert_eq!(grace(&plan, "database"), milli(2_200));
}

#[test]
fn a_row_of_resources_leaves_most_of_the_time_to_the_server_in_front() {
    let plan = Lifecycle::new("orders")
        .budget(10 * SECOND)
        .component(pool("logs"))
        .component(pool("cache").after(["logs"]))
        .component(pool("database").after(["cache"]))
        .component(obedient("http").after(["database"]))
        .plan()
        .unwrap();
    assert_eq!(grace(&plan, "http"), 6 * SECOND);
    assert_eq!(grace(&plan, "database"), SECOND);
    assert_eq!(grace(&plan, "logs"), SECOND);
}

#[test]
fn the_plan_says_until_when_a_request_is_served() {
    let plan = Lifecycle::new("orders")
        .budget(Budget::kubernetes())
        .component(obedient("grpc"))
        .component(obedient("http").after(["grpc"]).grace(10 * SECOND))
        .plan()
        .unwrap();
    let by: Vec<_> = plan.components().map(|it| it.stops_by()).collect();
    // The lame duck of 5 s comes first.
    assert_eq!(by, [27 * SECOND, 15 * SECOND]);
    let text = plan.to_string();
    assert!(text.contains("\n  1  http  within 10s  by 15s\n"), "{text}");
    assert!(text.contains("\n  2  grpc  within 12s  by 27s\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn when_the_time_for_the_start_is_over_all_that_is_not_ready_is_named() {
    let never = |name| Component::new(name, |ctx| async move { Ok(ctx.stopping().await) });
    let report = Lifecycle::new("orders")
        .budget(Budget::local().start_within(20 * SECOND))
        .component(obedient("database"))
        .component(never("cache").after(["database"]))
        .component(never("kafka").after(["database"]))
        .component(obedient("http").after(["cache"]))
        .run()
        .await
        .unwrap();
    assert_eq!(
        errors(&report),
        [
            "component `cache` was not ready within 20s: the whole start has no more time",
            "component `kafka` was not ready within 20s: the whole start has no more time",
        ]
    );
    assert_eq!(report.stop_began, 20 * SECOND);
    let text = report.to_string();
    assert!(text.contains("never started: http"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_time_for_the_start_ends_with_it() {
    let lifecycle = Lifecycle::new("orders")
        .budget(Budget::local().start_within(SECOND))
        .component(obedient("http"));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    tokio::time::sleep(10 * SECOND).await;
    handle.stop("enough");
    assert!(run.await.unwrap().unwrap().is_clean());
}

#[test]
fn the_time_for_the_start_is_in_the_plan_and_may_not_be_zero() {
    let plan = |limit| {
        let budget = Budget::local().start_within(limit);
        let lifecycle = Lifecycle::new("orders").budget(budget);
        lifecycle.component(obedient("http")).plan()
    };
    let text = plan(20 * SECOND).unwrap().to_string();
    assert!(text.contains("\nstart within 20s\n"), "{text}");
    let error = plan(Duration::ZERO).unwrap_err();
    let message = "the start has to be over within 0s: nothing could ever be ready";
    assert_eq!(error.to_string(), message);
    assert!(error.is_budget());
}

#[test]
fn a_budget_tells_each_of_its_parts() {
    let budget = Budget::new(30 * SECOND)
        .jitter(SECOND)
        .lame_duck(2 * SECOND)
        .drain(3 * SECOND)
        .cleanup(4 * SECOND)
        .start_within(5 * SECOND);
    let parts = [
        budget.jitter_time(),
        budget.lame_duck_time(),
        budget.drain_time(),
        budget.cleanup_time(),
        budget.start_time(),
    ];
    assert_eq!(parts, [1, 2, 3, 4, 5].map(|seconds| seconds * SECOND));
    assert_eq!(budget.stop_time(), (30 - 1 - 2 - 3 - 4 - 1) * SECOND);
    assert_eq!(Budget::new(SECOND).start_time(), Duration::MAX);
    assert_eq!(budget.detected_as(), None);
    assert!(Budget::detect().detected_as().is_some());
}

#[test]
fn a_plan_tells_its_longest_chain_and_its_levels() {
    let plan = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(obedient("database").grace(5 * SECOND))
        .component(obedient("http").after(["database"]).grace(9 * SECOND))
        .component(obedient("worker").after(["database"]).grace(3 * SECOND))
        .plan()
        .unwrap();
    let chain: Vec<_> = plan.longest_chain().map(|part| part.name()).collect();
    assert_eq!(chain, ["http", "database"]);
    let levels = plan.components();
    let levels = levels.map(|part| (part.name().to_owned(), part.start_level()));
    let levels: std::collections::BTreeMap<_, _> = levels.collect();
    assert_eq!(
        (levels["database"], levels["http"], levels["worker"]),
        (1, 2, 2)
    );
}
