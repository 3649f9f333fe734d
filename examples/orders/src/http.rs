//! The front: REST for the world, which it translates into gRPC calls to the back.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use taskgroup::group::DeadlinePassed;
use taskgroup::server::Stop;
use tonic::Code;
use tonic::transport::Channel;

use crate::proto::orders_client::OrdersClient;
use crate::proto::{self, CountRequest, OrderCount, OrderId};
use crate::{metrics, ws};

/// Builds the routes. Those without an end of their own, `/events` and `/ws`, end when the stop
/// begins; the others may use up the drain.
pub(crate) fn routes(back: Channel) -> Router {
    let front = Front {
        orders: OrdersClient::new(back),
    };
    let routes = Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(read))
        .route("/slow", get(slow))
        .route("/events", get(events))
        .route("/ws", get(ws::echo))
        .with_state(front);
    metrics::counted(routes)
}

#[derive(Clone)]
struct Front {
    orders: OrdersClient<Channel>,
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

async fn create(
    State(mut front): State<Front>,
    stop: Stop,
    body: Bytes,
) -> Result<Response, Refusal> {
    // From the bytes: `Json` as an extractor refuses a request without a content type, which
    // is what people send by hand.
    let Json(NewOrder { item, quantity }) = Json::from_bytes(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let order = proto::NewOrder { item, quantity };
    let created = answer(&stop, front.orders.create(order)).await?;
    Ok((StatusCode::CREATED, Json(Created { id: created.id })).into_response())
}

async fn read(
    State(mut front): State<Front>,
    stop: Stop,
    Path(id): Path<i64>,
) -> Result<Json<Order>, Refusal> {
    let order = answer(&stop, front.orders.get(OrderId { id })).await?;
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
async fn slow(
    State(mut front): State<Front>,
    stop: Stop,
    Query(Slow { ms }): Query<Slow>,
) -> Result<Json<Count>, Refusal> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let OrderCount { orders } = answer(&stop, front.orders.count(CountRequest {})).await?;
    Ok(Json(Count { orders }))
}

/// Waits for the answer of the back. The call may use up the drain of the front, but not to its very
/// end: there has to be time left to tell the client.
async fn answer<T>(
    stop: &Stop,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Refusal> {
    Ok(stop.until_deadline(call).await??.into_inner())
}

/// Endless for the client, but not for a drain, which it would hold up until the end of the grace.
async fn events(stop: Stop) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let every = tokio::time::interval(Duration::from_secs(1));
    let ticks = stream::unfold((every, 0_u64), |(mut every, tick)| async move {
        every.tick().await;
        let event = Event::default().event("tick").data(tick.to_string());
        Some((Ok(event), (every, tick + 1)))
    });
    Sse::new(ticks.take_until(stop.token().clone().cancelled_owned()))
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

impl From<DeadlinePassed> for Refusal {
    fn from(passed: DeadlinePassed) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, passed.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}
