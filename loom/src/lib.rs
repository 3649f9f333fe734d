//! The lock-free parts of `taskgroup`, run through every interleaving of their threads.
//!
//! The sources are those of the crate itself, compiled here with [`sync`] in the place of the
//! primitives they name. Each model says what must hold however the threads are interleaved;
//! [`weak`] compiles the same sources with primitives that are broken on purpose, to show that the
//! models would notice. `faults.toml` has at least one fault in the sources for each model, and
//! `.ci/faults loom` shows that the model fails with it.
//!
//! `cargo test --release --manifest-path loom/Cargo.toml`; the number of preemptions in one run is
//! bounded by 3, or by `LOOM_MAX_PREEMPTIONS`.

#![cfg(test)]
// Compiling the same file with other primitives beside it is what all of this stands on.
#![allow(clippy::duplicate_mod)]

mod harness;
mod stand_ins;
mod sync;

/// The names that the sources use of the rest of the crate.
mod group {
    pub(crate) use crate::in_order;
    pub(crate) use crate::stand_ins::{cause, error};
}

#[path = "../../src/group/in_order.rs"]
mod in_order;

#[allow(dead_code)]
#[path = "../../src/group/engine/latch.rs"]
mod latch;

#[allow(dead_code)]
#[path = "../../src/group/engine/wakers.rs"]
mod wakers;

#[allow(dead_code)]
#[path = "../../src/group/engine/record.rs"]
mod record;

#[allow(dead_code)]
#[path = "../../src/group/engine/value.rs"]
mod value;

#[allow(dead_code)]
#[path = "../../src/server/switch.rs"]
mod switch;

mod weak;

mod latch_models;
mod record_models;
mod switch_models;
mod value_models;
mod wakers_models;
