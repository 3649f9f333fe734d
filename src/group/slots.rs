//! The slots of a group with a limit.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// As many slots as the limit; endless ones without a limit.
#[derive(Debug)]
pub(super) struct Slots(Option<Semaphore>);

/// A slot that was taken; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Slot<'a>(Option<SemaphorePermit<'a>>);

impl Slots {
    pub(super) fn new(limit: Option<usize>) -> Self {
        // A limit beyond what the semaphore can count is no limit that anybody reaches.
        Self(limit.map(|limit| Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes a slot if one is free and nobody waits for it.
    #[inline]
    pub(super) fn try_take(&self) -> Option<Slot<'_>> {
        match &self.0 {
            None => Some(Slot(None)),
            Some(slots) => slots.try_acquire().ok().map(|permit| Slot(Some(permit))),
        }
    }

    /// Waits for a slot, first come, first served; `None` once the token has fired.
    pub(super) async fn take(&self, token: &CancellationToken) -> Option<Slot<'_>> {
        let Some(slots) = &self.0 else {
            return Some(Slot(None));
        };
        let permit = token.run_until_cancelled(slots.acquire()).await?.ok()?;
        // A slot that became free because of the cancel must not start anything.
        (!token.is_cancelled()).then_some(Slot(Some(permit)))
    }

    /// Gives back a slot that was kept.
    #[inline]
    pub(super) fn free(&self) {
        if let Some(slots) = &self.0 {
            slots.add_permits(1);
        }
    }
}

impl Slot<'_> {
    /// Takes the slot for good and returns whether [`Slots::free`] must give it back.
    #[inline]
    pub(super) fn keep(self) -> bool {
        self.0.map(SemaphorePermit::forget).is_some()
    }
}
