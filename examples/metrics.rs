//! How do I see in my metrics how long a stop took, and what was lost?
//!
//! The observer writes through the facade `metrics`; the recorder here is that of Prometheus, whose text a service
//! would serve under `/metrics`. The worker has three jobs in flight when it is told to stop, and the cache does not
//! stop in time. Run it with `cargo run --features metrics --example metrics`.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use taskgroup::BoxError;
use taskgroup::lifecycle::{Component, Lifecycle};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let prometheus = PrometheusBuilder::new()
        .set_buckets(&[0.2, 1.0, 5.0, 10.0, 30.0])?
        .install_recorder()?;

    let cache = Component::new("cache", |ctx| async move {
        ctx.ready();
        std::future::pending().await
    });
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        ctx.set_in_flight(3);
        ctx.stopping().await;
        Ok(sleep(Duration::from_millis(100)).await)
    });
    let lifecycle = Lifecycle::new("orders")
        .budget(Duration::from_secs(2))
        .component(cache.grace(Duration::from_millis(300)))
        .component(worker.after(["cache"]))
        .observe(taskgroup::process::metrics::observer());

    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    let _ = handle.ready().await;
    handle.stop("the example is over");
    println!("{}", run.await??);

    let text = prometheus.render();
    println!("{text}");
    assert!(text.contains("shutdown_in_flight{component=\"orders/worker\"} 3"));
    assert!(text.contains("shutdown_errors_total{component=\"orders/cache\"} 1"));
    assert!(text.contains("shutdown_duration_seconds_count{component=\"orders\"} 1"));
    Ok(())
}
