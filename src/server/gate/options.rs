//! [`Options`]: all that a server was told about its stop, its connections and its requests.
//!
//! There is one copy. [`Serve`](crate::server::serve::Serve) fills it, and the gate holds it.

use std::borrow::Cow;
use std::time::Duration;

use super::sequence::Plan;
use crate::group::build_error::BuildError;
use crate::group::time::Rounded;
use crate::server::lame_duck::LameDuck;

/// How long clients may take to notice the stop (200 milliseconds).
pub const DEFAULT_LINGER: Duration = Duration::from_millis(200);

/// How long the drain spares a connection without a request in flight (1 second).
pub const DEFAULT_IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long handlers and connections that were cut have to end (1 second).
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(1);

/// How long a client may stay silent after it has connected (30 seconds).
pub const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to send the head of a request (30 seconds).
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long clients whose requests were cut have to read their answer.
pub(crate) const FLUSH: Duration = Duration::from_millis(100);

/// The minimum time for what was cut to end, so that its tasks get polled.
const MOMENT: Duration = Duration::from_millis(10);

/// What Linux can count.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// How to treat a drain in which something was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cuts {
    AreErrors,
    AreLogged,
}

/// A limit of `None` is none.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) lame_duck: LameDuck,
    /// The grace, if it is not the default.
    pub(crate) grace: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) idle_grace: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) cuts: Cuts,

    pub(crate) max_connections: Option<usize>,
    pub(crate) first_byte_timeout: Option<Duration>,
    pub(crate) header_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) age_grace: Option<Duration>,
    pub(crate) nodelay: bool,
    pub(crate) tcp_keepalive: Option<Duration>,

    /// Whether a panic of a handler or a body ends only its request.
    pub(crate) catch_panics: bool,
    /// Whether each request has the stop in its extensions.
    pub(crate) stop_in_requests: bool,
    /// How long a response may take to begin.
    pub(crate) request_timeout: Option<Duration>,
    /// How many requests of one connection are answered at once.
    pub(crate) turns: Option<usize>,

    pub(crate) http1: Http1,
    #[cfg(feature = "http2")]
    pub(crate) http2: Http2,
    #[cfg(feature = "hyper-builder")]
    pub(crate) hyper: Hyper,
}

/// The options of HTTP/1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http1 {
    pub(crate) half_close: bool,
    pub(crate) max_head_bytes: Option<usize>,
    pub(crate) max_headers: Option<usize>,
}

/// The options of HTTP/2.
#[cfg(feature = "http2")]
#[derive(Clone, Debug)]
pub(crate) struct Http2 {
    /// Whether HTTP/1 is refused.
    pub(crate) only: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_streams: Option<u32>,
    pub(crate) stream_window: Option<u32>,
    pub(crate) connection_window: Option<u32>,
    pub(crate) max_frame_bytes: Option<u32>,
    pub(crate) max_head_bytes: Option<u32>,
}

/// What is done to hyper's own builder, in the order of the calls.
#[cfg(feature = "hyper-builder")]
#[derive(Clone, Default)]
pub(crate) struct Hyper(Vec<OnBuilder>);

#[cfg(feature = "hyper-builder")]
type OnBuilder = std::sync::Arc<dyn Fn(&mut HyperBuilder) + Send + Sync>;

pub(crate) type HyperBuilder =
    hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>;

impl Default for Options {
    fn default() -> Self {
        Self {
            lame_duck: LameDuck::new(Duration::ZERO),
            grace: None,
            linger: DEFAULT_LINGER,
            idle_grace: DEFAULT_IDLE_GRACE,
            kill_grace: DEFAULT_KILL_GRACE,
            cuts: Cuts::AreErrors,
            max_connections: None,
            first_byte_timeout: Some(DEFAULT_FIRST_BYTE_TIMEOUT),
            header_timeout: Some(DEFAULT_HEADER_TIMEOUT),
            idle_timeout: None,
            max_age: None,
            age_grace: None,
            nodelay: false,
            tcp_keepalive: None,
            catch_panics: false,
            stop_in_requests: true,
            request_timeout: None,
            turns: None,
            http1: Http1::default(),
            #[cfg(feature = "http2")]
            http2: Http2::default(),
            #[cfg(feature = "hyper-builder")]
            hyper: Hyper::default(),
        }
    }
}

#[cfg(feature = "http2")]
impl Default for Http2 {
    fn default() -> Self {
        Self {
            only: false,
            keepalive: None,
            keepalive_timeout: Self::KEEPALIVE_TIMEOUT,
            max_streams: Some(Self::MAX_STREAMS),
            stream_window: None,
            connection_window: None,
            max_frame_bytes: None,
            max_head_bytes: None,
        }
    }
}

impl Options {
    /// Returns the plan of a stop whose server has `grace` to drain.
    pub(crate) fn plan(&self, grace: Duration) -> Plan {
        Plan {
            grace,
            linger: self.linger,
            idle_grace: self.idle_grace,
            flush: FLUSH,
            kill_grace: self.kill_grace,
        }
    }

    /// Rejects a server without a name, and options under which it could serve no client or end nothing.
    pub(crate) fn check(&self, server: &str) -> Result<(), BuildError> {
        if server.is_empty() {
            return Err(BuildError::empty_name("a server"));
        }
        let refuse = Refuse(server);
        if self.kill_grace < MOMENT {
            let why = format!("what was cut needs {} to end", Rounded(MOMENT));
            return refuse.value("kill_grace", Rounded(self.kill_grace).to_string(), why);
        }
        let counts = [
            (
                self.max_connections,
                "max_connections",
                "it would let no client in",
            ),
            (
                self.turns,
                "concurrency_per_connection",
                "it would answer no request",
            ),
            (
                self.http1.max_headers,
                "http1_max_headers",
                "it would let no request in",
            ),
        ];
        for (count, option, why) in counts {
            if count == Some(0) {
                return refuse.value(option, "0", why);
            }
        }
        let times = [
            (
                self.first_byte_timeout,
                "first_byte_timeout",
                "it would cut everybody",
            ),
            (
                self.header_timeout,
                "header_timeout",
                "it would cut everybody",
            ),
            (
                self.idle_timeout,
                "idle_timeout",
                "it would close each connection after one request",
            ),
            (
                self.max_age,
                "max_connection_age",
                "it would close each connection at once",
            ),
            (
                self.tcp_keepalive,
                "tcp_keepalive",
                "it would probe without a pause",
            ),
            (
                self.request_timeout,
                "request_timeout",
                "it would answer no request",
            ),
        ];
        for (time, option, why) in times {
            if time == Some(Duration::ZERO) {
                return refuse.value(option, "0s", why);
            }
        }
        if let Some(idle) = self.tcp_keepalive.filter(|idle| *idle > LONGEST_KEEPALIVE) {
            let why = "the system counts to 32767s at most";
            return refuse.value("tcp_keepalive", Rounded(idle).to_string(), why);
        }
        self.http1.check(&refuse)?;
        #[cfg(feature = "http2")]
        self.http2.check(&refuse)?;
        Ok(())
    }
}

impl Http1 {
    /// hyper reads into a buffer of at least this size.
    const LEAST_HEAD_BYTES: usize = 8192;

    fn check(&self, refuse: &Refuse<'_>) -> Result<(), BuildError> {
        match self.max_head_bytes {
            Some(bytes) if bytes < Self::LEAST_HEAD_BYTES => refuse.value(
                "http1_max_head_bytes",
                bytes.to_string(),
                "a head may take at least 8192 bytes",
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "http2")]
impl Http2 {
    /// hyper's default.
    const MAX_STREAMS: u32 = 200;
    /// hyper's default.
    const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
    const LARGEST_WINDOW: u32 = (1 << 31) - 1;
    const FRAME_BYTES: std::ops::RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

    fn check(&self, refuse: &Refuse<'_>) -> Result<(), BuildError> {
        if self.keepalive == Some(Duration::ZERO) {
            let why = "it would send PINGs without a pause";
            return refuse.value("http2_keepalive", "0s", why);
        }
        if self.keepalive_timeout.is_zero() {
            let why = "it would cut everybody";
            return refuse.value("http2_keepalive_timeout", "0s", why);
        }
        if self.max_streams == Some(0) {
            let why = "it would let no request in";
            return refuse.value("http2_max_streams", "0", why);
        }
        let windows = [self.stream_window, self.connection_window];
        let is_invalid = |window: &u32| *window == 0 || *window > Self::LARGEST_WINDOW;
        if let Some(window) = windows.into_iter().flatten().find(is_invalid) {
            let why = "a window has room for 1 byte to 2147483647 bytes";
            return refuse.value("http2_windows", window.to_string(), why);
        }
        if let Some(bytes) = self
            .max_frame_bytes
            .filter(|bytes| !Self::FRAME_BYTES.contains(bytes))
        {
            let why = "a frame has room for 16384 to 16777215 bytes";
            return refuse.value("http2_max_frame_bytes", bytes.to_string(), why);
        }
        if self.max_head_bytes == Some(0) {
            let why = "it would let no request in";
            return refuse.value("http2_max_head_bytes", "0", why);
        }
        Ok(())
    }
}

struct Refuse<'a>(&'a str);

impl Refuse<'_> {
    fn value(
        &self,
        option: &'static str,
        value: impl Into<Cow<'static, str>>,
        why: impl Into<Cow<'static, str>>,
    ) -> Result<(), BuildError> {
        let what = format!("server `{}`", self.0);
        Err(BuildError::new(what, option, value, why))
    }
}

#[cfg(feature = "hyper-builder")]
impl Hyper {
    pub(crate) fn push(&mut self, f: impl Fn(&mut HyperBuilder) + Send + Sync + 'static) {
        self.0.push(std::sync::Arc::new(f));
    }

    pub(crate) fn apply(&self, builder: &mut HyperBuilder) {
        self.0.iter().for_each(|f| f(builder));
    }
}

#[cfg(feature = "hyper-builder")]
impl std::fmt::Debug for Hyper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hyper").field(&self.0.len()).finish()
    }
}
