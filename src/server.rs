//! Servers as members of a group: each is told to stop, drains, and is forced when its time is up.
//!
//! [`Sidecar`](crate::Sidecar) makes a member of any server that runs until it is told to stop. `serve`
//! (features `axum` and `tonic`) puts a gate around servers, which counts and cuts their connections.

pub(crate) mod in_flight;
pub(crate) mod stop_signal;
// What outlives the process is there with some features, and forced exits with another.
#[cfg(any(
    feature = "axum",
    feature = "process",
    feature = "signal",
    feature = "tonic"
))]
pub(crate) mod forced;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod stop;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod drain;
pub(crate) mod sidecar;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod lame_duck;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod gate;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub(crate) mod serve;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub mod tonic;

#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::drain::DrainReport;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::lame_duck::LameDuck;
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::serve::{
    Acceptor, Answer, ConnLayer, DEFAULT_FIRST_BYTE_TIMEOUT, DEFAULT_HEADER_TIMEOUT,
    DEFAULT_IDLE_GRACE, DEFAULT_KILL_GRACE, DEFAULT_LINGER, Gated, GatedBody, Io, OneConn, Serve,
    Server,
};
#[cfg(any(feature = "axum", feature = "tonic"))]
pub use self::stop::Stop;
pub use self::stop_signal::StopSignal;
