//! From `exec` to the ready line, or to the reason why it never comes.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use taskgroup::testing::Ended;

use crate::http;
use crate::service::{
    AT_ONCE, STOP_SIGNALS, Service, Signal, orders, orders_on_free_ports, spin_until, wait_until,
};

#[track_caller]
fn run(options: &[&str]) -> (Ended, Duration) {
    let begin = Instant::now();
    let end = orders_on_free_ports(options).start().wait();
    (end, begin.elapsed())
}

#[test]
fn a_port_in_use_ends_it_at_once_and_is_named_with_its_server() {
    for server in ["http", "grpc", "metrics"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let (end, took) = run(&[&format!("--{server}"), &address]);
        end.assert_code(1);
        end.assert_says(&format!("server `{server}`: cannot listen on {address}"));
        assert_eq!(end.stdout(), "");
        assert!(took < AT_ONCE, "{took:?}");
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_named() {
    let (end, _) = run(&["--db", "sqlite:/no/such/directory/orders.sqlite"]);
    end.assert_code(1);
    end.assert_says("cannot open the database sqlite:/no/such/directory/orders.sqlite");
    assert_eq!(end.stdout(), "");
}

#[test]
fn a_postgresql_server_that_is_not_there_is_named_at_once() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (end, took) = run(&["--db", &format!("postgres://shop:secret@{unused}/orders")]);
    end.assert_code(1);
    end.assert_says(&format!(
        "cannot open the database postgres://shop@{unused}/orders"
    ));
    assert!(!end.stderr().contains("secret"), "{}", end.stderr());
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn an_option_that_makes_no_sense_is_named() {
    let (end, _) = run(&["--grace", "soon"]);
    end.assert_code(2);
    end.assert_says("'soon' for '--grace <SECONDS>'");
    assert_eq!(end.stdout(), "");
}

#[test]
fn without_a_database_it_takes_a_fresh_file_and_prints_its_path() {
    let binary = orders().args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    let service = Service::start_with(&binary);
    service.signal(Signal::Terminate);
    let end = service.wait();
    end.assert_code(0);
    let path = end
        .stderr()
        .split_once("sqlite:")
        .expect("the path is printed")
        .1;
    let path = path.lines().next().unwrap();
    assert!(
        path.starts_with(std::env::temp_dir().to_str().unwrap()),
        "{path}"
    );
    std::fs::remove_file(path).expect("the file is there");
}

/// The first instant at which a signal can be handled at all.
#[test]
fn a_signal_at_the_first_instant_is_a_clean_exit() {
    for (signal, _) in STOP_SIGNALS {
        for _ in 0..10 {
            let process = orders_on_free_ports(&[]).start();
            spin_until("the handler", || process.catches(signal));
            process.signal(signal);
            process.wait().assert_code(0);
        }
    }
}

#[test]
fn a_signal_at_any_time_of_the_start_is_a_clean_exit() {
    for (signal, _) in STOP_SIGNALS {
        for delay in 0..15 {
            let process = orders_on_free_ports(&[]).start();
            wait_until("the handlers", || process.catches(signal));
            // Each delay hits another part of the start, and all of them end well.
            thread::sleep(Duration::from_millis(delay));
            process.signal(signal);
            process.wait().assert_code(0);
        }
    }
}

#[test]
fn a_signal_during_a_start_that_hangs_is_a_clean_exit() {
    // Accepts connections in its queue and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = format!("postgres://{}/orders", silent.local_addr().unwrap());
    let process = orders_on_free_ports(&["--db", &database]).start();
    silent.set_nonblocking(true).unwrap();
    let mut connection = None;
    wait_until("the connection", || {
        connection = silent.accept().ok();
        connection.is_some()
    });
    let begin = Instant::now();
    process.signal(Signal::Terminate);
    process.wait().assert_code(0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

/// The metrics are there already, and so are the probes beside them.
#[test]
fn a_signal_during_the_start_stops_what_has_started_and_starts_nothing_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = format!("postgres://{}/orders", silent.local_addr().unwrap());
    let options = ["--db", &database, "--metrics", "127.0.0.1:0"];
    let process = orders_on_free_ports(&options).start();
    let connection = silent.accept().unwrap();
    process.line("/metrics");
    let log = process.stderr();
    let metrics = log.split_once("metrics: on http://").expect("an address").1;
    let metrics = metrics.split_once("/metrics").expect("a path").0;
    let metrics = metrics.parse().expect("an address");
    assert_eq!(http::get(metrics, "/metrics").unwrap().status, 200);
    let ready = http::get(metrics, "/readyz").unwrap();
    assert_eq!((ready.status, ready.body.as_str()), (503, "starting"));

    process.signal(Signal::Terminate);
    let end = process.wait();
    end.assert_code(0);
    end.assert_says("server `metrics` drained");
    assert!(!end.stderr().contains("server `http`"), "{}", end.stderr());
    assert_eq!(end.stdout(), "");
    drop(connection);
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let service = Service::start_with(&orders_on_free_ports(&[]).notified());
    let notified = |what: &str| service.process.notified().iter().any(|line| line == what);
    wait_until("READY=1", || notified("READY=1"));
    assert!(!notified("STOPPING=1"));
    service.signal(Signal::Terminate);
    wait_until("STOPPING=1", || notified("STOPPING=1"));
    service.wait().assert_code(0);
}
