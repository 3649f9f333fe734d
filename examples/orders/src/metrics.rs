//! What the service counts, and where it can be read: `GET /metrics`, on an address of its own.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `http_requests_total` | counter | `route`, `status` |
//! | `orders_created_total` | counter | |
//! | `orders_fulfilled_total` | counter | |
//!
//! Those of the stop come from `taskgroup::process::metrics`: what was in flight, errors, and how long each took.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use metrics::{counter, describe_counter};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use taskgroup::server::LameDuck;
use taskgroup::{BoxError, CancellationToken};
use tokio::net::TcpListener;

use crate::bind;

/// Where they are if nobody says otherwise.
const USUAL_ADDRESS: &str = "127.0.0.1:9090";

/// What a histogram of seconds tells apart, up to the usual budget. Without them it would be a summary, which
/// cannot be added up over replicas.
const SECONDS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 28.0];

const REQUESTS: &str = "http_requests_total";
const CREATED: &str = "orders_created_total";
const FULFILLED: &str = "orders_fulfilled_total";

/// Lets everything that is counted in this process be seen; once in a process.
pub(crate) fn record() -> Result<PrometheusHandle, BoxError> {
    let recorded = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    describe_counter!(REQUESTS, "Requests that were answered over REST.");
    describe_counter!(CREATED, "Orders that were created.");
    describe_counter!(FULFILLED, "Orders that were fulfilled.");
    // A rate needs the 0 that it begins with.
    orders_created(0);
    orders_fulfilled(0);
    Ok(recorded)
}

/// Without an address it is the usual one, or a free one: there may be other services on this machine.
pub(crate) async fn bind(address: Option<&str>) -> Result<TcpListener, BoxError> {
    if let Some(address) = address {
        return bind::bind("metrics", address).await;
    }
    match TcpListener::bind(USUAL_ADDRESS).await {
        Ok(listener) => Ok(listener),
        Err(_) => bind::bind("metrics", "127.0.0.1:0").await,
    }
}

/// A scrape that comes when `stopping` has fired is the last one, and ends the wait for it.
pub(crate) fn routes(
    recorded: PrometheusHandle,
    stopping: CancellationToken,
    wait: LameDuck,
) -> Router {
    let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let scrape = async move || {
        let answer = (text, recorded.render());
        if stopping.is_cancelled() {
            wait.skip();
        }
        answer
    };
    Router::new().route("/metrics", get(scrape))
}

/// Counts the requests to `routes` by their answers.
pub(crate) fn counted(routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn(count))
}

async fn count(request: Request, next: Next) -> Response {
    // The pattern, not the path: there are as many paths as orders.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    counter!(REQUESTS, "route" => route, "status" => status).increment(1);
    response
}

pub(crate) fn orders_created(count: u64) {
    counter!(CREATED).increment(count);
}

pub(crate) fn orders_fulfilled(count: u64) {
    counter!(FULFILLED).increment(count);
}
