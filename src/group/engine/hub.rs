//! Seats members, and closes, aborts and lists them, for the owner and the spawners of a group.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::origin::Origin;
use super::record::Recorded;
use super::seat::{Classes, Kind, Seat};
use super::shared::{Plan, Shared};
use super::sync::Lock;
use crate::group::cause::Cause;
use crate::group::error::{GroupFault, TimedOut};
use crate::group::label;
use crate::group::running::{Running, RunningTask};
use crate::group::stop_request::StopRequest;

/// Members point at [`Shared`] and never at the hub that owns their classes, which avoids a cycle.
pub(crate) struct Hub<E> {
    pub(crate) shared: Arc<Shared<E>>,
    classes: Classes<E>,
    /// The child groups. They are kept until they are over, with or without an owner, because a thread
    /// of a dropped child can still be running and must be named.
    children: Lock<Children<E>>,
}

struct Children<E> {
    present: Vec<Arc<Hub<E>>>,
    /// Whether anything was ever spawned into a child that is gone.
    have_spawned: bool,
}

impl<E> Hub<E> {
    #[inline]
    pub(crate) fn new(shared: Shared<E>) -> Self {
        let shared = Arc::new(shared);
        Self {
            shared,
            classes: Classes::new(),
            children: Lock::new(Children {
                present: Vec::new(),
                have_spawned: false,
            }),
        }
    }

    /// Makes the hub of a child group.
    pub(crate) fn child(&self, plan: Plan<E>) -> Arc<Self> {
        let child = Arc::new(Self::new(Shared::new(plan)));
        self.adopt(&child);
        child
    }

    /// The plan of a child group that has only a name.
    pub(crate) fn plan_below(&self, name: &str, place: &'static Location<'static>) -> Plan<E> {
        let plan = Plan::below(&self.shared, place);
        Plan {
            path: Some(label::join(plan.path.as_deref(), name)),
            ..plan
        }
    }

    fn adopt(&self, child: &Arc<Self>) {
        let gone = {
            let mut children = self.children.lock();
            let Children {
                present,
                have_spawned,
            } = &mut *children;
            let mut gone = Vec::new();
            if present.len() == present.capacity() {
                (gone, *present) = present.drain(..).partition(|child| child.is_over());
                *have_spawned |= gone.iter().any(|child| child.has_spawned());
            }
            present.push(Arc::clone(child));
            gone
        };
        drop(gone);
        // A close or an abort that ran before the push did not see the child.
        if self.shared.latch.is_closed() {
            child.close();
        }
        if self.shared.wakers.is_aborted() {
            child.abort();
        }
    }

    /// Whether the owner and all members are gone.
    fn is_over(&self) -> bool {
        self.shared.latch.shares() == 0
    }

    /// Visits the child groups without their lock. Not generic, so that the loop exists once.
    #[inline(never)]
    fn for_each_child(&self, visit: &mut dyn FnMut(&Self)) {
        let children = self.children.lock().present.clone();
        for child in &children {
            visit(child);
        }
    }

    /// Takes the failures of this group, and those of the child groups that are not taken yet.
    pub(crate) fn take_failures(&self) -> Vec<Recorded<E>> {
        if let Some(deadline) = self.shared.take_overdue_if(|| self.has_spawned()) {
            let fault = GroupFault::TimedOut(TimedOut::deadline(deadline, Running::default()));
            self.shared.fail_group(Cause::Deadline(deadline), fault);
        }
        let mut failures = Vec::new();
        self.for_each_child(&mut |child| {
            if !child.shared.is_isolated() {
                failures.append(&mut child.take_failures());
            }
        });
        // Last, because a child that is being dropped hands its failures up.
        failures.append(&mut self.shared.take_failures());
        failures
    }

    /// Closes the group and the groups below it, and refuses the callers that wait for a slot.
    pub(crate) fn close(&self) {
        self.shared.latch.close();
        self.shared.slots.close();
        self.for_each_child(&mut |child| child.close());
    }

    /// Aborts every task of the group and of the groups below it, without waiting.
    pub(crate) fn abort(&self) {
        self.shared.cancel_told_apart();
        self.shared.wakers.abort();
        self.for_each_child(&mut |child| child.abort());
    }

    /// Closes the group and aborts the remaining tasks, and returns that as a failure.
    ///
    /// The latch decides whether any tasks remain, at the moment it closes. The list is read at another
    /// moment and only describes them.
    pub(crate) fn force(&self, timed_out: impl FnOnce(Running) -> TimedOut) -> Option<GroupFault> {
        let fault = self.close_for_good(timed_out);
        self.abort();
        fault
    }

    /// The same for a clock or a trigger, which has no caller to return the failure to.
    ///
    /// The failure is recorded before the abort, because on another thread the last task may end at
    /// once, and the wait with it.
    pub(crate) fn force_and_fail(&self, timed_out: impl FnOnce(Running) -> TimedOut) {
        if let Some(fault) = self.close_for_good(timed_out) {
            let cause = Cause::Requested(StopRequest::default());
            self.shared.fail_group(cause, fault);
        }
        self.abort();
    }

    fn close_for_good(&self, timed_out: impl FnOnce(Running) -> TimedOut) -> Option<GroupFault> {
        let is_alone = self.shared.latch.close() <= 1;
        self.close();
        let stragglers = self.running();
        (!is_alone).then(|| GroupFault::TimedOut(timed_out(stragglers)))
    }

    /// Cancels because the deadline has passed, which is a failure if tasks are running.
    pub(crate) fn pass_deadline(&self, deadline: Duration) {
        let cause = Cause::Deadline(deadline);
        let running = self.running();
        // As in a forced stop, the latch decides and the list describes.
        if self.shared.latch.shares() <= 1 {
            if !self.has_spawned() {
                self.shared.set_overdue(deadline);
            }
            self.shared.trigger(&cause);
            return;
        }
        let fault = GroupFault::TimedOut(TimedOut::deadline(deadline, running));
        if self.shared.fail_group(cause.clone(), fault) {
            self.shared.log_trigger(&cause, "stopping");
        }
    }

    /// Whether anything was ever spawned into this group, or into one below it.
    fn has_spawned(&self) -> bool {
        if self.has_spawned_itself() {
            return true;
        }
        let children = self.children.lock();
        children.have_spawned || children.present.iter().any(|child| child.has_spawned())
    }

    /// Whether anything was ever spawned into this group itself.
    pub(crate) fn has_spawned_itself(&self) -> bool {
        !self.classes.is_empty() || self.shared.has_named()
    }

    pub(crate) fn running(&self) -> Running {
        let mut running = Running::default();
        // The last member leaves the group just before it leaves its class.
        if self.is_over() {
            return running;
        }
        running.append(self.shared.running_named());
        self.classes.for_each(|class, kind, count| {
            if count > 0 {
                let blocking = kind == Kind::Blocking;
                running.push(RunningTask::at_place(class.label(), count, blocking));
            }
        });
        self.for_each_child(&mut |child| running.append(child.running()));
        running
    }

    // Always, so that an unnamed spawn does not carry an origin and a seat around in memory.
    #[inline(always)]
    pub(crate) fn seat(&self, origin: Origin<'_>, kind: Kind) -> Option<Seat<E>> {
        match origin.name {
            None => Seat::take(self.classes.get(&self.shared, origin.place, kind)),
            Some(_) => Seat::take_named(&self.shared, origin, kind),
        }
    }
}

impl<E> fmt::Debug for Hub<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::Plan;
    use super::*;

    fn hub() -> Hub<crate::BoxError> {
        Hub::new(Shared::new(Plan::new(|error| &**error, Location::caller())))
    }

    fn below(hub: &Hub<crate::BoxError>, name: &str) -> Arc<Hub<crate::BoxError>> {
        hub.child(hub.plan_below(name, Location::caller()))
    }

    /// Does the same as dropping the child's owner.
    fn end(child: &Hub<crate::BoxError>) {
        child.shared.latch.close();
        child.shared.orphan();
        child.shared.latch.leave();
    }

    #[test]
    fn children_that_are_over_are_forgotten_and_others_are_not() {
        let hub = hub();
        let stays = below(&hub, "stays");
        for _ in 0..1000 {
            end(&below(&hub, "goes"));
        }
        let children = hub.children.lock().present.clone();
        assert!(children.len() < 10, "{} children", children.len());
        assert!(Arc::ptr_eq(&children[0], &stays));
    }
}
