//! The back: a gRPC server, the only one that writes to the database on behalf of clients.

use taskgroup::lifecycle::Readiness;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::metrics;
use crate::proto::orders_server::{Orders, OrdersServer, SERVICE_NAME};
use crate::proto::{CountRequest, NewOrder, Order, OrderCount, OrderId};
use crate::store::{self, Store};

/// Builds the services: the orders, and beside them what says whether they want traffic.
pub(crate) fn routes(store: Store, readiness: &Readiness) -> Routes {
    let health = readiness.health_service(&[SERVICE_NAME]);
    Routes::new(OrdersServer::new(Back { store })).add_service(health)
}

#[derive(Debug)]
struct Back {
    store: Store,
}

#[tonic::async_trait]
impl Orders for Back {
    async fn create(&self, request: Request<NewOrder>) -> Result<Response<Order>, Status> {
        let NewOrder { item, quantity } = request.into_inner();
        if item.trim().is_empty() {
            return Err(Status::invalid_argument("an order names an item"));
        }
        if quantity == 0 {
            return Err(Status::invalid_argument(
                "the quantity of an order is at least 1",
            ));
        }
        let order = self
            .store
            .create(&item, quantity)
            .await
            .map_err(database_failed)?;
        metrics::orders_created(1);
        Ok(Response::new(order.into()))
    }

    async fn get(&self, request: Request<OrderId>) -> Result<Response<Order>, Status> {
        let id = request.into_inner().id;
        match self.store.get(id).await.map_err(database_failed)? {
            Some(order) => Ok(Response::new(order.into())),
            None => Err(Status::not_found(format!("there is no order {id}"))),
        }
    }

    async fn count(&self, _: Request<CountRequest>) -> Result<Response<OrderCount>, Status> {
        let orders = self.store.count().await.map_err(database_failed)?;
        Ok(Response::new(OrderCount { orders }))
    }
}

impl From<store::Order> for Order {
    fn from(order: store::Order) -> Self {
        let store::Order {
            id,
            item,
            quantity,
            status,
        } = order;
        Self {
            id,
            item,
            quantity,
            status,
        }
    }
}

/// The log gets the reason, the client does not.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn database_failed(error: sqlx::Error) -> Status {
    error!(%error, "the database failed");
    Status::internal("the database failed")
}
