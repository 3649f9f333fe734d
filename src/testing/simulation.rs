//! [`simulate`]: runs a lifecycle through a scenario, on a paused clock.

use std::future::Future;
use std::future::pending;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::runtime::Handle as RuntimeHandle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::group::cause::Cause;
use crate::group::census;
use crate::group::random::while_seeded;
use crate::lifecycle::Handle;
use crate::lifecycle::Lifecycle;
use crate::lifecycle::Report;
use crate::process::ExitPolicy;
use crate::testing::journal::Journal;
use crate::testing::leaks::tasks_left;
use crate::testing::stage::Cue;
use crate::testing::stage::Stage;
use crate::testing::stage::line_of;

/// How a simulated process ended.
///
/// # Examples
///
/// See [`simulate`].
#[derive(Debug)]
pub struct Outcome {
    code: u8,
    at: Duration,
    report: Option<Report>,
    left: Vec<String>,
    journal: Journal,
}

/// How long a simulation may go on after the last moment of its script.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Runs the lifecycle that `setup` makes through the scenario that `setup` writes, to the end of the process.
///
/// The environment is simulated. The signals are those of the [script](Stage::signal), the exit is a value,
/// and the clock is paused, so that an hour passes at once. The lifecycle, its components and its report are
/// those of the service. Replace its environment by fakes, such as a database by a [`Fake`](super::Fake) and
/// a connection by a [`Link`](super::Link). The order is the same each time.
///
/// - There is one thread without IO. A real socket panics, since a paused clock does not wait for it.
/// - The [watchdog](Lifecycle::watchdog) of the lifecycle is removed, as it would end the test.
/// - `setup` runs within the runtime, so it may make values that need one.
/// - `tokio::select!` without `biased` and the order of a `HashMap` are random in each process. Do not use
///   either in simulated code.
///
/// # Panics
///
/// Panics if the components do not form a valid plan, or if the lifecycle does not end within a day after the
/// last moment of the script. It also panics within a runtime, because it blocks.
///
/// # Examples
///
/// SIGTERM after 2 s, the database hangs, and the operator loses patience after 9 s:
///
/// ```
/// use std::time::Duration;
/// use taskgroup::Signal;
/// use taskgroup::lifecycle::Lifecycle;
/// use taskgroup::testing::{Act, simulate};
///
/// let secs = Duration::from_secs;
/// let outcome = simulate(|stage| {
///     stage.signal(secs(2), Signal::Terminate).signal(secs(9), Signal::Terminate);
///     let database = stage.fake("database").stops(Duration::ZERO, Act::Hang);
///     Lifecycle::new("orders").budget(secs(28)).component(database.component())
/// });
/// assert_eq!((outcome.code(), outcome.at()), (143, secs(9)));
/// ```
#[track_caller]
pub fn simulate(setup: impl FnOnce(&mut Stage) -> Lifecycle) -> Outcome {
    simulate_seed(0, setup)
}

#[track_caller]
pub(super) fn simulate_seed(seed: u64, setup: impl FnOnce(&mut Stage) -> Lifecycle) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs memory only");
    let ended = while_seeded(seed, || runtime.block_on(play(seed, setup)));
    match ended {
        Ok(outcome) => outcome,
        Err(message) => panic!("{message}"),
    }
}

async fn play(seed: u64, setup: impl FnOnce(&mut Stage) -> Lifecycle) -> Result<Outcome, String> {
    let (runtime, groups) = (RuntimeHandle::current(), census::next());
    let mut stage = Stage::new(seed);
    let lifecycle = setup(&mut stage);
    let Stage {
        journal,
        mut script,
        policy,
        insist_after,
        ..
    } = stage;
    script.sort_by_key(|(at, _)| *at);
    let last = script.last().map_or(Duration::ZERO, |(at, _)| *at);

    let (first, comes) = oneshot::channel();
    let events = journal.clone();
    let lifecycle = lifecycle
        .guard_with(|_, _, _| Ok(()))
        .observe(move |event| {
            if let Some(line) = line_of(event) {
                events.note(line);
            }
        })
        .stop_on(async {
            match comes.await {
                Ok(signal) => Cause::Signal(signal),
                // The script has ended without a signal.
                Err(_) => pending().await,
            }
        });
    let began = Instant::now();
    let script = perform(
        Script {
            began,
            cues: script,
            insist_after,
            first: Some(first),
            journal: journal.clone(),
        },
        lifecycle.handle(),
        &policy,
    );
    let ended = {
        let mut script = pin!(script);
        let mut run = pin!(lifecycle.run());
        let mut limit = pin!(sleep_until(began + last + LONGEST));
        poll_fn(|cx| {
            if let Poll::Ready(report) = run.as_mut().poll(cx) {
                return Poll::Ready(Ok(report));
            }
            if let Poll::Ready(code) = script.as_mut().poll(cx) {
                return Poll::Ready(Err(Some(code)));
            }
            limit.as_mut().poll(cx).map(|()| Err(None))
        })
        .await
    };
    let at = began.elapsed();
    let (code, report) = match ended {
        Err(None) => return Err(format!("the lifecycle does not end:\n{journal}")),
        Err(Some(code)) => (code, None),
        Ok(Err(error)) => return Err(format!("{error:#}")),
        Ok(Ok(report)) => (policy.exit_of(&report).code(), Some(report)),
    };
    journal.note(format_args!("the process ends with {code}"));
    let mut left = Vec::new();
    if report.is_some() {
        // The code that listened to the lifecycle ends in its next turn.
        yield_now().await;
        left = tasks_left(&runtime, 0, groups, Some(thread::current().id()));
    }
    Ok(Outcome {
        code,
        at,
        report,
        left,
        // When the process is gone, it has no more events. The later ones come from the runtime, which drops
        // its tasks.
        journal: journal.at_its_end(),
    })
}

struct Script {
    began: Instant,
    cues: Vec<(Duration, Cue)>,
    insist_after: Duration,
    /// Takes the first signal.
    first: Option<oneshot::Sender<crate::group::signal::Signal>>,
    journal: Journal,
}

/// Performs the script, and returns with the status of a forced exit.
async fn perform(mut script: Script, handle: Handle, policy: &ExitPolicy) -> u8 {
    let mut counts_from = None;
    for (at, cue) in script.cues {
        sleep_until(script.began + at).await;
        match cue {
            Cue::Call(act) => act(&handle),
            Cue::Signal(signal) => {
                script.journal.note(signal);
                if let Some(first) = script.first.take() {
                    counts_from = Some(at.saturating_add(script.insist_after));
                    // Without a listener, the lifecycle was stopped in another way, and this signal still
                    // counts as the first.
                    let _ = first.send(signal);
                } else if counts_from.is_some_and(|from| at >= from) {
                    return policy.code_of_second(signal);
                }
            }
        }
    }
    // The sender is kept, because dropping it would fire the trigger.
    let _first = script.first;
    pending().await
}

impl Outcome {
    /// Returns the exit status.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Returns when the process ended, as the time since its start.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Returns the report, or `None` if a second signal has forced the exit.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Returns the tasks that were left when the run had returned, a line for each in the format of
    /// [`Leaks`](super::Leaks). After a forced exit it is empty.
    #[must_use]
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// Returns the journal of the run.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}
