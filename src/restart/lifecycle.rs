//! A restart in place of a whole lifecycle.

use super::Restart;
use crate::BoxError;
use crate::group::cause::Cause;
use crate::lifecycle::{Component, Context, EventKind, Lifecycle};

/// The name of the component that a restart adds.
const NAME: &str = "restart in place";

impl Lifecycle {
    /// Lets another process take over from this one in place, and this one from another.
    ///
    /// It adds a resource, `restart in place`, and does the following:
    ///
    /// - When all components are ready, except for those that wait for the old process with
    ///   [`lease`](Restart::lease) or [`alone`](Restart::alone), it says that this process is
    ///   [ready](Restart::ready). It is ready for its clients too as soon as it has the sockets.
    /// - When another process has taken over, the lifecycle stops with the cause
    ///   [`HandedOver`](Cause::HandedOver), in its usual order and with its usual graces, but without a jitter or a
    ///   lame duck. The service stays ready until all components have ended.
    /// - When the old process keeps its sockets after all, the lifecycle fails.
    /// - When the lifecycle stops for another reason, no restart begins, and one that is under way ends.
    ///
    /// A component that waits for the old process needs a
    /// [start timeout](Component::start_timeout) that covers the drain of that process.
    pub fn restart(self, restart: &Restart) -> Self {
        self.readiness().stay_after_token();
        let (settled, mine) = (self.settled(), restart.clone());
        let readiness = self.readiness().clone();
        let open = async move |ctx: Context| {
            ctx.group().spawn({
                let (restart, token) = (mine.clone(), ctx.token().clone());
                async move {
                    let ready = async {
                        settled.cancelled().await;
                        restart.ready();
                        restart.taken_over().await;
                        // A probe of the address reaches this process now, and must hear what the old one said.
                        readiness.set_ready();
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = token.cancelled() => Ok(()),
                        error = restart.refused() => Err(BoxError::from(error)),
                        () = ready => Ok(()),
                    }
                }
            });
            Ok(mine)
        };
        let (handed_over, stopping) = (restart.handed_over(), restart.clone());
        let name = self.name().to_owned();
        self.component(Component::resource(NAME, open, async |_, _| Ok(())))
            .stop_on(async { Cause::HandedOver(handed_over.await) })
            .observe(move |event| match &event.kind {
                EventKind::StopTriggered {
                    cause: Cause::HandedOver(_),
                    ..
                } => {}
                EventKind::StopTriggered { cause, .. } if *event.lifecycle == *name => {
                    stopping.shared.stop(&cause.to_string());
                }
                _ => {}
            })
    }
}
