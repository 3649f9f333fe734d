//! A fake does what its script says, and the crate stands it.

use std::time::Duration;

use taskgroup::lifecycle::{ComponentState, Lifecycle};
use taskgroup::testing::{Act, Fake, Journal, Leaks, Moment};
use taskgroup::{End, TaskGroup};

use crate::SECOND;

#[tokio::test(start_paused = true)]
async fn a_journal_says_what_was_called_when() {
    let journal = Journal::new();
    let database = Fake::new("database")
        .journal(&journal)
        .starts(2 * SECOND, Act::Ok);
    let http = Fake::new("http").journal(&journal).stops(SECOND, Act::Ok);
    let run = Lifecycle::new("orders")
        .component(database.component())
        .component(http.component().after(["database"]))
        .start()
        .await
        .unwrap();
    assert!(run.stop("enough").await.is_clean());
    let lines = [
        "0s database starts",
        "2s database is ready",
        "2s http starts",
        "2s http is ready",
        "2s http is told to stop",
        "3s http ends",
        "3s http is gone",
        "3s database is told to stop",
        "3s database ends",
        "3s database is gone",
    ];
    assert_eq!(journal.lines(), lines);
}

#[tokio::test(start_paused = true)]
async fn a_fake_that_is_late_or_hangs_in_its_start_is_timed_out() {
    for act in [Act::Ok, Act::Hang] {
        let fake = Fake::new("slow").starts(60 * SECOND, act);
        let error = Lifecycle::new("orders")
            .component(fake.component())
            .start()
            .await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("was not ready within 30s"), "{error}");
        assert_eq!(
            (fake.count(Moment::Ready), fake.count(Moment::Dropped)),
            (0, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_before_the_stop_is_early() {
    let mut group = TaskGroup::new();
    let fake = Fake::new("worker").runs(SECOND, Act::End);
    group
        .task("worker")
        .essential()
        .spawn(fake.task(group.token()));
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.end(), End::EndedEarly);
    assert_eq!(fake.count(Moment::Ended), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deaf_fake_is_forced_and_never_ends() {
    let fake = Fake::new("deaf").stops(Duration::ZERO, Act::Hang);
    let lifecycle = Lifecycle::new("orders").component(fake.component().grace(SECOND));
    let run = lifecycle.start().await.unwrap();
    let report = run.stop("enough").await;
    assert_eq!(
        report.components[0].state,
        ComponentState::Ended(End::TimedOut)
    );
    assert_eq!(
        (fake.count(Moment::Told), fake.count(Moment::Ended)),
        (1, 0)
    );
}

/// Neither the message, nor the log, nor the destructor of an error can keep a failure from being one.
#[tokio::test(start_paused = true)]
async fn a_panic_in_any_place_is_a_failure() {
    for (fake, end) in [
        (
            Fake::new("p").runs(SECOND, Act::Panic("planned")),
            End::Panicked,
        ),
        (Fake::new("p").runs(SECOND, Act::FailInDisplay), End::Failed),
        (Fake::new("p").runs(SECOND, Act::FailInSource), End::Failed),
        (
            Fake::new("p")
                .runs(SECOND, Act::End)
                .panics_in_drop("planned"),
            End::Panicked,
        ),
    ] {
        let mut group = TaskGroup::new();
        let other = Fake::new("other");
        group.spawn(fake.task(group.token()));
        group.spawn(other.task(group.token()));
        let error = group.wait().await.unwrap_err();
        assert_eq!(error.end(), end, "{fake:?}");
        assert_eq!(
            (fake.count(Moment::Dropped), other.count(Moment::Ended)),
            (1, 1)
        );
        // What has panicked in a test is not looked at again.
        drop(error);
    }
}

#[tokio::test]
async fn a_task_that_is_left_behind_is_seen_by_the_guard() {
    let leaks = Leaks::watch();
    let mut group = TaskGroup::new();
    group.cancel();
    group.spawn(Fake::new("messy").leaves_a_task().task(group.token()));
    group.wait().await.unwrap();
    assert_eq!(leaks.left(), ["1 task of a plain `tokio::spawn`"]);
    leaks.ignore("a plain `tokio::spawn`").check().await;
}

#[test]
fn a_fake_that_blocks_its_thread_is_let_go() {
    let fake = Fake::new("blocks").starts(Duration::ZERO, Act::Block);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_time().build().unwrap();
    runtime.block_on(async {
        let mut group = TaskGroup::new();
        group.spawn(fake.task(group.token()));
        fake.reaches(Moment::Started).await.unwrap();
        assert_eq!(fake.count(Moment::Ready), 0);
        fake.release();
        fake.reaches(Moment::Ready).await.unwrap();
        group.cancel();
        group.wait().await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_a_moment_ends_with_the_failure_of_what_cannot_reach_it() {
    let group = TaskGroup::new();
    let fake = Fake::new("mail").starts(SECOND, Act::Fail("no route"));
    group.spawn(fake.task(group.token()));
    let error = fake.reaches(Moment::Ready).await.unwrap_err().to_string();
    let lines = [
        "mail is gone, and this has not come: is ready",
        "1s mail fails: no route",
    ];
    assert!(lines.iter().all(|line| error.contains(line)), "{error}");
    assert_eq!(
        fake.reaches(Moment::Failed)
            .await
            .map_err(|error| error.to_string()),
        Ok(())
    );
}
