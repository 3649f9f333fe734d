//! What the service counts, and where it can be read: `GET /metrics`, on an address of its own.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `http_requests_total` | counter | `route`, `status` |
//! | `orders_created_total` | counter | |
//! | `orders_fulfilled_total` | counter | |

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use metrics::counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use taskgroup::BoxError;

/// Where they are if nobody says otherwise.
pub(crate) const USUAL_ADDRESS: &str = "127.0.0.1:9090";

/// Lets everything that is counted in this process be seen; once in a process.
pub(crate) fn record() -> Result<PrometheusHandle, BoxError> {
    Ok(PrometheusBuilder::new().install_recorder()?)
}

pub(crate) fn routes(recorded: PrometheusHandle) -> Router {
    let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new().route("/metrics", get(async move || (text, recorded.render())))
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
    counter!("http_requests_total", "route" => route, "status" => status).increment(1);
    response
}

pub(crate) fn order_created() {
    counter!("orders_created_total").increment(1);
}

pub(crate) fn orders_fulfilled(count: u64) {
    counter!("orders_fulfilled_total").increment(count);
}
