//! The step whose turn it is.

use std::borrow::Cow;
use std::error::Error;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::outcome::Outcome;
use super::plan::Rules;
use super::plan::retry;
use super::step::Attempt;
use super::step::Closure;
use super::step::Step;
use super::step::Work;
use super::step_report::StepResult;
use crate::BoxError;
use crate::TaskHandle;
use crate::group::TaskGroup;
use crate::group::panic::Panic;

/// How long a step whose time is over has to be gone before it counts as still running.
///
/// It is dropped when its task is polled next, so this is scheduling, not work. It is short because
/// the other steps have this much less.
pub(super) const CONFIRMATION: Duration = Duration::from_millis(100);

/// The step that is running, in a task or on a thread of its own.
///
/// So a step that blocks its thread holds up neither the run nor its deadline, and the group can say
/// that it is running. The run's future can be dropped and made anew: the step goes on meanwhile.
pub(super) struct Current {
    pub(super) name: Cow<'static, str>,
    pub(super) rules: Rules,
    pub(super) started: Instant,
    /// The time that the step was given.
    pub(super) time: Duration,
    attempts: Arc<AtomicU32>,
    /// How long to wait for it, from the start.
    patience: Duration,
    task: TaskHandle<Ended>,
}

/// How a step has ended.
pub(super) struct Ended {
    pub(super) result: StepResult,
    pub(super) at: Instant,
    /// The panic of a destructor.
    pub(super) panic: Option<Panic>,
}

impl Current {
    /// Begins the first attempt.
    pub(super) fn begin(step: Step, time: Duration, outcome: &Outcome, group: &TaskGroup) -> Self {
        // Before the function of the step is called, which counts as its time.
        let started = Instant::now();
        let place = step.place();
        let (name, rules, work) = step.into_parts();
        let outcome = outcome.clone();
        let attempts = Arc::new(AtomicU32::new(1));
        let (task, patience) = match work {
            Work::Blocking(closure) => {
                let closure = move |_: &_| Ok(block(closure, outcome));
                let task = group.task(name.clone()).spawn_blocking_from(place, closure);
                // It cannot be cut, so there is nothing to confirm.
                (task, time)
            }
            work => {
                let attempts = Arc::clone(&attempts);
                let rules = rules.clone();
                let steps = async move {
                    let (attempt, again) = work.attempt(outcome.clone());
                    let attempts = Attempts {
                        rules,
                        outcome,
                        started,
                        time,
                        count: attempts,
                        stage: Stage::Working(attempt),
                        again,
                    };
                    Ok(attempts.end().await)
                };
                let task = group.task(name.clone()).spawn_from(place, steps);
                (task, time.saturating_add(CONFIRMATION))
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

    /// Waits until the step has ended, or does not end in time. Not to be called again after that.
    ///
    /// Cancel safe: the step is not in this future.
    pub(super) async fn end(&mut self) -> Ended {
        let left = self.patience.saturating_sub(self.started.elapsed());
        let result = match timeout(left, &mut self.task).await {
            Ok(Ok(ended)) => return ended,
            // Its group was aborted, or its runtime goes away.
            Ok(Err(error)) => StepResult::Failed(error.to_string()),
            Err(_) => StepResult::StillRunning(self.time),
        };
        Ended {
            result,
            at: Instant::now(),
            panic: None,
        }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// Runs a closure on the thread of the caller.
fn block(closure: Closure, outcome: Outcome) -> Ended {
    let result = match Panic::catch(|| closure(outcome)) {
        Ok(Ok(())) => StepResult::Done,
        Ok(Err(error)) => StepResult::Failed(text(error)),
        Err(panic) => StepResult::Panicked(panic.message().to_owned()),
    };
    Ended {
        result,
        at: Instant::now(),
        panic: None,
    }
}

/// The attempts of a step, in its task.
struct Attempts {
    rules: Rules,
    outcome: Outcome,
    started: Instant,
    time: Duration,
    count: Arc<AtomicU32>,
    stage: Stage,
    /// What there is for another attempt.
    again: Option<Work>,
}

enum Stage {
    /// An attempt is under way.
    Working(Attempt),
    /// The last attempt has failed, and the next one begins at this moment, within the step's time.
    Pausing(Instant),
}

impl Attempts {
    /// Waits until the step has ended or its time is over, and drops what is left of it.
    async fn end(mut self) -> Ended {
        let result = self.result().await;
        let panic = self.dismiss();
        Ended {
            result,
            at: Instant::now(),
            panic,
        }
    }

    async fn result(&mut self) -> StepResult {
        loop {
            let left = self.time.saturating_sub(self.started.elapsed());
            let returned = match &mut self.stage {
                Stage::Working(attempt) => timeout(left, attempt).await,
                Stage::Pausing(until) => {
                    sleep_until(*until).await;
                    self.attempt();
                    continue;
                }
            };
            let error = match returned {
                Ok(Ok(Ok(()))) => return StepResult::Done,
                Ok(Ok(Err(error))) => text(error),
                Ok(Err(panic)) => return StepResult::Panicked(panic.message().to_owned()),
                Err(_) => return StepResult::TimedOut(self.time),
            };
            let left = self.time.saturating_sub(self.started.elapsed());
            let count = self.count.load(Ordering::Relaxed);
            match retry(&self.rules, count, left)
                .and_then(|pause| Instant::now().checked_add(pause))
            {
                Some(until) => self.stage = Stage::Pausing(until),
                None => return StepResult::Failed(error),
            }
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

    /// Drops what is left of the step, and tells the panic of a destructor.
    fn dismiss(self) -> Option<Panic> {
        let Self { stage, again, .. } = self;
        let attempt = Panic::catch(|| drop(stage)).err();
        let again = Panic::catch(|| drop(again)).err();
        attempt.or(again)
    }
}

/// What an error says, with its sources. Both its `Display` and its destructor are code of the user.
fn text(error: BoxError) -> String {
    let text = Panic::catch(move || {
        let mut text = String::new();
        let sources = iter::successors(Some(&*error as &dyn Error), |error| (*error).source());
        for message in sources.map(ToString::to_string) {
            // Many errors say what their source says.
            if !text.contains(&message) {
                let colon = if text.is_empty() { "" } else { ": " };
                text = text + colon + &message;
            }
        }
        text
    });
    text.unwrap_or_else(|panic| format!("(its error panicked: {})", panic.message()))
}
