//! L11: the stop as metrics, by their exact names, labels and values.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use taskgroup::BoxError;
use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Budget, Component, ComponentState, Context, Handle, Lifecycle, Report};
use taskgroup::process::Heartbeat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// What was recorded since the last look: `name{component}` and the values. A look sets all to 0.
type Seen = BTreeMap<String, Vec<f64>>;

/// The durations, the errors and what was in flight, as far as there is something.
fn told(snapshotter: &Snapshotter) -> Seen {
    let mut seen = seen(snapshotter);
    seen.retain(|key, values| {
        let errors = key.starts_with("shutdown_errors_total");
        let in_flight = key.starts_with("shutdown_in_flight") && *values != [0.0];
        errors || in_flight || (key.starts_with("shutdown_duration") && !values.is_empty())
    });
    seen
}

fn seen(snapshotter: &Snapshotter) -> Seen {
    let mut seen = Seen::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let (kind, key) = key.into_parts();
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let (expected, values) = match value {
            DebugValue::Counter(count) => (MetricKind::Counter, vec![count as f64]),
            DebugValue::Gauge(gauge) => (MetricKind::Gauge, vec![gauge.into_inner()]),
            DebugValue::Histogram(values) => (
                MetricKind::Histogram,
                values.into_iter().map(|value| value.into_inner()).collect(),
            ),
        };
        assert_eq!(kind, expected);
        seen.insert(format!("{}{{{}}}", key.name(), labels.join(",")), values);
    }
    seen
}

fn expected<const N: usize>(values: [(&str, f64); N]) -> Seen {
    values
        .into_iter()
        .map(|(key, value)| (key.to_owned(), vec![value]))
        .collect()
}

/// Runs `test` with a recorder of its own, on a paused clock.
fn recorded(test: impl AsyncFnOnce(&Snapshotter)) {
    recorded_on(true, test);
}

fn recorded_on(paused: bool, test: impl AsyncFnOnce(&Snapshotter)) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(&snapshotter)));
}

fn observed() -> Lifecycle {
    Lifecycle::new("orders")
        .budget(30 * SECOND)
        .observe(taskgroup::process::metrics::observer())
}

/// A component that is ready at once, and that takes `stop` to stop.
fn component(name: &'static str, stop: Duration) -> Component {
    Component::new(name, move |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(stop).await)
    })
}

async fn stopped(lifecycle: Lifecycle) -> Report {
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap()
}

#[test]
fn l11_each_component_and_the_whole_have_a_duration_in_seconds() {
    recorded(async |snapshotter| {
        let lifecycle = observed()
            .component(component("db", SECOND))
            .component(component("http", 2 * SECOND).after(["db"]));
        let report = stopped(lifecycle).await;

        assert!(report.is_clean(), "{report}");
        assert_eq!(
            told(snapshotter),
            expected([
                ("shutdown_duration_seconds{component=orders/db}", 1.0),
                ("shutdown_duration_seconds{component=orders/http}", 2.0),
                ("shutdown_duration_seconds{component=orders}", 3.0),
                ("shutdown_errors_total{component=orders/db}", 0.0),
                ("shutdown_errors_total{component=orders/http}", 0.0),
                ("shutdown_errors_total{component=orders}", 0.0),
            ])
        );
    });
}

#[test]
fn l11_all_series_exist_at_0_from_the_start() {
    recorded(async |snapshotter| {
        let lifecycle = observed().component(component("http", SECOND));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));

        let at_first = seen(snapshotter);
        let of_both = ["duration_seconds", "errors_total", "forced_total"];
        let names = of_both.map(|name| format!("shutdown_{name}{{component=orders}}"));
        let of_component = ["in_flight", "pending"].iter().chain(&of_both);
        let of_component =
            of_component.map(|name| format!("shutdown_{name}{{component=orders/http}}"));
        let of_whole = ["budget_seconds", "started_timestamp_seconds"];
        let of_whole = of_whole.map(|name| format!("shutdown_{name}{{component=orders}}"));
        let mut names: Vec<_> = of_component.chain(names).chain(of_whole).collect();
        names.sort();
        assert_eq!(at_first.keys().cloned().collect::<Vec<_>>(), names);
        for (name, values) in at_first {
            match &*name {
                "shutdown_pending{component=orders/http}" => assert_eq!(values, [1.0]),
                _ if name.starts_with("shutdown_duration") => {
                    assert!(values.is_empty(), "{values:?}");
                }
                _ => assert_eq!(values, [0.0], "{name}"),
            }
        }
        handle.stop("enough");
        assert!(run.await.unwrap().unwrap().is_clean());
    });
}

#[test]
fn l11_what_was_forced_is_counted_and_a_component_is_pending_until_its_end() {
    recorded(async |snapshotter| {
        let deaf = Component::new("deaf", |ctx: Context| async move {
            ctx.ready();
            pending().await
        });
        let lifecycle = observed().component(deaf.grace(3 * SECOND));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        handle.stop("enough");
        sleep(SECOND).await;

        let stopping = seen(snapshotter);
        assert_eq!(stopping["shutdown_pending{component=orders/deaf}"], [1.0]);
        assert_eq!(
            stopping["shutdown_budget_seconds{component=orders}"],
            [30.0]
        );
        let started = stopping["shutdown_started_timestamp_seconds{component=orders}"][0];
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((now - 60.0..=now).contains(&started), "{started}");

        assert!(run.await.unwrap().unwrap().was_forced());
        let over = seen(snapshotter);
        assert_eq!(over["shutdown_pending{component=orders/deaf}"], [0.0]);
        assert_eq!(over["shutdown_forced_total{component=orders/deaf}"], [1.0]);
        assert_eq!(over["shutdown_forced_total{component=orders}"], [0.0]);
    });
}

#[test]
fn l11_the_whole_takes_the_lame_duck_and_the_cleanup_too() {
    recorded(async |snapshotter| {
        let lifecycle = observed()
            .budget(Budget::new(30 * SECOND).lame_duck(5 * SECOND))
            .component(component("db", SECOND));
        lifecycle
            .cleanup()
            .push(Step::new("flush", |_| async {
                Ok(sleep(2 * SECOND).await)
            }))
            .unwrap();
        stopped(lifecycle).await;

        let seen = seen(snapshotter);
        assert_eq!(seen["shutdown_duration_seconds{component=orders}"], [8.0]);
        assert_eq!(
            seen["shutdown_duration_seconds{component=orders/db}"],
            [1.0]
        );
    });
}

#[test]
fn l11_errors_are_counted_where_they_belong_and_their_sum_is_the_reports() {
    recorded(async |snapshotter| {
        let crash = Component::new("worker", |ctx| async move {
            ctx.ready();
            for _ in 0..3 {
                ctx.group()
                    .task("helper")
                    .spawn(async { Err::<(), BoxError>("no disk".into()) });
            }
            Ok(ctx.stopping().await)
        });
        let deaf = Component::new("db", |ctx| async move {
            ctx.ready();
            pending().await
        });
        let report = observed()
            .component(deaf.grace(3 * SECOND))
            .component(component("idle", SECOND))
            .component(crash.after(["db"]))
            .run()
            .await
            .unwrap();

        let seen = seen(snapshotter);
        let errors =
            |component: &str| seen[&format!("shutdown_errors_total{{component={component}}}")][0];
        assert_eq!(errors("orders/worker"), 3.0);
        assert_eq!(errors("orders/db"), 1.0);
        assert_eq!(errors("orders/idle"), 0.0);
        assert_eq!(errors("orders"), 0.0);
        assert_eq!(report.errors.len(), 4, "{report}");
        assert_eq!(
            seen["shutdown_duration_seconds{component=orders/db}"],
            [3.0]
        );
    });
}

#[test]
fn l11_an_error_of_no_component_is_the_lifecycles() {
    recorded(async |snapshotter| {
        let (heartbeat, lease) = Heartbeat::new("lease", SECOND);
        let report = observed()
            .component(component("db", SECOND))
            .stop_on(lease)
            .run()
            .await
            .unwrap();

        drop(heartbeat);
        assert_eq!(report.errors.len(), 1, "{report}");
        let seen = seen(snapshotter);
        assert_eq!(seen["shutdown_errors_total{component=orders}"], [1.0]);
        assert_eq!(seen["shutdown_errors_total{component=orders/db}"], [0.0]);
    });
}

#[test]
fn l11_what_never_ran_has_no_metrics() {
    recorded(async |snapshotter| {
        let bad = Component::new("db", |_| async { Err("refused".into()) });
        let report = observed()
            .component(bad)
            .component(component("http", SECOND).after(["db"]))
            .run()
            .await
            .unwrap();

        assert_eq!(report.errors.len(), 1);
        let seen = seen(snapshotter);
        assert_eq!(seen["shutdown_errors_total{component=orders/db}"], [1.0]);
        assert!(!seen.keys().any(|key| key.contains("http")), "{seen:?}");
    });
}

#[test]
fn l11_in_flight_is_what_was_so_at_the_trigger_and_known_then() {
    recorded(async |snapshotter| {
        let (sender, context) = oneshot::channel();
        let worker = Component::new("worker", |ctx: Context| async move {
            ctx.ready();
            ctx.set_in_flight(9);
            sender.send(ctx.clone()).unwrap();
            ctx.stopping().await;
            Ok(ctx.set_in_flight(0))
        });
        let lifecycle = observed()
            .budget(Budget::new(30 * SECOND).lame_duck(5 * SECOND))
            .component(worker)
            .component(component("silent", SECOND));
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        assert_eq!(handle.ready().await, Ok(()));
        let context = context.await.unwrap();
        context.set_in_flight(7);
        handle.stop("enough");
        sleep(SECOND).await;

        // In the lame duck: no component has been told yet.
        assert_eq!(handle.state("worker"), Some(ComponentState::Running));
        let in_flight = "shutdown_in_flight{component=orders/worker}";
        assert_eq!(seen(snapshotter)[in_flight], [7.0]);
        context.set_in_flight(4);
        let report = run.await.unwrap().unwrap();

        let seen = seen(snapshotter);
        assert_eq!(seen[in_flight], [0.0], "it is not set again");
        let silent = &seen["shutdown_in_flight{component=orders/silent}"];
        assert_eq!(silent[..], [0.0]);
        assert_eq!(report.in_flight, 4, "when it was told");
    });
}

#[test]
fn l11_what_is_said_only_when_told_is_there_at_the_end() {
    recorded(async |snapshotter| {
        let worker = Component::new("worker", |ctx: Context| async move {
            ctx.ready();
            ctx.stopping().await;
            ctx.set_in_flight(3);
            Ok(ctx.set_in_flight(0))
        });
        let report = stopped(observed().component(worker)).await;

        let in_flight = "shutdown_in_flight{component=orders/worker}";
        assert_eq!(seen(snapshotter)[in_flight], [3.0]);
        assert_eq!(report.in_flight, 3);
    });
}

/// A server with one request that waits for `answer`; its component may drop it when it is told to stop.
async fn asked(
    lifecycle: Lifecycle,
    drop_it: bool,
) -> (
    Handle,
    tokio::task::JoinHandle<Report>,
    oneshot::Sender<()>,
    tokio::net::TcpStream,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (started, starts) = oneshot::channel();
    let (answer, answered) = oneshot::channel::<()>();
    let once = Arc::new(std::sync::Mutex::new(Some((started, answered))));
    let app = axum::Router::new().route(
        "/",
        axum::routing::get(move || {
            let (started, answered) = once.lock().unwrap().take().unwrap();
            async {
                started.send(()).unwrap();
                drop(answered.await);
            }
        }),
    );
    let http = Component::new("http", move |ctx| async move {
        ctx.ready();
        let server = taskgroup::server::axum::serve("http", listener, app).run(&ctx);
        tokio::select! {
            biased;
            () = ctx.stopping(), if drop_it => Ok(()),
            result = server => Ok(result?),
        }
    });
    let lifecycle = lifecycle.component(http);
    let handle = lifecycle.handle();
    let run = tokio::spawn(async { lifecycle.run().await.unwrap() });
    assert_eq!(handle.ready().await, Ok(()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    starts.await.unwrap();
    (handle, run, answer, client)
}

#[test]
fn l11_a_server_says_what_is_in_flight_at_the_trigger() {
    recorded_on(false, async |snapshotter| {
        let (handle, run, answer, mut client) = asked(observed(), false).await;
        let in_flight = "shutdown_in_flight{component=orders/http}";
        assert_eq!(seen(snapshotter)[in_flight], [0.0]);
        handle.stop("enough");
        handle
            .wait_for("http", ComponentState::Draining)
            .await
            .unwrap();

        assert_eq!(seen(snapshotter)[in_flight], [1.0], "before it is answered");
        answer.send(()).unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        let report = run.await.unwrap();
        assert_eq!(report.in_flight, 1);
        assert_eq!(seen(snapshotter)[in_flight], [0.0], "it is not set again");
    });
}

#[test]
fn l11_a_server_that_is_dropped_at_its_stop_has_said_what_was_in_flight() {
    recorded_on(false, async |_| {
        let (handle, run, _answer, _client) = asked(Lifecycle::new("orders"), true).await;
        handle.stop("enough");
        let report = run.await.unwrap();

        assert!(report.is_clean(), "{report}");
        assert_eq!(report.in_flight, 1);
    });
}

mod pipelines {
    use std::time::Duration;

    use taskgroup::TaskGroup;
    use taskgroup::pipeline::{
        Job, JobError, Mark, Received, Valve, Watermark, Workers, from_stream,
    };
    use taskgroup::supervise::Backoff;

    use super::*;

    const NAMES: [&str; 16] = [
        "pipeline_acks_failed_total{pipeline=mail}",
        "pipeline_attempts_total{pipeline=mail}",
        "pipeline_begun_total{pipeline=mail}",
        "pipeline_buffered{pipeline=mail}",
        "pipeline_capacity{pipeline=mail}",
        "pipeline_cut_total{pipeline=mail}",
        "pipeline_dead_letters_total{pipeline=mail}",
        "pipeline_ended_total{pipeline=mail,end=done}",
        "pipeline_ended_total{pipeline=mail,end=failed}",
        "pipeline_ended_total{pipeline=mail,end=handed back}",
        "pipeline_ended_total{pipeline=mail,end=panicked}",
        "pipeline_in_backoff{pipeline=mail}",
        "pipeline_in_flight{pipeline=mail}",
        "pipeline_oldest_buffered_seconds{pipeline=mail}",
        "pipeline_paused{pipeline=mail}",
        "pipeline_taken_in_total{pipeline=mail}",
    ];

    async fn act(job: Job<&'static str>) -> Result<(), JobError> {
        match *job {
            "fails" => Err(JobError::permanent("no address")),
            "panics" => panic!("poison"),
            "again" => Err(JobError::failed("busy")),
            "hangs" => Ok(pending().await),
            "given back" => Err(JobError::hand_back("not mine")),
            _ => Ok(()),
        }
    }

    #[test]
    fn p5_all_series_of_a_pool_are_there_at_0_from_the_start_and_follow_its_numbers() {
        recorded(async |snapshotter| {
            let mut group = TaskGroup::new();
            let (pusher, pool) = Workers::new("mail", act)
                .limit(2)
                .retry(Backoff::new(60 * SECOND, 60 * SECOND), 2)
                .dead_letter(|_| async { Ok(()) })
                .hand_back(|_| async { Ok(()) })
                .grace(SECOND)
                .metrics()
                .queue(10)
                .unwrap();
            let report = pool.spawn(&group);
            sleep(Duration::from_millis(1)).await;
            let at_first = seen(snapshotter);
            let names: Vec<_> = at_first.keys().map(String::as_str).collect();
            assert_eq!(names, NAMES);
            for (name, values) in &at_first {
                let expected = if name.starts_with("pipeline_capacity") {
                    10.0
                } else {
                    0.0
                };
                assert_eq!(values[..], [expected], "{name}");
            }

            // The last two hang, so that two more wait.
            let items = [
                "done",
                "fails",
                "given back",
                "again",
                "panics",
                "hangs",
                "hangs",
                "late",
                "late",
            ];
            for item in items {
                pusher.push(item).await.unwrap();
            }
            sleep(2 * SECOND).await;
            let of = |name: &str| format!("{name}{{pipeline=mail}}");
            let end = |end: &str| format!("pipeline_ended_total{{pipeline=mail,end={end}}}");
            let running = seen(snapshotter);
            for (name, value) in [
                (of("pipeline_taken_in_total"), 9.0),
                (of("pipeline_begun_total"), 7.0),
                // A poison and a failure that is not permanent have a second attempt to come.
                (of("pipeline_attempts_total"), 7.0),
                (of("pipeline_in_backoff"), 2.0),
                (of("pipeline_in_flight"), 4.0),
                (of("pipeline_buffered"), 2.0),
                (of("pipeline_dead_letters_total"), 1.0),
                (end("done"), 1.0),
                (end("failed"), 1.0),
                (end("handed back"), 1.0),
            ] {
                assert_eq!(running[&name][..], [value], "{name}");
            }
            let oldest = running[&of("pipeline_oldest_buffered_seconds")][0];
            assert!((1.9..2.1).contains(&oldest), "{oldest}");

            group.cancel();
            let error = group.wait().await.unwrap_err().into_error().unwrap();
            assert!(report.await.is_err(), "{error:#}");
            let over = seen(snapshotter);
            for (name, value) in [
                (of("pipeline_cut_total"), 2.0),
                (of("pipeline_in_flight"), 0.0),
                (of("pipeline_buffered"), 0.0),
                (of("pipeline_in_backoff"), 0.0),
                (of("pipeline_oldest_buffered_seconds"), 0.0),
                (end("handed back"), 7.0),
            ] {
                assert_eq!(over[&name][..], [value], "{name}");
            }
        });
    }

    #[test]
    fn p6_the_lag_of_the_watermark_and_a_pause_are_gauges() {
        recorded(async |snapshotter| {
            let mut group = TaskGroup::new();
            let (valve, watermark) = (Valve::new(), Watermark::new("orders", 100).unwrap());
            let mut items = Vec::new();
            for (partition, offset) in [(0, 1), (0, 2), (0, 7), (1, 1)] {
                let mark = watermark.take_in(partition, offset).await;
                items.push(Received::new(offset, mark));
            }
            let orders = futures_util::stream::iter(items);
            valve.pause();
            let pool = Workers::new("mail", |_: Job<u64, Mark>| async { Ok(()) })
                .valve(&valve)
                .watermark(&watermark)
                .metrics()
                .source(from_stream(orders))
                .unwrap();
            pool.spawn(&group);
            sleep(Duration::from_millis(1)).await;
            let expected = |paused: f64, lag: f64, seen: &BTreeMap<String, Vec<f64>>| {
                assert_eq!(seen["pipeline_paused{pipeline=mail}"], [paused]);
                assert_eq!(seen["pipeline_watermark_lag{pipeline=mail}"], [lag]);
            };
            // Partition 0 has three open items, and partition 1 has one.
            expected(1.0, 3.0, &seen(snapshotter));
            valve.resume();
            group.wait().await.unwrap();
            expected(0.0, 0.0, &seen(snapshotter));
        });
    }
}
