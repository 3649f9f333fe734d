//! The deployment files are compared with the plan.

use std::fs;

use crate::service::{Process, fresh_path, orders_on_free_ports};

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
    let end = Process::spawn(orders_on_free_ports(&options)).wait();
    end.assert_code(0);
    assert!(!end.stdout.contains(": error "), "{}", end.stdout);
    assert!(end.stdout.contains("assumed: "), "{}", end.stdout);
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
    let end = Process::spawn(orders_on_free_ports(&["--check-deploy", &name])).wait();
    end.assert_code(1);
    assert!(end.stdout.contains(&format!("{name}:")), "{}", end.stdout);
    assert!(
        end.stdout
            .contains("error D01: 28s + 1s = 29s is more than 20s"),
        "{}",
        end.stdout
    );
    assert!(
        end.stderr.contains("the deployment does not fit the plan"),
        "{}",
        end.stderr
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let end = Process::spawn(orders_on_free_ports(&[
        "--check-deploy",
        "/nonexistent/pod.yaml",
    ]))
    .wait();
    end.assert_code(1);
    assert!(
        end.stderr.contains("/nonexistent/pod.yaml"),
        "{}",
        end.stderr
    );
}
