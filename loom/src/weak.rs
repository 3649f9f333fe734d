//! The same sources with primitives that are too weak: the models must notice.

mod forgetful;
mod relaxed;
mod unset;
