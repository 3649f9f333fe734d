//! Rules 1 to 6: which failure is told, and when.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use taskgroup::group::StopRequest;
use taskgroup::{BoxError, Cancelled, Cause, End, TaskError, TaskGroup};
use tokio::sync::oneshot;

use crate::fixtures::{Bomb, on_both};
use crate::support::alive::Alive;

/// An error that is no `Clone` and whose identity can be told.
#[derive(Debug)]
struct Unique(Box<u32>);

impl fmt::Display for Unique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unique {}", self.0)
    }
}

impl Error for Unique {}

// Rule 1.

#[test]
fn wait_returns_when_every_task_has_ended_and_its_future_was_dropped() {
    on_both(|| async {
        for _ in 0..200 {
            let alive = Alive::default();
            let mut group = TaskGroup::new();
            for index in 0..20 {
                let guard = alive.guard();
                group.spawn(async move {
                    let _guard = guard;
                    for _ in 0..index % 3 {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                });
            }
            group.wait().await.unwrap();
            assert_eq!(alive.count(), 0);
        }
    });
}

#[test]
fn an_empty_group_is_waited_for_at_once() {
    on_both(|| async { TaskGroup::new().wait().await.unwrap() });
}

#[test]
fn wait_joins_the_siblings_of_the_task_that_failed() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let cleaned = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let (token, cleaned) = (group.token().clone(), Arc::clone(&cleaned));
            group.spawn(async move {
                token.cancelled().await;
                tokio::task::yield_now().await;
                cleaned.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        group.spawn(async { Err::<(), _>("disk full".into()) });
        assert!(group.wait().await.is_err());
        assert_eq!(cleaned.load(Ordering::SeqCst), 10);
    });
}

// Rule 2.

#[test]
fn a_task_that_sees_the_token_can_read_the_cause() {
    on_both(|| async {
        for _ in 0..100 {
            let mut group = TaskGroup::new();
            let (token, spawner) = (group.token().clone(), group.spawner());
            let cause = group.spawn(async move {
                token.cancelled().await;
                Ok(spawner.cause())
            });
            group
                .task("disk")
                .spawn(async { Err::<(), _>("full".into()) });
            let cause = cause.await.unwrap();
            assert!(
                matches!(&cause, Some(Cause::Failed(task)) if task.name() == Some("disk")),
                "{cause:?}"
            );
            group.wait().await.unwrap_err();
        }
    });
}

#[test]
fn the_record_is_made_before_the_slot_is_freed() {
    on_both(|| async {
        let mut group = TaskGroup::builder().limit(1).build().unwrap();
        let (fail, failing) = oneshot::channel::<()>();
        group.spawn(async move {
            let _ = failing.await;
            Err::<(), _>("disk full".into())
        });
        let spawner = group.spawner();
        let waiter = tokio::spawn(async move {
            let refused = spawner.spawn_when_ready(async { Ok(()) }).await;
            (refused.unwrap_err().is_cancelled(), spawner.cause())
        });
        tokio::task::yield_now().await;
        fail.send(()).unwrap();
        let (cancelled, cause) = waiter.await.unwrap();
        assert!(cancelled);
        assert!(matches!(cause, Some(Cause::Failed(_))), "{cause:?}");
        group.wait().await.unwrap_err();
    });
}

// Rule 3.

#[tokio::test]
async fn the_first_error_comes_back_as_the_value_the_task_gave() {
    let mut group = TaskGroup::<Unique>::typed();
    let error = Unique(Box::new(7));
    let address: *const u32 = &*error.0;
    group.spawn(async move { Err::<(), _>(error) });
    let error = group.wait().await.unwrap_err().into_error().unwrap();
    assert!(std::ptr::eq(address, &*error.0));
}

#[tokio::test]
async fn a_boxed_error_can_be_taken_out_and_downcast() {
    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>(Unique(Box::new(7)).into()) });
    let error: BoxError = group.wait().await.unwrap_err().into_error().unwrap();
    assert_eq!(*error.downcast::<Unique>().unwrap().0, 7);
}

#[tokio::test]
async fn later_failures_are_suppressed_in_their_order() {
    let mut group = TaskGroup::new();
    for name in ["first", "second", "third"] {
        group
            .task(name)
            .spawn(async move { Err::<(), _>(name.into()) });
    }
    group
        .task("fourth")
        .spawn(async { if true { panic!("fourth") } else { Ok(()) } });
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.name(), Some("first"));
    let later: Vec<_> = error.suppressed().iter().map(TaskError::name).collect();
    assert_eq!(later, [Some("second"), Some("third"), Some("fourth")]);
    assert_eq!(error.suppressed()[2].end(), End::Panicked);
}

#[tokio::test]
async fn a_task_that_ends_because_it_was_cancelled_is_not_a_failure() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move {
        Ok(token
            .run_until_cancelled(pending::<()>())
            .await
            .ok_or(Cancelled)?)
    });
    group.spawn(async { Err::<(), _>("disk full".into()) });
    let error = group.wait().await.unwrap_err();
    assert!(
        format!("{error:#}").ends_with("failed: disk full"),
        "{error:#}"
    );
    assert!(error.suppressed().is_empty(), "{error:?}");
}

#[tokio::test]
async fn cancelled_in_the_chain_of_sources_is_not_a_failure_either() {
    #[derive(Debug)]
    struct Wrapped(Cancelled);
    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the query was given up")
        }
    }
    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let mut group = TaskGroup::<Wrapped>::typed();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Err::<(), _>(Wrapped(Cancelled))
    });
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn cancelled_before_the_cancel_is_a_failure() {
    let mut group = TaskGroup::new();
    group.spawn(async { Err::<(), _>(Cancelled.into()) });
    assert_eq!(group.wait().await.unwrap_err().end(), End::Failed);
}

#[tokio::test]
async fn an_error_after_a_cancel_by_hand_is_the_first_failure() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Err::<(), _>("the last flush failed".into())
    });
    group.cancel();
    let error = group.wait().await.unwrap_err();
    assert!(format!("{error:#}").ends_with("failed: the last flush failed"));
    assert_eq!(
        group.cause(),
        Some(Cause::Requested(StopRequest::default()))
    );
}

#[tokio::test]
async fn reports_of_anyhow_keep_their_chain() {
    let mut group = TaskGroup::<anyhow::Error>::reports();
    group.spawn(async { Err::<(), _>(anyhow::Error::new(Unique(Box::new(1))).context("loading")) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "loading");
    assert!(error.source().unwrap().source().unwrap().is::<Unique>());
    assert!(
        error
            .into_error()
            .unwrap()
            .downcast_ref::<Unique>()
            .is_some()
    );
}

// Rule 4.

#[test]
fn a_panic_is_a_failure_with_name_message_and_payload_and_cancels_the_siblings() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let token = group.token().clone();
        group.spawn(async move { Ok(token.cancelled().await) });
        group.task("parser").spawn(async {
            if true {
                panic!("bad byte {}", std::hint::black_box(7))
            } else {
                Ok(())
            }
        });
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.end(), End::Panicked);
        assert_eq!(error.name(), Some("parser"));
        assert!(
            format!("{error:#}").ends_with(" panicked: bad byte 7"),
            "{error}"
        );
        let payload = error.into_panic().unwrap().into_payload();
        assert_eq!(*payload.downcast::<String>().unwrap(), "bad byte 7");
    });
}

#[tokio::test]
async fn a_payload_that_is_not_a_string_is_kept() {
    let mut group = TaskGroup::new();
    group.spawn(async {
        if true {
            std::panic::panic_any(7_u8)
        } else {
            Ok(())
        }
    });
    let error = group.wait().await.unwrap_err();
    assert!(format!("{error:#}").ends_with(" panicked: (the payload is no string)"));
    let payload = error.into_panic().unwrap().into_payload();
    assert_eq!(*payload.downcast::<u8>().unwrap(), 7);
}

#[tokio::test]
#[should_panic(expected = "once more")]
async fn a_panic_can_be_resumed() {
    let mut group = TaskGroup::new();
    group.spawn(async { if true { panic!("once more") } else { Ok(()) } });
    group
        .wait()
        .await
        .unwrap_err()
        .into_panic()
        .unwrap()
        .resume()
}

#[test]
fn a_panic_in_a_destructor_after_the_end_of_the_task_is_a_failure() {
    on_both(|| async {
        // What the async block owns but never touches is dropped with the future, after its end.
        struct EndsAtOnce(#[expect(dead_code, reason = "it is there to be dropped")] Bomb);
        impl Future for EndsAtOnce {
            type Output = Result<(), BoxError>;
            fn poll(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut group = TaskGroup::new();
        group
            .task("bomb")
            .spawn(EndsAtOnce(Bomb("in the destructor")));
        let error = group.wait().await.unwrap_err();
        assert!(
            format!("{error:#}").ends_with(" panicked: in the destructor"),
            "{error}"
        );
        assert_eq!(error.name(), Some("bomb"));
    });
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_during_an_abort_is_a_failure() {
    let mut group = TaskGroup::new();
    let bomb = Bomb("in the abort");
    group.spawn(async move {
        let _bomb = bomb;
        pending::<Result<(), BoxError>>().await
    });
    tokio::task::yield_now().await;
    let error = group.shutdown(std::time::Duration::ZERO).await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.suppressed().len(), 1);
    assert!(format!("{:#}", error.suppressed()[0]).ends_with(" panicked: in the abort"));
}

#[test]
fn the_siblings_of_a_panic_are_not_told_before_it_is_recorded() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let (token, spawner) = (group.token().clone(), group.spawner());
        let seen = group.spawn(async move {
            token.cancelled().await;
            Ok(spawner.cause())
        });
        group.spawn(async { if true { panic!("boom") } else { Ok(()) } });
        match seen.await.unwrap() {
            Some(Cause::Failed(task)) => {
                assert_eq!(task.end(), End::Panicked);
                assert!(task.message().ends_with("panicked: boom"));
            }
            other => panic!("{other:?}"),
        }
        group.wait().await.unwrap_err();
    });
}

// Rule 5.

#[test]
fn cancelling_by_hand_is_not_a_failure_and_the_cause_names_the_caller() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let token = group.token().clone();
        group.spawn(async move { Ok(token.cancelled().await) });
        group.cancel_because("the lease was lost");
        group.wait().await.unwrap();
        assert_eq!(
            group.cause(),
            Some(Cause::Requested("the lease was lost".into()))
        );
    });
}

// Rule 6.

#[tokio::test]
async fn an_essential_task_that_returns_ok_before_the_cancel_ended_early() {
    let mut group = TaskGroup::new();
    group.task("server").essential().spawn(async { Ok(()) });
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::EndedEarly);
    assert_eq!(error.name(), Some("server"));
    assert!(group.is_cancelled());
}

#[tokio::test]
async fn an_essential_task_may_return_ok_after_the_cancel() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group
        .task("server")
        .essential()
        .spawn(async move { Ok(token.cancelled().await) });
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_essential_task_whose_group_never_made_a_token_may_return_ok_after_the_cancel() {
    let mut group = TaskGroup::new();
    let (end, ended) = oneshot::channel::<()>();
    group
        .task("server")
        .essential()
        .spawn(async move { Ok(ended.await?) });
    group.cancel();
    end.send(()).unwrap();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn an_essential_closure_on_a_thread_that_returns_ok_before_the_cancel_ended_early() {
    let mut group = TaskGroup::new();
    group.task("reader").essential().spawn_blocking(|_| Ok(()));
    assert_eq!(group.wait().await.unwrap_err().end(), End::EndedEarly);
}

#[tokio::test]
async fn a_plain_task_that_returns_ok_is_not_an_event() {
    let mut group = TaskGroup::new();
    group.spawn(async { Ok(()) }).await.unwrap();
    group.task("named").spawn(async { Ok(()) }).await.unwrap();
    assert!(!group.is_cancelled());
    group.wait().await.unwrap();
    assert_eq!(group.cause(), None);
}

#[tokio::test]
async fn an_error_whose_message_panics_is_a_failure_anyway() {
    #[derive(Debug)]
    struct Rude;
    impl fmt::Display for Rude {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no message for you")
        }
    }
    impl Error for Rude {}
    let mut group = TaskGroup::<Rude>::typed();
    let sibling_ended = Arc::new(AtomicBool::new(false));
    let (token, ended) = (group.token().clone(), Arc::clone(&sibling_ended));
    group.spawn(async move {
        token.cancelled().await;
        ended.store(true, Ordering::SeqCst);
        Ok(())
    });
    group.spawn(async { Err::<(), _>(Rude) });
    let error = group.wait().await.unwrap_err();
    assert!(matches!(error.into_error(), Ok(Rude)));
    assert!(sibling_ended.load(Ordering::SeqCst));
}

/// In a group that is cancelled: what the task returned then.
async fn after_the_cancel<E: Error + Send + 'static>(error: E) -> Result<(), TaskError<E>> {
    let mut group = TaskGroup::<E>::typed();
    let token = group.token().clone();
    group.task("flush").spawn(async move {
        token.cancelled().await;
        Err::<(), _>(error)
    });
    group.cancel();
    group.wait().await
}

#[tokio::test]
async fn an_error_whose_source_panics_is_a_failure_after_the_cancel_too() {
    #[derive(Debug, thiserror::Error)]
    #[error("no source for you")]
    struct Rude;
    #[derive(Debug)]
    struct Outer(Rude);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the flush failed")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            panic!("{}", self.0)
        }
    }
    let error = after_the_cancel(Outer(Rude)).await.unwrap_err();
    assert_eq!(error.name(), Some("flush"));
    assert!(format!("{error:#}").ends_with(" failed: the flush failed"));
}

#[tokio::test]
async fn a_cancellation_whose_destructor_panics_is_a_failure() {
    #[derive(Debug)]
    struct Armed(
        Cancelled,
        #[expect(dead_code, reason = "it is there to be dropped")] Bomb,
    );
    impl fmt::Display for Armed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("given up")
        }
    }
    impl Error for Armed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let outcome = after_the_cancel(Armed(Cancelled, Bomb("as it is dropped"))).await;
    let error = outcome.unwrap_err();
    assert!(format!("{error:#}").ends_with(" panicked: as it is dropped"));
    assert_eq!(error.name(), Some("flush"));
}

#[tokio::test]
async fn a_payload_that_panics_as_it_is_dropped_disturbs_nobody() {
    #[derive(Debug)]
    struct Rude;
    impl fmt::Display for Rude {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            std::panic::panic_any(Bomb("the payload of a message"))
        }
    }
    impl Error for Rude {}
    let mut group = TaskGroup::<Rude>::typed();
    let token = group.token().clone();
    let told = group.spawn(async move { Ok(token.cancelled().await) });
    let failed = group.spawn(async { Err::<(), _>(Rude) });
    assert_eq!(failed.await.unwrap_err().end(), End::Failed);
    told.await.unwrap();
    assert!(matches!(
        group.wait().await.unwrap_err().into_error(),
        Ok(Rude)
    ));
}

#[tokio::test]
async fn a_failure_that_nobody_takes_may_panic_as_it_is_dropped() {
    #[derive(Debug, thiserror::Error)]
    #[error("armed")]
    struct Armed(Bomb);
    let group = TaskGroup::<Armed>::typed();
    for text in ["the first", "the second"] {
        let failed = group.spawn(async move { Err::<(), _>(Armed(Bomb(text))) });
        failed.await.unwrap_err();
    }
    // Two panics in one drop would end the process.
    drop(group);
}

#[tokio::test]
async fn cancelled_is_found_inside_of_what_wraps_it() {
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("the upload was given up")]
    struct Upload(#[source] io::Error);

    let io = || io::Error::other(Cancelled);
    let boxed: BoxError = Cancelled.into();
    let anyhow = anyhow::Error::new(Upload(io())).context("uploading");
    let wrapped: Vec<BoxError> = vec![
        io().into(),
        io::Error::new(io::ErrorKind::BrokenPipe, io()).into(),
        io::Error::other(boxed).into(),
        io::Error::other(Upload(io())).into(),
        io::Error::other(anyhow::Error::new(io()).context("writing")).into(),
        Upload(io::Error::other(Upload(io()))).into(),
        anyhow.into(),
        Arc::new(io()).into(),
        Arc::new(Cancelled).into(),
        Box::new(Cancelled).into(),
        Box::new(io()).into(),
        io::Error::other(Arc::<dyn Error + Send + Sync>::from(BoxError::from(
            Cancelled,
        )))
        .into(),
    ];
    for error in wrapped {
        let text = format!("{error:?}");
        let mut group = TaskGroup::new();
        group.cancel();
        group.spawn(async { Err::<(), _>(error) });
        assert!(group.wait().await.is_ok(), "{text}");
    }
    after_the_cancel(io()).await.unwrap();

    let mut group = TaskGroup::<anyhow::Error>::reports();
    group.cancel();
    group.spawn(async { Err::<(), _>(anyhow::Error::new(io::Error::other(Cancelled))) });
    group.wait().await.unwrap();

    // The kind alone says nothing, and before the cancel it is an error like any other.
    let failed = after_the_cancel(io::Error::other("disk full")).await;
    assert_eq!(failed.unwrap_err().end(), End::Failed);
    let mut group = TaskGroup::<io::Error>::typed();
    group.spawn(async { Err::<(), _>(io::Error::other(Cancelled)) });
    assert_eq!(group.wait().await.unwrap_err().end(), End::Failed);
}
