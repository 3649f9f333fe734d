//! What the types promise to the compiler.

#![deny(unfulfilled_lint_expectations)]

use std::fmt::Debug;

use taskgroup::BoxError;
use taskgroup::lifecycle::{
    Budget, ComponentError, ComponentState, ComponentStatus, Context, Event, EventKind, Handle,
    Plan, PlanError, PlannedComponent, Provided, Provider, Run, RunError, StepKind, Straggler,
    TimelineStep, Using,
};
use taskgroup::lifecycle::{Component, Lifecycle, Report};

fn everything<T: Send + Sync + Unpin + Debug>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}
fn send<T: Send>(_: &T) {}

#[test]
fn public_types_are_send_sync_and_debug() {
    everything::<Lifecycle>();
    everything::<Component>();
    everything::<Context>();
    everything::<Handle>();
    everything::<Provided<String>>();
    everything::<Provider<String>>();
    everything::<Using<()>>();
    everything::<Report>();
    everything::<Run>();
    everything::<Plan>();
    everything::<PlannedComponent>();
    everything::<Budget>();
    everything::<Event>();
    everything::<EventKind>();
    everything::<ComponentState>();
    everything::<ComponentStatus>();
    everything::<StepKind>();
    everything::<Straggler>();
    everything::<TimelineStep>();
    error::<ComponentError>();
    error::<PlanError>();
    error::<RunError>();
}

#[tokio::test]
async fn the_futures_of_a_lifecycle_are_send() {
    let lifecycle = Lifecycle::new("orders");
    let handle = lifecycle.handle();
    send(&lifecycle.run());
    send(&Lifecycle::new("orders").start());
    send(&handle.ready());
    send(&handle.report());
    send(&handle.wait_for("db", ComponentState::Running));
    send(&Provided::<u8>::new("value").wait());
}

#[test]
fn lazy_values_must_be_used() {
    fn component() -> Component {
        Component::new("db", |_| async { Ok::<(), BoxError>(()) })
    }
    #[expect(unused_must_use, reason = "that is what is tested")]
    fn unused_lifecycle() {
        Lifecycle::new("orders");
    }
    #[expect(unused_must_use, reason = "that is what is tested")]
    fn unused_component() {
        component();
    }
    #[expect(unused_must_use, reason = "that is what is tested")]
    fn unused_run() {
        Lifecycle::new("orders").run();
    }
    unused_lifecycle();
    unused_component();
    unused_run();
}

#[test]
fn debug_output_shows_the_state() {
    let lifecycle = Lifecycle::new("orders")
        .component(Component::job("migrate", |_| async { Ok(()) }).after(["db"]));
    assert!(format!("{lifecycle:?}").contains("orders"));
    assert!(format!("{:?}", lifecycle.handle()).contains("orders"));
    let value = format!("{:?}", Provided::<u8>::new("port"));
    assert!(
        value.contains("port") && value.contains("is_there: false"),
        "{value}"
    );
}
