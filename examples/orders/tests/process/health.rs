//! What the gRPC health service says of the back.

use std::net::SocketAddr;

use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::database::current_thread;
use crate::http;
use crate::service::{Service, Signal};

fn health(back: SocketAddr, of: &str) -> Result<ServingStatus, Code> {
    current_thread().block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{back}")).expect("an address");
        let channel = endpoint.connect().await.expect("the back listens");
        let request = HealthCheckRequest {
            service: of.to_owned(),
        };
        let answer = HealthClient::new(channel).check(request).await;
        answer
            .map(|answer| answer.into_inner().status())
            .map_err(|status| status.code())
    })
}

#[test]
fn the_back_is_healthy_until_the_stop_begins() {
    let service = Service::start(&["--grace", "60"]);
    let slow = http::in_flight(&service, "/slow?ms=60000");
    for name in ["", "orders.v1.Orders"] {
        assert_eq!(health(service.grpc, name), Ok(ServingStatus::Serving));
    }
    assert_eq!(health(service.grpc, "orders.v1.Bills"), Err(Code::NotFound));

    // It serves on, as the front needs it.
    service.begin_to_stop(Signal::Terminate);
    for name in ["", "orders.v1.Orders"] {
        assert_eq!(health(service.grpc, name), Ok(ServingStatus::NotServing));
    }
    service.insist(Signal::Terminate).assert_code(143);
    drop(slow);
}
