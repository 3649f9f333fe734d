//! What each component gets of the budget, and what the plan says of it.

use std::time::Duration;

use taskgroup::lifecycle::{Budget, Plan};
use taskgroup::{Component, Lifecycle};

use crate::support::{SECOND, obedient};

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
