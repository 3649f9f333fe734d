//! The ways in which a lifecycle ends its process.

use std::future::pending;
use std::thread;
use std::time::Duration;

use taskgroup::cleanup::Step;
use taskgroup::lifecycle::{Component, Context, Lifecycle};
use taskgroup::process::{Heartbeat, StopFile};
use taskgroup::{BoxError, Exit, Signal, Signals};

use crate::hangs::BUDGET;
use crate::roles::log_to_stderr;
use crate::roles::runtime;
use crate::roles::say;
use crate::roles::terminate;

pub(crate) fn play(role: &str) -> Exit {
    let signals = match role.starts_with("lives_escalate") {
        true => terminate().escalate(),
        false => terminate(),
    };
    let orders = Lifecycle::new("orders").stop_on(signals);
    let orders = match role {
        "lives_done" => orders.component(Component::job("migrate", |_| async { Ok(()) })),
        "lives_stopped" => orders,
        "lives_failed" => orders.component(fails(|| Err("no table".into()))),
        "lives_panicked" => orders.component(fails(|| panic!("no table"))),
        "lives_ended_early" => orders.component(fails(|| Ok(()))),
        "lives_not_started" => orders.component(Component::new("worker", |_| async {
            Err("no table".into())
        })),
        "lives_starting" => orders.component(Component::new("worker", |ctx| async move {
            say("starting");
            Ok(ctx.stopping().await)
        })),
        "lives_stop_failed" => orders.component(Component::new("worker", |ctx| async move {
            ctx.ready();
            ctx.stopping().await;
            Err("no table".into())
        })),
        "lives_deaf" => orders.component(deaf()),
        "lives_called" => orders.component(Component::new("worker", |ctx| async move {
            ctx.ready();
            ctx.stop("the queue is empty");
            Ok(ctx.stopping().await)
        })),
        "lives_listed" => {
            log_to_stderr();
            orders
                .list_on(Signals::watch([Signal::User1]).unwrap())
                .component(deaf())
        }
        "lives_stop_file" => {
            log_to_stderr();
            let path = std::env::temp_dir().join(format!("taskgroup-lives-{}", std::process::id()));
            drop(std::fs::remove_file(&path));
            say(path.display());
            orders.stop_on(StopFile::new(&path).every(Duration::from_millis(10)))
        }
        "lives_heartbeat" => {
            let (heartbeat, lost) = Heartbeat::new("lease", Duration::from_millis(10));
            // Held until the stop, or it would be lost at once.
            let lease = Component::new("lease", |ctx| async move {
                ctx.ready();
                ctx.stopping().await;
                drop(heartbeat);
                Ok(())
            });
            orders.stop_on(lost).component(lease)
        }
        "lives_blocked" => {
            orders
                .budget(BUDGET)
                .watchdog()
                .component(Component::new("stuck", |ctx| async move {
                    ctx.ready();
                    ctx.stopping().await;
                    Ok(hang())
                }))
        }
        "lives_escalate" => {
            let step = Step::new("lease", |_| async { Ok(say("cleaned up")) });
            orders.cleanup().push(step).unwrap();
            orders.component(Component::new("deaf", |ctx| async move {
                ctx.ready();
                pending().await
            }))
        }
        "lives_escalate_blocked" => {
            log_to_stderr();
            orders.component(Component::new("stuck", |ctx| async move {
                ctx.ready();
                ctx.stopping().await;
                Ok(hang())
            }))
        }
        "lives_all_blocked" => orders
            .budget(BUDGET)
            .watchdog()
            .component(blocks("stuck"))
            .component(blocks("stuck-too")),
        _ => unreachable!("no role {role}"),
    };
    runtime().block_on(live(orders))
}

/// With a component beside the others, which says what it sees.
async fn live(orders: Lifecycle) -> Exit {
    let orders = orders.component(Component::new("database", |ctx| async move {
        ctx.ready();
        ctx.stopping().await;
        say("closing");
        Ok(())
    }));
    let handle = orders.handle();
    let run = tokio::spawn(orders.run());
    if handle.ready().await.is_ok() {
        say("ready");
    }
    Exit::from(run.await.unwrap())
}

/// Ends in its own way a moment after it was ready.
#[track_caller]
fn fails(how: fn() -> Result<(), BoxError>) -> Component {
    Component::new("worker", move |ctx: Context| async move {
        ctx.ready();
        let whole = ctx.readiness();
        whole
            .wait_for(taskgroup::lifecycle::ReadinessState::Ready)
            .await;
        how()
    })
}

fn deaf() -> Component {
    let deaf = Component::new("deaf", |ctx| async move {
        ctx.ready();
        pending().await
    });
    deaf.grace(Duration::from_millis(50))
}

/// Blocks its worker before the stop has begun.
#[track_caller]
fn blocks(name: &'static str) -> Component {
    Component::new(name, |ctx| async move {
        ctx.ready();
        let whole = ctx.readiness();
        whole
            .wait_for(taskgroup::lifecycle::ReadinessState::Ready)
            .await;
        Ok(hang())
    })
}

fn hang() {
    say("hanging");
    loop {
        thread::sleep(Duration::MAX);
    }
}
