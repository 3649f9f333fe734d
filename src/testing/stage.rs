//! [`Stage`]: where a lifecycle runs through a scenario.

use std::fmt;
use std::time::Duration;

use crate::group::signal::Signal;
use crate::group::time::Rounded;
use crate::lifecycle::Component;
use crate::lifecycle::Event;
use crate::lifecycle::EventKind;
use crate::lifecycle::Handle;
use crate::lifecycle::Lifecycle;
use crate::lifecycle::Plan;
use crate::process::ExitPolicy;
use crate::testing::dice::Dice;
use crate::testing::fake::Fake;
use crate::testing::journal::Journal;

/// Runs a lifecycle through a scenario of external events, each with its time.
///
/// [`simulate`](super::simulate) and [`Seeds`](super::Seeds) make it for the function that makes the
/// lifecycle.
///
/// # Examples
///
/// See [`simulate`](super::simulate).
pub struct Stage {
    pub(super) journal: Journal,
    pub(super) dice: Dice,
    pub(super) script: Vec<(Duration, Cue)>,
    pub(super) policy: ExitPolicy,
    pub(super) insist_after: Duration,
}

/// An event of the script.
pub(super) enum Cue {
    Signal(Signal),
    Call(Box<dyn FnOnce(&Handle)>),
}

/// The default of [`Signals`](crate::Signals).
const INSIST_AFTER: Duration = Duration::from_millis(300);

impl Stage {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            journal: Journal::new(),
            dice: Dice::new(seed),
            script: Vec::new(),
            policy: ExitPolicy::strict(),
            insist_after: INSIST_AFTER,
        }
    }

    /// Sends a signal this long after the start.
    ///
    /// The first one stops the lifecycle, as [`Signals::terminate`](crate::Signals::terminate) in
    /// [`stop_on`](Lifecycle::stop_on) would. A second one ends the process at that moment, whatever is still
    /// running, and with it the simulation. Signals of every kind count.
    pub fn signal(&mut self, at: Duration, signal: Signal) -> &mut Self {
        self.script.push((at, Cue::Signal(signal)));
        self
    }

    /// Calls `act` this long after the start.
    pub fn at(&mut self, at: Duration, act: impl FnOnce(&Handle) + 'static) -> &mut Self {
        self.script.push((at, Cue::Call(Box::new(act))));
        self
    }

    /// Makes a second signal count only from `pause` after the first one on. The default is 300 ms.
    pub fn insist_after(&mut self, pause: Duration) -> &mut Self {
        self.insist_after = pause;
        self
    }

    /// Sets the exit policy. The default is [`ExitPolicy::strict`].
    pub fn policy(&mut self, policy: ExitPolicy) -> &mut Self {
        self.policy = policy;
        self
    }

    /// Returns the journal of this run, which also has the lifecycle's events for its observers.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the dice of this run.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Makes a [`Fake`] that writes into the journal of this run.
    #[must_use]
    pub fn fake(&self, name: &str) -> Fake {
        Fake::new(name).journal(&self.journal)
    }

    /// Makes a [random fake](Fake::random) that writes into the journal of this run.
    pub fn random_fake(&mut self, name: &str, longest: Duration) -> Fake {
        Fake::random(name, &mut self.dice, longest).journal(&self.journal)
    }

    /// Makes a lifecycle of this plan. `fake` makes its components, from the name of each.
    ///
    /// It has the order, the phases, the graces and the budget of the plan, including those of nested
    /// lifecycles. This tests a plan without its service.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::Signal;
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    /// use taskgroup::testing::{Act, simulate};
    ///
    /// let worker = Component::new("worker", async |ctx| Ok(ctx.stopping().await));
    /// let plan = Lifecycle::new("orders").component(worker).budget(Duration::from_secs(5)).plan()?;
    ///
    /// let outcome = simulate(|stage| {
    ///     stage.signal(Duration::from_secs(1), Signal::Terminate);
    ///     stage.imitate(&plan, |stage, name| stage.fake(name).stops(Duration::ZERO, Act::Hang))
    /// });
    /// assert!(outcome.report().unwrap().was_forced());
    /// # Ok::<(), taskgroup::BoxError>(())
    /// ```
    pub fn imitate(
        &mut self,
        plan: &Plan,
        mut fake: impl FnMut(&mut Self, &str) -> Fake,
    ) -> Lifecycle {
        self.imitation(plan, &mut fake)
    }

    fn imitation(
        &mut self,
        plan: &Plan,
        fake: &mut dyn FnMut(&mut Self, &str) -> Fake,
    ) -> Lifecycle {
        let mut lifecycle = Lifecycle::new(plan.name().to_owned()).budget(plan.budget().clone());
        for (name, budget) in plan.phases() {
            lifecycle = lifecycle.phase(name.to_owned(), budget);
        }
        for planned in plan.components() {
            let component = match planned.nested() {
                Some(nested) => Component::lifecycle(self.imitation(nested, fake)),
                None => fake(self, planned.name()).component_that(planned.drains()),
            };
            let after = planned.after().map(str::to_owned);
            let mut component = component
                .after(after.collect::<Vec<_>>())
                .grace(planned.grace())
                .start_timeout(planned.start_timeout());
            if let Some(phase) = planned.phase() {
                component = component.phase(phase.to_owned());
            }
            if planned.drains() {
                component = component.drains();
            }
            lifecycle = lifecycle.component(component);
        }
        lifecycle
    }
}

/// Returns the journal's line for an event, or `None` if the event adds nothing new.
pub(super) fn line_of(event: &Event) -> Option<String> {
    let subject = event.component.as_ref().unwrap_or(&event.lifecycle);
    let line = match &event.kind {
        EventKind::AllReady => format!("{subject}: all are ready"),
        EventKind::StopTriggered { cause, .. } => format!("{subject}: {cause}, stopping"),
        EventKind::JitterBegan(time) => format!("{subject}: a jitter of {}", Rounded(*time)),
        EventKind::LameDuckBegan(time) => format!("{subject}: a lame duck of {}", Rounded(*time)),
        EventKind::DrainBegan(time) => format!("{subject}: a drain of {}", Rounded(*time)),
        EventKind::StopBegan(time) => format!("{subject}: has {} to stop", Rounded(*time)),
        EventKind::Failed(error) => format!("{subject}: {error:#}"),
        EventKind::Skipped(reason) => format!("{subject}: skipped, {reason}"),
        EventKind::Ended { end, .. } => format!("{subject}: {end}"),
        EventKind::CleanupBegan => format!("{subject}: the cleanup"),
        EventKind::Stopped { took, .. } => format!("{subject}: stopped in {}", Rounded(*took)),
        _ => return None,
    };
    Some(line)
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}
