//! The end of a run: the cleanup and the report.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{AT_ONCE, Engine};
use crate::cleanup::CleanupReport;
use crate::group::deadline;
use crate::group::panic::Panic;
use crate::group::time::CONFIRMATION;
use crate::group::turn::turn;
use crate::lifecycle::event::EventKind;
use crate::lifecycle::report::Report;
use crate::lifecycle::run::ledger::RunEnd;
use crate::lifecycle::run::waiting;

impl Engine {
    /// Runs the cleanup and makes the report.
    pub(super) async fn finish(mut self, until: Duration) -> Report {
        let cleanup = self.clean(until).await;
        self.look_at_the_clock();
        self.shared.readiness.set_stopped();
        let ended = self.now();
        let many = self.slots.len() > AT_ONCE;
        if many {
            turn().await;
        }
        let cause = self.cause();
        let report = self.ledger.report(RunEnd {
            name: self.plan.name(),
            cause,
            budget: self.machine.total(),
            slots: &self.slots,
            graph: self.plan.graph(),
            ended,
            cleanup,
        });
        // Only the followers of components that do not end are left.
        self.followers.shutdown().await;
        let (took, errors) = (report.took(), report.errors.len());
        self.emit(None, EventKind::Stopped { took, errors });
        let at_least = Instant::now() + CONFIRMATION;
        let until = self.deadline(until).map(|until| until.max(at_least));
        self.herald.end(until).await;
        let _ = self.report.send_replace(Some(Arc::new(report.clone())));
        if many {
            self.let_go().await;
            turn().await;
        }
        report
    }

    /// Frees the components in small batches. Freeing ten thousand at once would block this thread.
    async fn let_go(mut self) {
        while !self.slots.is_empty() {
            let left = self.slots.len().saturating_sub(AT_ONCE);
            self.slots.truncate(left);
            turn().await;
        }
    }

    /// Removes the values of components that ended by themselves. The destructor of a value may block.
    pub(super) async fn take_out(&mut self, until: Duration) {
        let contexts = self.slots.iter().filter_map(|slot| slot.ctx.as_ref());
        let full: Vec<_> = contexts.filter(|ctx| ctx.provides()).cloned().collect();
        if full.is_empty() {
            return;
        }
        let taken_out = self.work.task("provided").spawn(async move {
            for ctx in full {
                drop(Panic::catch(|| ctx.take_out()));
            }
            Ok(())
        });
        let _ = deadline::by(self.deadline(until), taken_out).await;
        self.look_at_the_clock();
    }

    fn say_which_step_is_waited_for(&mut self) {
        self.look_at_the_clock();
        if let (true, Some((step, left))) =
            (self.waiting.is_due(self.now()), self.cleanup.under_way())
        {
            let waited = waiting::list(&[(&step, Some(left))]);
            self.emit(None, EventKind::Waiting(format!("cleanup step {waited}")));
        }
    }

    async fn clean(&mut self, until: Duration) -> Option<CleanupReport> {
        self.take_out(until).await;
        let has_steps = !self.cleanup.pending().is_empty();
        if has_steps {
            self.emit(None, EventKind::CleanupBegan);
        }
        let left = until
            .saturating_sub(self.now())
            .saturating_sub(self.cleanup.guaranteed());
        let outcome = self.outcome(self.cause());
        let report = loop {
            let at = self.waiting.next().and_then(|at| self.deadline(at));
            let run = self.cleanup.run(outcome.clone(), left);
            match deadline::by(at, run).await {
                Some(report) => break report,
                None => self.say_which_step_is_waited_for(),
            }
        };
        has_steps.then_some(report)
    }
}
