//! Scenarios on a paused clock, and seeds that give the same each time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use taskgroup::Signal;
use taskgroup::lifecycle::{Budget, Component, Lifecycle};
use taskgroup::process::ExitPolicy;
use taskgroup::testing::{Act, Outcome, Seeds, Stage, simulate};

use crate::SECOND;

fn with_a_database_that_hangs(stage: &mut Stage) -> Lifecycle {
    let database = stage.fake("database").stops(Duration::ZERO, Act::Hang);
    let http = stage.fake("http").stops(SECOND, Act::Ok);
    Lifecycle::new("orders")
        .budget(28 * SECOND)
        .component(database.component())
        .component(http.component().after(["database"]))
}

#[test]
fn a_second_signal_ends_the_process_in_the_middle_of_a_stop() {
    let outcome = simulate(|stage| {
        stage.signal(2 * SECOND, Signal::Terminate);
        stage.signal(9 * SECOND, Signal::Interrupt);
        with_a_database_that_hangs(stage)
    });
    assert_eq!((outcome.code(), outcome.at()), (130, 9 * SECOND));
    assert!(outcome.report().is_none());
    let lines = outcome.journal().lines();
    let tail: Vec<_> = lines[lines.len() - 2..]
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(tail, ["9s SIGINT", "9s the process ends with 130"]);
    // The world ended before the database did.
    assert!(!lines.contains(&"9s database ends".to_owned()));
}

#[test]
fn a_signal_stops_it_within_its_budget_and_forces_what_hangs() {
    let outcome = simulate(|stage| {
        stage.signal(2 * SECOND, Signal::Terminate);
        with_a_database_that_hangs(stage)
    });
    let report = outcome.report().unwrap();
    assert!(
        report.was_forced() && report.took() <= 28 * SECOND,
        "{report}"
    );
    assert_eq!(report.cause.to_string(), "received SIGTERM");
    assert_eq!((outcome.code(), outcome.left()), (1, [].as_slice()));
}

#[test]
fn a_signal_that_comes_again_at_once_is_the_same_request() {
    let twice = |pause: Duration| {
        simulate(|stage| {
            stage.signal(2 * SECOND, Signal::Terminate);
            stage.signal(2 * SECOND + Duration::from_millis(299), Signal::Terminate);
            stage.insist_after(pause);
            let slow = stage.fake("slow").stops(SECOND, Act::Ok);
            Lifecycle::new("orders").component(slow.component())
        })
    };
    assert_eq!(twice(Duration::from_millis(300)).code(), 0);
    assert_eq!(twice(Duration::from_millis(299)).code(), 143);
}

#[test]
fn a_policy_and_calls_are_part_of_the_scenario() {
    let outcome = simulate(|stage| {
        stage.policy(ExitPolicy::strict().requested(7));
        stage.at(SECOND, |handle| handle.stop("a deployment"));
        Lifecycle::new("orders").component(stage.fake("http").component())
    });
    assert_eq!((outcome.code(), outcome.at()), (7, SECOND));
}

#[test]
#[should_panic = "the lifecycle does not end"]
fn a_lifecycle_that_is_never_stopped_fails_the_test() {
    simulate(|stage| Lifecycle::new("orders").component(stage.fake("http").component()));
}

#[test]
fn a_real_socket_is_refused() {
    let outcome = simulate(|_| {
        let socket = Component::job("socket", async |_| {
            tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            Ok(())
        });
        Lifecycle::new("orders").component(socket)
    });
    let error = format!("{:#}", outcome.report().unwrap().first_error().unwrap());
    assert!(error.contains("IO is disabled"), "{error}");
}

#[test]
fn the_watchdog_of_the_lifecycle_does_not_end_the_test() {
    let outcome = simulate(|stage| {
        stage.signal(SECOND, Signal::Terminate);
        let http = stage.fake("http");
        let lifecycle = Lifecycle::new("orders").budget(Duration::from_millis(1500));
        watched(lifecycle).component(http.component())
    });
    assert_eq!(outcome.code(), 0);
}

#[cfg(feature = "signal")]
fn watched(lifecycle: Lifecycle) -> Lifecycle {
    lifecycle.watchdog()
}

#[cfg(not(feature = "signal"))]
fn watched(lifecycle: Lifecycle) -> Lifecycle {
    lifecycle
}

#[test]
fn a_plan_alone_runs_through_a_scenario() {
    let idle = |name| Component::new(name, async |ctx| Ok(ctx.stopping().await));
    let inner = Lifecycle::new("billing").component(idle("invoices").grace(SECOND));
    let plan = Lifecycle::new("orders")
        .budget(Budget::new(20 * SECOND).drain(2 * SECOND))
        .phase("accept", None)
        .phase("store", None)
        .component(idle("database").phase("store").grace(3 * SECOND))
        .component(idle("http").phase("accept").grace(4 * SECOND).drains())
        .component(Component::lifecycle(inner).after(["database"]))
        .plan()
        .unwrap();
    let outcome = simulate(|stage| {
        stage.signal(SECOND, Signal::Terminate);
        stage.imitate(&plan, |stage, name| match name {
            "http" => stage.fake(name).stops(Duration::ZERO, Act::Hang),
            _ => stage.fake(name).stops(Duration::from_millis(500), Act::Ok),
        })
    });
    let report = outcome.report().unwrap();
    let error = report.first_error().unwrap().to_string();
    assert_eq!(
        error,
        "component `http` did not stop within 4s and was forced"
    );
    assert_eq!(report.took(), Duration::from_millis(4500), "{report}");
    assert_eq!(report.nested[0].name, "billing", "{report}");
}

fn random(stage: &mut Stage) -> Lifecycle {
    let at = stage.dice().time(5 * SECOND);
    stage.signal(at, Signal::Terminate);
    if stage.dice().below(4) == 0 {
        let more = stage.dice().time(5 * SECOND);
        stage.signal(at + more, Signal::Interrupt);
    }
    let budget = Budget::new(8 * SECOND).jitter(SECOND).lame_duck(SECOND);
    let mut lifecycle = Lifecycle::new("orders").budget(budget);
    let mut names: Vec<String> = Vec::new();
    for index in 0..4 {
        let name = format!("c{index}");
        let fake = stage.random_fake(&name, 3 * SECOND);
        let after = match names.is_empty() {
            true => None,
            false => Some(stage.dice().pick(&names).clone()),
        };
        lifecycle = lifecycle.component(fake.component().after(after));
        names.push(name);
    }
    lifecycle
}

#[test]
fn seeds_keep_the_invariants_and_their_journals() {
    let dies = std::cell::Cell::new(0);
    let fails = std::cell::Cell::new(0);
    Seeds::new(0..200)
        .twice()
        .check(random, |outcome| match outcome.code() {
            130 => dies.set(dies.get() + 1),
            1 => fails.set(fails.get() + 1),
            code => assert_eq!(code, 0),
        });
    // The seeds reach all of it.
    assert!(dies.get() > 5 && fails.get() > 20, "{dies:?} {fails:?}");
}

#[test]
fn a_seed_gives_the_same_journal_in_another_process() {
    let print = |outcome: &Outcome| println!("journal:\n{}:end", outcome.journal());
    if std::env::var_os("TASKGROUP_SEED").is_some() {
        return Seeds::new(0..1).check(random, print);
    }
    let journal = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "simulate::a_seed_gives_the_same_journal_in_another_process";
        command
            .args(["--exact", test, "--nocapture"])
            .env("TASKGROUP_SEED", "17");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let journal = text.split_once("journal:\n").expect("a journal").1;
        journal.split_once(":end").expect("its end").0.to_owned()
    };
    let first = journal();
    assert!(first.contains("c0 starts"), "{first}");
    assert_eq!(first, journal());
}

#[test]
fn a_run_that_is_random_by_itself_is_found() {
    let turn = std::cell::Cell::new(0);
    let seeds = Seeds::new(0..1).twice();
    let run = AssertUnwindSafe(|| {
        let setup = |stage: &mut Stage| {
            turn.set(turn.get() + 1);
            stage.journal().note(turn.get());
            stage.at(SECOND, |handle| handle.stop("enough"));
            Lifecycle::new("orders").component(stage.fake("http").component())
        };
        seeds.check(setup, |_| {});
    });
    let panic = catch_unwind(run).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("the same seed has two journals"),
        "{message}"
    );
}

#[test]
#[should_panic = "tasks are left"]
fn a_task_that_is_left_fails_its_seed() {
    Seeds::new(0..1).check(
        |stage| {
            stage.at(SECOND, |handle| handle.stop("enough"));
            Lifecycle::new("orders").component(stage.fake("messy").leaves_a_task().component())
        },
        |_| {},
    );
}
