//! A pool as a component of a lifecycle.

use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::pipeline::{AtStop, Job, JobError, PipelineError, Received, Workers, from_stream};
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

/// A component that takes a second to stop, and then says so.
fn last(name: &'static str, seen: &Seen<&'static str>, says: &'static str) -> Component {
    let seen = seen.clone();
    Component::new(name, move |ctx: Context| async move {
        ctx.ready();
        ctx.stopping().await;
        sleep(SECOND).await;
        Ok::<_, BoxError>(seen.push(says))
    })
}

/// The order of P2: the intake is paused, the workers are drained, then the publisher is flushed while the offsets are
/// committed, and the connection is closed.
#[tokio::test(start_paused = true)]
async fn a_consumer_stops_as_pause_drain_flush_and_commit_close() {
    let seen = Seen::default();
    let published = seen.clone();
    let (events, publisher) = Workers::new("publisher", move |_: Job<u32>| {
        let published = published.clone();
        async move {
            sleep(SECOND).await;
            Ok(published.push("published"))
        }
    })
    .limit(2)
    .queue(10)
    .unwrap();
    let (worked, paused) = (seen.clone(), seen.clone());
    let orders = futures_util::stream::StreamExt::chain(
        futures_util::stream::iter((0..2).map(Received::from)),
        futures_util::stream::pending(),
    );
    let consumer = Workers::new("consumer", move |order: Job<u32>| {
        let (worked, events) = (worked.clone(), events.clone());
        async move {
            sleep(2 * SECOND).await;
            worked.push("worked");
            Ok(events.push(*order).await?)
        }
    })
    .limit(2)
    .pause(SECOND, move || async move { Ok(paused.push("paused")) })
    .source(from_stream(orders))
    .unwrap();
    let lifecycle = Lifecycle::new("orders")
        .component(last("connection", &seen, "closed"))
        .component(last("offsets", &seen, "committed").after(["connection"]))
        .component(publisher.component().after(["connection"]).may_end())
        .component(consumer.component().after(["publisher", "offsets"]));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    handle.ready().await.unwrap();
    settle().await;
    let began = Instant::now();
    handle.stop("enough");
    assert!(run.await.unwrap().unwrap().is_clean());
    let mut order = seen.all();
    assert_eq!(order[..3], ["paused", "worked", "worked"]);
    // These take their second at the same time.
    order[3..6].sort_unstable();
    assert_eq!(
        order[3..],
        ["committed", "published", "published", "closed"]
    );
    assert_eq!(began.elapsed().as_secs(), 3, "{:?}", began.elapsed());
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

#[tokio::test(start_paused = true)]
async fn a_failure_stops_the_lifecycle_when_it_happens_unless_the_component_may_fail() {
    for may_fail in [false, true] {
        let (pusher, pool) = Workers::new("mail", |job: Job<u32>| async move {
            sleep(*job * SECOND).await;
            Err(JobError::failed("bad"))
        })
        .limit(2)
        .queue(10)
        .unwrap();
        let seen = Seen::default();
        let told = seen.clone();
        let began = Instant::now();
        let other = Component::new("other", move |ctx: Context| async move {
            ctx.ready();
            ctx.stopping().await;
            Ok::<_, BoxError>(told.push(began.elapsed().as_secs()))
        });
        pusher.push(1).await.unwrap();
        pusher.push(5).await.unwrap();
        let mail = match may_fail {
            true => pool.component().may_fail(),
            false => pool.component(),
        };
        let lifecycle = Lifecycle::new("orders").component(other).component(mail);
        let handle = lifecycle.handle();
        let run = tokio::spawn(lifecycle.run());
        sleep(9 * SECOND).await;
        handle.stop("enough");
        let report = run.await.unwrap().unwrap();
        assert!(!report.is_clean());
        assert_eq!(seen.all(), [if may_fail { 9 } else { 1 }]);
    }
}
