//! What the machine needs to know of a plan.

use std::time::Duration;

use super::machine::{Machine, Node, Times, Traits};
use crate::backoff::Backoff;
use crate::lifecycle::component::Component;
use crate::lifecycle::plan::{Plan, PlannedComponent};

/// Makes the machine of a run, and draws its jitter.
pub(super) fn machine_of(plan: &Plan, components: &[Component], is_inside: bool) -> Machine {
    let (graph, budget) = (plan.graph().clone(), plan.budget());
    let mut nodes = vec![Node::Barrier; graph.dependencies.len()];
    let planned = plan.added().iter().zip(components).enumerate();
    for (index, (planned, component)) in planned {
        nodes[index] = Node::Component(traits_of(component, planned, graph.phases[index]));
    }
    let phases = plan.phases();
    let jitter = Backoff::new(budget.jitter_time(), budget.jitter_time()).full_jitter();
    let times = Times {
        total: budget.total(),
        start: budget.start_time(),
        jitter: jitter.delays().draw(),
        lame_duck: budget.lame_duck_time(),
        drain: budget.drain_time(),
        cleanup: budget.cleanup_time(),
        margin: budget.margin(),
        phases: phases
            .map(|(_, budget)| budget.unwrap_or(Duration::MAX))
            .collect(),
    };
    Machine::new(graph, nodes, times, is_inside)
}

pub(super) fn traits_of(
    component: &Component,
    planned: &PlannedComponent,
    phase: Option<usize>,
) -> Traits {
    Traits {
        start_timeout: planned.start_timeout(),
        grace: planned.grace(),
        is_job: component.is_job(),
        may_end: component.may_end,
        may_fail: component.may_fail,
        is_work: planned.is_work(),
        is_used: planned.has_resource(),
        has_cleanup: planned.nested().is_some(),
        drains: planned.drains(),
        phase,
    }
}
