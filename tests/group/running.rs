//! Rule 14: the tasks that are alive now.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use taskgroup::TaskGroup;
use tokio::sync::oneshot;

use crate::fixtures::on_both;

#[tokio::test]
async fn unnamed_tasks_are_counted_by_place_of_spawn() {
    let group = TaskGroup::new();
    for _ in 0..3 {
        group.spawn(pending::<Result<(), _>>());
    }
    let elsewhere = line!() + 1;
    group.spawn(pending::<Result<(), _>>());
    let mut entries: Vec<_> = group
        .running()
        .iter()
        .map(|task| (task.count(), task.place().line()))
        .collect();
    entries.sort_unstable();
    assert_eq!(entries, [(1, elsewhere), (3, elsewhere - 3)]);
    assert!(
        group
            .running()
            .iter()
            .all(|task| task.id().is_none() && task.age().is_none())
    );
    let text = group.running().to_string();
    assert!(text.starts_with("4 tasks: "), "{text}");
    assert!(
        text.contains(&format!("3 × tests/group/running.rs:{}", elsewhere - 3)),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn named_tasks_are_listed_with_id_name_place_and_age() {
    let group = TaskGroup::new();
    let place = line!() + 1;
    group.task("kafka").spawn(pending::<Result<(), _>>());
    tokio::time::sleep(Duration::from_secs(12)).await;
    for shard in 0..2 {
        group
            .task(format!("shard-{shard}"))
            .spawn(pending::<Result<(), _>>());
    }
    let running = group.running();
    let entries: Vec<_> = running
        .iter()
        .map(|task| {
            (
                task.id().unwrap(),
                task.name().unwrap(),
                task.age().unwrap().as_secs(),
            )
        })
        .collect();
    assert_eq!(
        entries,
        [(1, "kafka", 12), (2, "shard-0", 0), (3, "shard-1", 0)]
    );
    let kafka = running.iter().next().unwrap();
    assert_eq!((kafka.place().line(), kafka.count()), (place, 1));
    assert_eq!(
        kafka.to_string(),
        format!("`kafka` (tests/group/running.rs:{place}) for 12s")
    );
}

#[tokio::test]
async fn two_tasks_of_one_name_are_told_apart_by_id() {
    let mut group = TaskGroup::new();
    let (end, ended) = oneshot::channel::<()>();
    let first = group.task("twin").spawn(async move { Ok(ended.await?) });
    let token = group.token().clone();
    group
        .task("twin")
        .spawn(async move { Ok(token.cancelled().await) });
    end.send(()).unwrap();
    first.await.unwrap();
    let ids: Vec<_> = group.running().iter().map(|task| task.id()).collect();
    assert_eq!(ids, [Some(2)]);
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn a_task_that_has_ended_is_in_no_list() {
    let mut group = TaskGroup::new();
    group.spawn(async { Ok(()) }).await.unwrap();
    group.task("named").spawn(async { Ok(()) }).await.unwrap();
    assert!(group.running().is_empty());
    assert_eq!(group.running().to_string(), "no tasks");
    group.wait().await.unwrap();
    assert!(group.spawner().running().is_empty());
}

#[test]
fn a_task_stuck_in_its_first_poll_is_listed() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let mut group = TaskGroup::new();
    let (started, starts) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let entered = runtime.enter();
    let place = line!() + 1;
    group.spawn(async move {
        started.send(()).unwrap();
        let _ = released.recv();
        Ok(())
    });
    starts.recv().unwrap();
    let running = group.running();
    drop(entered);
    let stuck = running.iter().next().unwrap();
    assert_eq!((stuck.count(), stuck.place().line()), (1, place));
    release.send(()).unwrap();
    runtime.block_on(group.wait()).unwrap();
}

#[test]
fn blocking_closures_are_listed_as_such() {
    on_both(|| async {
        let mut group = TaskGroup::new();
        let (release, released) = mpsc::channel::<()>();
        group.spawn_blocking(move |_| {
            let _ = released.recv();
            Ok(())
        });
        let running = group.running();
        let closure = running.iter().next().unwrap();
        assert!(closure.is_blocking());
        assert!(closure.to_string().ends_with(", blocking"), "{closure}");
        release.send(()).unwrap();
        group.wait().await.unwrap();
    });
}

#[tokio::test]
async fn a_task_spawned_through_any_of_the_ways_is_known_by_the_callers_place() {
    let group = TaskGroup::builder().limit(9).build().unwrap();
    let spawner = group.spawner();
    let first = line!() + 1;
    group.spawn(pending::<Result<(), _>>());
    group.try_spawn(pending::<Result<(), _>>()).unwrap();
    group
        .spawn_when_ready(pending::<Result<(), _>>())
        .await
        .unwrap();
    spawner.spawn(pending::<Result<(), _>>());
    spawner.try_spawn(pending::<Result<(), _>>()).unwrap();
    spawner
        .spawn_when_ready(pending::<Result<(), _>>())
        .await
        .unwrap();
    group.task("a").spawn(pending::<Result<(), _>>());
    group
        .task("b")
        .try_spawn(pending::<Result<(), _>>())
        .unwrap();
    group
        .task("c")
        .spawn_when_ready(pending::<Result<(), _>>())
        .await
        .unwrap();
    let last = line!();
    let lines: BTreeSet<_> = group
        .running()
        .iter()
        .map(|task| task.place().line())
        .collect();
    assert_eq!(lines.len(), 9);
    assert!(
        lines.iter().all(|line| (first..last).contains(line)),
        "{lines:?}"
    );
    assert!(
        group
            .running()
            .iter()
            .all(|task| task.place().file() == "tests/group/running.rs")
    );
}

#[tokio::test]
async fn a_line_shows_ten_entries_and_counts_the_tasks_of_the_others() {
    let group = TaskGroup::new();
    for number in 0..10_000 {
        let task = group.task(format!("task-{number}"));
        task.spawn(pending::<Result<(), _>>());
    }
    let running = group.running();
    let line = running.to_string();
    assert!(line.starts_with("10000 tasks: `task-"), "{line}");
    assert!(line.ends_with(" and 9990 more"), "{line}");
    assert_eq!(line.matches('`').count(), 2 * 10, "{line}");
    assert_eq!(running.iter().count(), 10_000);
}
