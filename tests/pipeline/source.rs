//! Sources with receipts: acknowledgements, pauses, leases, the number of the first attempt.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use taskgroup::pipeline::{
    AtStop, HandedBack, Job, JobError, OnFailure, Reason, Receipt, Received, Source, Workers,
    from_iter, from_stream,
};
use taskgroup::supervise::Backoff;
use taskgroup::{BoxError, TaskGroup};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Seen, failed, settle};

/// A broker that has messages, and hears of them.
#[derive(Clone, Default)]
struct Broker {
    messages: Arc<Mutex<VecDeque<(u32, u32)>>>,
    more: Arc<Notify>,
    log: Seen<String>,
    /// So many acknowledgements fail.
    fails: Arc<AtomicU32>,
    ends_when_paused: bool,
    is_paused: Arc<Mutex<bool>>,
    /// How much room there was, each time that it was asked.
    rooms: Seen<usize>,
}

#[derive(Clone)]
struct Delivery {
    id: u32,
    broker: Broker,
}

impl Broker {
    fn with(messages: impl IntoIterator<Item = u32>) -> Self {
        let broker = Self::default();
        for id in messages {
            broker.send(id, 1);
        }
        broker
    }

    fn send(&self, id: u32, attempt: u32) {
        self.messages.lock().unwrap().push_back((id, attempt));
        self.more.notify_one();
    }

    fn pop(&self) -> Option<(u32, u32)> {
        self.messages.lock().unwrap().pop_front()
    }
}

impl Source for Broker {
    type Item = u32;
    type Receipt = Delivery;

    async fn next(&mut self, room: usize) -> Result<Option<Received<u32, Delivery>>, BoxError> {
        self.rooms.push(room);
        loop {
            if let Some((id, attempt)) = self.pop() {
                if id == 666 {
                    return Err("the connection is lost".into());
                }
                self.log.push(format!("fetched {id}"));
                let broker = self.clone();
                let received = Received::new(id, Delivery { id, broker });
                return Ok(Some(received.attempt(attempt)));
            }
            if self.ends_when_paused && *self.is_paused.lock().unwrap() {
                return Ok(None);
            }
            self.more.notified().await;
        }
    }
}

impl Receipt for Delivery {
    async fn ack(&self) -> Result<(), BoxError> {
        let fails = self.broker.fails.load(Ordering::Relaxed);
        if fails > 0 {
            self.broker.fails.store(fails - 1, Ordering::Relaxed);
            return Err("not confirmed".into());
        }
        Ok(self.broker.log.push(format!("acked {}", self.id)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_is_acknowledged_after_its_handler_and_never_if_that_failed() {
    let mut group = TaskGroup::new();
    let broker = Broker::with([1, 2, 3]);
    let log = broker.log.clone();
    let handled = log.clone();
    let pool = Workers::new("orders", move |job: Job<u32, Delivery>| {
        let handled = handled.clone();
        async move {
            handled.push(format!("handled {}", *job));
            match *job {
                2 => Err(JobError::failed("no")),
                _ => Ok(()),
            }
        }
    })
    .on_failure(OnFailure::Count)
    .source(broker)
    .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "2 done, 1 failed");
    let log: Vec<_> = log.all();
    let of = |id: u32| -> Vec<String> {
        let is_of = |line: &&String| line.ends_with(&format!(" {id}"));
        log.iter().filter(is_of).cloned().collect()
    };
    assert_eq!(of(1), ["fetched 1", "handled 1", "acked 1"]);
    assert_eq!(of(2), ["fetched 2", "handled 2"]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_acknowledged_after_its_function_returned_ok() {
    let mut group = TaskGroup::new();
    let broker = Broker::with([1]);
    let log = broker.log.clone();
    let letters = log.clone();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async {
        Err(JobError::permanent("no"))
    })
    .dead_letter(move |job| {
        let letters = letters.clone();
        async move { Ok(letters.push(format!("published {}", *job))) }
    })
    .source(broker)
    .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    group.cancel();
    assert_eq!(report.await.unwrap().dead_letters(), 1);
    assert_eq!(log.all(), ["fetched 1", "published 1", "acked 1"]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_repeated_until_it_is_confirmed() {
    let mut group = TaskGroup::new();
    let broker = Broker::with([1]);
    broker.fails.store(3, Ordering::Relaxed);
    let log = broker.log.clone();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
        .source(broker)
        .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "1 done");
    assert_eq!(log.all(), ["fetched 1", "acked 1"]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_not_acknowledged_by_the_deadline_is_handed_back_and_counted_apart() {
    let mut group = TaskGroup::new();
    let broker = Broker::with([1]);
    broker.fails.store(u32::MAX, Ordering::Relaxed);
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
        .grace(5 * SECOND)
        .source(broker)
        .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    settle().await;
    group.cancel();
    let (report, message) = failed(&mut group).await;
    assert_eq!((report.done(), report.not_acknowledged()), (0, 1));
    assert_eq!(
        message,
        "pipeline `orders`: 1 handed back (1 not acknowledged)"
    );
    let left = leftovers.take();
    assert_eq!(left[0].reason(), Reason::NotAcknowledged);
    assert_eq!(left[0].last_error().unwrap().to_string(), "not confirmed");
}

#[tokio::test(start_paused = true)]
async fn the_broker_says_which_attempt_it_is_and_used_up_ones_are_not_begun() {
    let mut group = TaskGroup::new();
    let broker = Broker::default();
    broker.send(1, 3);
    broker.send(2, 4);
    let seen = Seen::default();
    let handled = seen.clone();
    let dead = seen.clone();
    let pool = Workers::new("orders", move |job: Job<u32, Delivery>| {
        handled.push(format!("attempt {} of {}", job.attempt(), *job));
        async { Ok(()) }
    })
    .retry(Backoff::default(), 3)
    .dead_letter(move |job| {
        dead.push(format!("{}: {}", *job, job.last_error().unwrap()));
        async { Ok(()) }
    })
    .source(broker)
    .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    group.cancel();
    let report = report.await.unwrap();
    assert_eq!((report.done(), report.dead_letters()), (1, 1));
    assert_eq!(
        seen.all(),
        [
            "attempt 3 of 1",
            "2: it was begun 3 times before it came here, and never ended"
        ]
    );
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_more_is_fetched_than_fits_into_the_buffer() {
    let mut group = TaskGroup::new();
    let broker = Broker::with(0..100);
    let log = broker.log.clone();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async {
        Ok(pending().await)
    })
    .limit(2)
    .buffer(3)
    .grace(SECOND)
    .source(broker)
    .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    settle().await;
    assert_eq!(log.len(), 5);
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!((report.cut(), report.never_begun()), (2, 3));
    let left = leftovers.take();
    let ids: Vec<_> = left.iter().map(|item| item.receipt().id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_under_way_is_awaited_and_what_it_yields_is_handed_back() {
    let mut group = TaskGroup::new();
    let broker = Broker::default();
    let back = Seen::default();
    let seen = back.clone();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
        .hand_back(move |items: Vec<HandedBack<u32, Delivery>>| {
            for item in items {
                seen.push((item.receipt().id, item.reason()));
            }
            async { Ok(()) }
        })
        .source(broker.clone())
        .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    group.cancel();
    settle().await;
    broker.send(7, 1);
    broker.send(8, 1);
    let report = report.await.unwrap();
    assert_eq!(report.to_string(), "1 handed back (1 never begun)");
    assert_eq!(back.all(), [(7, Reason::NeverBegun)]);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_paused_source_is_read_to_its_end() {
    let mut group = TaskGroup::new();
    let broker = Broker {
        ends_when_paused: true,
        ..Broker::default()
    };
    let paused = broker.clone();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
        .pause(5 * SECOND, move || async move {
            sleep(SECOND).await;
            // What was prefetched arrives with the confirmation.
            paused.send(1, 1);
            paused.send(2, 1);
            *paused.is_paused.lock().unwrap() = true;
            Ok(())
        })
        .source(broker)
        .unwrap();
    let leftovers = pool.leftovers();
    let report = pool.spawn(&group);
    settle().await;
    let began = Instant::now();
    group.cancel();
    assert_eq!(report.await.unwrap().never_begun(), 2);
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(leftovers.take().len(), 2);
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_fails_or_hangs_does_not_keep_the_stop_from_ending() {
    for hangs in [false, true] {
        let mut group = TaskGroup::new();
        let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
            .pause(2 * SECOND, move || async move {
                match hangs {
                    true => Ok(pending().await),
                    false => Err("unknown consumer".into()),
                }
            })
            .source(Broker::with([1]))
            .unwrap();
        pool.spawn(&group);
        settle().await;
        let began = Instant::now();
        group.cancel();
        let ended = group.wait().await;
        assert_eq!(began.elapsed().as_secs(), 2);
        if !hangs {
            let message = format!("{:#}", ended.unwrap_err());
            let end = "1 done: the pause of the intake failed: unknown consumer";
            assert!(message.ends_with(end), "{message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_stops_the_pool() {
    let mut group = TaskGroup::new();
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| async { Ok(()) })
        .source(Broker::with([1, 666]))
        .unwrap();
    let _leftovers = pool.leftovers();
    pool.spawn(&group);
    let (_, message) = failed(&mut group).await;
    assert!(
        message.ends_with("the intake failed: the connection is lost"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_leases_of_all_that_is_held_are_kept_alive_and_of_nothing_else() {
    let mut group = TaskGroup::new();
    let broker = Broker::with(1..=4);
    let seen = Seen::default();
    let extended = seen.clone();
    let pool = Workers::new("orders", |job: Job<u32, Delivery>| async move {
        match (*job, job.attempt()) {
            (1, _) => Ok(()),
            (2, 1) => Err(JobError::failed("later")),
            _ => Ok(sleep(100 * SECOND).await),
        }
    })
    .retry(Backoff::new(1000 * SECOND, 1000 * SECOND), 2)
    .keep_alive(10 * SECOND, move |leases: Vec<Delivery>| {
        let mut ids: Vec<_> = leases.iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        extended.push(ids);
        async { Err("the broker is busy".into()) }
    })
    .grace(15 * SECOND)
    .source(broker)
    .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    sleep(15 * SECOND).await;
    // In backoff, running, buffered.
    assert_eq!(seen.all(), [vec![2, 3, 4]]);
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!((report.cut(), report.keep_alives_failed()), (1, 2));
    let extensions = seen.len();
    assert_eq!(leftovers.take().len(), 3);
    sleep(100 * SECOND).await;
    assert_eq!(seen.len(), extensions);
}

/// A step in the life of a lease, in order.
struct Extending(Seen<&'static str>);

impl Drop for Extending {
    fn drop(&mut self) {
        self.0.push("keeper ended");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_has_ended_before_anything_is_handed_back() {
    let mut group = TaskGroup::new();
    let seen = Seen::default();
    let (extended, returned) = (seen.clone(), seen.clone());
    let pool = Workers::new("orders", |_: Job<u32, Delivery>| pending())
        .keep_alive(SECOND, move |_: Vec<Delivery>| {
            let extending = Extending(extended.clone());
            async move {
                // The broker does not answer.
                let _extending = extending;
                pending().await
            }
        })
        .hand_back(move |_| {
            returned.push("handed back");
            async { Ok(()) }
        })
        .grace(3 * SECOND)
        .source(Broker::with(1..=4))
        .unwrap();
    pool.spawn(&group);
    sleep(2 * SECOND).await;
    group.cancel();
    drop(failed(&mut group).await);
    assert_eq!(seen.all(), ["keeper ended", "handed back"]);
}

/// The source and the handler are always ready, and still the stop gets its turn.
#[tokio::test(start_paused = true)]
async fn an_endless_source_of_ready_items_starves_nobody() {
    for limit in [1, 8] {
        let mut group = TaskGroup::new();
        let pool = Workers::new("numbers", |_: Job<u64>| async { Ok(()) })
            .limit(limit)
            .at_stop(AtStop::Drain)
            .source(from_iter(0..))
            .unwrap();
        let report = pool.spawn(&group);
        let token = group.token().clone();
        // It has two turns only.
        group.spawn(async move {
            tokio::task::yield_now().await;
            Ok(token.cancel())
        });
        let report = report.await.unwrap();
        assert!(report.done() > 0 && report.is_clean(), "{report}");
        assert!(group.wait().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_hangs_is_given_up_at_the_deadline() {
    struct Silent;
    impl Receipt for Silent {
        async fn ack(&self) -> Result<(), BoxError> {
            pending().await
        }
    }
    let mut group = TaskGroup::new();
    let items = [Received::new(1, Silent)];
    let pool = Workers::new("orders", |_: Job<u32, Silent>| async { Ok(()) })
        .grace(5 * SECOND)
        .source(from_stream(futures_util::stream::iter(items)))
        .unwrap();
    let leftovers = pool.leftovers();
    pool.spawn(&group);
    settle().await;
    let began = Instant::now();
    group.cancel();
    let (report, _) = failed(&mut group).await;
    assert_eq!(
        (report.not_acknowledged(), began.elapsed().as_secs()),
        (1, 5)
    );
    assert_eq!(leftovers.take()[0].reason(), Reason::NotAcknowledged);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_ends_the_pool() {
    let mut group = TaskGroup::new();
    let items = futures_util::stream::iter(0..10);
    let pool = Workers::new("numbers", |_: Job<u32>| async { Ok(()) })
        .limit(3)
        .source(from_stream(items))
        .unwrap();
    assert_eq!(pool.spawn(&group).await.unwrap().to_string(), "10 done");
    assert!(group.wait().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_source_is_told_how_much_room_there_is() {
    let mut group = TaskGroup::new();
    let broker = Broker::with(0..4);
    let (more, rooms) = (broker.clone(), broker.rooms.clone());
    let gate = Arc::new(Notify::new());
    let opens = Arc::clone(&gate);
    let pool = Workers::new("orders", move |_: Job<u32, Delivery>| {
        let gate = Arc::clone(&opens);
        async move { Ok(gate.notified().await) }
    })
    .limit(1)
    .buffer(3)
    .source(broker)
    .unwrap();
    let report = pool.spawn(&group);
    settle().await;
    // The first is begun, and three are buffered: nobody asks any longer.
    let asked = rooms.all();
    assert_eq!((asked[0], asked.last()), (3, Some(&1)), "{asked:?}");
    assert!(asked.iter().all(|room| (1..=3).contains(room)), "{asked:?}");
    for _ in 0..4 {
        gate.notify_one();
        settle().await;
    }
    // There was one place when it was asked for the fifth.
    assert_eq!(rooms.all().last(), Some(&1));
    more.send(4, 1);
    settle().await;
    // The fifth was not begun yet when it was asked for the sixth.
    assert_eq!(rooms.all().last(), Some(&2));
    gate.notify_one();
    settle().await;
    group.cancel();
    assert_eq!(report.await.unwrap().to_string(), "5 done");
    assert!(group.wait().await.is_ok());
}
