//! The deployment files are compared with the plan.

use std::fs;

use taskgroup::testing::Ended;

use crate::service::{fresh_path, orders_on_free_ports};

#[track_caller]
fn run(options: &[&str]) -> Ended {
    orders_on_free_ports(options).start().wait()
}

/// A file of `deploy/`.
fn deployed(name: &str) -> String {
    format!("{}/../../deploy/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The times among the arguments of the container, such as `--grace=5`.
fn times_of_the_pod() -> Vec<String> {
    let pod = fs::read_to_string(deployed("kubernetes/orders.yaml")).unwrap();
    let arguments = pod
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"));
    let times = arguments.filter(|it| {
        it.split('=')
            .nth(1)
            .is_some_and(|it| it.parse::<f64>().is_ok())
    });
    times.map(|argument| format!("--{argument}")).collect()
}

#[test]
fn the_files_in_deploy_fit_the_plan() {
    let times = times_of_the_pod();
    assert!(
        times.iter().any(|it| it.starts_with("--lame-duck=")),
        "{times:?}"
    );
    assert!(
        times.iter().any(|it| it.starts_with("--last-scrape=")),
        "{times:?}"
    );
    let files = [
        "kubernetes/orders.yaml",
        "haproxy/haproxy.cfg",
        "nginx/orders.conf",
        "docker/Dockerfile",
        "prometheus/prometheus.yml",
    ]
    .map(deployed);
    let options = times.iter().map(String::as_str).chain(["--check-deploy"]);
    let options: Vec<_> = options.chain(files.iter().map(String::as_str)).collect();
    let end = run(&options);
    end.assert_code(0);
    assert!(!end.stdout().contains(": error "), "{}", end.stdout());
    assert!(!end.stdout().contains("D20"), "{}", end.stdout());
    assert!(end.stdout().contains("assumed: "), "{}", end.stdout());
}

#[test]
fn a_file_that_does_not_fit_is_named_and_the_exit_code_is_1() {
    let pod = fs::read_to_string(deployed("kubernetes/orders.yaml")).unwrap();
    let bad = fresh_path("pod.yaml");
    fs::write(
        &bad,
        pod.replace("PeriodSeconds: 30\n", "PeriodSeconds: 20\n"),
    )
    .unwrap();
    let name = bad.to_str().unwrap().to_owned();
    let end = run(&["--check-deploy", &name]);
    end.assert_code(1);
    assert!(
        end.stdout().contains(&format!("{name}:")),
        "{}",
        end.stdout()
    );
    assert!(
        end.stdout()
            .contains("error D01: 28s + 1s = 29s is more than 20s"),
        "{}",
        end.stdout()
    );
    assert!(
        end.stderr()
            .contains("the deployment does not fit the plan"),
        "{}",
        end.stderr()
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let end = run(&["--check-deploy", "/nonexistent/pod.yaml"]);
    end.assert_code(1);
    assert!(
        end.stderr().contains("/nonexistent/pod.yaml"),
        "{}",
        end.stderr()
    );
}
