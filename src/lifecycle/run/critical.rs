//! The critical chain of a stop: the steps that its length came from.

use std::cmp::Reverse;
use std::time::Duration;

use crate::lifecycle::plan::graph::Graph;
use crate::lifecycle::report::TimelineStep;
use crate::lifecycle::step_kind::StepKind;

/// A step, and the node of its component. Stages and the steps of the cleanup have no node.
pub(super) type Step = (Option<usize>, TimelineStep);

/// Marks the steps that the stop took its time for.
///
/// It goes back from the step that ended last. A component waits for the last of its users to end, and a step
/// of the cleanup for what ended before it. A component without users waits for the stages.
pub(super) fn mark(steps: &mut [Step], graph: &Graph, stop_began: Duration) {
    let of_stop: Vec<usize> = (0..steps.len())
        .filter(|&at| {
            let (_, step) = &steps[at];
            step.kind != StepKind::Start && step.ended > step.began && step.ended > stop_began
        })
        .collect();
    let last_users = last_users(steps, &of_stop, graph);
    let latest = |among: &mut dyn Iterator<Item = usize>| among.max_by_key(|&at| key(steps, at));

    let mut chain = Vec::new();
    let mut next = latest(&mut of_stop.iter().copied());
    while let Some(at) = next {
        chain.push(at);
        let (node, step) = &steps[at];
        let before = |other: usize| steps[other].1.ended <= step.began && other != at;
        let is_stage = |other: usize| steps[other].0.is_none() && kind_is_stage(&steps[other].1);
        let user = node.and_then(|node| last_users[node]);
        next = match (user, step.kind) {
            (Some(user), _) if before(user) => Some(user),
            (_, StepKind::Cleanup) => latest(&mut of_stop.iter().copied().filter(|&at| before(at))),
            _ => latest(
                &mut of_stop
                    .iter()
                    .copied()
                    .filter(|&at| before(at) && is_stage(at)),
            ),
        };
    }
    for at in chain {
        steps[at].1.critical = true;
    }
}

/// The step of each node's users, direct and indirect, that ended last.
fn last_users(steps: &[Step], of_stop: &[usize], graph: &Graph) -> Vec<Option<usize>> {
    let mut of_node = vec![None; graph.dependencies.len()];
    for &at in of_stop {
        if let Some(node) = steps[at].0 {
            of_node[node] = Some(at);
        }
    }
    let mut last: Vec<Option<usize>> = vec![None; of_node.len()];
    for &node in graph.order.iter().rev() {
        let users = graph.dependents[node].iter();
        last[node] = users
            .flat_map(|&user| [of_node[user], last[user]])
            .flatten()
            .max_by_key(|&at| key(steps, at));
    }
    last
}

/// Of two steps that ended together, the shorter one decided: the other may be what it waited for.
fn key(steps: &[Step], at: usize) -> (Duration, Duration, Reverse<usize>) {
    let (_, step) = &steps[at];
    (step.ended, step.began, Reverse(at))
}

fn kind_is_stage(step: &TimelineStep) -> bool {
    matches!(
        step.kind,
        StepKind::Jitter | StepKind::LameDuck | StepKind::Drain
    )
}
