//! The step whose turn it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::outcome::Outcome;
use super::plan::Rules;
use super::plan::retry;
use super::step::Attempt;
use super::step::Closure;
use super::step::Step;
use super::step::Work;
use super::step_report::StepError;
use crate::BoxError;
use crate::TaskHandle;
use crate::group::TaskGroup;
use crate::group::chain;
use crate::group::deadline;
use crate::group::end::End;
use crate::group::panic::Panic;

/// How long a step may take to be gone after its time is over. After that it counts as still running.
///
/// The step is dropped when its task is polled next, so this covers scheduling and not work. It is short
/// because the other steps lose this time.
pub(super) const CONFIRMATION: Duration = Duration::from_millis(100);

/// The step under way, in its own task or on its own thread.
///
/// A step that blocks its thread therefore blocks neither the run nor its deadline, and the group can list
/// it as running. The run's future can be dropped and made anew while the step goes on.
pub(super) struct Current {
    pub(super) name: Cow<'static, str>,
    pub(super) rules: Rules,
    pub(super) started: Instant,
    /// The time that the step was given.
    pub(super) time: Duration,
    attempts: Arc<AtomicU32>,
    /// When to stop waiting for it. `None` for never.
    patience: Option<Instant>,
    task: TaskHandle<Ended>,
}

/// How a step has ended.
pub(super) struct Ended {
    pub(super) end: End,
    /// The error that it returned, or its panic.
    pub(super) error: Option<StepError>,
    /// The error as text, with its sources.
    pub(super) message: String,
    pub(super) at: Instant,
    /// The panic of a destructor.
    pub(super) panic: Option<Panic>,
}

impl Ended {
    fn now(end: End) -> Self {
        Self {
            end,
            error: None,
            message: String::new(),
            at: Instant::now(),
            panic: None,
        }
    }

    fn failed(error: BoxError) -> Self {
        Self::now(End::Failed).with(error.into())
    }

    pub(super) fn panicked(panic: Panic) -> Self {
        Self::now(End::Panicked).with(Arc::new(panic))
    }

    /// Formats the error, which runs user code.
    fn with(mut self, error: StepError) -> Self {
        self.message = chain::line_of(&*error);
        self.error = Some(error);
        self
    }
}

impl Current {
    /// Begins the first attempt.
    pub(super) fn begin(step: Step, time: Duration, outcome: &Outcome, group: &TaskGroup) -> Self {
        // Before the call of the step's function, which counts toward its time.
        let started = Instant::now();
        let until = started.checked_add(time);
        let place = step.place();
        let (name, rules, work) = step.into_parts();
        let outcome = outcome.clone();
        let attempts = Arc::new(AtomicU32::new(1));
        let (task, patience) = match work {
            Work::Blocking(closure) => {
                let closure = move |_: &_| Ok(block(closure, outcome));
                let task = group.task(name.clone()).spawn_blocking_from(place, closure);
                // A blocking step cannot be cut, so it gets no time to confirm that.
                (task, until)
            }
            work => {
                let attempts = Arc::clone(&attempts);
                let rules = rules.clone();
                let steps = async move {
                    let (attempt, again) = work.attempt(outcome.clone());
                    let attempts = Attempts {
                        rules,
                        outcome,
                        until,
                        count: attempts,
                        stage: Stage::Working(attempt),
                        again,
                    };
                    Ok(attempts.end().await)
                };
                let task = group.task(name.clone()).spawn_from(place, steps);
                let patience = until.and_then(|until| until.checked_add(CONFIRMATION));
                (task, patience)
            }
        };
        Self {
            name,
            rules,
            started,
            time,
            attempts,
            patience,
            task,
        }
    }

    /// Waits until the step has ended, or has failed to end in time. Must not be called again after that.
    ///
    /// Cancel safe: the step is not in this future.
    pub(super) async fn end(&mut self) -> Ended {
        match deadline::by(self.patience, &mut self.task).await {
            Some(Ok(ended)) => ended,
            // Its group was aborted, or its runtime is shutting down.
            Some(Err(_)) => Ended::now(End::Aborted),
            None => Ended::now(End::StillRunning),
        }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// Runs a closure on the caller's thread.
fn block(closure: Closure, outcome: Outcome) -> Ended {
    match Panic::catch(|| closure(outcome)) {
        Ok(Ok(())) => Ended::now(End::Done),
        Ok(Err(error)) => Ended::failed(error),
        Err(panic) => Ended::panicked(panic),
    }
}

/// The attempts of a step, in its task.
struct Attempts {
    rules: Rules,
    outcome: Outcome,
    /// The end of the time for all attempts together. `None` for no end.
    until: Option<Instant>,
    count: Arc<AtomicU32>,
    stage: Stage,
    /// The work for another attempt.
    again: Option<Work>,
}

enum Stage {
    /// An attempt is under way.
    Working(Attempt),
    /// The last attempt has failed. The next one begins at this moment, within the step's time.
    Pausing(Instant),
}

impl Attempts {
    /// Waits until the step has ended or its time is over, and drops what is left of it.
    async fn end(mut self) -> Ended {
        let ended = self.ended().await;
        let panic = self.dismiss();
        Ended {
            at: Instant::now(),
            panic,
            ..ended
        }
    }

    async fn ended(&mut self) -> Ended {
        loop {
            let returned = match &mut self.stage {
                Stage::Working(attempt) => deadline::by(self.until, attempt).await,
                Stage::Pausing(until) => {
                    sleep_until(*until).await;
                    self.attempt();
                    continue;
                }
            };
            let error = match returned {
                Some(Ok(Ok(()))) => return Ended::now(End::Done),
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => return Ended::panicked(panic),
                None => return Ended::now(End::TimedOut),
            };
            let now = Instant::now();
            let left = self.until.map(|until| until.saturating_duration_since(now));
            let left = left.unwrap_or(Duration::MAX);
            let count = self.count.load(Ordering::Relaxed);
            match retry(&self.rules, count, left).and_then(|pause| now.checked_add(pause)) {
                Some(until) => self.stage = Stage::Pausing(until),
                None => return Ended::failed(error),
            }
            // Its destructor is user code.
            drop(Panic::catch_drop(error));
        }
    }

    fn attempt(&mut self) {
        let Some(work) = self.again.take() else {
            return;
        };
        let (attempt, again) = work.attempt(self.outcome.clone());
        self.stage = Stage::Working(attempt);
        self.again = again;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what is left of the step, and returns the panic of a destructor.
    fn dismiss(self) -> Option<Panic> {
        let Self { stage, again, .. } = self;
        let attempt = Panic::catch(|| drop(stage)).err();
        let again = Panic::catch(|| drop(again)).err();
        attempt.or(again)
    }
}
