//! The grace of each component: what it asks for, or an even share of what the others leave.
//!
//! A chain is a path through the graph in the order of the stop: its components stop one after
//! another, so their graces add up. Components without a grace all get the same share, the largest with
//! which no chain takes longer than its limit, in whole milliseconds.
//!
//! It is found from above, by Newton's method: start with a share that is too large, take the heaviest
//! chain, lower the share until that chain fits, and so on until the heaviest fits. What a chain
//! weighs grows with the share by its number of components without a grace; the heaviest of all is a
//! convex function of the share. So no step goes below the largest share that fits, and each chain has
//! fewer such components than the one before. A few steps do, and each is linear.

use std::time::Duration;

use crate::lifecycle::graph::Graph;
use crate::lifecycle::phase::Phase;

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
/// First come the phases with a budget, each for itself; what their components get is given from then
/// on. Then the others share `stop_time`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::graph::Place;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::borrow::Cow;

    const MILLI: Duration = Duration::from_millis(1);

    fn graph(after: &[Vec<usize>], members: &[Option<usize>], phases: &[Phase]) -> Graph {
        let names: Vec<_> = (0..after.len()).map(|index| index.to_string()).collect();
        let after: Vec<Vec<_>> = after
            .iter()
            .map(|after| {
                after
                    .iter()
                    .map(|index| Cow::Owned(index.to_string()))
                    .collect()
            })
            .collect();
        let places: Vec<_> = (0..names.len())
            .map(|index| Place {
                name: &names[index],
                after: &after[index],
                uses: &[],
                provides: &[],
                phase: members[index].map(|phase| phases[phase].name()),
            })
            .collect();
        Graph::new(&places, phases).unwrap()
    }

    /// Each is after the one before it.
    fn chain(count: usize) -> Graph {
        let after = (0..count).map(|index| index.checked_sub(1).into_iter().collect());
        graph(&after.collect::<Vec<_>>(), &vec![None; count], &[])
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn those_without_a_grace_share_what_the_others_leave() {
        let asked = vec![Some(secs(10)), None, None, None];
        let (graces, longest) = share(&chain(4), &[], secs(20), asked).unwrap();
        let third = Duration::from_millis(3_333);
        assert_eq!(graces, [secs(10), third, third, third]);
        assert_eq!(longest, [3, 2, 1, 0]);
    }

    #[test]
    fn a_short_chain_with_a_long_grace_may_decide() {
        // 3 → 2 → 1 → 0 would leave 5 s for each, 4 → 0 with its 17 s no more than 3 s.
        let after = [vec![], vec![0], vec![1], vec![2], vec![0]];
        let graph = graph(&after, &[None; 5], &[]);
        let asked = vec![None, None, None, None, Some(secs(17))];
        let (graces, longest) = share(&graph, &[], secs(20), asked).unwrap();
        assert_eq!(graces[..4], [secs(3); 4]);
        assert_eq!(longest, [4, 0]);
    }

    #[test]
    fn independent_components_have_all_of_it() {
        let graph = graph(&[vec![], vec![], vec![]], &[None; 3], &[]);
        let (graces, longest) = share(&graph, &[], secs(20), vec![None; 3]).unwrap();
        assert_eq!(graces, [secs(20); 3]);
        assert_eq!(longest, [0]);
    }

    #[test]
    fn without_a_bound_everybody_has_any_time() {
        let asked = vec![Some(secs(10)), None, Some(Duration::MAX)];
        let (graces, longest) = share(&chain(3), &[], Duration::MAX, asked).unwrap();
        assert_eq!(graces, [secs(10), Duration::MAX, Duration::MAX]);
        assert_eq!(longest, [2, 1, 0]);
    }

    #[test]
    fn a_grace_of_zero_weighs_nothing() {
        let asked = vec![Some(Duration::ZERO), None];
        let (graces, longest) = share(&chain(2), &[], secs(20), asked).unwrap();
        assert_eq!(graces, [Duration::ZERO, secs(20)]);
        assert_eq!(longest, [1, 0]);

        let asked = vec![Some(Duration::ZERO); 2];
        assert!(share(&chain(2), &[], Duration::ZERO, asked).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_the_heaviest_chain() {
        let asked = vec![Some(secs(10)), None, Some(secs(11))];
        let misfit = share(&chain(3), &[], secs(20), asked).unwrap_err();
        assert_eq!((misfit.phase, misfit.nothing_for), (None, None));
        assert_eq!(misfit.chain, [(2, secs(11)), (0, secs(10))]);
    }

    #[test]
    fn less_than_a_millisecond_is_nothing() {
        let asked = vec![Some(secs(10)), None, Some(secs(10) - MILLI / 2)];
        let misfit = share(&chain(3), &[], secs(20), asked).unwrap_err();
        assert_eq!(misfit.nothing_for, Some(1));
        assert_eq!(misfit.chain.len(), 2);
        let misfit = share(&chain(1), &[], MILLI / 2, vec![None]).unwrap_err();
        assert_eq!(misfit.nothing_for, Some(0));
        assert!(share(&chain(1), &[], MILLI, vec![None]).is_ok());
    }

    #[test]
    fn a_phase_shares_its_budget_and_leaves_the_rest_to_the_others() {
        // 0 and 1 accept, one after another; 2 is in no phase, and 3 comes last.
        let after = [vec![], vec![0], vec![1], vec![]];
        let phases = [Phase::new("accept").budget(secs(5)), Phase::new("close")];
        let graph = graph(&after, &[Some(0), Some(0), None, Some(1)], &phases);
        let (graces, longest) = share(&graph, &phases, secs(20), vec![None; 4]).unwrap();
        let half = Duration::from_millis(2_500);
        let rest = Duration::from_millis(7_500);
        assert_eq!(graces, [half, half, rest, rest]);
        assert_eq!(longest, [2, 1, 0, 3]);

        let asked = vec![Some(secs(3)), Some(secs(3)), None, None];
        let misfit = share(&graph, &phases, secs(20), asked).unwrap_err();
        assert_eq!((misfit.phase, misfit.nothing_for), (Some(0), None));
        assert_eq!(misfit.chain, [(1, secs(3)), (0, secs(3))]);
        let asked = vec![Some(secs(5)), None, None, None];
        let misfit = share(&graph, &phases, secs(20), asked).unwrap_err();
        assert_eq!((misfit.phase, misfit.nothing_for), (Some(0), Some(1)));
    }

    #[test]
    fn what_stops_between_two_of_a_phase_counts_with_them() {
        let after = [vec![], vec![0], vec![1]];
        let phases = [Phase::new("accept").budget(secs(6))];
        let graph = graph(&after, &[Some(0), None, Some(0)], &phases);
        let (graces, _) = share(&graph, &phases, secs(20), vec![None; 3]).unwrap();
        assert_eq!(graces, [secs(2); 3]);
    }

    #[test]
    fn a_phase_of_any_time_has_no_bound() {
        let phases = [Phase::new("accept").budget(Duration::MAX)];
        let graph = graph(&[vec![]], &[Some(0)], &phases);
        let (graces, _) = share(&graph, &phases, secs(20), vec![None]).unwrap();
        assert_eq!(graces, [secs(20)]);
    }

    /// Every way down from a node that nothing depends on, barriers left out.
    fn all_chains(graph: &Graph) -> Vec<Vec<usize>> {
        fn walk(graph: &Graph, node: usize, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
            path.push(node);
            if graph.dependencies[node].is_empty() {
                let components = path
                    .iter()
                    .copied()
                    .filter(|&node| graph.is_component(node));
                found.push(components.collect());
            }
            for &dependency in &graph.dependencies[node] {
                walk(graph, dependency, path, found);
            }
            path.pop();
        }
        let mut found = Vec::new();
        for node in 0..graph.order.len() {
            if graph.dependents[node].is_empty() {
                walk(graph, node, &mut Vec::new(), &mut found);
            }
        }
        found
    }

    /// The part of a chain from the first to the last component of a phase.
    fn within<'a>(graph: &Graph, chain: &'a [usize], phase: usize) -> &'a [usize] {
        let is_in = |node: &usize| graph.phases[*node] == Some(phase);
        let first = chain.iter().position(is_in);
        let last = chain.iter().rposition(is_in);
        first
            .zip(last)
            .map_or(&[], |(first, last)| &chain[first..=last])
    }

    fn sum(chain: &[usize], graces: &[Option<Duration>], share: Duration) -> Duration {
        chain
            .iter()
            .map(|&node| graces[node].unwrap_or(share))
            .sum()
    }

    prop_compose! {
        fn any_case()(
            given in vec((
                vec(any::<prop::sample::Index>(), 0..3),
                prop::option::weighted(0.4, 0..4_000_u64),
                any::<bool>(),
            ), 1..10),
            budgets in vec(prop::option::weighted(0.6, 0..12_000_u64), 0..3),
            stop_time in 0..40_000_u64,
        ) -> (Graph, Vec<Phase>, Vec<Option<Duration>>, Duration) {
            let count = given.len();
            let phases: Vec<_> = budgets.iter().enumerate().map(|(index, budget)| {
                let phase = Phase::new(index.to_string());
                match budget {
                    Some(budget) => phase.budget(Duration::from_micros(*budget)),
                    None => phase,
                }
            }).collect();
            let mut after = Vec::new();
            let mut members = Vec::new();
            let mut graces = Vec::new();
            for (at, (needed, grace, in_phase)) in given.into_iter().enumerate() {
                let needed = needed.into_iter().filter(|_| at > 0);
                after.push(needed.map(|index| index.index(at)).collect::<Vec<_>>());
                // Later ones stop earlier, so that the phases fit.
                let phase = || phases.len() - 1 - at * phases.len() / count;
                members.push((in_phase && !phases.is_empty()).then(phase));
                graces.push(grace.map(Duration::from_micros));
            }
            (graph(&after, &members, &phases), phases, graces, Duration::from_micros(stop_time))
        }
    }

    /// Whether every chain fits with `next` more for those that share, and what they have.
    fn largest(
        chains: &[Vec<usize>],
        graces: &[Option<Duration>],
        limit: Duration,
        share: Duration,
    ) -> bool {
        let fits = |share| {
            chains
                .iter()
                .all(|chain| sum(chain, graces, share) <= limit)
        };
        let shared = chains.iter().flatten().any(|&node| graces[node].is_none());
        fits(share) && (!shared || !fits(share + MILLI))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against all chains, one by one.
        #[test]
        fn no_chain_is_too_long_and_the_share_is_the_largest(
            (graph, phases, asked, stop_time) in any_case(),
        ) {
            let chains = all_chains(&graph);
            let mut graces = asked.clone();
            let mut expected: Result<(), (Option<usize>, bool)> = Ok(());
            let result = share(&graph, &phases, stop_time, asked);

            let mut limits: Vec<_> = phases.iter().enumerate()
                .filter_map(|(index, phase)| Some((Some(index), phase.budget_time()?)))
                .collect();
            limits.push((None, stop_time));
            for (phase, limit) in limits {
                let parts: Vec<Vec<usize>> = match phase {
                    Some(phase) => chains.iter().map(|chain| within(&graph, chain, phase).to_vec()).collect(),
                    None => chains.clone(),
                };
                let fits = |share| parts.iter().all(|chain| sum(chain, &graces, share) <= limit);
                let shared: Vec<_> = parts.iter().flatten().copied().filter(|&node| graces[node].is_none()).collect();
                if !fits(Duration::ZERO) {
                    expected = Err((phase, false));
                } else if !shared.is_empty() && !fits(MILLI) {
                    expected = Err((phase, true));
                } else if let (Ok((result, _)), Some(&first)) = (&result, shared.first()) {
                    prop_assert!(largest(&parts, &graces, limit, result[first]));
                    for node in shared {
                        prop_assert_eq!(result[node], result[first]);
                        graces[node] = Some(result[first]);
                    }
                } else if !shared.is_empty() {
                    // It does not fit further on; what this phase got has to be found out.
                    let mut share = MILLI;
                    while fits(share + MILLI) {
                        share += MILLI;
                    }
                    for node in shared {
                        graces[node] = Some(share);
                    }
                }
                if expected.is_err() {
                    break;
                }
            }
            match (result, expected) {
                (Ok((result, longest)), Ok(())) => {
                    let result: Vec<_> = result.into_iter().map(Some).collect();
                    prop_assert_eq!(&result, &graces);
                    let weights = chains.iter().map(|chain| sum(chain, &result, MILLI));
                    prop_assert_eq!(Some(sum(&longest, &result, MILLI)), weights.max());
                    let on_one = |chain: &Vec<usize>| {
                        let mut rest = chain.iter();
                        longest.iter().all(|node| rest.any(|other| other == node))
                    };
                    prop_assert!(chains.iter().any(on_one), "the longest chain is one");
                }
                (Err(misfit), Err(expected)) => {
                    prop_assert_eq!((misfit.phase, misfit.nothing_for.is_some()), expected);
                    if let Some(node) = misfit.nothing_for {
                        prop_assert!(graces[node].is_none());
                    } else {
                        let limit = misfit.phase.and_then(|phase| phases[phase].budget_time());
                        let sum: Duration = misfit.chain.iter().map(|(_, grace)| *grace).sum();
                        prop_assert!(sum > limit.unwrap_or(stop_time));
                    }
                }
                (result, expected) => prop_assert!(false, "{result:?}, not {expected:?}"),
            }
        }
    }
}
