//! Tasks in the tracing span of their spawn.

use taskgroup::{BoxError, TaskGroup};
use tokio::task::{LocalSet, yield_now};
use tracing::subscriber::DefaultGuard;
use tracing::{Span, dispatcher, info_span};

use crate::fixtures::OnDrop;

/// Makes spans count on this thread.
fn subscribed() -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry())
}

fn current() -> Option<&'static str> {
    Span::current().metadata().map(|metadata| metadata.name())
}

async fn seen() -> Result<Option<&'static str>, BoxError> {
    yield_now().await;
    Ok(current())
}

#[tokio::test]
async fn a_task_runs_in_no_span_unless_it_is_asked_to() {
    let _subscribed = subscribed();
    let mut group = TaskGroup::new();
    let request = info_span!("request");
    let plain = request.in_scope(|| group.spawn(seen()));
    let named = request.in_scope(|| group.task("named").spawn(seen()));
    assert_eq!(plain.await, Ok(None));
    assert_eq!(named.await, Ok(None));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_task_can_run_in_the_span_of_its_spawn() {
    let _subscribed = subscribed();
    let mut group = TaskGroup::new();
    let request = info_span!("request");
    let task = || group.task("audit").in_current_span();
    let spawned = request.in_scope(|| [task().spawn(seen()), task().try_spawn(seen()).unwrap()]);
    for task in spawned {
        assert_eq!(task.await, Ok(Some("request")));
    }
    let isolated = request.in_scope(|| task().isolated().spawn(seen()));
    assert_eq!(isolated.await.unwrap().unwrap(), Some("request"));
    // The span of the task does not stay on the thread.
    assert_eq!(current(), None);
    group.wait().await.unwrap();
}

#[tokio::test]
async fn all_tasks_of_a_group_can_run_in_the_spans_of_their_spawns() {
    let _subscribed = subscribed();
    let mut group = TaskGroup::builder().in_current_span().build().unwrap();
    let below = group.child("below");
    for request in [info_span!("first"), info_span!("second")] {
        let name = request.metadata().map(|metadata| metadata.name());
        let spawned = request.in_scope(|| [group.spawn(seen()), below.spawn(seen())]);
        for task in spawned {
            assert_eq!(task.await, Ok(name));
        }
    }
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_task_that_waited_for_its_slot_a_local_one_and_a_closure_run_in_their_span_too() {
    let _subscribed = subscribed();
    let options = TaskGroup::builder().limit(1).in_current_span();
    let mut group = options.build().unwrap();
    let request = info_span!("request");
    let first = group.spawn(seen());
    let queued = request.in_scope(|| group.spawn(seen()));
    assert_eq!(first.await, Ok(None));
    assert_eq!(queued.await, Ok(Some("request")));
    let dispatch = dispatcher::get_default(Clone::clone);
    let closure = request.in_scope(|| {
        group.spawn_blocking(move |_| Ok(dispatcher::with_default(&dispatch, current)))
    });
    assert_eq!(closure.await, Ok(Some("request")));
    let local = LocalSet::new();
    let task = async { request.in_scope(|| group.spawn_local(seen())).await };
    assert_eq!(local.run_until(task).await, Ok(Some("request")));
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_future_is_dropped_in_the_span_it_ran_in() {
    let _subscribed = subscribed();
    let mut group = TaskGroup::new();
    let (said, dropped) = std::sync::mpsc::channel();
    for ends in [true, false] {
        let said = said.clone();
        let guard = OnDrop(move || said.send(current()).unwrap());
        let task = info_span!("request").in_scope(|| {
            let task = group.task("audit").in_current_span();
            task.spawn(async move {
                let _guard = guard;
                if !ends {
                    std::future::pending::<()>().await;
                }
                Ok(())
            })
        });
        yield_now().await;
        task.abort();
        let _ = task.await;
        assert_eq!(dropped.recv().unwrap(), Some("request"));
    }
    group.wait().await.unwrap();
}
