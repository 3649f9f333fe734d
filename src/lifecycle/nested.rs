//! A lifecycle as a component of another one.

use super::Lifecycle;
use super::component::{Component, Work};
use super::context::Context;
use super::plan::Kind;
use super::run_error::RunError;
use crate::BoxError;
use crate::group::TaskGroup;
use crate::group::cause::Cause;

impl Component {
    /// Makes a component of another lifecycle, under its name.
    ///
    /// It is ready when all of its components are. When it is told to stop, its components stop in
    /// their own order, without a lame duck, and within the smaller of its own budget and the time
    /// left outside. If it has no [budget](Lifecycle::budget) and no component in it asks for a
    /// time, it gets a share of the outer budget like any component, and divides that among its own
    /// components. The plan shows it.
    ///
    /// Its failures are those of this component. The first one stops the outer lifecycle at once,
    /// even while other components in it still run. Its report is part of the outer report, and its
    /// plan part of the outer plan. Its own [trigger](Lifecycle::stop_on) or
    /// [handle](Lifecycle::handle) stops it alone. Like the early end of any component, that is a
    /// failure unless it [may](Self::may_end). Its [watchdog](Lifecycle::watchdog) is ignored,
    /// because the process belongs to the outermost lifecycle.
    ///
    /// When all of its components have ended by themselves, it has ended well, like a job. Its
    /// cause is [`Cause::Done`], and nothing stops for it. If it has resources, they stay open for
    /// the outer components until the stop. The outer components do not wait for it before they
    /// end.
    ///
    /// A [value](super::Provided) that its components use but do not provide is one that this
    /// component uses. Outer components can use the values that they provide.
    #[track_caller]
    pub fn lifecycle(lifecycle: Lifecycle) -> Self {
        let lifecycle = lifecycle.closed();
        let name = lifecycle.name().to_owned().into();
        let plan = lifecycle.plan_inside();
        let start = |ctx: Context, _: &TaskGroup| -> Work {
            Box::pin(async move { lifecycle.run_inside(ctx).await })
        };
        let mut component = Self::of(name, Kind::Lifecycle, Box::new(start));
        component.nested = Some(Box::new(plan));
        component
    }
}

impl Lifecycle {
    /// Runs as a component of another lifecycle.
    async fn run_inside(self, ctx: Context) -> Result<(), BoxError> {
        // Its plan has the share of time that it gets here.
        let plan = ctx.take_plan().map_or_else(|| self.plan_inside(), Ok)?;
        let work = ctx.group().clone();
        let (engine, _work) = self.engine(plan, work, Some(ctx.clone()));
        let report = engine.run().await;
        let error: Option<BoxError> = match &*report.errors {
            [] => None,
            [error] => Some(error.clone().into()),
            _ => Some(RunError::from(report.clone()).into()),
        };
        if report.cause == Cause::Done {
            ctx.finished();
        }
        ctx.keep_nested(report);
        error.map_or(Ok(()), Err)
    }
}
