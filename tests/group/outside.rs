//! Outside of a runtime, and without timers: the panic names the caller, and no group has failed.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::{Context, Waker};
use std::time::Duration;

use taskgroup::{End, TaskGroup};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

thread_local! {
    static PLACE: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Runs `misuse`, which panics, and returns the file and the line that the panic names.
fn place_of_panic(misuse: impl FnOnce()) -> (String, u32) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if let Some(place) = panic.location() {
                // The file of a panic lives as long as the program, which its type does not say.
                let file: &'static str = if place.file() == file!() {
                    file!()
                } else {
                    "elsewhere"
                };
                PLACE.set(Some((file, place.line())));
            }
            before(panic);
        }));
    });
    catch_unwind(AssertUnwindSafe(misuse)).expect_err("it should have panicked");
    let (file, line) = PLACE.take().unwrap();
    (file.to_owned(), line)
}

fn here(line: u32) -> (String, u32) {
    (file!().to_owned(), line)
}

/// A runtime without timers.
fn timeless() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn assert_has_not_failed(mut group: TaskGroup) {
    assert!(!group.is_cancelled());
    assert!(group.running().is_empty());
    timeless().block_on(group.wait()).unwrap();
}

async fn ok() -> Result<(), taskgroup::BoxError> {
    Ok(())
}

#[test]
fn a_spawn_outside_of_a_runtime_panics_at_the_line_of_the_caller_and_the_group_has_not_failed() {
    let group = TaskGroup::new();
    let spawner = group.spawner();
    let line = line!();
    let places = [
        place_of_panic(|| drop(group.spawn(ok()))),
        place_of_panic(|| drop(group.try_spawn(ok()))),
        place_of_panic(|| drop(group.spawn_blocking(|_| Ok(())))),
        place_of_panic(|| drop(group.spawn_local(ok()))),
        place_of_panic(|| drop(group.task("named").spawn(ok()))),
        place_of_panic(|| drop(group.task("named").try_spawn(ok()))),
        place_of_panic(|| drop(group.task("named").spawn_blocking(|_| Ok(())))),
        place_of_panic(|| drop(group.task("named").spawn_local(ok()))),
        place_of_panic(|| drop(spawner.spawn(ok()))),
        place_of_panic(|| drop(spawner.try_spawn(ok()))),
        place_of_panic(|| drop(spawner.spawn_blocking(|_| Ok(())))),
        place_of_panic(|| drop(spawner.spawn_local(ok()))),
    ];
    for (index, place) in (2..).zip(places) {
        assert_eq!(place, here(line + index));
    }
    assert_has_not_failed(group);
}

#[test]
fn a_queued_spawn_outside_of_a_runtime_panics_at_the_line_of_the_caller() {
    let mut group = TaskGroup::builder().limit(1).build().unwrap();
    let runtime = timeless();
    let entered = runtime.enter();
    let first = group.spawn(std::future::pending::<Result<(), _>>());
    drop(entered);
    let place = place_of_panic(|| drop(group.spawn(ok())));
    assert_eq!(place, here(line!() - 1));
    let place = place_of_panic(|| drop(group.spawn_blocking(|_| Ok(()))));
    assert_eq!(place, here(line!() - 1));
    assert!(!group.is_cancelled());
    assert_eq!(group.running().count(), 1);
    group.cancel();
    drop(runtime);
    drop(first);
    let _ = timeless().block_on(group.wait());
}

#[test]
fn spawn_when_ready_outside_of_a_runtime_names_the_line_of_the_caller() {
    let group = TaskGroup::new();
    let spawning = group.spawn_when_ready(ok());
    let line = line!() - 1;
    let mut spawning = pin!(spawning);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _ = spawning
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
    }));
    let message = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains(&format!("{}:{line}:", file!())),
        "{message}"
    );
    assert!(!group.is_cancelled() && group.running().is_empty());
}

#[test]
fn a_local_spawn_within_a_runtime_but_outside_of_a_local_set_is_not_a_failure_of_the_group() {
    let group = TaskGroup::new();
    timeless().block_on(async {
        // The line is one of Tokio's, which does not pass the caller on.
        place_of_panic(|| drop(group.spawn_local(ok())));
    });
    assert_has_not_failed(group);
}

#[test]
fn a_task_that_is_lost_while_a_thread_panics_is_a_failure_anyway() {
    let mut group = TaskGroup::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let runtime = timeless();
        let entered = runtime.enter();
        group.spawn(std::future::pending::<Result<(), _>>());
        drop(entered);
        if runtime.metrics().num_workers() > 0 {
            panic!("the runtime goes away as this unwinds");
        }
    }));
    assert!(panicked.is_err());
    let error = timeless().block_on(group.wait()).unwrap_err();
    assert_eq!(error.end(), End::Aborted);
}

#[test]
fn a_local_task_that_is_lost_with_its_set_is_a_failure() {
    let mut group = TaskGroup::new();
    let set = LocalSet::new();
    let entered = set.enter();
    group.spawn_local(std::future::pending::<Result<(), _>>());
    drop(entered);
    drop(set);
    let error = timeless().block_on(group.wait()).unwrap_err();
    assert_eq!(error.end(), End::Aborted);
}

#[test]
fn a_group_with_a_deadline_is_not_built_without_timers() {
    let options = TaskGroup::builder().deadline(Duration::from_secs(1));
    let build = || drop(options.build());
    let line = line!() - 1;
    assert_eq!(place_of_panic(build), here(line));
    timeless().block_on(async {
        place_of_panic(build);
    });
}

#[test]
fn a_group_with_a_grace_is_not_built_without_timers() {
    let options = TaskGroup::builder().grace(Duration::from_secs(1));
    let build = || drop(options.build());
    let line = line!() - 1;
    assert_eq!(place_of_panic(build), here(line));
    timeless().block_on(async {
        place_of_panic(build);
    });
    // One below another group neither.
    let group = TaskGroup::new();
    let build = || drop(group.child_with(&options));
    assert_eq!(place_of_panic(build), here(line!() - 1));
    assert_has_not_failed(group);
}

#[test]
fn a_shutdown_panics_without_timers_and_has_cancelled_the_group() {
    let mut group = TaskGroup::new();
    timeless().block_on(async {
        let shutdown = AssertUnwindSafe(group.shutdown(Duration::ZERO));
        let mut shutdown = pin!(shutdown.0);
        place_of_panic(|| {
            let _ = shutdown
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
        });
    });
    assert!(group.is_cancelled());
}
