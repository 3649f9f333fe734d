//! The grace of each component: what it asks for, or an even share of what the others leave.
//!
//! A chain is a path through the graph in the order of the stop: its components stop one after
//! another, so their graces add up. Components without a grace all get the same share, the largest with
//! which no chain takes longer than its limit, in whole milliseconds.
//!
//! It is found from above, by Newton's method: start with a share that is too large, take the heaviest
//! chain, lower the share until that chain fits, and so on until the heaviest fits. What a chain
//! weighs grows with the share by its number of components without a grace; the heaviest of all is a
//! convex function of the share. So no step goes below the largest share that fits, each is on a chain
//! with fewer such components than the one before, and a few do. Each step is linear.

use std::time::Duration;

use super::super::graph::Graph;
use super::super::phase::Phase;

/// Why there are no graces.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The phase whose budget it is; without one it is the time of the whole stop.
    pub(super) phase: Option<usize>,
    /// The component that would get nothing; without one, it is the graces asked for that are too much.
    pub(super) nothing_for: Option<usize>,
    /// The graces asked for on the heaviest chain.
    pub(super) chain: Vec<(usize, Duration)>,
}

/// Fills in the missing ones of `graces` and returns the heaviest chain.
///
/// First come the phases with a budget, each for itself; their budgets count as given. Then the others
/// share `stop_time`.
pub(super) fn share(
    graph: &Graph,
    phases: &[Phase],
    stop_time: Duration,
    graces: Vec<Option<Duration>>,
) -> Result<(Vec<Duration>, Vec<usize>), Misfit> {
    let mut shares = Shares {
        graph,
        graces,
        parts: parts(graph),
        heaviest: vec![(Duration::ZERO, 0); graph.order.len()],
        before: vec![None; graph.order.len()],
    };
    let mut nodes = vec![Vec::new(); phases.len()];
    for &node in &graph.order {
        if let Some(phase) = shares.parts[node] {
            nodes[phase].push(node);
        }
    }
    for (phase, nodes) in nodes.iter().enumerate() {
        // Any time is no bound.
        let budget = phases[phase].budget_time();
        if let Some(budget) = budget.filter(|&budget| budget < Duration::MAX) {
            shares.fill(nodes, Some(phase), budget)?;
        }
    }
    shares.fill(&graph.order, None, stop_time)?;

    let chain = shares.chain(&graph.order, None, Duration::ZERO);
    let components = 0..graph.components;
    let graces = components.map(|node| shares.grace(node, Duration::ZERO));
    Ok((graces.collect(), chain))
}

struct Shares<'a> {
    graph: &'a Graph,
    graces: Vec<Option<Duration>>,
    /// The phase that each node is a part of.
    parts: Vec<Option<usize>>,
    /// The heaviest chain that ends with each node: what it weighs, and its number of components, of
    /// which more are better. It is valid for the nodes of the last call.
    heaviest: Vec<(Duration, usize)>,
    /// The next node of that chain.
    before: Vec<Option<usize>>,
}

impl Shares<'_> {
    /// Gives those of `nodes` that have no grace their share of `limit`.
    fn fill(
        &mut self,
        nodes: &[usize],
        phase: Option<usize>,
        limit: Duration,
    ) -> Result<(), Misfit> {
        let mut chain = self.chain(nodes, phase, Duration::ZERO);
        if self.weight(&chain, Duration::ZERO) > limit {
            return Err(self.misfit(phase, None, &chain));
        }
        let graph = self.graph;
        let components = nodes
            .iter()
            .copied()
            .filter(|&node| graph.is_component(node));
        let without: Vec<_> = components
            .filter(|&node| self.graces[node].is_none())
            .collect();
        let Some(&first) = without.first() else {
            return Ok(());
        };
        let mut share = limit;
        if limit < Duration::MAX {
            share = whole_millis(limit);
            loop {
                let heaviest = self.chain(nodes, phase, share);
                if self.weight(&heaviest, share) <= limit {
                    break;
                }
                chain = heaviest;
                // No chain of what was asked for is above the limit, so this one has components
                // without a grace, and its share of them is smaller than the last.
                let asked = self.weight(&chain, Duration::ZERO);
                let count = chain.iter().filter(|&&node| self.graces[node].is_none());
                let count = u32::try_from(count.count()).unwrap_or(u32::MAX).max(1);
                share = whole_millis(limit.saturating_sub(asked) / count);
            }
        }
        if share.is_zero() {
            let on_chain = chain
                .iter()
                .copied()
                .find(|&node| self.graces[node].is_none());
            return Err(self.misfit(phase, Some(on_chain.unwrap_or(first)), &chain));
        }
        for node in without {
            self.graces[node] = Some(share);
        }
        Ok(())
    }

    /// Finds the heaviest chain with `share` for those without a grace, in the order of the stop.
    ///
    /// Of two that weigh the same it is the one with more components, and then the first.
    fn chain(&mut self, nodes: &[usize], phase: Option<usize>, share: Duration) -> Vec<usize> {
        let mut last = None;
        let mut heaviest = (Duration::ZERO, 0);
        for &node in nodes {
            let mut below = (Duration::ZERO, 0);
            self.before[node] = None;
            for &dependency in &self.graph.dependencies[node] {
                let counts = phase.is_none() || self.parts[dependency] == phase;
                if counts && self.heaviest[dependency] > below {
                    below = self.heaviest[dependency];
                    self.before[node] = Some(dependency);
                }
            }
            if self.graph.is_component(node) {
                below = (below.0.saturating_add(self.grace(node, share)), below.1 + 1);
            }
            self.heaviest[node] = below;
            if below > heaviest {
                heaviest = below;
                last = Some(node);
            }
        }
        let chain = std::iter::successors(last, |&node| self.before[node]);
        chain
            .filter(|&node| self.graph.is_component(node))
            .collect()
    }

    fn grace(&self, node: usize, share: Duration) -> Duration {
        self.graces[node].unwrap_or(share)
    }

    fn weight(&self, chain: &[usize], share: Duration) -> Duration {
        let graces = chain.iter().map(|&node| self.grace(node, share));
        graces.fold(Duration::ZERO, Duration::saturating_add)
    }

    fn misfit(&self, phase: Option<usize>, nothing_for: Option<usize>, chain: &[usize]) -> Misfit {
        let asked = chain
            .iter()
            .filter_map(|&node| Some((node, self.graces[node]?)));
        Misfit {
            phase,
            nothing_for,
            chain: asked.collect(),
        }
    }
}

/// Finds the phase that each node is a part of: its own, or that of those which it stops between.
fn parts(graph: &Graph) -> Vec<Option<usize>> {
    // In the order of a stop phases only grow, so the last one above and the first one below are
    // those next to a component, and all between them lie in one phase if they are the same.
    let mut above = graph.phases.clone();
    let mut below = graph.phases.clone();
    above.resize(graph.order.len(), None);
    below.resize(graph.order.len(), None);
    let components = || graph.start_order();
    for node in components()
        .rev()
        .filter(|&node| graph.phases[node].is_none())
    {
        above[node] = graph.dependents[node]
            .iter()
            .filter_map(|&node| above[node])
            .max();
    }
    for node in components().filter(|&node| graph.phases[node].is_none()) {
        below[node] = graph.dependencies[node]
            .iter()
            .filter_map(|&node| below[node])
            .min();
    }
    let both = above.into_iter().zip(below);
    both.map(|(above, below)| above.filter(|_| above == below))
        .collect()
}

fn whole_millis(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000)
}
