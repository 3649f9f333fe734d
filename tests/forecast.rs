//! What a stop is likely to take.

use std::time::Duration;

use taskgroup::deploy::StopTimes;
use taskgroup::lifecycle::{Budget, Component, Lifecycle, Plan};

const SECOND: Duration = Duration::from_secs(1);

fn idle(name: &'static str) -> Component {
    Component::new(name, async |ctx| {
        ctx.ready();
        Ok(ctx.stopping().await)
    })
}

/// Two chains into one database.
fn plan(budget: impl Into<Budget>) -> Plan {
    Lifecycle::new("orders")
        .budget(budget)
        .component(idle("database"))
        .component(idle("http").after(["database"]))
        .component(idle("worker").after(["database"]))
        .plan()
        .unwrap()
}

#[test]
fn a_stop_takes_its_longest_chain_and_what_comes_before() {
    let times = StopTimes::new()
        .measured("database", [SECOND])
        .measured("http", [2 * SECOND])
        .measured("worker", [5 * SECOND]);
    let forecast = plan(Budget::new(20 * SECOND).lame_duck(3 * SECOND))
        .forecast(&times)
        .unwrap();
    assert_eq!(
        (forecast.mean(), forecast.percentile(50)),
        (9 * SECOND, 9 * SECOND)
    );
    let chain = ["worker".to_owned(), "database".to_owned()];
    assert_eq!(forecast.critical_chain(), (chain.as_slice(), 1.0));
}

#[test]
fn the_share_that_exceeds_the_budget_has_a_name() {
    let times = StopTimes::new()
        .measured("worker", [SECOND, SECOND, SECOND, 30 * SECOND])
        .measured("database", [Duration::ZERO]);
    let forecast = plan(10 * SECOND).forecast(&times).unwrap();
    let exceeded = forecast.exceeds(10 * SECOND);
    assert!((0.23..0.27).contains(&exceeded), "{exceeded}");
    let late: Vec<_> = forecast.late().collect();
    assert_eq!(late, [("worker", exceeded)]);
}

#[test]
fn a_stated_distribution_has_its_median_and_its_99th_percentile() {
    let times = StopTimes::new().stated("http", SECOND, 10 * SECOND);
    let forecast = plan(Duration::from_secs(60)).forecast(&times).unwrap();
    let (median, p99) = (
        forecast.percentile(50).as_secs_f64(),
        forecast.percentile(99).as_secs_f64(),
    );
    assert!((0.95..1.05).contains(&median), "{median}");
    assert!((8.5..11.5).contains(&p99), "{p99}");
}

#[test]
fn a_jitter_is_drawn() {
    let budget = Budget::new(20 * SECOND).jitter(4 * SECOND);
    let forecast = plan(budget).forecast(&StopTimes::new()).unwrap();
    let mean = forecast.mean().as_secs_f64();
    assert!((1.9..2.1).contains(&mean), "{mean}");
    assert!(forecast.percentile(100) <= 4 * SECOND);
}

#[test]
fn the_same_plan_and_times_give_the_same_text() {
    let times: StopTimes = "http median 2 p99 9.5\ndatabase 0.5 1".parse().unwrap();
    let forecast = || plan(8 * SECOND).forecast(&times).unwrap().to_string();
    let text = forecast();
    assert_eq!(text, forecast());
    let head = text.lines().next().unwrap();
    assert!(head.starts_with("orders: 10000 stops, mean "), "{text}");
    for part in [
        "budget 8s exceeded in ",
        "  up to ",
        "\ncritical chain http → database: in ",
        "\nlate: `database` when the budget is over, in ",
        "\nno times, counted as 0s: worker",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.ends_with('\n'));
}

#[tokio::test(start_paused = true)]
async fn times_are_taken_from_reports_with_the_cleanup() {
    let slow = Component::new("http", async |ctx| {
        ctx.ready();
        ctx.stopping().await;
        Ok(tokio::time::sleep(3 * SECOND).await)
    });
    let lifecycle = Lifecycle::new("orders")
        .component(slow.after(["database"]))
        .component(idle("database"));
    let cleanup = taskgroup::cleanup::Step::new("flush", async |_| {
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    lifecycle.cleanup().push(cleanup).unwrap();
    let plan = lifecycle.plan().unwrap();
    let report = lifecycle.start().await.unwrap().stop("enough").await;
    // A component that the plan no longer has is left out.
    let times = StopTimes::new().report(&report);
    assert_eq!(plan.forecast(&times).unwrap().mean(), 4 * SECOND);
    let other = Lifecycle::new("other")
        .component(idle("mail"))
        .plan()
        .unwrap();
    assert_eq!(other.forecast(&times).unwrap().mean(), SECOND);
}

#[test]
fn times_that_make_no_sense_are_refused_and_named() {
    let message = |times: StopTimes| plan(28 * SECOND).forecast(&times).unwrap_err().to_string();
    assert_eq!(
        message(StopTimes::new().measured("htpp", [SECOND])),
        "stop times: `component` cannot be `htpp`: the plan has no component of that name"
    );
    assert_eq!(
        message(StopTimes::new().measured("http", [])),
        "stop times of component `http`: `times` cannot be empty: there is nothing to draw from"
    );
    assert_eq!(
        message(StopTimes::new().stated("http", 2 * SECOND, SECOND)),
        "stop times of component `http`: `p99` cannot be 1s: the median is 2s"
    );
    for (text, error) in [
        (
            "# a comment\n\nhttp",
            "stop times, line 3, component `http`: `times` cannot be empty: there is nothing to draw from",
        ),
        (
            "http -1",
            "stop times, line 1: `time` cannot be `-1`: it is not a number of seconds",
        ),
        (
            "http median 1 p99 x",
            "stop times, line 1: `time` cannot be `x`: it is not a number of seconds",
        ),
    ] {
        assert_eq!(text.parse::<StopTimes>().unwrap_err().to_string(), error);
    }
}

/// The stop of a nested lifecycle is what its own order makes of the times of its components.
#[test]
fn the_components_of_a_nested_lifecycle_have_times_of_their_own() {
    let payments = Lifecycle::new("payments")
        .component(idle("ledger"))
        .component(idle("api").after(["ledger"]));
    let plan = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(idle("database"))
        .component(Component::lifecycle(payments).after(["database"]))
        .plan()
        .unwrap();
    let parts = StopTimes::new()
        .measured("database", [SECOND])
        .measured("payments/ledger", [2 * SECOND])
        .measured("payments/api", [4 * SECOND]);
    let forecast = plan.forecast(&parts).unwrap();
    assert_eq!(forecast.percentile(50), 7 * SECOND);
    let chain = ["payments/api", "payments/ledger", "database"];
    assert_eq!(forecast.critical_chain().0, chain);
    let text = forecast.to_string();
    assert!(!text.contains("no times"), "{text}");
    // Times for the whole of it count more.
    let whole = parts.measured("payments", [SECOND]);
    let forecast = plan.forecast(&whole).unwrap();
    assert_eq!(forecast.percentile(50), 2 * SECOND);
    assert_eq!(forecast.critical_chain().0, ["payments", "database"]);
    let unknown = StopTimes::new().measured("payments/cache", [SECOND]);
    assert!(plan.forecast(&unknown).is_err());
}

#[tokio::test(start_paused = true)]
async fn reports_of_nested_lifecycles_are_taken_too() {
    let slow = Component::new("api", async |ctx| {
        ctx.ready();
        ctx.stopping().await;
        Ok(tokio::time::sleep(3 * SECOND).await)
    });
    let payments = Lifecycle::new("payments").component(slow);
    let lifecycle = Lifecycle::new("orders")
        .budget(30 * SECOND)
        .component(Component::lifecycle(payments));
    let plan = lifecycle.plan().unwrap();
    let report = lifecycle.start().await.unwrap().stop("enough").await;
    let times = StopTimes::new().report(&report);
    let forecast = plan.forecast(&times).unwrap();
    assert_eq!(forecast.percentile(50), 3 * SECOND);
    assert_eq!(forecast.critical_chain().0, ["payments/api"]);
}
