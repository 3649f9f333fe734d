//! Every option that is a time or a number, with extreme values. What is built runs, on a paused
//! clock; what is refused says why. Nothing panics, and nothing hangs.

#![no_main]

mod time;

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use arbitrary::Arbitrary;
use axum::Router;
use libfuzzer_sys::fuzz_target;
use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Budget, Check, Lifecycle};
use taskgroup::pipeline::{Job, Workers};
use taskgroup::supervise::{Backoff, Periodic, Supervisor};
use taskgroup::testing::{Fake, simulate};
use taskgroup::{BoxError, CancellationToken, Signal, TaskGroup};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use self::time::Time;

#[derive(Arbitrary, Debug)]
enum Input {
    Group(Group),
    Lifecycle(Life),
    Supervised(Supervised),
    Server(Server),
    Pool(Pool),
}

#[derive(Arbitrary, Debug)]
struct Group {
    limit: Option<Size>,
    deadline: Option<Time>,
    grace: Option<Time>,
    shutdown: Option<Time>,
    tasks: u8,
    is_deaf: bool,
}

#[derive(Arbitrary, Debug)]
struct Life {
    total: Time,
    jitter: Option<Time>,
    lame_duck: Option<Time>,
    drain: Option<Time>,
    cleanup: Option<Time>,
    start: Option<Time>,
    platform: Option<Time>,
    phase: Option<Time>,
    step: Option<(Time, Option<Time>)>,
    check: Option<(Time, Time)>,
    parts: Vec<Part>,
    stop: u16,
}

#[derive(Arbitrary, Debug)]
struct Part {
    grace: Option<Time>,
    start_timeout: Option<Time>,
    has_phase: bool,
    drains: bool,
    after_the_one_before: bool,
    seed: u8,
}

#[derive(Arbitrary, Debug)]
struct Supervised {
    first: Time,
    longest: Time,
    factor: u32,
    intensity: Size,
    window: Time,
    reset_after: Time,
    grace: Time,
    period: Time,
    fail_after: u32,
    last_run: Option<Time>,
}

#[derive(Arbitrary, Debug)]
struct Server {
    grace: Option<Time>,
    linger: Option<Time>,
    idle_grace: Option<Time>,
    kill_grace: Option<Time>,
    first_byte: Option<Time>,
    header: Option<Time>,
    keepalive: Option<Time>,
    connections: Option<Size>,
    concurrency: Option<Size>,
    streams: Option<u32>,
    windows: Option<(u32, u32)>,
}

#[derive(Arbitrary, Debug)]
struct Pool {
    limit: Option<Size>,
    capacity: Size,
    attempts: u32,
    first: Time,
    longest: Time,
    grace: Option<Time>,
    hand_back: Option<Time>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Small(u8),
    Any(usize),
    Most,
}

impl From<Size> for usize {
    fn from(size: Size) -> Self {
        match size {
            Size::Small(size) => size.into(),
            Size::Any(size) => size,
            Size::Most => Self::MAX,
        }
    }
}

/// More than any of them may take, in paused time.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Applies an option if there is a value for it.
macro_rules! set {
    ($thing:ident . $option:ident ( $value:expr )) => {
        if let Some(value) = $value {
            $thing = $thing.$option(value.into());
        }
    };
}

fn refused(error: &dyn std::error::Error) {
    assert!(!error.to_string().is_empty());
}

fn paused(future: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        assert!(timeout(CENTURY, future).await.is_ok(), "it hangs");
    });
}

async fn group(input: Group) {
    let mut builder = TaskGroup::builder().name("group");
    set!(builder.limit(input.limit));
    set!(builder.deadline(input.deadline));
    // A deaf task without a grace is waited for, as the docs say.
    let grace = input.grace.or(input.is_deaf.then_some(Time::Zero));
    set!(builder.grace(grace.map(|grace| Duration::from(grace).min(CENTURY / 4))));
    let mut group: TaskGroup = match builder.build() {
        Ok(group) => group,
        Err(error) => return refused(&error),
    };
    for _ in 0..input.tasks % 8 {
        let token = group.token().clone();
        let is_deaf = input.is_deaf;
        group.spawn(async move {
            token.cancelled().await;
            if is_deaf {
                pending::<()>().await;
            }
            Ok(sleep(Duration::from_millis(1)).await)
        });
    }
    let ended = match input.shutdown {
        Some(time) => group.shutdown(Duration::from(time).min(CENTURY / 4)).await,
        None => {
            group.cancel();
            group.wait().await
        }
    };
    if let Err(error) = ended {
        assert!(!format!("{error:#} {error:?}").is_empty());
    }
}

fn lifecycle(input: Life) -> Option<Lifecycle> {
    let mut budget = Budget::new(input.total.into());
    set!(budget.jitter(input.jitter));
    set!(budget.lame_duck(input.lame_duck));
    set!(budget.drain(input.drain));
    set!(budget.cleanup(input.cleanup));
    set!(budget.start_within(input.start));
    if let Some(limit) = input.platform {
        budget = budget.platform("the platform", limit.into());
    }
    let mut lifecycle = Lifecycle::new("fuzz").budget(budget);
    if let Some(time) = input.phase {
        lifecycle = lifecycle.phase("phase", Duration::from(time));
    }
    if let Some((deadline, always)) = input.step {
        let mut step = Step::new("step", |_| async { Ok::<(), BoxError>(()) });
        step = step.deadline(deadline.into());
        set!(step.always(always));
        let _ = lifecycle.cleanup().push(step);
    }
    if let Some((every, timeout)) = input.check {
        let check = Check::new("check", async || Ok::<(), BoxError>(()));
        lifecycle = lifecycle.check(check.every(every.into()).timeout(timeout.into()));
    }
    for (index, part) in input.parts.iter().take(6).enumerate() {
        let mut dice = taskgroup::testing::Dice::new(part.seed.into());
        let fake = Fake::random(format!("part {index}"), &mut dice, Duration::from_secs(5));
        let mut component = fake.component();
        set!(component.grace(part.grace));
        set!(component.start_timeout(part.start_timeout));
        if part.has_phase && input.phase.is_some() {
            component = component.phase("phase");
        }
        if part.drains {
            component = component.drains();
        }
        if part.after_the_one_before && index > 0 {
            component = component.after([format!("part {}", index - 1)]);
        }
        lifecycle = lifecycle.component(component);
    }
    match lifecycle.plan() {
        Ok(plan) => assert!(!plan.to_string().is_empty()),
        Err(error) => {
            refused(&error);
            return None;
        }
    }
    Some(lifecycle)
}

async fn supervised(input: Supervised) {
    let backoff = || Backoff::new(input.first.into(), input.longest.into()).factor(input.factor);
    let mut group = TaskGroup::new();
    let supervisor = Supervisor::new("supervisor")
        .backoff(backoff())
        .intensity(input.intensity.into(), input.window.into())
        .reset_after(input.reset_after.into())
        .grace(Duration::from(input.grace).min(CENTURY / 4))
        .child("child", |_| async { Err("again".into()) });
    if let Err(error) = supervisor.spawn(&group) {
        refused(&error);
    }
    let mut periodic = Periodic::new("periodic", input.period.into())
        .backoff(backoff())
        .fail_after(input.fail_after)
        .grace(Duration::from(input.grace).min(CENTURY / 4));
    set!(periodic.last_run(input.last_run));
    match periodic.run(group.token(), |_| async { Ok::<(), BoxError>(()) }) {
        Ok(run) => drop(timeout(Duration::from_millis(1), run).await),
        Err(error) => refused(&error),
    }
    drop(timeout(Duration::from_millis(1), group.wait()).await);
    group.cancel();
    drop(group.shutdown(Duration::from_secs(1)).await);
}

async fn server(input: Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut serve = taskgroup::server::axum::serve("http", listener, Router::new());
    set!(serve.grace(input.grace));
    set!(serve.linger(input.linger));
    set!(serve.idle_grace(input.idle_grace));
    set!(serve.kill_grace(input.kill_grace));
    set!(serve.first_byte_timeout(input.first_byte));
    set!(serve.header_timeout(input.header));
    set!(serve.http2_keepalive(input.keepalive));
    set!(serve.max_connections(input.connections));
    set!(serve.concurrency_per_connection(input.concurrency));
    set!(serve.http2_max_streams(input.streams));
    if let Some((stream, connection)) = input.windows {
        serve = serve.http2_windows(stream, connection);
    }
    let token = CancellationToken::new();
    let mut run = pin!(serve.run(&token));
    if let Ok(Err(error)) = timeout(Duration::from_millis(1), &mut run).await {
        return refused(&error);
    }
    token.cancel();
    if let Err(error) = run.await {
        refused(&error);
    }
}

async fn pool(input: Pool) {
    let backoff = Backoff::new(input.first.into(), input.longest.into());
    let mut workers =
        Workers::new("pool", async |_: Job<u8>| Ok(())).retry(backoff, input.attempts);
    set!(workers.limit(input.limit));
    set!(
        workers.grace(
            input
                .grace
                .map(|grace| Duration::from(grace).min(CENTURY / 4))
        )
    );
    set!(workers.hand_back_within(input.hand_back));
    let (pusher, pool) = match workers.queue(input.capacity.into()) {
        Ok(both) => both,
        Err(error) => return refused(&error),
    };
    let mut group = TaskGroup::<BoxError>::new();
    let report = pool.spawn(&group);
    assert!(pusher.push(1).await.is_ok());
    drop(pusher);
    assert_eq!(report.await.unwrap().done(), 1);
    group.wait().await.unwrap();
}

fuzz_target!(|input: Input| {
    match input {
        Input::Group(input) => paused(group(input)),
        Input::Supervised(input) => paused(supervised(input)),
        Input::Server(input) => paused(server(input)),
        Input::Pool(input) => paused(pool(input)),
        Input::Lifecycle(input) => {
            let at = Duration::from_millis(input.stop.into());
            if let Some(lifecycle) = lifecycle(input) {
                simulate(|stage| {
                    stage.signal(at, Signal::Terminate);
                    // A stop without a limit, of a part that hangs, is ended by the second signal.
                    stage.signal(at + Duration::from_secs(3600), Signal::Terminate);
                    lifecycle
                });
            }
        }
    }
});
