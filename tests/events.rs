//! The events of a lifecycle in `tracing` are those of the table in `docs/lifecycle.md`.
//!
//! One test alone: its subscriber serves the whole process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Budget, Component, Lifecycle};
use taskgroup::{BoxError, Cause};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECOND: Duration = Duration::from_secs(1);

/// A trigger that comes after this time.
async fn after(time: Duration) -> Cause {
    sleep(time).await;
    Cause::Deadline(time)
}

/// A name, its level, its fields and what they say.
#[derive(Clone, Debug)]
struct Line {
    name: String,
    level: String,
    fields: BTreeMap<String, String>,
}

impl Line {
    /// Groups have an event of the same name for their end.
    fn is_of_a_lifecycle(&self) -> bool {
        let is_of_a_group = self.name == "taskgroup.stopped" && self.fields.contains_key("group");
        self.name.starts_with("taskgroup.") && !is_of_a_group
    }
}

static LOG: Mutex<Vec<Line>> = Mutex::new(Vec::new());

struct Recorder;

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "taskgroup"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let line = Line {
            name: event.metadata().name().to_owned(),
            level: event.metadata().level().to_string(),
            fields,
        };
        LOG.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The rows of the table: the level and the fields of each name.
fn table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let quoted = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let docs = include_str!("../docs/lifecycle.md");
    let rows = docs
        .lines()
        .filter(|line| line.starts_with("| `taskgroup."));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = quoted(cells[1]).remove(0);
        (
            name,
            (cells[2].to_owned(), quoted(cells[3]).into_iter().collect()),
        )
    })
    .collect()
}

fn lifecycle() -> Lifecycle {
    let budget = Budget::new(60 * SECOND).jitter(SECOND).lame_duck(SECOND);
    let drains = Component::new("consumer", |ctx| async move {
        ctx.set_in_flight(3);
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(budget.drain(SECOND))
        .component(drains.drains());
    let step = Step::new("lease", |_| async { Ok(()) });
    lifecycle.cleanup().push(step).unwrap();
    lifecycle
}

async fn by_call() {
    let lifecycle = lifecycle();
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap();
}

async fn by_trigger() {
    let lifecycle = lifecycle().stop_on(after(SECOND));
    lifecycle.run().await.unwrap();
}

async fn by_failure() {
    let fails = Component::new("worker", |ctx| async move {
        ctx.ready();
        Err::<(), BoxError>("disk full".into())
    });
    let lifecycle = lifecycle().component(fails);
    lifecycle.run().await.unwrap();
}

async fn by_force() {
    let deaf = Component::new("deaf", |ctx| async move {
        ctx.ready();
        pending().await
    });
    let lifecycle = lifecycle().component(deaf.grace(SECOND));
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop_now("enough");
    run.await.unwrap().unwrap();
}

async fn before_the_start() {
    let lifecycle = lifecycle();
    lifecycle.handle().stop("never mind");
    lifecycle.run().await.unwrap();
}

/// Long enough for one line about what it waits for.
async fn by_call_and_slowly() {
    let slow = Component::new("slow", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        Ok(sleep(10 * SECOND).await)
    });
    let lifecycle = lifecycle().component(slow);
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap();
}

async fn lines(run: impl Future<Output = ()>) -> Vec<Line> {
    LOG.lock().unwrap().clear();
    run.await;
    std::mem::take(&mut LOG.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn l11_the_table_of_the_docs_is_what_is_emitted() {
    tracing::subscriber::set_global_default(Recorder).unwrap();
    let call = lines(by_call()).await;
    let trigger = lines(by_trigger()).await;
    let failure = lines(by_failure()).await;
    let force = lines(by_force()).await;
    let slow = lines(by_call_and_slowly()).await;
    let early = lines(before_the_start()).await;
    let runs = [&call, &trigger, &failure, &force, &slow, &early];

    let table = table();
    let mut missing: BTreeSet<_> = table.keys().cloned().collect();
    for line in runs.into_iter().flatten() {
        if !line.is_of_a_lifecycle() {
            continue;
        }
        missing.remove(&line.name);
        let (level, fields) = table.get(&line.name).unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(*level, line.level, "{line:?}");
        let mut has: BTreeSet<_> = line.fields.keys().cloned().collect();
        has.remove("message");
        // That of a signal alone.
        let fields: BTreeSet<_> = fields
            .iter()
            .filter(|it| *it != "signal")
            .cloned()
            .collect();
        assert_eq!(fields, has, "{line:?}");
    }
    assert_eq!(missing, BTreeSet::new(), "never emitted");

    // The stop as a whole is told in the same words, whatever it is for.
    let whole = |run: &[Line]| -> Vec<_> {
        let of_whole = run
            .iter()
            .filter(|line| line.is_of_a_lifecycle() && !line.name.contains("component"));
        let shape = |line: &Line| {
            (
                line.name.clone(),
                line.fields.keys().cloned().collect::<Vec<_>>(),
            )
        };
        of_whole.map(shape).collect()
    };
    assert_eq!(whole(&call), whole(&trigger));
    let no_notice = |name: &str| !["taskgroup.jitter"].contains(&name);
    let called: Vec<_> = whole(&call)
        .into_iter()
        .filter(|(name, _)| no_notice(name))
        .collect();
    assert_eq!(called, whole(&failure));

    // What is waited for is told by a stop that takes long, and by no other.
    let waiting = runs.map(|run| {
        let told = run.iter().filter(|line| line.name == "taskgroup.waiting");
        told.count()
    });
    assert_eq!(waiting, [0, 0, 0, 0, 1, 0]);

    // One trigger for each stop, and the error in one line.
    for run in runs {
        let triggers = run.iter().filter(|line| line.name == "taskgroup.trigger");
        assert_eq!(triggers.count(), 1, "{run:#?}");
    }
    // At no level is it said again.
    let says = |line: &&Line| {
        let mut values = line.fields.values();
        values.any(|value| value.contains("disk full"))
    };
    let said: Vec<_> = failure.iter().filter(says).collect();
    assert!(
        matches!(&said[..], [line] if line.name == "taskgroup.component.failed"),
        "{said:#?}"
    );
}
