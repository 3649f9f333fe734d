//! A small random number generator, good enough for a jitter or a test.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hash::Hasher;

/// SplitMix64, to avoid one more dependency.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        // The keys of a `RandomState` are the only randomness in the standard library.
        let drawn = || RandomState::new().build_hasher().finish();
        Self(seed.or_else(seed_of_this_thread).unwrap_or_else(drawn))
    }

    /// Draws any number.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Draws a number from zero up to one, but never one itself.
    pub(crate) fn draw(&mut self) -> f64 {
        // The 53 bits that a fraction has.
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(not(feature = "test-util"))]
fn seed_of_this_thread() -> Option<u64> {
    None
}

/// A simulation makes every number that is drawn on its thread depend on its seed.
#[cfg(feature = "test-util")]
pub(crate) use self::seeded::{next as seed_of_this_thread, while_seeded};

#[cfg(feature = "test-util")]
mod seeded {
    use std::cell::RefCell;

    use super::Random;

    thread_local! {
        static SEEDS: RefCell<Option<Random>> = const { RefCell::new(None) };
    }

    /// Runs `body` with seeds that follow from this one.
    pub(crate) fn while_seeded<T>(seed: u64, body: impl FnOnce() -> T) -> T {
        struct Reset(Option<Random>);
        impl Drop for Reset {
            fn drop(&mut self) {
                SEEDS.set(self.0.take());
            }
        }
        let _reset = Reset(SEEDS.replace(Some(Random(seed))));
        body()
    }

    pub(crate) fn next() -> Option<u64> {
        SEEDS.with_borrow_mut(|seeds| seeds.as_mut().map(Random::bits))
    }
}
