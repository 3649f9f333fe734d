//! The front: REST for the world, which it translates into gRPC calls to the back.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use taskgroup::CancellationToken;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;
use tracing::info;

use crate::proto::orders_client::OrdersClient;
use crate::proto::{self, CountRequest, OrderId};

/// How long the front goes on accepting when the stop has begun; less if the grace is short.
const GOODBYE: Duration = Duration::from_millis(100);

/// Builds the routes. `stop` is a hint to them that the drain has begun: it ends event streams,
/// readiness and connections that are kept alive, and never touches a request in flight.
pub(crate) fn routes(back: Channel, stop: CancellationToken) -> Router {
    let front = Front {
        orders: OrdersClient::new(back),
        stop: stop.clone(),
    };
    Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(read))
        .route("/slow", get(slow))
        .route("/events", get(events))
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(ready))
        .with_state(front)
        .layer(from_fn_with_state(stop, say_goodbye))
}

/// Serves until a moment after `stop` has resolved, then until the requests in flight are answered.
///
/// In that moment each answer tells its client to go elsewhere. Without it, hyper would drop requests
/// that have arrived on a kept connection and are not read yet.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let goodbye = GOODBYE.min(grace / 4);
    let drain = async move {
        stop.await;
        tokio::time::sleep(goodbye).await;
        info!("http: no new connections, finishing what is in flight");
    };
    axum::serve(listener, routes)
        .with_graceful_shutdown(drain)
        .await?;
    info!("http: stopped, every request is answered");
    Ok(())
}

#[derive(Clone)]
struct Front {
    orders: OrdersClient<Channel>,
    stop: CancellationToken,
}

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    quantity: u32,
}

/// The answer to an order.
#[derive(Deserialize, Serialize)]
pub(crate) struct Created {
    pub(crate) id: i64,
}

#[derive(Serialize)]
struct Order {
    id: i64,
    item: String,
    quantity: u32,
    status: String,
}

#[derive(Serialize)]
struct Count {
    orders: i64,
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

async fn create(State(mut front): State<Front>, body: Bytes) -> Result<Response, Refusal> {
    // From the bytes: `Json` as an extractor refuses a request without a content type, which
    // is what people send by hand.
    let Json(NewOrder { item, quantity }) = Json::from_bytes(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let order = front
        .orders
        .create(proto::NewOrder { item, quantity })
        .await?
        .into_inner();
    Ok((StatusCode::CREATED, Json(Created { id: order.id })).into_response())
}

async fn read(State(mut front): State<Front>, Path(id): Path<i64>) -> Result<Json<Order>, Refusal> {
    let order = front.orders.get(OrderId { id }).await?.into_inner();
    let proto::Order {
        id,
        item,
        quantity,
        status,
    } = order;
    Ok(Json(Order {
        id,
        item,
        quantity,
        status,
    }))
}

/// Waits first and calls the back afterwards: the request that breaks where front and back are
/// stopped together.
async fn slow(State(mut front): State<Front>, slow: Query<Slow>) -> Result<Json<Count>, Refusal> {
    tokio::time::sleep(Duration::from_millis(slow.ms)).await;
    let orders = front
        .orders
        .count(CountRequest {})
        .await?
        .into_inner()
        .orders;
    Ok(Json(Count { orders }))
}

/// Endless for the client, but not for a drain, which it would hold up until the end of the grace.
async fn events(State(front): State<Front>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let every = tokio::time::interval(Duration::from_secs(1));
    let ticks = stream::unfold((every, 0_u64), |(mut every, tick)| async move {
        every.tick().await;
        let event = Event::default().event("tick").data(tick.to_string());
        Some((Ok(event), (every, tick + 1)))
    });
    Sse::new(ticks.take_until(front.stop.cancelled_owned()))
}

async fn ready(State(front): State<Front>) -> (StatusCode, &'static str) {
    if front.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    (StatusCode::OK, "ready\n")
}

async fn say_goodbye(
    State(stop): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if stop.is_cancelled() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Why a request was not served: `{"error": …}`.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    error: String,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(code, status.message())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}
