//! Sidecars of servers that are futures: the clock, the outcomes, drop.

use std::error::Error;
use std::future::{Ready, pending, poll_fn, ready};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use taskgroup::{BoxError, BuildError, CancellationToken, End, Sidecar, SidecarError, TaskGroup};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, advance, sleep};

type Outcome = Result<(), SidecarError>;

const GRACE: Duration = Duration::from_secs(5);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn http() -> Sidecar {
    Sidecar::new("http").grace(GRACE)
}

fn fired() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Runs a sidecar in a task of its own and says how long that took.
fn timed<F>(sidecar: F) -> JoinHandle<(Outcome, Duration)>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let start = Instant::now();
    tokio::spawn(async move { (sidecar.await, start.elapsed()) })
}

#[track_caller]
fn assert_message(outcome: Outcome, message: &str) -> SidecarError {
    let error = outcome.unwrap_err();
    assert_eq!(format!("{error:#}"), message);
    assert_eq!(error.name(), "http");
    error
}

// The clock.

#[tokio::test(start_paused = true)]
async fn clock_starts_at_the_token_and_not_at_the_start_of_the_server() {
    let token = CancellationToken::new();
    let sidecar = timed(http().serve(&token, |_stop| pending::<io::Result<()>>()));
    sleep(secs(3600)).await;
    token.cancel();
    let (outcome, took) = sidecar.await.unwrap();
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(took, secs(3600) + GRACE);
}

#[tokio::test(start_paused = true)]
async fn grace_is_full_however_late_the_server_uses_it() {
    let token = CancellationToken::new();
    let sidecar = timed(http().serve(&token, |stop| async {
        stop.await;
        sleep(GRACE - Duration::from_millis(1)).await;
        io::Result::Ok(())
    }));
    sleep(secs(100)).await;
    token.cancel();
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(105) - Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn server_on_a_fired_token_is_started_asked_at_once_and_has_its_full_grace() {
    let started = Arc::new(AtomicUsize::new(0));
    let sidecar = timed(http().serve(&fired(), {
        let started = started.clone();
        move |stop| async move {
            started.fetch_add(1, Ordering::SeqCst);
            let start = Instant::now();
            stop.await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            sleep(secs(4)).await;
            io::Result::Ok(())
        }
    }));
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(4));
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_first_poll() {
    let calls = Arc::new(AtomicUsize::new(0));
    let sidecar = http().serve(&fired(), {
        let calls = calls.clone();
        move |_stop| {
            calls.fetch_add(1, Ordering::SeqCst);
            pending::<io::Result<()>>()
        }
    });
    sleep(secs(60)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let (outcome, took) = timed(sidecar).await.unwrap();
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(took, GRACE);
}

#[tokio::test(start_paused = true)]
async fn two_sidecars_one_stubborn_and_the_other_not_delayed() {
    let token = CancellationToken::new();
    let stubborn = timed(http().serve(&token, |_stop| pending::<io::Result<()>>()));
    let quick = timed(http().serve(&token, |stop| async {
        stop.await;
        sleep(secs(1)).await;
        io::Result::Ok(())
    }));
    yield_now().await;
    token.cancel();

    let (outcome, took) = quick.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(1));
    let (outcome, took) = stubborn.await.unwrap();
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(took, GRACE);
}

#[tokio::test(start_paused = true)]
async fn grace_of_zero_asks_once_and_forces_at_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let sidecar = timed(http().grace(Duration::ZERO).serve_with_stop(
        &fired(),
        pending::<io::Result<()>>(),
        {
            let asked = asked.clone();
            move |grace| async move {
                assert_eq!(grace, Duration::ZERO);
                asked.fetch_add(1, Ordering::SeqCst);
            }
        },
    ));
    let (outcome, took) = sidecar.await.unwrap();
    assert_message(
        outcome,
        "server `http` did not drain within 0s: it was let go of, connections of it may remain",
    );
    assert_eq!(took, Duration::ZERO);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn grace_of_zero_is_enough_for_a_server_that_stops_when_asked() {
    let idle = http().grace(Duration::ZERO).serve(&fired(), |stop| async {
        stop.await;
        io::Result::Ok(())
    });
    let (outcome, took) = timed(idle).await.unwrap();
    outcome.unwrap();
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn endless_grace_never_forces() {
    let sidecar = timed(http().grace(Duration::MAX).serve(&fired(), |stop| async {
        stop.await;
        sleep(secs(1_000_000)).await;
        io::Result::Ok(())
    }));
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(1_000_000));
}

#[tokio::test(start_paused = true)]
async fn server_that_drained_while_nobody_could_look_at_the_clock_is_timed_out() {
    let token = fired();
    let mut sidecar = pin!(http().serve(&token, |stop| async {
        stop.await;
        yield_now().await;
        io::Result::Ok(())
    }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(sidecar.as_mut().poll(&mut cx).is_pending());
    advance(secs(8)).await;
    assert_message(
        sidecar.await,
        "server `http` did not drain within 5s: it took 8s",
    );
}

// The outcomes.

#[tokio::test(start_paused = true)]
async fn server_that_ends_by_itself_has_ended_early() {
    let outcome: Outcome = http()
        .serve(&CancellationToken::new(), |_stop| ready(io::Result::Ok(())))
        .await;
    let error = assert_message(outcome, "server `http` ended before it was asked to stop");
    assert_eq!(error.end(), End::EndedEarly);
    assert!(!error.is_timed_out());
    assert_eq!(error.grace(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn server_that_fails_has_its_error_as_the_source() {
    let outcome: Outcome = http()
        .serve(&CancellationToken::new(), |_stop| async {
            Err::<(), _>(io::Error::from(io::ErrorKind::AddrInUse))
        })
        .await;
    let error = assert_message(outcome, "server `http` failed: address in use");
    assert_eq!(error.end(), End::Failed);
    let source = Error::source(&error).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_in_the_poll_in_which_the_token_fires_has_stopped() {
    let token = CancellationToken::new();
    let outcome: Outcome = http()
        .serve(&token, |_stop| {
            let token = token.clone();
            async move {
                yield_now().await;
                token.cancel();
                io::Result::Ok(())
            }
        })
        .await;
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn server_that_fails_in_the_poll_in_which_the_token_fires_has_failed() {
    let token = CancellationToken::new();
    let outcome: Outcome = http()
        .serve(&token, |_stop| {
            let token = token.clone();
            async move {
                token.cancel();
                Err::<(), _>("disk full")
            }
        })
        .await;
    assert_message(outcome, "server `http` failed: disk full");
}

#[tokio::test(start_paused = true)]
async fn server_that_fails_while_draining_says_so() {
    let outcome: Outcome = http()
        .serve(&fired(), |stop| async {
            stop.await;
            Err::<(), _>("disk full")
        })
        .await;
    let error = assert_message(outcome, "server `http` failed while draining: disk full");
    assert_eq!(error.end(), End::Failed);
}

#[tokio::test(start_paused = true)]
async fn server_that_is_not_down_in_time_is_let_go_of_and_said_to_leave_connections() {
    let held = Arc::new(());
    let outcome: Outcome = http()
        .serve(&fired(), {
            let held = held.clone();
            move |_stop| async move {
                pending::<()>().await;
                drop(held);
                io::Result::Ok(())
            }
        })
        .await;
    let error = assert_message(
        outcome,
        "server `http` did not drain within 5s: it was let go of, connections of it may remain",
    );
    assert!(error.is_timed_out());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn value_of_the_server_does_not_matter() {
    let outcome: Outcome = http()
        .serve(&fired(), |_stop| ready(io::Result::Ok("served 7 requests")))
        .await;
    outcome.unwrap();
}

// The stop.

#[tokio::test(start_paused = true)]
async fn stop_is_asked_once_with_a_little_less_than_the_grace() {
    let token = CancellationToken::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let handle = Arc::new(Notify::new());
    let server = {
        let handle = handle.clone();
        async move {
            handle.notified().await;
            sleep(secs(2)).await;
            io::Result::Ok(())
        }
    };
    let sidecar = timed(http().serve_with_stop(&token, server, {
        let asked = asked.clone();
        move |grace| async move {
            asked.lock().unwrap().push(grace);
            handle.notify_one();
        }
    }));
    sleep(secs(1)).await;
    assert!(asked.lock().unwrap().is_empty());
    token.cancel();
    token.cancel();
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(3));
    assert_eq!(*asked.lock().unwrap(), [GRACE - Duration::from_millis(100)]);
}

#[tokio::test(start_paused = true)]
async fn stop_is_not_asked_if_the_server_ended_by_itself() {
    let token = CancellationToken::new();
    let server = {
        let token = token.clone();
        async move {
            token.cancel();
            io::Result::Ok(())
        }
    };
    let never = |_grace| async { unreachable!("the server has ended") };
    let outcome: Outcome = http().serve_with_stop(&token, server, never).await;
    outcome.unwrap();

    let early = ready(io::Result::Ok(()));
    let outcome: Outcome = http()
        .serve_with_stop(&CancellationToken::new(), early, never)
        .await;
    assert_eq!(outcome.unwrap_err().end(), End::EndedEarly);
}

#[tokio::test(start_paused = true)]
async fn stop_function_that_panics_is_told_and_the_server_has_its_grace() {
    for at_the_call in [true, false] {
        let drained = async {
            sleep(secs(4)).await;
            io::Result::Ok(())
        };
        let sidecar = timed(http().serve_with_stop(&fired(), drained, move |_grace| {
            assert!(!at_the_call, "no handle");
            async { panic!("no handle") }
        }));
        let (outcome, took) = sidecar.await.unwrap();
        assert_eq!(took, secs(4));
        let error = assert_message(
            outcome,
            "server `http` drained (its stop function panicked: no handle)",
        );
        assert!(error.is_stop_panicked());
        assert!(!error.end().is_forced());
    }
}

#[tokio::test(start_paused = true)]
async fn stop_function_that_panics_before_a_timeout_or_a_failure_tells_both() {
    let stubborn = timed(http().serve_with_stop(
        &fired(),
        pending::<io::Result<()>>(),
        |_grace| async { panic!("no handle") },
    ));
    let (outcome, took) = stubborn.await.unwrap();
    assert_eq!(took, GRACE);
    let error = assert_message(
        outcome,
        "server `http` did not drain within 5s: it was let go of, connections of it may remain \
         (its stop function panicked: no handle)",
    );
    assert!(error.is_timed_out() && error.is_stop_panicked());

    let failing = async { Err::<(), _>("disk full") };
    let outcome: Outcome = http()
        .serve_with_stop(&fired(), failing, |_grace| async { panic!("no handle") })
        .await;
    assert_message(
        outcome,
        "server `http` failed while draining (its stop function panicked: no handle): disk full",
    );
}

#[tokio::test(start_paused = true)]
async fn stop_function_that_hangs_is_bounded_by_the_grace_and_does_not_spoil_a_stopped_server() {
    let drained = async {
        sleep(secs(1)).await;
        io::Result::Ok(())
    };
    let sidecar = timed(http().serve_with_stop(&fired(), drained, |_grace| pending()));
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, GRACE);
}

#[tokio::test(start_paused = true)]
async fn stop_function_that_hangs_does_not_keep_the_server_from_being_forced() {
    let sidecar = timed(
        http().serve_with_stop(&fired(), pending::<io::Result<()>>(), |_grace| {
            pending::<()>()
        }),
    );
    let (outcome, took) = sidecar.await.unwrap();
    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(took, GRACE);
}

#[tokio::test(start_paused = true)]
async fn stop_function_runs_beside_the_server_and_to_its_end() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let handle = Arc::new(Notify::new());
    let server = {
        let (log, handle) = (log.clone(), handle.clone());
        async move {
            handle.notified().await;
            log.lock().unwrap().push("server ended");
            io::Result::Ok(())
        }
    };
    let sidecar = timed(http().serve_with_stop(&fired(), server, {
        let log = log.clone();
        move |_grace| async move {
            handle.notify_one();
            sleep(secs(2)).await;
            log.lock().unwrap().push("stop ended");
        }
    }));
    let (outcome, took) = sidecar.await.unwrap();
    outcome.unwrap();
    assert_eq!(took, secs(2));
    assert_eq!(*log.lock().unwrap(), ["server ended", "stop ended"]);
}

// Drop and panics.

#[tokio::test(start_paused = true)]
async fn drop_forces_the_server_down_and_fires_its_stop_afterwards() {
    struct Tell(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("server dropped");
        }
    }

    let log = Arc::new(Mutex::new(Vec::new()));
    let (stops, stop) = oneshot::channel();
    let mut sidecar = Box::pin(http().serve(&CancellationToken::new(), {
        let log = log.clone();
        move |stop| async move {
            let _tell = Tell(log);
            stops.send(stop).unwrap();
            pending::<io::Result<()>>().await
        }
    })) as std::pin::Pin<Box<dyn Future<Output = Outcome>>>;
    let mut cx = Context::from_waker(Waker::noop());
    assert!(sidecar.as_mut().poll(&mut cx).is_pending());
    // What a connection's own task would hold on to.
    let connection = tokio::spawn({
        let (stop, log) = (stop.await.unwrap(), log.clone());
        async move {
            stop.await;
            log.lock().unwrap().push("connection stopped");
        }
    });
    yield_now().await;
    assert!(log.lock().unwrap().is_empty());

    drop(sidecar);
    assert_eq!(*log.lock().unwrap(), ["server dropped"]);
    connection.await.unwrap();
    let log = log.lock().unwrap();
    assert_eq!(*log, ["server dropped", "connection stopped"]);
}

#[tokio::test(start_paused = true)]
async fn drop_does_not_call_a_stop_function() {
    let token = CancellationToken::new();
    let asked = Arc::new(());
    let mut sidecar = Box::pin(
        http().serve_with_stop(&token, pending::<io::Result<()>>(), {
            let asked = asked.clone();
            move |_grace| async move {
                let _asked = asked;
                unreachable!("dropped");
            }
        }),
    );
    let mut cx = Context::from_waker(Waker::noop());
    assert!(sidecar.as_mut().poll(&mut cx).is_pending());
    drop(sidecar);
    assert_eq!(Arc::strong_count(&asked), 1);
}

async fn pending_then_panic() -> io::Result<()> {
    yield_now().await;
    panic!("boom");
}

#[tokio::test(start_paused = true)]
async fn server_that_panics_unwinds_and_its_stop_fires() {
    let (stops, stop) = oneshot::channel();
    let sidecar = tokio::spawn(http().serve(&CancellationToken::new(), |stop| async {
        assert!(stops.send(stop).is_ok());
        pending_then_panic().await
    }));
    stop.await.unwrap().await;
    let payload = sidecar.await.unwrap_err().into_panic();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "boom");
}

// In a group.

#[tokio::test(start_paused = true)]
async fn group_with_a_sidecar_stops_and_its_wait_is_ok() {
    let mut group = TaskGroup::new();
    group.spawn(http().serve(group.token(), |stop| async {
        stop.await;
        sleep(secs(4)).await;
        io::Result::Ok(())
    }));
    group.spawn(http().serve_with_stop(group.token(), ready(io::Result::Ok(())), |_| ready(())));
    let start = Instant::now();
    group.cancel();
    group.wait().await.unwrap();
    assert_eq!(start.elapsed(), secs(4));
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_early_cancels_the_group_and_the_others_drain() {
    let mut group = TaskGroup::new();
    let drained = Arc::new(AtomicUsize::new(0));
    group.spawn(http().serve(group.token(), {
        let drained = drained.clone();
        move |stop| async move {
            stop.await;
            sleep(secs(1)).await;
            drained.fetch_add(1, Ordering::SeqCst);
            io::Result::Ok(())
        }
    }));
    let early = |_stop| ready(io::Result::Ok(()));
    let grpc = Sidecar::new("grpc").serve(group.token(), early);
    group.task("grpc").spawn(grpc);

    let error = group.wait().await.unwrap_err();
    assert_eq!(error.name(), Some("grpc"));
    let error = error.into_error().unwrap().downcast::<SidecarError>();
    assert_eq!(error.unwrap().end(), End::EndedEarly);
    assert_eq!(drained.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn timeout_of_a_server_is_the_error_of_its_group_though_it_comes_after_the_cancel() {
    let mut group = TaskGroup::new();
    group.spawn(http().serve(group.token(), |_stop| pending::<io::Result<()>>()));
    group.cancel();
    let message = format!("{:#}", group.wait().await.unwrap_err());
    assert!(
        message.contains("server `http` did not drain within 5s"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_server_is_recorded_by_the_group_and_its_stop_fires() {
    let mut group = TaskGroup::new();
    let (stops, stop) = oneshot::channel();
    let sidecar = http().serve(group.token(), |stop| async move {
        assert!(stops.send(stop).is_ok());
        pending_then_panic().await
    });
    group.task("http").spawn(sidecar);
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::Panicked);
    assert_eq!(error.name(), Some("http"));
    stop.await.unwrap().await;
}

// The types.

#[test]
fn future_is_send_and_owns_the_token() {
    fn check<F: Future<Output = Result<(), SidecarError>> + Send + 'static>(_: F) {}
    let token = CancellationToken::new();
    check(http().serve(&token, |stop| async {
        stop.await;
        io::Result::Ok(())
    }));
    check(http().serve_with_stop(&token, ready(io::Result::Ok(())), |_| ready(())));
    check(http().serve_blocking(&token, || io::Result::Ok(()), |_| ()));
    drop(token);
}

#[tokio::test(start_paused = true)]
async fn its_error_keeps_its_type_behind_a_question_mark_without_annotations() {
    async fn boxed(token: &CancellationToken) -> Result<(), BoxError> {
        http().serve(token, |_stop| early()).await?;
        Ok(())
    }
    async fn report(token: &CancellationToken) -> anyhow::Result<()> {
        http().serve(token, |_stop| early()).await?;
        Ok(())
    }
    fn early() -> Ready<io::Result<()>> {
        ready(Ok(()))
    }

    let token = CancellationToken::new();
    let error = boxed(&token).await.unwrap_err();
    let error = error.downcast::<SidecarError>().unwrap();
    assert_eq!(error.end(), End::EndedEarly);
    let error = report(&token).await.unwrap_err();
    let error = error.downcast::<SidecarError>().unwrap();
    assert_eq!(error.end(), End::EndedEarly);
}

#[tokio::test]
async fn a_server_with_an_empty_name_does_not_begin() {
    let token = CancellationToken::new();
    let unnamed = || Sidecar::new("");
    let never = || poll_fn(|_| -> Poll<io::Result<()>> { unreachable!() });
    let of_async = unnamed().serve(&token, |_stop| never()).await;
    let of_stop = unnamed()
        .serve_with_stop(&token, never(), |_| async { unreachable!() })
        .await;
    let of_thread = unnamed()
        .serve_blocking(&token, || -> io::Result<()> { unreachable!() }, |_| ())
        .await;
    for refused in [of_async, of_stop, of_thread] {
        let error = refused.unwrap_err();
        let error = error.source().unwrap().downcast_ref::<BuildError>();
        assert_eq!(error.unwrap().option(), "name");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_a_task_of_a_group_of_boxed_errors_of_its_own_and_of_reports() {
    let token = CancellationToken::new();
    let early = |_stop| ready(io::Result::Ok(()));

    let mut boxed = TaskGroup::new();
    boxed.spawn(http().serve(&token, early));
    let error = boxed.wait().await.unwrap_err().into_error().unwrap();
    assert!(error.is::<SidecarError>());

    let mut typed = TaskGroup::<SidecarError>::typed();
    typed.task("http").spawn(http().serve(&token, early));
    let error = typed.wait().await.unwrap_err().into_error().unwrap();
    assert_eq!(error.end(), End::EndedEarly);

    let mut reports = TaskGroup::<anyhow::Error>::reports();
    let http = http().serve(&token, early);
    reports.spawn(async { Ok(http.await?) });
    let error = reports.wait().await.unwrap_err().into_error().unwrap();
    assert!(error.is::<SidecarError>());
}

#[test]
fn server_may_be_not_send() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let local = std::rc::Rc::new(());
    let outcome: Outcome = runtime.block_on(http().serve(&fired(), {
        let local = local.clone();
        move |stop| async move {
            stop.await;
            drop(local);
            io::Result::Ok(())
        }
    }));
    outcome.unwrap();
    assert_eq!(std::rc::Rc::strong_count(&local), 1);
}

#[test]
fn types_are_send_and_sync_and_print_their_state() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<Sidecar>();
    check::<SidecarError>();
    let printed = format!("{:?}", http());
    assert_eq!(
        printed,
        "Sidecar { name: \"http\", grace: 5s, asked: Some(5s) }"
    );
}

// Without timers.

#[test]
fn sidecar_without_timers_panics_when_the_token_fires() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = TaskGroup::new();
    let served = http().serve(group.token(), |_stop| pending::<io::Result<()>>());
    group.cancel();
    let error = runtime.block_on(async {
        group.spawn(served);
        group.wait().await.unwrap_err()
    });
    assert_eq!(error.end(), End::Panicked, "{error:#}");
    assert!(format!("{error:#}").contains("timers"), "{error:#}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_uses_all_the_time_that_its_stop_function_was_told_is_in_time() {
    for grace in [GRACE, Duration::from_millis(500), Duration::from_millis(3)] {
        let (told, tell) = oneshot::channel();
        let server = async move {
            let told: Duration = tell.await.unwrap();
            // As the handle of axum-server does it.
            sleep(told).await;
            io::Result::Ok(())
        };
        let stop = |grace| async move { told.send(grace).unwrap() };
        let stopped = http().grace(grace).serve_with_stop(&fired(), server, stop);

        let (outcome, took) = timed(stopped).await.unwrap();

        outcome.unwrap();
        assert!(
            took <= grace && took >= grace * 8 / 10,
            "{took:?} of {grace:?}"
        );
    }
}
