//! The routes for a load balancer or an orchestrator (feature `axum`).

use std::borrow::Cow;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Readiness, ReadinessState};

impl Readiness {
    /// Returns the routes `/livez` and `/readyz`, to merge into a service's router (feature
    /// `axum`).
    ///
    /// | | starting | ready | draining | stopped |
    /// |---|---|---|---|---|
    /// | `/readyz` | 503 `starting` | 200 `ready`, or 503 `failing: database` | 503 `draining` | 503 `stopped` |
    /// | `/livez` | 200 `live` | 200 `live` | 200 `live` | 200 `live` |
    ///
    /// `/livez` says only that the process answers. A service that drains is alive, and restarting
    /// it would lose its requests. The answers forbid caching.
    ///
    /// The routes answer for as long as the server they are on. A draining server takes no new
    /// connections. To keep answering, put the routes on their own server, which stops last.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::get;
    /// use taskgroup::CancellationToken;
    /// use taskgroup::lifecycle::Readiness;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tokio::net::{TcpListener, TcpStream};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let token = CancellationToken::new();
    /// let readiness = Readiness::drain_on(&token);
    /// let app = Router::new()
    ///     .route("/", get(async || "hello"))
    ///     .merge(readiness.routes());
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// tokio::spawn(async { axum::serve(listener, app).await });
    ///
    /// readiness.set_ready();
    /// token.cancel();
    /// client.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).await?;
    /// assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    /// assert!(answer.ends_with("draining"), "{answer}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn routes<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let readiness = self.clone();
        Router::new()
            .route("/livez", get(async || answer(StatusCode::OK, "live")))
            .route("/readyz", get(async move || readyz(&readiness)))
    }
}

fn readyz(readiness: &Readiness) -> Response {
    // Read once, so that the code and the text are of the same moment.
    let state = readiness.state();
    if state != ReadinessState::Ready {
        return answer(StatusCode::SERVICE_UNAVAILABLE, state.as_str());
    }
    match readiness.failing_for_all() {
        failing if failing.is_empty() => answer(StatusCode::OK, state.as_str()),
        failing => {
            // Only the log has their messages, which may name hosts and users.
            let text = format!("failing: {}", failing.join(", "));
            answer(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn answer(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text.into()).into_response()
}
