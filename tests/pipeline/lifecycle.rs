//! A pool as a component of a lifecycle.

use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::pipeline::{AtStop, Job, PipelineError, Workers};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, settle};

#[tokio::test(start_paused = true)]
async fn a_pool_is_a_component_and_its_report_counts_what_is_in_flight() {
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { Ok(sleep(SECOND).await) })
        .limit(2)
        .queue(10)
        .unwrap();
    let lifecycle = Lifecycle::new("shop").component(pool.component());
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    for item in 0..3 {
        pusher.push(item).await.unwrap();
    }
    settle().await;
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.in_flight, 2);
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_cut_within_the_time_of_its_component_and_still_hands_back() {
    let back = Seen::default();
    let seen = back.clone();
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async {
        Ok(std::future::pending().await)
    })
    .hand_back(move |items| {
        let seen = seen.clone();
        async move {
            sleep(SECOND / 2).await;
            Ok(seen.push(items.len()))
        }
    })
    .queue(10)
    .unwrap();
    let lifecycle = Lifecycle::new("shop").component(pool.component().grace(5 * SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    pusher.push(1).await.unwrap();
    pusher.push(2).await.unwrap();
    settle().await;
    let began = Instant::now();
    handle.stop("enough");
    let report = run.await.unwrap().unwrap();
    assert!(began.elapsed() < 5 * SECOND);
    assert_eq!(back.all(), [2]);
    let message = format!("{:#}", report.first_error().unwrap());
    assert!(
        message.contains("pipeline `mail`: 2 handed back (1 cut, 1 never begun)"),
        "{message}"
    );
}

/// The order of P2: the intake is paused, the workers are drained, the publisher is flushed, and the connection is closed.
#[tokio::test(start_paused = true)]
async fn a_consumer_stops_as_pause_drain_flush_close() {
    let seen = Seen::default();
    let log = |what: &'static str| {
        let seen = seen.clone();
        move || seen.push(what)
    };
    let (published, flushed) = (log("published"), log("flushed"));
    let (events, publisher) = Workers::new("publisher", move |_: Job<u32>| {
        let published = published.clone();
        async move { Ok(published()) }
    })
    .queue(10)
    .unwrap();
    let worked = log("worked");
    let paused = log("paused");
    let orders = futures_util::stream::StreamExt::chain(
        futures_util::stream::iter((0..2).map(taskgroup::pipeline::Received::from)),
        futures_util::stream::pending(),
    );
    let consumer = Workers::new("consumer", move |order: Job<u32>| {
        let (worked, events) = (worked.clone(), events.clone());
        async move {
            sleep(SECOND).await;
            worked();
            Ok(events.push(*order).await?)
        }
    })
    .pause(SECOND, move || async move { Ok(paused()) })
    .source(taskgroup::pipeline::from_stream(orders))
    .unwrap();
    let closed = log("closed");
    let lifecycle = Lifecycle::new("orders")
        .component(Component::new(
            "connection",
            move |ctx: taskgroup::lifecycle::Context| async move {
                ctx.ready();
                ctx.stopping().await;
                Ok::<_, taskgroup::BoxError>(closed())
            },
        ))
        .component(publisher.component().after(["connection"]).may_end())
        .component(consumer.component().after(["publisher"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    settle().await;
    handle.stop("enough");
    run.await.unwrap().unwrap();
    flushed();
    let order = seen.all();
    assert_eq!(order[0], "paused", "{order:?}");
    assert_eq!(order.iter().filter(|what| **what == "published").count(), 2);
    assert_eq!(order[order.len() - 2..], ["closed", "flushed"], "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_stops_the_lifecycle_and_the_error_is_its_own() {
    let (pusher, pool) = Workers::new("mail", |_: Job<u32>| async { panic!("no table") })
        .at_stop(AtStop::HandBack)
        .queue(10)
        .unwrap();
    let lifecycle = Lifecycle::new("shop").component(pool.component());
    pusher.push(1).await.unwrap();
    let report = lifecycle.run().await.unwrap();
    let error = report.first_error().unwrap();
    let mut chain =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        });
    assert!(chain.any(|error| error.is::<PipelineError>()), "{error:#}");
}
