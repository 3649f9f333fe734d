//! Servers as members of a group. Each is told to stop, drains, and is forced when its time is up.
//!
//! [`Sidecar`](crate::Sidecar) makes a member of any server that runs until it is told to stop. `serve`
//! (feature `http`) is this crate's own server for any tower service, which counts and cuts its connections.
//! `axum::serve` and `tonic::serve` are the same server with the defaults of their frameworks.

pub(crate) mod in_flight;
pub(crate) mod stop_signal;
// Needed by the features that start or set something that outlives the process, and by the one with forced
// exits.
#[cfg(any(feature = "http", feature = "process", feature = "signal"))]
pub(crate) mod forced;
#[cfg(feature = "http")]
mod sync;
#[cfg(feature = "http")]
mod switch;
#[cfg(feature = "http")]
mod stop;
#[cfg(feature = "http")]
mod drain;
pub(crate) mod sidecar;
#[cfg(feature = "http")]
mod lame_duck;
#[cfg(feature = "http")]
mod address;
#[cfg(feature = "http")]
mod transport;
#[cfg(feature = "http")]
mod listener;
#[cfg(all(feature = "restart", unix))]
pub(crate) mod hatch;
#[cfg(feature = "http")]
mod listening;
#[cfg(feature = "http")]
mod gate;
#[cfg(feature = "http")]
pub(crate) mod serve;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub mod tonic;

#[cfg(feature = "http")]
pub use self::address::Address;
#[cfg(feature = "http")]
pub use self::drain::DrainReport;
#[cfg(feature = "http")]
pub use self::lame_duck::LameDuck;
#[cfg(feature = "http")]
pub use self::listener::Listener;
#[cfg(feature = "http")]
pub use self::listening::Listening;
#[cfg(feature = "http")]
pub use self::serve::{
    Acceptor, DEFAULT_FIRST_BYTE_TIMEOUT, DEFAULT_HEADER_TIMEOUT, DEFAULT_IDLE_GRACE,
    DEFAULT_KILL_GRACE, DEFAULT_LINGER, Each, Incoming, Io, Loop, Serve, Server, serve_each,
    serve_loop,
};
#[cfg(feature = "http")]
pub use self::stop::Stop;
pub use self::stop_signal::StopSignal;
#[cfg(feature = "http")]
pub use self::transport::{AnyStream, Transport};
