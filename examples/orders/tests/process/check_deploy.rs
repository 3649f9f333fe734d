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

#[test]
fn the_files_in_deploy_fit_the_plan() {
    let (pod, haproxy) = (
        deployed("kubernetes/orders.yaml"),
        deployed("haproxy/haproxy.cfg"),
    );
    let options = [
        "--lame-duck=5",
        "--grace=5",
        "--check-deploy",
        &pod,
        &haproxy,
    ];
    let end = run(&options);
    end.assert_code(0);
    assert!(!end.stdout().contains(": error "), "{}", end.stdout());
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
