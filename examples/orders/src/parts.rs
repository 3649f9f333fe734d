//! What the components of the service are made from, and what they have for each other.

use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use taskgroup::lifecycle::Provided;
use taskgroup::server::{DrainReport, Serve};

use crate::options::Options;
use crate::times::{KILL_GRACE, Times};

#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) recorded: PrometheusHandle,
    on_report: Arc<dyn Fn(&DrainReport) + Send + Sync>,
    pub(crate) http: Provided<SocketAddr>,
    pub(crate) grpc: Provided<SocketAddr>,
    pub(crate) metrics: Provided<SocketAddr>,
}

/// Where the service can be reached; a port that was asked for as 0 has its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Parts {
    /// `on_report` hears how the drain of each server went.
    pub(crate) fn new(
        options: Options,
        recorded: PrometheusHandle,
        on_report: impl Fn(&DrainReport) + Send + Sync + 'static,
    ) -> Self {
        Self {
            options,
            recorded,
            on_report: Arc::new(on_report),
            http: Provided::new("address of http"),
            grpc: Provided::new("address of grpc"),
            metrics: Provided::new("address of metrics"),
        }
    }

    /// Returns nothing if a server is not there, or is gone.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        Some(Addresses {
            http: self.http.get()?,
            grpc: self.grpc.get()?,
            metrics: self.metrics.get()?,
        })
    }

    pub(crate) fn times(&self) -> Times {
        Times::of(&self.options)
    }

    /// Gives a server its times, and those who want to hear of it its report.
    pub(crate) fn set_up<S>(&self, server: Serve<S>) -> Serve<S> {
        let on_report = Arc::clone(&self.on_report);
        server
            .grace(self.times().grace)
            .kill_grace(KILL_GRACE)
            .idle_grace(self.options.idle_grace)
            .on_report(move |report| on_report(report))
    }
}
