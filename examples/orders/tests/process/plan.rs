//! What is told about the stop before anything is opened.

use std::net::TcpListener;
use std::time::Duration;

use taskgroup::lifecycle::Budget;
use taskgroup::testing::Ended;

use crate::service::{fresh_path, orders_on_free_ports};

const LIMIT: &str = "TERMINATION_GRACE_PERIOD_SECONDS";

#[track_caller]
fn run(options: &[&str]) -> Ended {
    orders_on_free_ports(options).start().wait()
}

#[track_caller]
fn refused(options: &[&str]) -> String {
    let end = run(options);
    end.assert_code(1);
    assert_eq!(end.stdout(), "");
    end.stderr().to_owned()
}

#[test]
fn the_plan_is_printed() {
    let end = run(&["--plan"]);
    end.assert_code(0);
    assert_eq!(end.stderr(), "");
    let plan = "\
orders: 5 components, budget 28s

start
  1  metrics             within 30s
  2  database  resource  within 30s  after metrics
  3  grpc                within 30s  after database
     worker              within 30s  after database
  4  http                within 30s  after grpc

stop
  1  http      within 5.5s   by 5.5s
     worker    within 16.2s  by 16.2s
  2  grpc      within 5.5s   by 11s
  3  database  within 2.7s   by 18.9s
  4  metrics   within 8.1s   by 27s
     margin 1s: to end what was forced, and to report

longest chain worker → database → metrics: 27s of 27s
";
    assert_eq!(end.stdout(), plan);
}

#[test]
fn the_plan_has_the_times_that_were_asked_for() {
    let times = ["--budget", "20", "--lame-duck", "5", "--grace", "2"];
    let end = run(&[&times[..], &["--plan"]].concat());
    end.assert_code(0);
    for line in [
        "orders: 5 components, budget 20s\n",
        "     lame duck 5s: not ready, still serving\n",
        "  1  http      within 2.5s  by 7.5s\n",
        "  2  grpc      within 2.5s  by 10s\n",
    ] {
        assert!(end.stdout().contains(line), "{line:?}: {}", end.stdout());
    }
}

#[test]
fn the_plan_is_that_of_the_demo_too() {
    let demo = run(&["demo", "--plan"]);
    demo.assert_code(0);
    assert_eq!(demo.stdout(), run(&["--plan"]).stdout());
}

#[test]
fn with_times_the_plan_says_how_long_the_stop_is_likely_to_take() {
    let file = fresh_path("txt");
    std::fs::write(
        &file,
        "# stops of a week\nhttp 1 2 6\ndatabase median 0.2 p99 2\n",
    )
    .unwrap();
    let end = run(&["--plan", "--times", file.to_str().unwrap()]);
    end.assert_code(0);
    for part in [
        "\norders: 10000 stops, mean ",
        "99th percentile ",
        "\ncritical chain http → database: in ",
        "\nno times, counted as 0s: metrics, grpc, worker\n",
    ] {
        assert!(end.stdout().contains(part), "{part:?}: {}", end.stdout());
    }
}

#[test]
fn times_that_cannot_be_read_are_named_with_their_file() {
    let file = fresh_path("txt");
    let path = file.to_str().unwrap();
    let error = refused_after_the_plan(path);
    assert!(
        error.starts_with(&format!("error: --times {path}: ")),
        "{error}"
    );
    std::fs::write(&file, "http soon\n").unwrap();
    let error = refused_after_the_plan(path);
    let expected = format!(
        "error: --times {path}: stop times, line 1: `time` cannot be `soon`: it is not a number of seconds\n"
    );
    assert_eq!(error, expected);
}

#[track_caller]
fn refused_after_the_plan(times: &str) -> String {
    let end = run(&["--plan", "--times", times]);
    end.assert_code(1);
    end.stderr().to_owned()
}

#[test]
fn nothing_is_opened_for_the_plan() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let path = fresh_path("sqlite");
    let database = format!("sqlite:{}", path.display());
    let end = run(&[
        "--plan",
        "--http",
        &taken,
        "--metrics",
        &taken,
        "--db",
        &database,
    ]);
    end.assert_code(0);
    assert!(!path.exists());
}

#[test]
fn a_grace_that_does_not_fit_into_the_budget_is_refused_and_named() {
    for more in [&[][..], &["--plan"], &["demo"]] {
        let options = [&["--budget", "10", "--grace", "5"], more].concat();
        assert_eq!(
            refused(&options),
            "error: the budget of 10s is smaller than its parts: \
             `http` 5.5s + `grpc` 5.5s + margin 1s = 12s\n"
        );
    }
}

#[test]
fn a_lame_duck_that_does_not_fit_into_the_budget_is_refused_and_named() {
    let error = refused(&["--budget", "10", "--lame-duck", "20"]);
    assert!(
        error.starts_with("error: the budget of 10s is smaller than its parts: lame duck 20s + "),
        "{error}"
    );
}

#[test]
fn a_budget_of_nothing_is_refused() {
    assert_eq!(
        refused(&["--budget", "0"]),
        "error: the budget is 0s: there is no time to stop anything\n"
    );
}

#[test]
fn a_budget_above_the_limit_of_the_platform_is_refused() {
    for (limit, options, error) in [
        (
            "20",
            &[][..],
            "budget 28s + 1s = 29s is more than TERMINATION_GRACE_PERIOD_SECONDS of 20s",
        ),
        (
            "60",
            &["--budget", "60"],
            "budget 60s + 1s = 61s is more than TERMINATION_GRACE_PERIOD_SECONDS of 60s",
        ),
        (
            "60",
            &["--grace", "30"],
            "the budget of 28s is smaller than its parts: `http` 30.5s + `grpc` 30.5s + margin 1s = 62s",
        ),
        (
            "soon",
            &[],
            "environment variable `TERMINATION_GRACE_PERIOD_SECONDS` is no number of seconds: `soon`",
        ),
    ] {
        let binary = orders_on_free_ports(options).env(LIMIT, limit);
        let end = binary.start().wait();
        end.assert_code(1);
        assert_eq!(end.stderr(), format!("error: {error}\n"));
    }
}

/// In a pod the defaults are those of the preset, and `--budget` and `--lame-duck` change them.
#[test]
fn in_a_pod_the_defaults_are_those_of_the_preset() {
    let preset = Budget::kubernetes();
    let head = |options: &[&str], variables: &[(&str, &str)]| {
        let pod = orders_on_free_ports(&[options, &["--plan"]].concat());
        let pod = pod.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let pod = variables
            .iter()
            .fold(pod, |pod, (name, value)| pod.env(name, value));
        let end = pod.start().wait();
        end.assert_code(0);
        let line = end.stdout().lines().next().unwrap_or_default().to_owned();
        (line, end.stdout().contains("lame duck 5s"))
    };
    let (line, waits) = head(&[], &[]);
    let total = format!("budget {}s ", preset.total().as_secs());
    assert!(line.contains(&total) && waits, "{line}");
    assert_eq!(preset.lame_duck_time(), Duration::from_secs(5));

    let (line, waits) = head(
        &["--lame-duck=0"],
        &[(LIMIT, "60"), ("PRE_STOP_SECONDS", "5")],
    );
    assert!(line.contains("budget 53s ") && !waits, "{line}");
    let (line, _) = head(&["--budget=20"], &[]);
    assert!(line.contains("budget 20s"), "{line}");
}
