//! A stream of items that are worked on 64 at a time, by a pool and by the recipes that it replaces.

use futures_util::StreamExt;
use futures_util::stream;
use taskgroup::TaskGroup;
use taskgroup::pipeline::{Job, JobError, Workers, from_stream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::words::words;

words! {
    /// How the items are worked on.
    pub enum Pipe {
        /// A task for each item that holds a permit, and nothing else: no errors, no panics, nothing is joined.
        Spawn = "semaphore+spawn",
        /// The recipe that people write by hand, with all results: the floor of a task for each item.
        JoinSet = "semaphore+JoinSet",
        /// `StreamExt::buffer_unordered`: no tasks, and one panic ends it all.
        BufferUnordered = "buffer_unordered",
        /// `StreamExt::for_each_concurrent` with a task for each item.
        Spawned = "for_each_concurrent+spawn",
        /// `Workers` over a queue of their own.
        Queue = "Workers, queue",
        /// `Workers` over a stream.
        Stream = "Workers, stream",
    }
}

/// How many items are worked on at once, and wait in a queue.
pub const LIMIT: usize = 64;

/// What is done with an item. It may fail, as that of a user may.
async fn work(item: usize) -> Result<(), JobError> {
    match item {
        usize::MAX => Err(JobError::permanent("no such item")),
        _ => Ok(()),
    }
}

/// Works on so many items.
pub async fn run(pipe: Pipe, items: usize) {
    match pipe {
        Pipe::Spawn => spawn(items).await,
        Pipe::JoinSet => join_set(items).await,
        Pipe::BufferUnordered => buffer_unordered(items).await,
        Pipe::Spawned => spawned(items).await,
        Pipe::Queue => queue(items).await,
        Pipe::Stream => of_stream(items).await,
    }
}

async fn spawn(items: usize) {
    // Leaked, so that it does not pay for owning it.
    let room: &Semaphore = Box::leak(Box::new(Semaphore::new(LIMIT)));
    for item in 0..items {
        let Ok(permit) = room.acquire().await else {
            unreachable!("nobody closes it");
        };
        drop(tokio::spawn(async move {
            let done = work(item).await;
            drop(permit);
            done
        }));
    }
    assert!(room.acquire_many(64).await.is_ok());
}

async fn join_set(items: usize) {
    let room = std::sync::Arc::new(Semaphore::new(LIMIT));
    let mut set = JoinSet::new();
    for item in 0..items {
        let Ok(permit) = room.clone().acquire_owned().await else {
            unreachable!("nobody closes it");
        };
        set.spawn(async move {
            let done = work(item).await;
            drop(permit);
            done
        });
        while let Some(joined) = set.try_join_next() {
            assert!(matches!(joined, Ok(Ok(()))));
        }
    }
    while let Some(joined) = set.join_next().await {
        assert!(matches!(joined, Ok(Ok(()))));
    }
}

async fn buffer_unordered(items: usize) {
    let mut ended = stream::iter(0..items).map(work).buffer_unordered(LIMIT);
    while let Some(done) = ended.next().await {
        assert!(done.is_ok());
    }
}

async fn spawned(items: usize) {
    let each = |item| async move {
        assert!(matches!(tokio::spawn(work(item)).await, Ok(Ok(()))));
    };
    stream::iter(0..items)
        .for_each_concurrent(LIMIT, each)
        .await;
}

async fn queue(items: usize) {
    let mut group = TaskGroup::new();
    let workers = Workers::new("bench", |job: Job<usize>| work(*job)).limit(LIMIT);
    let Ok((pusher, pool)) = workers.queue(LIMIT) else {
        unreachable!("these are options that make a pool");
    };
    let report = pool.spawn(&group);
    for item in 0..items {
        assert!(pusher.push(item).await.is_ok());
    }
    drop(pusher);
    assert_eq!(report.await.map(|report| report.done()).ok(), Some(items));
    assert!(group.wait().await.is_ok());
}

async fn of_stream(items: usize) {
    let mut group = TaskGroup::new();
    let workers = Workers::new("bench", |job: Job<usize>| work(*job)).limit(LIMIT);
    let Ok(pool) = workers.source(from_stream(stream::iter(0..items))) else {
        unreachable!("these are options that make a pool");
    };
    let report = pool.spawn(&group);
    assert_eq!(report.await.map(|report| report.done()).ok(), Some(items));
    assert!(group.wait().await.is_ok());
}
