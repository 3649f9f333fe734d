//! Sockets to listen on, whose errors name the server and the address.

use taskgroup::BoxError;
use tokio::net::TcpListener;

pub(crate) async fn bind(server: &str, address: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("server `{server}`: cannot listen on {address}: {error}").into())
}
