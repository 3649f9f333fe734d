//! The same sources with primitives that are too weak, and the steps of the sources in an order that is
//! wrong: the models must notice.

mod early;
mod forgetful;
mod relaxed;
mod unset;
