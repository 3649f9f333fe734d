//! What is measured: the same work, run to its end by each of the contenders.
//!
//! Every contender spells its three task bodies out. A shared helper would put a future into a
//! future, which costs instructions and bytes that no user of the contender would pay.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use taskgroup::{BoxError, TaskGroup};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::task::yield_now;
use tokio_graceful_shutdown::SubsystemBuilder;
use tokio_graceful_shutdown::SubsystemHandle;
use tokio_graceful_shutdown::Toplevel;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::words::words;

words! {
    /// What runs the tasks.
    pub enum Contender {
        /// Nobody: the cost of the harness.
        Nothing = "nothing",
        /// `tokio::spawn` and a countdown that was set beforehand: no errors, no panics, no names.
        Floor = "floor",
        /// `tokio::spawn` with every `JoinHandle` kept and awaited.
        RawSpawn = "spawn-and-join",
        /// `JoinSet`, tasks on a shared token.
        JoinSet = "JoinSet",
        /// `JoinSet` with a clone of the token in every task and the first error kept: the errgroup
        /// that people write by hand.
        JoinSetToken = "JoinSet+token",
        /// `TaskTracker` with a clone of the token in every task.
        TaskTracker = "TaskTracker+token",
        /// Nested subsystems of tokio-graceful-shutdown.
        GracefulShutdown = "tokio-graceful-shutdown",
        /// `TaskGroup::spawn`: place of spawn, panics, errors, abort on drop, cause.
        Group = "TaskGroup",
        /// `TaskGroup::task("name").spawn`: an entry for each task on top of that.
        NamedGroup = "TaskGroup, named",
        /// `TaskGroup::spawn_when_ready` with a limit of 64.
        LimitedGroup = "TaskGroup, limit 64",
    }
}

words! {
    /// What a task does.
    pub enum Work {
        /// It is ready at its first poll.
        Ready = "ready",
        /// It yields once.
        Yield = "yield",
        /// It waits for the token, which is cancelled when all tasks wait.
        Parked = "parked",
    }
}

/// Runs `tasks` tasks of this kind to their end.
pub async fn run(contender: Contender, work: Work, tasks: usize) {
    match contender {
        Contender::Nothing => {}
        Contender::Floor => floor(work, tasks).await,
        Contender::RawSpawn => raw_spawn(work, tasks).await,
        Contender::JoinSet => join_set(work, tasks).await,
        Contender::JoinSetToken => join_set_token(work, tasks).await,
        Contender::TaskTracker => task_tracker(work, tasks).await,
        Contender::GracefulShutdown => graceful_shutdown(work, tasks).await,
        Contender::Group => group(work, tasks).await,
        Contender::NamedGroup => named_group(work, tasks).await,
        Contender::LimitedGroup => limited_group(tasks).await,
    }
}

/// Returns when every task spawned so far has been polled.
///
/// The queue of a current-thread runtime is first in, first out, so a task spawned last runs last.
async fn all_polled() {
    if tokio::spawn(async {}).await.is_err() {
        unreachable!("an empty task neither panics nor is aborted");
    }
}

struct Countdown {
    left: AtomicUsize,
    over: Notify,
}

impl Countdown {
    fn tick(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.notify_one();
        }
    }
}

/// The shared state is leaked, as the floor must not pay for owning it.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

async fn floor(work: Work, tasks: usize) {
    let countdown = leak(Countdown {
        left: AtomicUsize::new(tasks),
        over: Notify::new(),
    });
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                drop(tokio::spawn(async move { countdown.tick() }));
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                drop(tokio::spawn(async move {
                    yield_now().await;
                    countdown.tick();
                }));
            }
        }
        Work::Parked => {
            let token = leak(CancellationToken::new());
            for _ in 0..tasks {
                drop(tokio::spawn(async move {
                    token.cancelled().await;
                    countdown.tick();
                }));
            }
            all_polled().await;
            token.cancel();
        }
    }
    countdown.over.notified().await;
}

async fn raw_spawn(work: Work, tasks: usize) {
    let mut handles = Vec::with_capacity(tasks);
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                handles.push(tokio::spawn(async {}));
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                handles.push(tokio::spawn(async { yield_now().await }));
            }
        }
        Work::Parked => {
            let token = leak(CancellationToken::new());
            for _ in 0..tasks {
                handles.push(tokio::spawn(async { token.cancelled().await }));
            }
            all_polled().await;
            token.cancel();
        }
    }
    for handle in handles {
        assert!(handle.await.is_ok());
    }
}

async fn join_set(work: Work, tasks: usize) {
    let mut set = JoinSet::new();
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                set.spawn(async {});
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                set.spawn(async { yield_now().await });
            }
        }
        Work::Parked => {
            let token = leak(CancellationToken::new());
            for _ in 0..tasks {
                set.spawn(async { token.cancelled().await });
            }
            all_polled().await;
            token.cancel();
        }
    }
    while let Some(joined) = set.join_next().await {
        assert!(joined.is_ok());
    }
}

async fn join_set_token(work: Work, tasks: usize) {
    let parent = CancellationToken::new();
    let mut set: JoinSet<Result<(), BoxError>> = JoinSet::new();
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                let token = parent.clone();
                set.spawn(async move {
                    drop(token);
                    Ok(())
                });
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                let token = parent.clone();
                set.spawn(async move {
                    yield_now().await;
                    drop(token);
                    Ok(())
                });
            }
        }
        Work::Parked => {
            for _ in 0..tasks {
                let token = parent.clone();
                set.spawn(async move {
                    token.cancelled().await;
                    Ok(())
                });
            }
            all_polled().await;
            parent.cancel();
        }
    }
    let mut first = None;
    while let Some(joined) = set.join_next().await {
        let error: BoxError = match joined {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        parent.cancel();
        first.get_or_insert(error);
    }
    assert!(first.is_none());
}

async fn task_tracker(work: Work, tasks: usize) {
    let parent = CancellationToken::new();
    let tracker = TaskTracker::new();
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                let token = parent.clone();
                drop(tracker.spawn(async move { drop(token) }));
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                let token = parent.clone();
                drop(tracker.spawn(async move {
                    yield_now().await;
                    drop(token);
                }));
            }
        }
        Work::Parked => {
            for _ in 0..tasks {
                let token = parent.clone();
                drop(tracker.spawn(async move { token.cancelled().await }));
            }
            all_polled().await;
            parent.cancel();
        }
    }
    tracker.close();
    tracker.wait().await;
}

async fn graceful_shutdown(work: Work, tasks: usize) {
    let top = Toplevel::new(async move |subsystem: &mut SubsystemHandle| match work {
        Work::Ready => {
            for _ in 0..tasks {
                subsystem.start(SubsystemBuilder::new(
                    "task",
                    async |_: &mut SubsystemHandle| Ok::<(), BoxError>(()),
                ));
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                subsystem.start(SubsystemBuilder::new(
                    "task",
                    async |_: &mut SubsystemHandle| {
                        yield_now().await;
                        Ok::<(), BoxError>(())
                    },
                ));
            }
        }
        Work::Parked => {
            for _ in 0..tasks {
                subsystem.start(SubsystemBuilder::new(
                    "task",
                    async |task: &mut SubsystemHandle| {
                        task.on_shutdown_requested().await;
                        Ok::<(), BoxError>(())
                    },
                ));
            }
            all_polled().await;
            subsystem.request_shutdown();
        }
    });
    assert!(
        top.handle_shutdown_requests(Duration::from_secs(60))
            .await
            .is_ok()
    );
}

async fn group(work: Work, tasks: usize) {
    let mut group = TaskGroup::new();
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                group.spawn(async { Ok(()) });
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                group.spawn(async {
                    yield_now().await;
                    Ok(())
                });
            }
        }
        Work::Parked => {
            let token = leak(group.token().clone());
            for _ in 0..tasks {
                group.spawn(async {
                    token.cancelled().await;
                    Ok(())
                });
            }
            all_polled().await;
            group.cancel();
        }
    }
    assert!(group.wait().await.is_ok());
}

async fn named_group(work: Work, tasks: usize) {
    let mut group = TaskGroup::new();
    match work {
        Work::Ready => {
            for _ in 0..tasks {
                group.task("task").spawn(async { Ok(()) });
            }
        }
        Work::Yield => {
            for _ in 0..tasks {
                group.task("task").spawn(async {
                    yield_now().await;
                    Ok(())
                });
            }
        }
        Work::Parked => {
            let token = leak(group.token().clone());
            for _ in 0..tasks {
                group.task("task").spawn(async {
                    token.cancelled().await;
                    Ok(())
                });
            }
            all_polled().await;
            group.cancel();
        }
    }
    assert!(group.wait().await.is_ok());
}

async fn limited_group(tasks: usize) {
    let Ok(mut group) = TaskGroup::builder().limit(64).build() else {
        unreachable!("64 is a limit");
    };
    for _ in 0..tasks {
        assert!(group.spawn_when_ready(async { Ok(()) }).await.is_ok());
    }
    assert!(group.wait().await.is_ok());
}
