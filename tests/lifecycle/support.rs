//! Components that write down what happens to them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskgroup::BoxError;
use taskgroup::End;
use taskgroup::lifecycle::{
    Component, ComponentError, ComponentState, Context, Lifecycle, Report, StepKind,
};
use tokio::time::sleep;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What has happened, in its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A component that is ready at once, and that takes `stop` to stop.
    #[track_caller]
    pub(crate) fn component(&self, name: &'static str, stop: Duration) -> Component {
        let diary = self.clone();
        Component::new(name, move |ctx: Context| async move {
            diary.write(format!("{name} starts"));
            ctx.ready();
            ctx.stopping().await;
            diary.write(format!("{name} stops"));
            sleep(stop).await;
            diary.write(format!("{name} is gone"));
            Ok(())
        })
    }
}

/// A component that is ready at once and ends when it is told.
#[track_caller]
pub(crate) fn obedient(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        ctx.ready();
        Ok::<(), BoxError>(ctx.stopping().await)
    })
}

/// A component that is ready at once and never ends.
#[track_caller]
pub(crate) fn deaf(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        ctx.ready();
        std::future::pending().await
    })
}

/// Runs it, stops it as soon as all are ready, and returns what it says.
pub(crate) async fn stopped(lifecycle: Lifecycle) -> Report {
    let handle = lifecycle.handle();
    let run = tokio::spawn(lifecycle.run());
    assert_eq!(handle.ready().await, Ok(()));
    handle.stop("enough");
    run.await.unwrap().unwrap()
}

/// What went wrong, line by line.
pub(crate) fn errors(report: &Report) -> Vec<String> {
    let errors = report.errors.iter();
    errors.map(|error| format!("{error:#}")).collect()
}

/// How far each component has come, as it is in the plan.
/// What went wrong with a component: in which step, how it ended, and the time that was not enough.
pub(crate) type Wrong = (Option<StepKind>, End, Option<Duration>);

pub(crate) const START_FAILED: Wrong = (Some(StepKind::Start), End::Failed, None);
pub(crate) const ENDED_BEFORE_READY: Wrong = (Some(StepKind::Start), End::EndedEarly, None);
pub(crate) const FAILED: Wrong = (None, End::Failed, None);
pub(crate) const PANICKED: Wrong = (None, End::Panicked, None);
pub(crate) const ENDED_EARLY: Wrong = (None, End::EndedEarly, None);
pub(crate) const STOP_FAILED: Wrong = (Some(StepKind::Stop), End::Failed, None);

pub(crate) fn start_timed_out(limit: Duration) -> Wrong {
    (Some(StepKind::Start), End::Failed, Some(limit))
}

pub(crate) fn drain_timed_out(limit: Duration) -> Wrong {
    (Some(StepKind::Drain), End::TimedOut, Some(limit))
}

pub(crate) fn overran(limit: Duration) -> Wrong {
    (Some(StepKind::Stop), End::TimedOut, Some(limit))
}

pub(crate) fn wrong(error: &ComponentError) -> Wrong {
    (error.during, error.end(), error.limit)
}

pub(crate) fn states(report: &Report) -> Vec<ComponentState> {
    let components = report.components.iter();
    components.map(|status| status.state).collect()
}

/// Writes down when it is dropped.
pub(crate) struct Guard(pub(crate) Diary, pub(crate) &'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.write(self.1);
    }
}
