//! An order, as its message has it.

use serde::{Deserialize, Serialize};

use crate::faults::Fault;

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Order {
    /// The id that the customer's side has given it: the same order always has the same one.
    pub(crate) id: i64,
    pub(crate) item: String,
    pub(crate) quantity: u32,
    /// How many milliseconds the work on it takes.
    #[serde(default)]
    pub(crate) ms: u64,
    /// What goes wrong with it, if that is allowed.
    #[serde(default)]
    pub(crate) fault: Option<Fault>,
}
