//! Components whose steps are empty, started and stopped by a lifecycle; and what is compared to it.

use std::time::Duration;

use taskgroup::TaskGroup;
use taskgroup::lifecycle::{Component, Handle, Lifecycle};
use tokio_util::sync::CancellationToken;

use crate::words::words;

words! {
    /// What starts and stops the components.
    pub enum Stepper {
        /// As many tasks, told by a token and joined: no order, no names, no report.
        Tasks = "tasks and a token",
        /// As many children of one group, with a task each, cancelled with it.
        Children = "children of a group",
        /// The components are made, and that is all.
        Described = "components made",
        /// They are made, and there is a plan.
        Planned = "components planned",
        /// They are started and stopped.
        Lifecycle = "Lifecycle",
    }
}

words! {
    /// Which component comes after which.
    pub enum Shape {
        /// Nobody after anybody.
        Flat = "flat",
        /// Each after the one before.
        Chain = "chain",
        /// Layers of ten, each component after all of the layer before.
        Layers = "layers",
        /// All after the first.
        Star = "star",
    }
}

/// How many components a layer has.
const LAYER: usize = 10;

/// Nothing in here takes time, but counting it does.
const BUDGET: Duration = Duration::from_secs(3600);

impl Shape {
    /// Those that a node comes after.
    fn before(self, node: usize) -> std::ops::Range<usize> {
        match self {
            Self::Flat => 0..0,
            Self::Chain => node.saturating_sub(1)..node,
            Self::Layers => {
                let layer = node / LAYER * LAYER;
                layer.saturating_sub(LAYER)..layer
            }
            Self::Star => 0..node.min(1),
        }
    }
}

/// Starts so many and stops them; calls `told` when all are ready and nobody has been told to stop.
pub async fn run(
    stepper: Stepper,
    shape: Shape,
    nodes: usize,
    told: impl FnOnce() + Send + 'static,
) {
    match stepper {
        Stepper::Tasks => tasks(nodes, told).await,
        Stepper::Children => children(nodes, told).await,
        Stepper::Described => drop(described(shape, nodes)),
        Stepper::Planned => assert!(described(shape, nodes).plan().is_ok()),
        Stepper::Lifecycle => lifecycle(shape, nodes, told).await,
    }
}

/// Returns when every task spawned so far has been polled, on a current-thread runtime.
async fn all_polled() {
    assert!(tokio::spawn(async {}).await.is_ok());
}

async fn tasks(nodes: usize, told: impl FnOnce()) {
    let token = CancellationToken::new();
    let mut handles = Vec::with_capacity(nodes);
    for _ in 0..nodes {
        let token = token.clone();
        handles.push(tokio::spawn(async move { token.cancelled().await }));
    }
    all_polled().await;
    told();
    token.cancel();
    for handle in handles {
        assert!(handle.await.is_ok());
    }
}

async fn children(nodes: usize, told: impl FnOnce()) {
    let mut group = TaskGroup::new();
    let mut children = Vec::with_capacity(nodes);
    for _ in 0..nodes {
        let child = group.child("child");
        let token = child.token().clone();
        child.spawn(async move {
            token.cancelled().await;
            Ok(())
        });
        children.push(child);
    }
    all_polled().await;
    told();
    group.cancel();
    for mut child in children {
        assert!(child.wait().await.is_ok());
    }
    assert!(group.wait().await.is_ok());
}

fn described(shape: Shape, nodes: usize) -> Lifecycle {
    let mut lifecycle = Lifecycle::new("bench").budget(BUDGET);
    for node in 0..nodes {
        let component = Component::new(format!("c{node}"), |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            Ok(())
        });
        let before = shape.before(node).map(|before| format!("c{before}"));
        lifecycle = lifecycle.component(component.after(before).start_timeout(BUDGET));
    }
    lifecycle
}

async fn lifecycle(shape: Shape, nodes: usize, told: impl FnOnce() + Send + 'static) {
    let lifecycle = described(shape, nodes);
    let stop = tokio::spawn(stop_when_ready(lifecycle.handle(), told));
    let report = lifecycle.run().await;
    assert!(stop.await.is_ok());
    // Dropping the report is not part of the run.
    all_polled().await;
    assert!(report.is_ok_and(|report| report.is_clean()));
}

async fn stop_when_ready(handle: Handle, told: impl FnOnce()) {
    assert_eq!(handle.ready().await, Ok(()));
    told();
    handle.stop("all are ready");
}
