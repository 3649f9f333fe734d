//! What most services are: `axum::serve(..).with_graceful_shutdown(signal)` and nothing around it.
//! Its routes have the shapes of those of `orders`; it keeps no orders.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

#[derive(Deserialize, Serialize)]
struct NewOrder {
    item: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Created {
    id: i64,
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

/// Serves until SIGTERM; prints the line that `orders` prints when it is ready.
pub(crate) async fn serve(http: SocketAddr) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(http).await?;
    writeln!(io::stdout(), "ready http={}", listener.local_addr()?)?;
    let app = routes().route("/readyz", get(async || "ready\n"));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(read))
        .route("/slow", get(slow))
}

async fn create(Json(_): Json<NewOrder>) -> (StatusCode, Json<Created>) {
    (StatusCode::CREATED, Json(Created { id: 1 }))
}

async fn read(Path(_): Path<i64>) -> Json<NewOrder> {
    Json(NewOrder {
        item: "tea".to_owned(),
        quantity: 2,
    })
}

async fn slow(Query(Slow { ms }): Query<Slow>) -> &'static str {
    sleep(Duration::from_millis(ms)).await;
    "done\n"
}
