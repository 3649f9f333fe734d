//! The step whose turn it is.

use std::borrow::Cow;
use std::error::Error;
use std::iter;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::outcome::Outcome;
use super::plan::Rules;
use super::plan::retry;
use super::step::Attempt;
use super::step::Work;
use super::step_report::StepResult;
use crate::BoxError;
use crate::panic::Panic;

/// The step that is running. All of its state is here and not in a future of ours, so that the run's
/// future can be dropped and made anew.
pub(super) struct Current {
    pub(super) name: Cow<'static, str>,
    pub(super) rules: Rules,
    pub(super) started: Instant,
    /// The time that the step was given.
    pub(super) time: Duration,
    pub(super) attempts: u32,
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

impl Current {
    /// Begins the first attempt.
    pub(super) fn begin(
        (name, rules, work): (Cow<'static, str>, Rules, Work),
        time: Duration,
        outcome: &Outcome,
    ) -> Self {
        // Before the function of the step is called, which counts as its time.
        let started = Instant::now();
        let (attempt, again) = work.attempt(outcome.clone());
        Self {
            name,
            rules,
            started,
            time,
            attempts: 1,
            stage: Stage::Working(attempt),
            again,
        }
    }

    /// Waits until the step has ended or its time is over. Not to be called again after that.
    ///
    /// Cancel safe: the attempt under way stays in here.
    pub(super) async fn end(&mut self, outcome: &Outcome) -> StepResult {
        loop {
            let left = self.time.saturating_sub(self.started.elapsed());
            let returned = match &mut self.stage {
                Stage::Working(attempt) => timeout(left, attempt).await,
                Stage::Pausing(until) => {
                    sleep_until(*until).await;
                    self.attempt(outcome);
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
            match retry(&self.rules, self.attempts, left) {
                Some(pause) => self.stage = Stage::Pausing(Instant::now() + pause),
                None => return StepResult::Failed(error),
            }
        }
    }

    /// Drops what is left of the step, and tells the panic of a destructor.
    pub(super) fn dismiss(self) -> Option<Panic> {
        let Self { stage, again, .. } = self;
        let attempt = Panic::catch(|| drop(stage)).err();
        let again = Panic::catch(|| drop(again)).err();
        attempt.or(again)
    }

    fn attempt(&mut self, outcome: &Outcome) {
        let Some(work) = self.again.take() else {
            return;
        };
        let (attempt, again) = work.attempt(outcome.clone());
        self.stage = Stage::Working(attempt);
        self.again = again;
        self.attempts += 1;
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
