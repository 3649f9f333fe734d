//! The options of a [`Serve`] for its connections and requests, before any stop.

use std::time::Duration;

use super::Serve;
use crate::server::gate::engine;
use crate::server::gate::limited;

impl<S> Serve<S> {
    /// Sets `TCP_NODELAY` on every connection, so that answers in several pieces arrive sooner.
    ///
    /// The defaults are those of the frameworks, off for axum and on for tonic.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.options.nodelay = nodelay;
        self
    }

    /// Probes clients that have been silent this long with TCP keepalive; off by default.
    ///
    /// The system closes the connection of a client that has vanished, after as many probes as it is configured
    /// for. It counts in whole seconds, and a fraction is rounded up. [`Duration::MAX`] turns it off. Zero is an
    /// error of [`run`](Self::run).
    pub fn tcp_keepalive(mut self, idle: Duration) -> Self {
        self.options.tcp_keepalive = limited(idle);
        self
    }
}

/// The options of a server that speaks HTTP.
impl<S: engine::App> Serve<S> {
    /// Sets how long a response may take to begin; unlimited by default.
    ///
    /// A handler that takes longer is dropped. Its client gets a 503, or the status `DEADLINE_EXCEEDED` if it
    /// speaks gRPC, and the connection stays open. The clock starts when the head of the request is complete, so
    /// it includes the wait for a [turn](Self::concurrency_per_connection). A body that has begun is not timed.
    /// [`Duration::MAX`] turns it off. Zero is an error of [`run`](Self::run).
    ///
    /// A server of `tonic::serve` answers as tonic does, with `CANCELLED` and "Timeout expired".
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = limited(timeout);
        self
    }

    /// Sets how many requests of one connection are answered at once; unlimited by default.
    ///
    /// Further requests wait, and are in flight. A request no longer counts once its response begins, even if
    /// the body is still being sent. Zero is an error of [`run`](Self::run).
    pub fn concurrency_per_connection(mut self, limit: usize) -> Self {
        self.options.turns = Some(limit);
        self
    }

    /// Lets a client over HTTP/1 close its sending half and still read its answer; off by default.
    ///
    /// Without it a client that half-closes counts as gone, and the handler of its request is dropped.
    pub fn http1_half_close(mut self, half_close: bool) -> Self {
        self.options.http1.half_close = half_close;
        self
    }

    /// Sets the most bytes that the head of a request may have over HTTP/1.
    ///
    /// A longer one is answered with 431. The default is hyper's, about 400 KiB. Less than 8192 is an error of
    /// [`run`](Self::run).
    pub fn http1_max_head_bytes(mut self, bytes: usize) -> Self {
        self.options.http1.max_head_bytes = Some(bytes);
        self
    }

    /// Sets the most headers that a request may have over HTTP/1.
    ///
    /// One with more is answered with 431. The default is hyper's, 100. Zero is an error of [`run`](Self::run).
    pub fn http1_max_headers(mut self, headers: usize) -> Self {
        self.options.http1.max_headers = Some(headers);
        self
    }

    /// Calls `f` with hyper's own builder, for settings that have no name here.
    ///
    /// It is called once, when the server starts, after all that the other options set. A second call adds to
    /// the first. Leave `header_read_timeout` off, since hyper would also close idle connections by it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "axum")]
    /// # async fn f() -> std::io::Result<()> {
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let http = taskgroup::serve("http", listener, axum::Router::new())
    ///     .hyper(|builder| {
    ///         builder.http1().pipeline_flush(true);
    ///     });
    /// # drop(http);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "hyper-builder")]
    pub fn hyper(
        mut self,
        f: impl Fn(&mut crate::server::gate::options::HyperBuilder) + Send + Sync + 'static,
    ) -> Self {
        self.options.hyper.push(f);
        self
    }
}

/// The options of HTTP/2.
#[cfg(feature = "http2")]
impl<S: engine::App> Serve<S> {
    /// Sends clients over HTTP/2 a PING this often, and cuts those that do not
    /// [answer in time](Self::http2_keepalive_timeout).
    ///
    /// This detects clients that have vanished. It is off by default, and 30 seconds for tonic.
    /// [`Duration::MAX`] turns it off. Zero is an error of [`run`](Self::run).
    pub fn http2_keepalive(mut self, interval: Duration) -> Self {
        self.options.http2.keepalive = limited(interval);
        self
    }

    /// Sets how long a client may take to answer a [PING](Self::http2_keepalive).
    ///
    /// The default is hyper's, 20 seconds. Zero is an error of [`run`](Self::run).
    pub fn http2_keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.options.http2.keepalive_timeout = timeout;
        self
    }

    /// Sets how many streams a client may have open over HTTP/2 on one connection.
    ///
    /// The default is hyper's, 200, and unlimited for tonic. Zero is an error of [`run`](Self::run).
    pub fn http2_max_streams(mut self, limit: u32) -> Self {
        self.options.http2.max_streams = Some(limit);
        self
    }

    /// Sets how many bytes a client may send over HTTP/2 before they are read, for each stream and for the
    /// whole connection.
    ///
    /// The default is hyper's, 1 MiB each. A value outside of 1 byte to 2 GiB less 1 byte is an error of
    /// [`run`](Self::run).
    pub fn http2_windows(mut self, stream: u32, connection: u32) -> Self {
        self.options.http2.stream_window = Some(stream);
        self.options.http2.connection_window = Some(connection);
        self
    }

    /// Sets the most bytes that a frame of a client may have over HTTP/2.
    ///
    /// The default is hyper's, 16 KiB, which is also the least. A value outside of 16384 to 16777215 is an error
    /// of [`run`](Self::run).
    pub fn http2_max_frame_bytes(mut self, bytes: u32) -> Self {
        self.options.http2.max_frame_bytes = Some(bytes);
        self
    }

    /// Sets the most bytes that the headers of a request may have over HTTP/2.
    ///
    /// A request with more is answered with 431. The default is hyper's, 16 KiB. Zero is an error of
    /// [`run`](Self::run).
    pub fn http2_max_head_bytes(mut self, bytes: u32) -> Self {
        self.options.http2.max_head_bytes = Some(bytes);
        self
    }
}
