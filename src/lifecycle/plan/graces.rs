//! The grace of each component: what it asks for, or its share of what the others leave.
//!
//! A chain is a path through the graph in the order of the stop. Its components stop one after another, so
//! their graces add up. Components without a grace share what is left by their weights. The share is the
//! largest with which no chain takes longer than its limit. Each grace is cut to whole milliseconds.
//!
//! The share is found from above, by Newton's method. Start with one that is too large, take the heaviest
//! chain, lower the share until that chain fits, and repeat until the heaviest chain fits. The time of a
//! chain grows with the share by the sum of its weights, so the time of the heaviest chain is a convex
//! function of the share. Therefore no step goes below the largest share that fits, and each chain has a
//! smaller sum of weights than the one before. A few steps are enough, and each is linear.

use std::time::Duration;

use crate::lifecycle::plan::graph::Graph;
use crate::lifecycle::plan::phase::Phase;

/// What a component asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Grace(Duration),
    /// A share of what the others leave, with this weight, which is at least 1.
    Weight(u32),
}

/// A time for a sum of weights.
#[derive(Clone, Copy, Debug)]
struct Share(Duration, u32);

impl Share {
    const NOTHING: Self = Self(Duration::ZERO, 1);

    /// The share of one weight, in whole milliseconds.
    fn of(self, weight: u32) -> Duration {
        let Self(time, sum) = self;
        if time == Duration::MAX {
            return time;
        }
        let nanos = time.as_nanos() * u128::from(weight) / u128::from(sum.max(1));
        Duration::from_millis(u64::try_from(nanos / 1_000_000).unwrap_or(u64::MAX))
    }
}

/// Why the graces do not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The phase whose budget is too small. `None` for the stop time as a whole.
    pub(super) phase: Option<usize>,
    /// The component that would get no time. `None` if the graces asked for are already too much.
    pub(super) nothing_for: Option<usize>,
    /// The graces asked for on the heaviest chain.
    pub(super) chain: Vec<(usize, Duration)>,
}

/// Returns the grace of each component, and the heaviest chain.
///
/// The phases with a budget come first, each for itself. The graces of their components are fixed from then
/// on. The other components share `stop_time`.
pub(super) fn share(
    graph: &Graph,
    phases: &[Phase],
    stop_time: Duration,
    asked: Vec<Ask>,
) -> Result<(Vec<Duration>, Vec<usize>), Misfit> {
    let mut shares = Shares {
        graph,
        graces: asked,
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
        // `Duration::MAX` means no limit.
        let budget = phases[phase].budget();
        if let Some(budget) = budget.filter(|&budget| budget < Duration::MAX) {
            shares.fill(nodes, Some(phase), budget)?;
        }
    }
    shares.fill(&graph.order, None, stop_time)?;

    let chain = shares.chain(&graph.order, None, Share::NOTHING);
    let components = 0..graph.components;
    let graces = components.map(|node| shares.grace(node, Share::NOTHING));
    Ok((graces.collect(), chain))
}

struct Shares<'a> {
    graph: &'a Graph,
    graces: Vec<Ask>,
    /// The phase that each node is a part of.
    parts: Vec<Option<usize>>,
    /// The heaviest chain that ends with each node: its weight and its number of components. Between equal
    /// weights the longer chain counts. Valid for the nodes of the last call.
    heaviest: Vec<(Duration, usize)>,
    /// The next node of that chain.
    before: Vec<Option<usize>>,
}

impl Shares<'_> {
    /// Gives the `nodes` without a grace their share of `limit`.
    fn fill(
        &mut self,
        nodes: &[usize],
        phase: Option<usize>,
        limit: Duration,
    ) -> Result<(), Misfit> {
        let mut chain = self.chain(nodes, phase, Share::NOTHING);
        if self.weight(&chain, Share::NOTHING) > limit {
            return Err(self.misfit(phase, None, &chain));
        }
        let graph = self.graph;
        let components = nodes
            .iter()
            .copied()
            .filter(|&node| graph.is_component(node));
        let without: Vec<_> = components
            .filter(|&node| self.shares_in(node).is_some())
            .collect();
        if without.is_empty() {
            return Ok(());
        }
        let mut share = Share(limit, 1);
        loop {
            let heaviest = self.chain(nodes, phase, share);
            if limit == Duration::MAX || self.weight(&heaviest, share) <= limit {
                break;
            }
            chain = heaviest;
            // No chain of what was asked for is above the limit, so this one has components
            // without a grace, and its share of them is smaller than the last.
            let asked = self.weight(&chain, Share::NOTHING);
            let weights = chain.iter().filter_map(|&node| self.shares_in(node));
            let sum = weights.fold(0, u32::saturating_add);
            share = Share(limit.saturating_sub(asked), sum);
        }
        let gets_nothing = |node: &usize| {
            let weight = self.shares_in(*node);
            weight.is_some_and(|weight| share.of(weight).is_zero())
        };
        let on_chain = chain.iter().copied().find(gets_nothing);
        if let Some(node) = on_chain.or_else(|| without.iter().copied().find(gets_nothing)) {
            return Err(self.misfit(phase, Some(node), &chain));
        }
        for node in without {
            self.graces[node] = Ask::Grace(self.grace(node, share));
        }
        Ok(())
    }

    /// Finds the heaviest chain with `share` for the components without a grace, in the order of the stop.
    ///
    /// Between chains of equal weight it takes the one with more components, and then the first.
    fn chain(&mut self, nodes: &[usize], phase: Option<usize>, share: Share) -> Vec<usize> {
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

    fn grace(&self, node: usize, share: Share) -> Duration {
        match self.graces[node] {
            Ask::Grace(grace) => grace,
            Ask::Weight(weight) => share.of(weight),
        }
    }

    /// The weight of a component without a grace.
    fn shares_in(&self, node: usize) -> Option<u32> {
        match self.graces[node] {
            Ask::Grace(_) => None,
            Ask::Weight(weight) => Some(weight),
        }
    }

    fn weight(&self, chain: &[usize], share: Share) -> Duration {
        let graces = chain.iter().map(|&node| self.grace(node, share));
        graces.fold(Duration::ZERO, Duration::saturating_add)
    }

    fn misfit(&self, phase: Option<usize>, nothing_for: Option<usize>, chain: &[usize]) -> Misfit {
        let asked = chain.iter().filter_map(|&node| match self.graces[node] {
            Ask::Grace(grace) => Some((node, grace)),
            Ask::Weight(_) => None,
        });
        Misfit {
            phase,
            nothing_for,
            chain: asked.collect(),
        }
    }
}

/// Finds the phase that each node is a part of: its own, or the phase whose members it stops between.
fn parts(graph: &Graph) -> Vec<Option<usize>> {
    // In the order of a stop the phases only grow, so the nearest phases are those of the last phased
    // component above a component and the first one below it. If they are the same, everything between them
    // is in that phase.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::plan::graph::Place;
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
                gone: false,
            })
            .collect();
        Graph::new(&places, phases).unwrap()
    }

    /// Each component is after the one before it.
    fn chain(count: usize) -> Graph {
        let after = (0..count).map(|index| index.checked_sub(1).into_iter().collect());
        graph(&after.collect::<Vec<_>>(), &vec![None; count], &[])
    }

    /// The components without a grace share evenly.
    fn share(
        graph: &Graph,
        phases: &[Phase],
        stop_time: Duration,
        asked: Vec<Option<Duration>>,
    ) -> Result<(Vec<Duration>, Vec<usize>), Misfit> {
        let asked = asked.into_iter();
        let asked = asked.map(|grace| grace.map_or(Ask::Weight(1), Ask::Grace));
        super::share(graph, phases, stop_time, asked.collect())
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn components_without_a_grace_share_what_the_others_leave() {
        let asked = vec![Some(secs(10)), None, None, None];
        let (graces, longest) = share(&chain(4), &[], secs(20), asked).unwrap();
        let third = Duration::from_millis(3_333);
        assert_eq!(graces, [secs(10), third, third, third]);
        assert_eq!(longest, [3, 2, 1, 0]);
    }

    #[test]
    fn components_without_a_grace_share_by_their_weights() {
        let asked = vec![
            Ask::Weight(1),
            Ask::Weight(3),
            Ask::Grace(secs(2)),
            Ask::Weight(6),
        ];
        let (graces, _) = super::share(&chain(4), &[], secs(22), asked).unwrap();
        assert_eq!(graces, [secs(2), secs(6), secs(2), secs(12)]);
    }

    #[test]
    fn shares_are_cut_to_milliseconds_and_not_before() {
        let asked = vec![Ask::Weight(3), Ask::Weight(3)];
        let (graces, _) = super::share(&chain(2), &[], secs(11), asked).unwrap();
        assert_eq!(graces, [Duration::from_millis(5_500); 2]);
    }

    #[test]
    fn a_short_chain_with_a_long_grace_may_decide() {
        // 3 → 2 → 1 → 0 would leave 5 s for each, but 4 → 0 with its 17 s leaves only 3 s.
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
    fn the_heaviest_chain_is_reported_when_the_budget_is_too_small() {
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
        // 0 and 1 are in the accept phase, one after another. 2 is in no phase, and 3 comes last.
        let after = [vec![], vec![0], vec![1], vec![]];
        let phases = [Phase::new("accept", secs(5)), Phase::new("close", None)];
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
        let phases = [Phase::new("accept", secs(6))];
        let graph = graph(&after, &[Some(0), None, Some(0)], &phases);
        let (graces, _) = share(&graph, &phases, secs(20), vec![None; 3]).unwrap();
        assert_eq!(graces, [secs(2); 3]);
    }

    #[test]
    fn a_phase_of_any_time_has_no_bound() {
        let phases = [Phase::new("accept", Duration::MAX)];
        let graph = graph(&[vec![]], &[Some(0)], &phases);
        let (graces, _) = share(&graph, &phases, secs(20), vec![None]).unwrap();
        assert_eq!(graces, [secs(20)]);
    }

    /// Every path down from a node that has no dependents, without the barriers.
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

    fn sum(chain: &[usize], graces: &[Ask], share: Share) -> Duration {
        let grace = |&node: &usize| match graces[node] {
            Ask::Grace(grace) => grace,
            Ask::Weight(weight) => share.of(weight),
        };
        chain.iter().map(grace).sum()
    }

    /// The share that each chain has room for, and the smallest of them. `None` if no component shares.
    fn smallest(chains: &[Vec<usize>], graces: &[Ask], limit: Duration) -> Option<Share> {
        let shares = chains.iter().filter_map(|chain| {
            let weights = chain.iter().map(|&node| match graces[node] {
                Ask::Grace(_) => 0,
                Ask::Weight(weight) => weight,
            });
            let weights: u32 = weights.sum();
            let left = limit.saturating_sub(sum(chain, graces, Share::NOTHING));
            (weights > 0).then_some(Share(left, weights))
        });
        shares.min_by_key(|Share(left, weights)| left.as_nanos() * 1_000_000 / u128::from(*weights))
    }

    prop_compose! {
        fn any_case()(
            given in vec((
                vec(any::<prop::sample::Index>(), 0..3),
                prop_oneof![
                    2 => (0..4_000_u64).prop_map(|micros| Ask::Grace(Duration::from_micros(micros))),
                    3 => (1..7_u32).prop_map(Ask::Weight),
                ],
                any::<bool>(),
            ), 1..10),
            budgets in vec(prop::option::weighted(0.6, 0..12_000_u64), 0..3),
            stop_time in 0..40_000_u64,
        ) -> (Graph, Vec<Phase>, Vec<Ask>, Duration) {
            let count = given.len();
            let phases: Vec<_> = budgets.iter().enumerate().map(|(index, budget)| {
                Phase::new(index.to_string(), budget.map(Duration::from_micros))
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
                graces.push(grace);
            }
            (graph(&after, &members, &phases), phases, graces, Duration::from_micros(stop_time))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Compares with all chains, one by one.
        #[test]
        fn no_chain_is_too_long_and_the_share_is_the_largest(
            (graph, phases, asked, stop_time) in any_case(),
        ) {
            let chains = all_chains(&graph);
            let mut graces = asked.clone();
            let result = super::share(&graph, &phases, stop_time, asked);

            let mut limits: Vec<_> = phases.iter().enumerate()
                .filter_map(|(index, phase)| Some((Some(index), phase.budget()?)))
                .collect();
            limits.push((None, stop_time));
            for (phase, limit) in limits {
                let parts: Vec<Vec<usize>> = match phase {
                    Some(phase) => chains.iter().map(|chain| within(&graph, chain, phase).to_vec()).collect(),
                    None => chains.clone(),
                };
                let misfit = |nothing: bool| {
                    let misfit = result.as_ref().err();
                    misfit.is_some_and(|it| (it.phase, it.nothing_for.is_some()) == (phase, nothing))
                };
                if parts.iter().any(|chain| sum(chain, &graces, Share::NOTHING) > limit) {
                    prop_assert!(misfit(false), "{result:?}");
                    let sum: Duration = result.unwrap_err().chain.iter().map(|(_, grace)| *grace).sum();
                    prop_assert!(sum > limit);
                    return Ok(());
                }
                let Some(smallest) = smallest(&parts, &graces, limit) else {
                    continue;
                };
                let shared: Vec<_> = parts.iter().flatten().copied()
                    .filter_map(|node| match graces[node] {
                        Ask::Grace(_) => None,
                        Ask::Weight(weight) => Some((node, weight)),
                    })
                    .collect();
                match &result {
                    Ok((result, _)) => {
                        for (node, weight) in shared {
                            // Rounding down may leave room for a little more.
                            prop_assert!(result[node] >= smallest.of(weight));
                            graces[node] = Ask::Grace(result[node]);
                        }
                        for chain in &parts {
                            prop_assert!(sum(chain, &graces, Share::NOTHING) <= limit);
                        }
                    }
                    Err(_) if misfit(true) => {
                        let node = result.unwrap_err().nothing_for.unwrap();
                        let weight = shared.iter().find(|(shared, _)| *shared == node).unwrap().1;
                        prop_assert!(smallest.of(weight).is_zero());
                        return Ok(());
                    }
                    // It does not fit in a later phase, and the graces shared so far are not visible.
                    Err(_) => return Ok(()),
                }
            }
            let (result, longest) = result.unwrap();
            for (grace, result) in graces.iter().zip(&result) {
                prop_assert!(matches!(grace, Ask::Grace(grace) if grace == result));
            }
            let weights = chains.iter().map(|chain| sum(chain, &graces, Share::NOTHING));
            prop_assert_eq!(Some(sum(&longest, &graces, Share::NOTHING)), weights.max());
            let on_one = |chain: &Vec<usize>| {
                let mut rest = chain.iter();
                longest.iter().all(|node| rest.any(|other| other == node))
            };
            prop_assert!(chains.iter().any(on_one), "the longest chain is one");
        }
    }
}
