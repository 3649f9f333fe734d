//! [`Farewell`]: what a client is told when its request fails.

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};

/// The properties of a request that its answer depends on. One byte of flags, because it is moved with each
/// request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked(u8);

impl Asked {
    const GRPC: u8 = 1;
    const HTTP1: u8 = 1 << 1;
    const CONNECT: u8 = 1 << 2;
    const HEAD: u8 = 1 << 3;

    #[inline]
    pub(super) fn of<A>(request: &Request<A>) -> Self {
        let mut flags = 0;
        match *request.method() {
            // The headers of most requests are not searched for anything else.
            Method::POST if is_grpc(request.headers()) => flags |= Self::GRPC,
            Method::CONNECT => flags |= Self::CONNECT,
            Method::HEAD => flags |= Self::HEAD,
            _ => {}
        }
        if request.version() < Version::HTTP_2 {
            flags |= Self::HTTP1;
        }
        Self(flags)
    }

    #[inline]
    pub(super) fn is_grpc(self) -> bool {
        self.0 & Self::GRPC != 0
    }

    #[inline]
    pub(super) fn is_http1(self) -> bool {
        self.0 & Self::HTTP1 != 0
    }

    /// The answer to a `HEAD` has no body. Over HTTP/2 a client treats one as a protocol error.
    pub(super) fn takes_a_body(self) -> bool {
        self.0 & Self::HEAD == 0
    }

    #[inline]
    pub(super) fn is_upgraded_by(self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS
            || (self.0 & Self::CONNECT != 0 && status.is_success())
    }

    /// Over HTTP/1 a client has to ask for trailers.
    #[inline]
    pub(super) fn takes_trailers(self) -> bool {
        self.is_grpc() && !self.is_http1()
    }
}

/// Excludes gRPC-Web, which has its trailers in the body, because a browser does not see HTTP trailers. A
/// browser takes a 503 for `UNAVAILABLE`, and a body that fails for a broken one.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| !rest.starts_with(b"-web"))
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    ShuttingDown,
    Panicked,
    TimedOut,
}

impl Farewell {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ShuttingDown | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of an answer over plain HTTP.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::ShuttingDown => "the server is shutting down\n",
            Self::Panicked => "internal server error\n",
            Self::TimedOut => "the request took too long\n",
        }
    }

    /// The gRPC status, as the headers of an answer that consists of nothing else.
    pub(super) fn trailers(self) -> HeaderMap {
        let (code, message) = match self {
            Self::ShuttingDown => ("14", "the server is shutting down"),
            Self::Panicked => ("13", "internal server error"),
            Self::TimedOut => ("4", "the request took too long"),
        };
        let mut trailers = HeaderMap::with_capacity(3);
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        trailers
    }

    /// Why the body of a response that had begun fails.
    pub(super) fn error(self) -> &'static str {
        match self {
            Self::ShuttingDown => "the server has cut this response: it is shutting down",
            Self::Panicked => "the body of this response panicked",
            Self::TimedOut => "the request took too long",
        }
    }
}
