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
    /// It is ready when all of its components are. When it is told to stop, its components are
    /// stopped in their own order, without a lame duck and within its own budget, or what is left
    /// of that above it if that is less. One without a [budget](Lifecycle::budget), in which nothing asks for
    /// a time, has a share of what is around it, as any component, and shares that among its own; the plan shows it. Its failures are those of this component, and the first
    /// stops what is around it at once, not only when all in it has ended; its report is in the
    /// report, and its plan in the plan. A [trigger](Lifecycle::stop_on) or a
    /// [handle](Lifecycle::handle) of its own stops it alone, which is an end like that of any
    /// component: a failure, unless it [may](Self::may_end). Its [watchdog](Lifecycle::watchdog) is
    /// left out: the process belongs to the outermost lifecycle.
    ///
    /// When all of its components have ended by themselves, it has ended well, as a job does that is done:
    /// its cause is [`Cause::Done`], and nothing stops for it. If it has resources, they stay open for those
    /// around it until the stop, which do not wait for it with their own end.
    ///
    /// A [value](super::Provided) that its components use and do not provide is one that this component
    /// uses, and those that they provide can be used by others outside of it.
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
        // With the time that it has in here.
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
