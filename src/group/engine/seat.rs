//! The seat of a member in its group, and the classes that count members by place of spawn.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread;

use tokio::runtime::Handle;
use tokio::task;

use super::aborts;
use super::handle::NoValue;
use super::origin::Origin;
use super::record::Recorded;
use super::shared::Shared;
use super::slots::{Holding, Slot};
use super::wakers::Key;
use crate::group::failure::Failure;
use crate::group::label::Label;
use crate::group::panic::Panic;

/// The kind of a member, as far as its group must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A future on the runtime.
    Task,
    /// A closure on a thread.
    Blocking,
}

/// All unnamed members that were spawned at one place, or one named member.
///
/// Each member holds one reference to its class, so the reference count is the number of members.
/// Counting by place therefore costs only the reference that leads to the group.
pub(crate) struct Class<E> {
    shared: Arc<Shared<E>>,
    place: &'static Location<'static>,
    named: Option<Named>,
    /// The classes below this one in the tree of [`Classes`].
    below: [OnceLock<Arc<Class<E>>>; 2],
}

struct Named {
    /// Its place in the list of named tasks.
    roll: usize,
    label: Label,
    essential: bool,
    isolated: bool,
}

impl<E> Class<E> {
    fn unnamed(shared: Arc<Shared<E>>, place: &'static Location<'static>) -> Self {
        Self {
            shared,
            place,
            named: None,
            below: [const { OnceLock::new() }; 2],
        }
    }

    fn is_of(&self, place: &'static Location<'static>) -> bool {
        // One place may have several addresses, and then it simply has several classes.
        ptr::eq(self.place, place)
    }

    pub(crate) fn label(&self) -> Label {
        match &self.named {
            Some(named) => named.label.clone(),
            None => Label::unnamed(self.shared.path().cloned(), self.place),
        }
    }

    fn is_essential(&self) -> bool {
        self.named.as_ref().is_some_and(|named| named.essential)
    }
}

/// The classes of unnamed members, in two trees that only grow.
///
/// The program's text has a fixed number of places of spawn, so no class is ever removed. Most groups
/// have one or two classes, which are found at the root or below it, and a group reserves room for no
/// more.
pub(crate) struct Classes<E> {
    tasks: OnceLock<Arc<Class<E>>>,
    closures: OnceLock<Arc<Class<E>>>,
}

impl<E> Classes<E> {
    pub(crate) fn new() -> Self {
        Self {
            tasks: OnceLock::new(),
            closures: OnceLock::new(),
        }
    }

    #[inline]
    pub(crate) fn get(
        &self,
        shared: &Arc<Shared<E>>,
        place: &'static Location<'static>,
        kind: Kind,
    ) -> &Arc<Class<E>> {
        let root = match kind {
            Kind::Task => &self.tasks,
            Kind::Blocking => &self.closures,
        };
        match root.get() {
            Some(class) if class.is_of(place) => class,
            _ => find_or_add(root, shared, place),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.get().is_none() && self.closures.get().is_none()
    }

    /// Visits each class with the number of its members.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Class<E>, Kind, usize)) {
        let mut links = vec![(&self.closures, Kind::Blocking), (&self.tasks, Kind::Task)];
        while let Some((link, kind)) = links.pop() {
            if let Some(class) = link.get() {
                // The tree itself holds one reference.
                visit(class, kind, Arc::strong_count(class) - 1);
                links.extend(class.below.iter().rev().map(|link| (link, kind)));
            }
        }
    }
}

#[inline(never)]
fn find_or_add<'a, E>(
    root: &'a OnceLock<Arc<Class<E>>>,
    shared: &Arc<Shared<E>>,
    place: &'static Location<'static>,
) -> &'a Arc<Class<E>> {
    let mut link = root;
    // Each class consumes one bit of the way. The lowest three bits of an address are always the same.
    let mut way = ptr::from_ref(place).addr() >> 3;
    loop {
        // A thread that loses the race to fill the link checks the winner's class and walks on.
        let class = link.get_or_init(|| Arc::new(Class::unnamed(Arc::clone(shared), place)));
        if class.is_of(place) {
            return class;
        }
        link = &class.below[way % 2];
        way >>= 1;
    }
}

/// A member's share of its group. Call [`leave`](Class::leave) when the member has ended, for
/// any reason, and after everything the member owns has been dropped.
///
/// It is kept at 16 bytes, because Tokio rounds the memory of a task up to 128 bytes. A larger seat
/// would cost more tasks another 128.
#[must_use = "the group waits until the seat has been left"]
pub(crate) struct Seat<E> {
    pub(crate) class: Arc<Class<E>>,
    pub(crate) marks: Marks,
}

/// The resources that a member holds besides its seat, and its stage.
///
/// Aligned, because each spawn moves it as one word. That takes no room, as the class beside it is
/// aligned too.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
pub(crate) struct Marks {
    waker: Key,
    has_slot: bool,
    stage: Stage,
}

/// The stage of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for a slot of its group.
    Queued,
    /// It has its resources. If it is dropped now, its work is lost.
    Started,
    /// It has ended, was aborted, or was refused.
    Ended,
}

impl<E> Seat<E> {
    fn new(class: Arc<Class<E>>) -> Self {
        Self {
            class,
            marks: Marks {
                waker: Key::NONE,
                has_slot: false,
                stage: Stage::Started,
            },
        }
    }

    /// Takes a place in the group, or returns `None` if it is closed.
    #[inline]
    pub(crate) fn take(class: &Arc<Class<E>>) -> Option<Self> {
        if !class.shared.enter() {
            class.shared.leave();
            return None;
        }
        Some(Self::new(Arc::clone(class)))
    }

    /// Takes a place for a named member.
    #[inline(never)]
    pub(crate) fn take_named(
        shared: &Arc<Shared<E>>,
        origin: Origin<'_>,
        kind: Kind,
    ) -> Option<Self> {
        if !shared.enter() {
            shared.leave();
            return None;
        }
        let Origin {
            place,
            essential,
            isolated,
            ..
        } = origin;
        let label = origin.label(shared);
        let roll = shared.register(label.clone(), kind == Kind::Blocking);
        let named = Some(Named {
            roll,
            label,
            essential,
            isolated,
        });
        let shared = Arc::clone(shared);
        Some(Self::new(Arc::new(Class {
            shared,
            place,
            named,
            below: [const { OnceLock::new() }; 2],
        })))
    }
}

impl Marks {
    /// Holds a slot of a limited group, which is freed when the member ends.
    #[inline]
    pub(crate) fn hold(&mut self, slot: Slot<'_>) {
        if slot.keep() {
            self.hold_kept_slot();
        }
    }

    #[inline]
    pub(crate) fn hold_kept_slot(&mut self) {
        self.has_slot = true;
        self.stage = Stage::Started;
    }

    /// Copies the fields one by one, because copying them as one word and taking it apart again costs a
    /// task more.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            waker: self.waker,
            has_slot: self.has_slot,
            stage: self.stage,
        }
    }

    /// Notes that the member waits for a slot.
    pub(crate) fn set_queued(&mut self) {
        self.stage = Stage::Queued;
    }

    /// Notes that the member has ended without a failure.
    #[inline]
    pub(crate) fn set_ended(&mut self) {
        self.stage = Stage::Ended;
    }
}

/// The events of a member of this class, whose marks are passed in.
impl<E> Class<E> {
    pub(crate) fn shared(&self) -> &Arc<Shared<E>> {
        &self.shared
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.shared.wakers.is_aborted()
    }

    /// Notes that the code of a member is running now, if the member has a slot of a limited group.
    #[inline]
    pub(crate) fn hold(&self, marks: &Marks) -> Option<Holding> {
        if !marks.has_slot {
            return None;
        }
        self.shared.slots.hold(marks)
    }

    /// Makes an abort wake this task, and returns whether there has been an abort already.
    ///
    /// A task's waker never changes, so one call is enough. That holds because this crate spawns the
    /// task, so its future cannot be moved elsewhere.
    pub(crate) fn park(&self, marks: &mut Marks, waker: &Waker) -> bool {
        if marks.waker == Key::NONE {
            marks.waker = self.shared.wakers.insert(waker.clone());
            return self.is_aborted();
        }
        false
    }

    /// As [`park`](Self::park), for a member whose waker may change with each poll.
    pub(crate) fn repark(&self, marks: &mut Marks, waker: &Waker) -> bool {
        if marks.waker != Key::NONE {
            self.shared.wakers.remove(marks.waker);
            marks.waker = Key::NONE;
        }
        self.park(marks, waker)
    }

    /// Notes how the member's future has ended. An essential member must not return `Ok` before the
    /// cancel.
    #[inline]
    pub(crate) fn end<T>(
        &self,
        marks: &mut Marks,
        output: Result<Option<T>, E>,
    ) -> Result<T, NoValue> {
        marks.set_ended();
        match output {
            Ok(value) => {
                if self.is_essential() && !self.shared.is_cancelled() {
                    self.record(Failure::EndedEarly);
                }
                value.ok_or(NoValue::InPlace)
            }
            Err(error) => {
                self.record(Failure::Failed(error));
                Err(NoValue::Failed)
            }
        }
    }

    /// Notes that the member's future panicked.
    #[cold]
    pub(crate) fn end_by_panic(&self, marks: &mut Marks, panic: Panic) -> NoValue {
        self.fail(marks, Failure::Panicked(panic));
        NoValue::Panicked
    }

    #[cold]
    fn fail(&self, marks: &mut Marks, failure: Failure<E>) {
        marks.set_ended();
        self.record(failure);
    }

    /// Records a failure, or only logs it if the task is isolated.
    #[cold]
    #[inline(never)]
    fn record(&self, failure: Failure<E>) {
        if self.named.as_ref().is_some_and(|named| named.isolated) {
            let error = self.shared.error_of(&self.label(), failure);
            self.shared.forget(vec![Recorded::now(error)]);
        } else {
            self.shared.fail(&self.label(), failure);
        }
    }

    /// Drops everything the member owns. A destructor that panics is a failure like any panic.
    pub(crate) fn release(&self, marks: &mut Marks, owned: impl FnOnce()) {
        if let Err(panic) = Panic::catch(owned) {
            self.fail(marks, Failure::Panicked(panic));
        }
    }

    /// Gives the seat up. Afterwards the group counts one member less, and nothing of the member is
    /// left.
    pub(crate) fn leave(&self, marks: Marks) {
        if marks.stage != Stage::Ended {
            self.abandon(marks.stage);
        }
        self.leave_ended(marks);
    }

    /// As [`leave`](Self::leave), for a member that has ended.
    // Always inlined, because the checks of a plain member cost little more than the call.
    #[inline(always)]
    pub(crate) fn leave_ended(&self, marks: Marks) {
        if marks.waker != Key::NONE {
            self.shared.wakers.remove(marks.waker);
        }
        if marks.has_slot {
            self.shared.slots.free();
        }
        if let Some(named) = &self.named {
            self.shared.unregister(named.roll);
        }
        self.shared.leave();
    }

    /// Records that something other than the group dropped a member before its work was done. A cancel
    /// alone does not excuse that, because the member may have been in the middle of its last flush.
    #[cold]
    #[inline(never)]
    fn abandon(&self, stage: Stage) {
        // In a cancelled group, queued members would have been refused.
        let is_refused = stage == Stage::Queued && self.shared.is_cancelled();
        // Asked last, because the note may be for the task around this member, if the member is a scope
        // in a task.
        let is_on_purpose = self.is_aborted() || is_refused || aborts::was_asked_for();
        if !is_on_purpose && !was_never_spawned() {
            self.record(Failure::Aborted);
        }
    }
}

/// Whether a member is dropped because Tokio's spawn panics, without a runtime or a `LocalSet`.
///
/// The panic tells the caller, and the group has lost no work. A task that Tokio has taken is dropped
/// under its own id, even by a `LocalSet` outside a runtime.
fn was_never_spawned() -> bool {
    let has_no_runtime = task::try_id().is_none() && Handle::try_current().is_err();
    has_no_runtime || (SpawningLocally::is_under_way() && thread::panicking())
}

thread_local! {
    static SPAWNING_LOCALLY: Cell<bool> = const { Cell::new(false) };
}

/// While this lives, the thread is inside `spawn_local`, which may panic even within a runtime.
pub(crate) struct SpawningLocally(());

impl SpawningLocally {
    pub(crate) fn begin() -> Self {
        Self::set(true);
        Self(())
    }

    fn is_under_way() -> bool {
        SPAWNING_LOCALLY.try_with(Cell::get).unwrap_or(false)
    }

    fn set(under_way: bool) {
        // A thread whose locals are gone has lost its `LocalSet` too.
        let _ = SPAWNING_LOCALLY.try_with(|flag| flag.set(under_way));
    }
}

impl Drop for SpawningLocally {
    fn drop(&mut self) {
        Self::set(false);
    }
}

impl<E> fmt::Debug for Seat<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("label", &self.class.label())
            .finish_non_exhaustive()
    }
}
