//! Pipelines: rows P1 to P6 of `docs/requirements.md`.

mod batches;
mod build;
mod ends;
mod keys;
mod lifecycle;
mod map;
mod queue;
mod random;
mod source;
mod stages;
mod stop;
mod support;
mod threads;
mod valve;
mod watermark;
