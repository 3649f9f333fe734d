//! Why a group was cancelled; the first cause wins.

use std::time::Duration;

use taskgroup::group::StopRequest;
use taskgroup::{Cause, End, TaskGroup};

use crate::fixtures::on_both;

#[tokio::test]
async fn the_first_cause_wins() {
    let mut group = TaskGroup::new();
    assert_eq!(group.cause(), None);
    group.cancel_because("first");
    group.cancel_because("second");
    group.spawn(async { Err::<(), _>("third".into()) });
    group.wait().await.unwrap_err();
    assert_eq!(group.cause(), Some(Cause::Requested("first".into())));
}

#[tokio::test]
async fn a_token_cancelled_directly_is_a_cause_of_its_own() {
    let mut group = TaskGroup::new();
    group.token().cancel();
    assert!(group.is_cancelled());
    assert_eq!(group.cause(), Some(Cause::Token));
    group.cancel_because("too late");
    assert_eq!(group.cause(), Some(Cause::Token));
    group.wait().await.unwrap();
}

#[test]
fn a_token_made_after_the_cancel_has_fired() {
    let group = TaskGroup::new();
    group.cancel();
    assert!(group.token().is_cancelled());
}

/// No barrier is fine enough for the two to meet, so many pairs are tried. None of them may hang, whichever is first.
#[test]
fn a_token_made_while_the_group_is_cancelled_fires() {
    on_both(|| async {
        for _ in 0..500 {
            let group = TaskGroup::new();
            let spawner = group.spawner();
            let other = std::thread::spawn(move || spawner.token().clone());
            group.cancel();
            other.join().unwrap().cancelled().await;
        }
    });
}

#[tokio::test]
async fn the_cause_of_a_failure_names_the_task_and_what_it_said() {
    let mut group = TaskGroup::new();
    group
        .task("http")
        .spawn(async { Err::<(), _>("address in use".into()) });
    let error = group.wait().await.unwrap_err();
    let Some(Cause::Failed(task)) = group.cause() else {
        panic!("{:?}", group.cause())
    };
    assert_eq!(task.name(), Some("http"));
    assert_eq!(task.place(), error.place());
    assert_eq!(task.message(), format!("{error:#}"));
    assert_eq!(task.end(), End::Failed);
}

#[tokio::test]
async fn a_child_reads_through_to_the_cause_of_its_parent() {
    let group = TaskGroup::new();
    let (child, sibling) = (group.child("http"), group.child("grpc"));
    let grandchild = child.child("accept");
    sibling.cancel_because("its own");
    assert_eq!(child.cause(), None);
    group.cancel_because("from above");
    let above = Some(Cause::Requested("from above".into()));
    assert_eq!(child.cause(), above);
    assert_eq!(grandchild.cause(), above);
    assert_eq!(sibling.cause(), Some(Cause::Requested("its own".into())));
    child.cancel_because("too late");
    assert_eq!(child.cause(), above);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_a_request() {
    let mut group = TaskGroup::new();
    group.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(
        group.cause(),
        Some(Cause::Requested(StopRequest::default()))
    );
}

#[test]
fn a_spawner_tells_the_cause_after_the_owner_is_gone() {
    let group = TaskGroup::new();
    let spawner = group.spawner();
    drop(group);
    assert_eq!(spawner.cause(), Some(Cause::Dropped));
    assert!(spawner.is_cancelled() && spawner.is_closed());
}

#[tokio::test]
async fn an_error_knows_why_its_group_was_cancelled() {
    let mut group = TaskGroup::new();
    let token = group.token().clone();
    group.spawn(async move {
        token.cancelled().await;
        Err::<(), _>("the last flush failed".into())
    });
    group.cancel_because("the lease was lost");
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.cause(), group.cause().as_ref());
    assert!(matches!(error.cause(), Some(Cause::Requested(_))));
}

#[test]
fn a_request_has_a_reason_and_a_status() {
    let request = StopRequest::new("no memory");
    assert_eq!(
        (request.reason(), request.exit_code()),
        (Some("no memory"), None)
    );
    assert_eq!(request.code(3).exit_code(), Some(3));
}
