//! What the process runs under: the budget, and a Ctrl-C at a terminal.

use std::time::Duration;

use rustix::process::Signal;
use taskgroup::lifecycle::{Budget, Component, EventKind, Lifecycle};
use taskgroup::{Exit, Signals};

use crate::child::Child;
use crate::roles::runtime;
use crate::roles::say;
use crate::roles::success;
use crate::tests;

tests![
    l10_the_budget_is_that_of_the_platform_that_is_found,
    a_ctrl_c_at_a_terminal_has_no_lame_duck,
    a_sigint_without_a_terminal_has_its_lame_duck,
    a_sigterm_at_a_terminal_has_its_lame_duck,
];

pub(crate) fn play(role: &str) -> Exit {
    match role {
        "platform_detect" => {
            let plan = Lifecycle::new("orders").budget(Budget::detect()).plan();
            let text = plan.unwrap().to_string();
            text.lines().take(2).for_each(say);
            success()
        }
        "platform_lame_duck" => runtime().block_on(lame_duck()),
        _ => unreachable!("no role {role}"),
    }
}

/// Says whether it is a lame duck, and is none for longer than that.
async fn lame_duck() -> Exit {
    let signals = Signals::terminate().unwrap();
    let worker = Component::new("worker", |ctx| async move {
        ctx.ready();
        Ok(ctx.stopping().await)
    });
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let orders = Lifecycle::new("orders")
        .budget(Budget::new(minutes(10)).lame_duck(minutes(5)))
        .component(worker)
        .stop_on(signals);
    let handle = orders.handle();
    let orders = orders.observe(move |event| match event.kind {
        EventKind::AllReady => say("ready"),
        EventKind::LameDuckBegan(_) => {
            say("lame duck");
            handle.stop_now("it was seen");
        }
        EventKind::Stopped { .. } => say("stopped"),
        _ => {}
    });
    Exit::from(orders.run().await)
}

fn l10_the_budget_is_that_of_the_platform_that_is_found() {
    let pod = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "60"),
    ];
    let unit = [("NOTIFY_SOCKET", "@orders"), ("TIMEOUT_STOP_SEC", "40")];
    for (variables, head, detected) in [
        (
            &pod[..],
            "orders: no components, budget 58s (TERMINATION_GRACE_PERIOD_SECONDS: 60s)",
            "detected Kubernetes: KUBERNETES_SERVICE_HOST is set",
        ),
        (
            &unit[..],
            "orders: no components, budget 36s (TIMEOUT_STOP_SEC: 40s)",
            "detected systemd: NOTIFY_SOCKET is set",
        ),
        (
            &[],
            "orders: no components, budget 10s",
            "detected no platform and no terminal",
        ),
    ] {
        let mut child = Child::start_in("platform_detect", variables);
        child.expect(head).expect(detected).expect_code(0);
    }
    let mut child = Child::start_at_a_terminal("platform_detect");
    child.expect("orders: no components, budget 10s");
    child.expect("detected a terminal: stdin or stderr is one");
    child.expect_code(0);
}

fn a_ctrl_c_at_a_terminal_has_no_lame_duck() {
    let mut child = Child::start_at_a_terminal("platform_lame_duck");
    child.expect("ready").send(Signal::INT);
    child.expect("stopped").expect_code(0);
}

fn a_sigint_without_a_terminal_has_its_lame_duck() {
    let mut child = Child::start("platform_lame_duck");
    child.expect("ready").send(Signal::INT);
    child.expect("lame duck").expect("stopped").expect_code(0);
}

fn a_sigterm_at_a_terminal_has_its_lame_duck() {
    let mut child = Child::start_at_a_terminal("platform_lame_duck");
    child.expect("ready").send(Signal::TERM);
    child.expect("lame duck").expect("stopped").expect_code(0);
}
