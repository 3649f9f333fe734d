//! Random lifecycles with real tasks, on a paused clock.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use taskgroup::lifecycle::{
    Budget, ComponentState, Context, Event, EventKind, Handle, Report, StepKind,
};
use taskgroup::lifecycle::{Component, Lifecycle};
use taskgroup::process::Heartbeat;
use taskgroup::{BoxError, Cause, End};
use tokio::runtime::{self, Runtime};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Wrong, wrong};

/// What every panic of this test says, so that it is not printed.
const PLANNED: &str = "planned";

#[derive(Clone, Copy, Debug)]
enum Act {
    Ok,
    Err,
    Panic,
}

/// What a part does at some time, in milliseconds; nothing if it hangs.
type Does = Option<(u64, Act)>;

#[derive(Clone, Debug)]
enum Start {
    Ready(u64),
    /// Does not become ready.
    Ends(Does),
}

#[derive(Clone, Debug)]
struct Part {
    after: u16,
    grace: Option<u64>,
    start_timeout: u64,
    is_job: bool,
    may_end: bool,
    may_fail: bool,
    start: Start,
    /// After it was ready, if it does not wait for its token.
    life: Option<(u64, Act)>,
    stop: Does,
    /// A task that it spawns when it starts, which does not look at the token.
    helper: Option<Does>,
    /// A task that does.
    obedient_helper: bool,
    panics_in_drop: bool,
    drain: Option<Option<u64>>,
    is_nested: bool,
}

#[derive(Clone, Debug)]
struct Scenario {
    parts: Vec<Part>,
    lame_duck: u64,
    stop: u64,
    now: bool,
    /// How long after the stop it is forced.
    force: Option<u64>,
    /// When a lease is lost, from the start of the run.
    lease: Option<u64>,
}

/// What the parts did, as they saw it.
#[derive(Clone, Default)]
struct World {
    alive: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<(String, Duration)>>>,
}

/// Counts what is alive, and may panic in its destructor.
struct Guard {
    world: World,
    panics: Option<String>,
    began: Instant,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.world.alive.fetch_sub(1, Ordering::Relaxed);
        if let Some(message) = self.panics.take().filter(|_| !std::thread::panicking()) {
            self.world.fails(&message, self.began);
            panic!("{message}");
        }
    }
}

impl World {
    fn guard(&self, panics: Option<String>, began: Instant) -> Guard {
        self.alive.fetch_add(1, Ordering::Relaxed);
        Guard {
            world: self.clone(),
            panics,
            began,
        }
    }

    fn fails(&self, message: &str, began: Instant) {
        let failure = (message.to_owned(), began.elapsed());
        self.failures.lock().unwrap().push(failure);
    }

    async fn does(&self, what: Does, message: String, began: Instant) -> Result<(), BoxError> {
        let Some((at, end)) = what else {
            return pending().await;
        };
        sleep(millis(at)).await;
        match end {
            Act::Ok => Ok(()),
            Act::Err => {
                self.fails(&message, began);
                Err(message.into())
            }
            Act::Panic => {
                self.fails(&message, began);
                panic!("{message}")
            }
        }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Part {
    fn component(&self, index: usize, world: &World, began: Instant) -> Component {
        let (part, world) = (self.clone(), world.clone());
        let name = format!("c{index}");
        let run = move |ctx| part.run(index, world, began, ctx);
        let mut component = if self.is_job {
            Component::job(name, run)
        } else {
            Component::new(name, run)
        };
        let names = (0..index).filter(|other| self.after >> other & 1 == 1);
        component = component
            .after(names.map(|other| format!("c{other}")))
            .start_timeout(millis(self.start_timeout));
        if let Some(grace) = self.grace {
            component = component.grace(millis(grace));
        }
        if self.may_end {
            component = component.may_end();
        }
        if self.may_fail {
            component = component.may_fail();
        }
        if self.drain.is_some() {
            component = component.drains();
        }
        component
    }

    async fn run(
        self,
        index: usize,
        world: World,
        began: Instant,
        ctx: Context,
    ) -> Result<(), BoxError> {
        let panics = self
            .panics_in_drop
            .then(|| format!("{PLANNED}-{index}-drop"));
        let mut guard = world.guard(panics, began);
        let result = self.live(index, &world, began, ctx).await;
        if result.is_err() {
            // The language would forget the error.
            guard.panics = None;
        }
        result
    }

    async fn live(
        self,
        index: usize,
        world: &World,
        began: Instant,
        ctx: Context,
    ) -> Result<(), BoxError> {
        let message = |what: &str| format!("{PLANNED}-{index}-{what}");
        if let Some(helper) = self.helper {
            let (world, message) = (world.clone(), message("helper"));
            let guard = world.guard(None, began);
            ctx.group().spawn(async move {
                let _guard = guard;
                world.does(helper, message, began).await
            });
        }
        if self.obedient_helper {
            let token = ctx.token().clone();
            let guard = world.guard(None, began);
            ctx.group().task("helper").spawn(async move {
                let _guard = guard;
                Ok(token.cancelled().await)
            });
        }
        match self.start {
            Start::Ready(at) => sleep(millis(at)).await,
            Start::Ends(what) => return world.does(what, message("start"), began).await,
        }
        if self.is_job {
            return Ok(());
        }
        ctx.ready();
        ctx.ready();
        if let Some(drain) = self.drain {
            let context = ctx.clone();
            let guard = world.guard(None, began);
            ctx.group().spawn(async move {
                let _guard = guard;
                let drains = async {
                    context.draining().await;
                    match drain {
                        Some(at) => sleep(millis(at)).await,
                        None => pending().await,
                    }
                };
                context.token().run_until_cancelled(drains).await;
                context.drained();
                Ok(())
            });
        }
        if let Some(life) = self.life {
            let lives = world.does(Some(life), message("life"), began);
            if let Some(result) = ctx.token().run_until_cancelled(lives).await {
                return result;
            }
        } else {
            ctx.stopping().await;
        }
        // A task that sees the token can read why, and until when.
        assert!(ctx.cause().is_some());
        world.does(self.stop, message("stop"), began).await
    }
}

fn lifecycle(scenario: &Scenario, world: &World, began: Instant) -> Lifecycle {
    let budget = Budget::new(Duration::from_secs(2))
        .lame_duck(millis(scenario.lame_duck))
        .drain(millis(50));
    let mut lifecycle = Lifecycle::new("orders").budget(budget);
    for (index, part) in scenario.parts.iter().enumerate() {
        let component = if part.is_nested {
            let base = Component::new("base", |ctx| async move {
                ctx.ready();
                Ok(ctx.stopping().await)
            });
            let part = Part {
                after: 0,
                drain: None,
                grace: None,
                ..part.clone()
            };
            let inner = Lifecycle::new(format!("c{index}"))
                .budget(millis(100))
                .component(part.component(index, world, began).after(["base"]))
                .component(base);
            let after = scenario.parts[index].after;
            let names = (0..index).filter(|other| after >> other & 1 == 1);
            Component::lifecycle(inner).after(names.map(|other| format!("c{other}")))
        } else {
            part.component(index, world, began)
        };
        lifecycle = lifecycle.component(component);
    }
    lifecycle
}

fn runtime() -> Runtime {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let message = info.payload().downcast_ref::<String>();
            if !message.is_some_and(|message| message.starts_with(PLANNED)) {
                loud(info);
            }
        }));
    });
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

fn run(scenario: &Scenario) {
    let world = World::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    runtime().block_on(async {
        let began = Instant::now();
        let seen = Arc::clone(&events);
        let lifecycle = lifecycle(scenario, &world, began)
            .observe(move |event| seen.lock().unwrap().push(event.clone()));
        let (_lease, lost) = match scenario.lease {
            Some(at) => Heartbeat::new("lease", millis(at)),
            None => Heartbeat::new("lease", Duration::MAX),
        };
        let lifecycle = lifecycle.stop_on(lost);
        let handle = lifecycle.handle();
        let early = tokio::spawn({
            let handle = handle.clone();
            async move { handle.report().await }
        });
        let stop = tokio::spawn({
            let (handle, stop, now) = (handle.clone(), millis(scenario.stop), scenario.now);
            let force = scenario.force.map(millis);
            async move {
                sleep(stop).await;
                if now {
                    handle.stop_now("enough");
                } else {
                    handle.stop("enough");
                }
                if let Some(after) = force {
                    sleep(after).await;
                    handle.force("enough of it");
                }
            }
        });
        let report = timeout(Duration::from_secs(3600), lifecycle.run());
        let report = report.await.expect("it hangs").unwrap();
        assert!(handle.running().is_empty(), "{}", handle.running());
        assert_eq!(world.alive.load(Ordering::Relaxed), 0, "something is alive");
        stop.abort();
        drop(stop.await);
        let early = early.await.unwrap().unwrap();
        let late = handle.report().await.unwrap();
        assert!(Arc::ptr_eq(&early, &late));
        assert_eq!(early.to_string(), report.to_string());
        assert_eq!(runtime::Handle::current().metrics().num_alive_tasks(), 0);
        let events = std::mem::take(&mut *events.lock().unwrap());
        check(scenario, &world, &handle, &report, &events);
    });
}

/// What the events say of one component.
#[derive(Debug, Default)]
struct Seen {
    started: Option<Duration>,
    ready: Option<Duration>,
    told: Option<Duration>,
    forced: Option<Duration>,
    ended: Option<(Duration, End)>,
    failed: Vec<Wrong>,
    /// The number of the event.
    ready_at: usize,
    told_at: usize,
    ended_at: usize,
}

fn check(scenario: &Scenario, world: &World, handle: &Handle, report: &Report, events: &[Event]) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut skipped = HashSet::new();
    let mut triggered = None;
    let mut stages = Vec::new();
    let mut last = Duration::ZERO;
    for (number, event) in events.iter().enumerate() {
        assert!(event.at >= last, "{event:?}");
        last = event.at;
        let name = event.component.as_deref().unwrap_or("/");
        let name = name.rsplit('/').next().unwrap().to_owned();
        if let EventKind::Skipped(_) = event.kind {
            // It has no other event.
            assert!(!seen.contains_key(&name), "{event:?}");
            assert!(skipped.insert(name));
            continue;
        }
        assert!(!skipped.contains(&name), "after it was skipped: {event:?}");
        let seen = seen.entry(name).or_default();
        let at = event.at;
        assert!(seen.ended.is_none(), "after its end: {event:?}");
        match &event.kind {
            EventKind::StartBegan => {
                assert_eq!(seen.started.replace(at), None);
                assert!(triggered.is_none(), "started after the stop began");
            }
            EventKind::Ready(after) => {
                assert_eq!(seen.ready.replace(at), None);
                assert_eq!(seen.started.unwrap() + *after, at);
                assert_eq!(seen.told, None);
                seen.ready_at = number;
            }
            EventKind::StopBegan(_) => {
                assert!(seen.started.is_some());
                assert_eq!(seen.told.replace(at), None);
                seen.told_at = number;
            }
            EventKind::Forced(after) => {
                assert_eq!(seen.forced.replace(at), None);
                assert_eq!(seen.told.unwrap() + *after, at);
            }
            EventKind::Failed(error) => seen.failed.push(wrong(error)),
            EventKind::Ended { end, took, .. } => {
                assert!(seen.started.is_some());
                seen.ended = Some((at, *end));
                seen.ended_at = number;
                assert_eq!(*took, seen.told.map(|told| at - told));
            }
            EventKind::StopTriggered { cause, .. } => {
                assert_eq!(triggered.replace(at), None);
                assert_eq!(cause, &report.cause);
                assert_eq!(at, report.stop_began);
            }
            EventKind::Stopped { took, errors } => {
                assert_eq!(number, events.len() - 1);
                assert_eq!((*took, *errors), (report.took(), report.errors.len()));
            }
            EventKind::LameDuckBegan(_) => stages.push((StepKind::LameDuck, at)),
            EventKind::DrainBegan(_) => stages.push((StepKind::Drain, at)),
            _ => {}
        }
    }
    assert!(triggered.is_some());
    assert!(report.took() <= report.budget, "{report}");

    for index in 0..scenario.parts.len() {
        let name = format!("c{index}");
        let state = handle.state(&name).unwrap();
        let of_report = report
            .components
            .iter()
            .find(|status| status.component == name);
        assert_eq!(of_report.unwrap().state, state);
        let Some(this) = seen.get(&name) else {
            assert_eq!(state, ComponentState::Ended(End::Skipped));
            assert!(skipped.contains(&name));
            continue;
        };
        let (ended, end) = this.ended.expect("it never ended");
        assert_eq!(state, ComponentState::Ended(end));
        assert_eq!(end == End::TimedOut, this.forced.is_some());
        let overran = |wrong: &Wrong| wrong.0 == Some(StepKind::Stop) && wrong.1 == End::TimedOut;
        let overran = this.failed.iter().filter(|wrong| overran(wrong)).count();
        assert_eq!(
            overran,
            usize::from(this.forced.is_some()),
            "one error each"
        );
        let leaves = used_left(this);
        for used in all_used(scenario, index) {
            let used = &seen[&format!("c{used}")];
            assert!(used.ready.is_some() && used.ready <= this.started);
            // Nothing here is a resource, so nothing is told in its turn once it is urgent.
            let in_order = scenario.lease.is_none() && scenario.force.is_none();
            if in_order && used.told.is_some() && !used_left(used) {
                assert!(
                    this.ended_at < used.told_at,
                    "told before its user has ended"
                );
            }
        }
        let told_in_order = this.told.is_some() && !leaves;
        assert!(!told_in_order || this.told >= triggered);

        let steps: Vec<_> = report
            .timeline
            .iter()
            .filter(|step| step.subject == name)
            .collect();
        let start = steps
            .iter()
            .find(|step| step.kind == StepKind::Start)
            .unwrap();
        assert_eq!(Some(start.began), this.started);
        if let Some(ready) = this.ready {
            assert_eq!(start.ended, ready);
        }
        let stop = steps.iter().find(|step| step.kind == StepKind::Stop);
        if let Some(told) = this.told {
            let stop = stop.unwrap();
            assert_eq!((stop.began, stop.ended), (told, ended));
        }
        let troubled = steps.iter().any(|step| step.end.is_failure());
        let mut errors = report.errors.iter().filter(|error| error.component == name);
        let has_error = errors.any(|error| error.during != Some(StepKind::Drain));
        assert_eq!(troubled, has_error, "{report}");
    }

    assert!(report.timeline.is_sorted_by_key(|step| step.began));
    for step in &report.timeline {
        assert!(step.ended <= report.ended, "{step:?}");
    }
    for (kind, at) in stages {
        let step = report
            .timeline
            .iter()
            .find(|step| step.kind == kind)
            .unwrap();
        assert_eq!(step.began, at);
        if kind == StepKind::LameDuck {
            assert!(step.took() <= millis(scenario.lame_duck));
        }
    }

    for inner in &report.nested {
        assert!(
            scenario.force.is_some() || inner.errors.iter().all(|error| error.component != "base"),
            "{inner}"
        );
    }

    // Every error is there, once.
    let failures = world.failures.lock().unwrap().clone();
    for (message, at) in &failures {
        let index: usize = message.split('-').nth(1).unwrap().parse().unwrap();
        let is_nested = scenario.parts[index].is_nested;
        let nested = report
            .nested
            .iter()
            .find(|inner| inner.name.ends_with(&format!("c{index}")));
        let errors = match nested {
            Some(inner) => &inner.errors,
            None => &report.errors,
        };
        let found = errors
            .iter()
            .filter(|error| error.message.contains(message));
        // A nested lifecycle that was forced has no report, and may have lost what it knew.
        if !is_nested || nested.is_some() {
            assert_eq!(found.count(), 1, "{message}: {errors:#?}");
        }
        assert!(
            *at >= report.stop_began || scenario.parts[index].may_fail,
            "{message} was no reason to stop: {report}"
        );
    }
    if let Cause::Failed(_) = &report.cause {
        let task = report.cause.to_string();
        // Those before it may fail.
        let mut errors = report.errors.iter();
        let first = errors.find(|error| task.contains(&error.component));
        let first = first.expect("no error for the cause");
        if let Some((message, _)) = failures.iter().find(|(message, _)| task.contains(message)) {
            assert!(first.message.contains(message), "{task}: {first:#}");
        }
    } else if failures.is_empty() && report.errors.iter().all(|error| !error.is_forced()) {
        let words = report.cause.to_string();
        assert!(
            words.contains("enough") || words.contains("lease") || words.contains("all is done")
        );
    }
}

/// What a part uses, directly or through others.
fn all_used(scenario: &Scenario, index: usize) -> Vec<usize> {
    let mut all = Vec::new();
    let mut found = vec![index];
    while let Some(user) = found.pop() {
        let after = scenario.parts[user].after;
        for used in (0..user).filter(|used| after >> used & 1 == 1) {
            if !all.contains(&used) {
                all.push(used);
                found.push(used);
            }
        }
    }
    all
}

/// Whether a part was told because something of it had failed, and not in its turn.
fn used_left(seen: &Seen) -> bool {
    let fails = |wrong: &Wrong| match wrong {
        (Some(StepKind::Drain | StepKind::Stop), end, _) => *end == End::Panicked,
        (_, _, limit) => limit.is_none(),
    };
    seen.failed.iter().any(fails)
}

fn end() -> impl Strategy<Value = Act> {
    prop_oneof![8 => Just(Act::Ok), 1 => Just(Act::Err), 1 => Just(Act::Panic)]
}

fn fault() -> impl Strategy<Value = Act> {
    prop_oneof![Just(Act::Ok), Just(Act::Err), Just(Act::Panic)]
}

fn part() -> impl Strategy<Value = Part> {
    let does = || option::weighted(0.8, (0..40_u64, end()));
    let start = prop_oneof![
        14 => (0..20_u64).prop_map(Start::Ready),
        1 => option::weighted(0.8, (0..40_u64, fault())).prop_map(Start::Ends),
    ];
    let chance = |chance| prop::bool::weighted(chance);
    (
        (any::<u16>(), any::<u16>(), option::of(0..40_u64)),
        prop_oneof![4 => Just(5000_u64), 1 => 1..40_u64],
        (chance(0.2), (chance(0.2), chance(0.2)), start),
        option::weighted(0.1, (0..100_u64, fault())),
        does(),
        option::weighted(0.15, option::weighted(0.7, (0..100_u64, fault()))),
        (chance(0.2), chance(0.1), chance(0.15)),
        option::weighted(0.15, option::weighted(0.8, 0..60_u64)),
    )
        .prop_map(
            |(place, start_timeout, kind, life, stop, helper, more, drain)| {
                let (one, other, grace) = place;
                let (is_job, (may_end, may_fail), start) = kind;
                let (obedient_helper, panics_in_drop, is_nested) = more;
                Part {
                    after: one & other,
                    grace,
                    start_timeout,
                    is_job,
                    may_end,
                    may_fail,
                    start,
                    life,
                    stop,
                    helper,
                    obedient_helper: obedient_helper && !is_job,
                    panics_in_drop,
                    drain: drain.filter(|_| !is_job && !is_nested),
                    is_nested: is_nested && !is_job && !may_end,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_components_do_they_end_in_order_in_time_and_the_report_says_so(
        parts in vec(part(), 0..8),
        lame_duck in prop_oneof![Just(0_u64), 1..30_u64],
        stop in 0..150_u64,
        now in any::<bool>(),
        force in option::weighted(0.3, 0..60_u64),
        lease in option::weighted(0.3, 0..200_u64),
    ) {
        run(&Scenario { parts, lame_duck, stop, now, force, lease });
    }
}
