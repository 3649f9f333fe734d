//! [`InFlight`]: counts what is in flight in a component.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::group::lock::lock;

/// What is in flight in a component, as reported by the component itself and counted by its servers.
#[derive(Default)]
pub(crate) struct InFlight {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    said: Option<usize>,
    /// Whether the component has been told to stop. What it had reported by then is kept.
    is_told: bool,
    servers: Vec<Count>,
    /// The last counts of servers that are gone.
    gone: Option<usize>,
}

type Count = Arc<dyn Fn() -> usize + Send + Sync>;

/// A server that is counted. When dropped, it leaves its last count behind.
pub(crate) struct Counted {
    of: Arc<InFlight>,
    count: Count,
}

impl InFlight {
    /// Sets how much is in flight, without the servers.
    pub(crate) fn say(&self, count: usize) {
        let mut counts = self.lock();
        if !counts.is_told || counts.said.is_none() {
            counts.said = Some(count);
        }
    }

    /// Keeps the number that has been reported. Without a report so far, the next one still counts.
    pub(crate) fn told(&self) {
        self.lock().is_told = true;
    }

    /// Adds a server. From its stop on, `count` must return what was in flight when the stop began.
    pub(crate) fn add(
        self: &Arc<Self>,
        count: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Counted {
        let count: Count = Arc::new(count);
        self.lock().servers.push(Arc::clone(&count));
        Counted {
            of: Arc::clone(self),
            count,
        }
    }

    /// Returns how much is in flight, or `None` if that is unknown.
    pub(crate) fn get(&self) -> Option<usize> {
        let (known, servers) = {
            let counts = self.lock();
            let known = counts.said.into_iter().chain(counts.gone);
            (known.collect::<Vec<_>>(), counts.servers.clone())
        };
        // Called without the lock, because the servers have their own locks.
        known
            .into_iter()
            .chain(servers.iter().map(|count| count()))
            .reduce(usize::saturating_add)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let last = (self.count)();
        let mut counts = self.of.lock();
        counts
            .servers
            .retain(|count| !Arc::ptr_eq(count, &self.count));
        counts.gone = Some(counts.gone.unwrap_or(0).saturating_add(last));
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn nothing_is_known_until_somebody_says_so() {
        let in_flight = InFlight::default();
        assert_eq!(in_flight.get(), None);
        in_flight.say(0);
        assert_eq!(in_flight.get(), Some(0));
    }

    #[test]
    fn what_was_said_before_the_stop_is_kept() {
        let in_flight = InFlight::default();
        in_flight.say(7);
        in_flight.told();
        in_flight.say(0);
        assert_eq!(in_flight.get(), Some(7));
    }

    #[test]
    fn the_first_word_counts_if_nothing_was_said_before_the_stop() {
        let in_flight = InFlight::default();
        in_flight.told();
        in_flight.say(3);
        in_flight.say(2);
        assert_eq!(in_flight.get(), Some(3));
    }

    #[test]
    fn servers_are_added_and_leave_their_last_count_behind() {
        let in_flight = Arc::new(InFlight::default());
        let requests = Arc::new(AtomicUsize::new(2));
        let counted = in_flight.add({
            let requests = Arc::clone(&requests);
            move || requests.load(Ordering::Relaxed)
        });
        in_flight.say(10);
        assert_eq!(in_flight.get(), Some(12));
        requests.store(5, Ordering::Relaxed);
        assert_eq!(in_flight.get(), Some(15));

        drop(counted);
        requests.store(0, Ordering::Relaxed);
        assert_eq!(in_flight.get(), Some(15));
        assert_eq!(Arc::strong_count(&requests), 1, "it is no longer asked");
    }
}
