//! The order of the start and of the stop: the components and their phases as a graph.
//!
//! Invariants:
//! 1. The dependencies of a node are ready before it starts, and are told to stop only after it has ended.
//!    An edge stands for both, so there is one graph.
//! 2. The nodes below `components` are the components as they were added. After them comes one barrier for
//!    each phase, in the order in which the phases stop. A barrier does nothing and takes no time.
//! 3. Components of phase k depend on barrier k. Barrier k depends on the components of phase k + 1, and on
//!    barrier k + 1. So a phase costs as many edges as it has components, instead of a product.
//! 4. The graph has no cycles and no duplicate edges.
//! 5. Only [`Turns`] decides in which order nodes come. The levels of a plan, the chains of its budget and
//!    the run itself all follow it, so the printed order is the order of the run.
//!
//! The algorithms take time and memory linear in nodes and edges, and none is recursive.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use super::phase::Phase;
use crate::lifecycle::plan::error::Kind;
use crate::lifecycle::plan::error::Member;
use crate::lifecycle::plan::error::Names;
use crate::lifecycle::plan::error::PlanError;
use crate::lifecycle::provided::Value;

/// The place of a component, as the component declares it.
#[derive(Clone, Copy, Debug)]
pub(in crate::lifecycle) struct Place<'a> {
    pub(in crate::lifecycle) name: &'a str,
    pub(in crate::lifecycle) after: &'a [Cow<'static, str>],
    pub(in crate::lifecycle) uses: &'a [Value],
    pub(in crate::lifecycle) provides: &'a [Value],
    pub(in crate::lifecycle) phase: Option<&'a str>,
    /// The component was stopped alone while the rest went on. Its name is free again.
    pub(in crate::lifecycle) gone: bool,
}

/// Tells when the turn of each node comes: when all nodes before it are done, directly or through others.
///
/// A node may be done before its turn, such as a job that has ended or a component that has failed. The
/// nodes behind it still wait for those before it, so no turn comes early.
#[derive(Debug)]
pub(in crate::lifecycle) struct Turns {
    /// How many direct predecessors of the node are not done, or are still waiting for their own turn.
    waits_for: Vec<usize>,
    done: Vec<bool>,
}

impl Turns {
    /// `before` has the direct predecessors of each node.
    pub(in crate::lifecycle) fn new(before: &[Vec<usize>]) -> Self {
        Self {
            waits_for: before.iter().map(Vec::len).collect(),
            done: vec![false; before.len()],
        }
    }

    /// Resumes in the middle of the order, with the nodes that are done by now.
    pub(in crate::lifecycle) fn resumed(
        before: &[Vec<usize>],
        after: &[Vec<usize>],
        is_done: impl Fn(usize) -> bool,
    ) -> Self {
        let mut turns = Self::new(before);
        // A node whose turn comes by that has already had it.
        let mut had = Vec::new();
        for node in (0..before.len()).filter(|&node| is_done(node)) {
            turns.done(node, after, &mut had);
        }
        turns
    }

    /// Whether all nodes before this one are done.
    pub(in crate::lifecycle) fn has_come(&self, node: usize) -> bool {
        self.waits_for[node] == 0
    }

    pub(in crate::lifecycle) fn is_done(&self, node: usize) -> bool {
        self.done[node]
    }

    /// Marks a node as done, and adds the nodes whose turn it is now to `next`.
    ///
    /// `after` has the direct successors of each node. Each edge is looked at once.
    pub(in crate::lifecycle) fn done(
        &mut self,
        node: usize,
        after: &[Vec<usize>],
        next: &mut Vec<usize>,
    ) {
        self.done[node] = true;
        let mut passed = Vec::new();
        let mut passes = self.has_come(node).then_some(node);
        while let Some(node) = passes {
            for &behind in &after[node] {
                self.waits_for[behind] -= 1;
                match self.waits_for[behind] {
                    0 if self.done[behind] => passed.push(behind),
                    0 => next.push(behind),
                    _ => {}
                }
            }
            passes = passed.pop();
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// How many of the nodes are components. The others are barriers.
    pub(in crate::lifecycle) components: usize,
    /// The dependencies of each node: the named ones, then the providers of its values, then its barrier.
    pub(in crate::lifecycle) dependencies: Vec<Vec<usize>>,
    /// The dependents of each node.
    pub(crate) dependents: Vec<Vec<usize>>,
    /// All nodes, dependencies first. They are sorted by level. Within a level, the components come as they
    /// were added, and then the barriers.
    pub(crate) order: Vec<usize>,
    /// How many components start one after another up to this one, from 1 upwards. A barrier has the level
    /// of the last component before it, or 0.
    pub(in crate::lifecycle) start_levels: Vec<usize>,
    /// The level of each node in the stop.
    pub(in crate::lifecycle) stop_levels: Vec<usize>,
    /// The phase of each component, as an index.
    pub(in crate::lifecycle) phases: Vec<Option<usize>>,
    /// The values that no component provides, each with the first component that uses it.
    pub(in crate::lifecycle) not_provided: Vec<(usize, Value)>,
}

impl Graph {
    /// Makes the graph of components in the order in which they were added, and of phases in the order in
    /// which they stop.
    pub(in crate::lifecycle) fn new(
        places: &[Place<'_>],
        phases: &[Phase],
    ) -> Result<Self, PlanError> {
        let phase_indices = phase_indices(phases)?;
        let indices = component_indices(places)?;
        let members = places
            .iter()
            .map(|place| phase_of(place, &phase_indices, phases))
            .collect::<Result<Vec<_>, _>>()?;
        let mut dependencies = named_dependencies(places, &indices)?;
        let not_provided = add_values(&mut dependencies, places)?;
        add_barriers(&mut dependencies, &members, phases.len());

        let mut dependents = vec![Vec::new(); dependencies.len()];
        for (node, needed) in dependencies.iter().enumerate() {
            for &dependency in needed {
                dependents[dependency].push(node);
            }
        }
        let order = topological_order(&dependencies, &dependents);
        if order.len() < dependencies.len() {
            let path = cycle(&dependencies, &order);
            let path = path.into_iter().map(|node| member(node, places, phases));
            return Err(Kind::Cycle {
                path: path.collect(),
            }
            .into());
        }

        let components = places.len();
        let start_levels = levels(components, order.iter().copied(), &dependencies);
        let stop_levels = levels(components, order.iter().rev().copied(), &dependents);
        Ok(Self {
            components,
            order: by_level(components, &order, &start_levels),
            dependencies,
            dependents,
            start_levels,
            stop_levels,
            phases: members,
            not_provided,
        })
    }

    /// Returns whether the node is a component and not a barrier.
    pub(in crate::lifecycle) fn is_component(&self, node: usize) -> bool {
        node < self.components
    }

    /// Returns the node and its dependents, directly or through others.
    pub(in crate::lifecycle) fn users_of(&self, node: usize) -> Vec<usize> {
        let mut users = vec![node];
        let mut seen = HashSet::from([node]);
        let mut at = 0;
        while let Some(&used) = users.get(at) {
            at += 1;
            let next = self.dependents[used].iter().copied();
            users.extend(next.filter(|&user| seen.insert(user)));
        }
        users
    }

    /// Returns the components in the order in which they start.
    pub(in crate::lifecycle) fn start_order(&self) -> impl DoubleEndedIterator<Item = usize> {
        let order = self.order.iter().copied();
        order.filter(|&node| self.is_component(node))
    }

    /// Returns the components in the order in which they stop: by level, and then as they were added.
    pub(in crate::lifecycle) fn stop_order(&self) -> Vec<usize> {
        by_level(self.components, &[], &self.stop_levels)
    }
}

fn phase_indices(phases: &[Phase]) -> Result<HashMap<&str, usize>, PlanError> {
    let mut indices = HashMap::with_capacity(phases.len());
    for (index, phase) in phases.iter().enumerate() {
        if phase.name().is_empty() {
            return Err(Kind::EmptyPhase.into());
        }
        if indices.insert(phase.name(), index).is_some() {
            let phase = phase.name().to_owned();
            return Err(Kind::DuplicatePhase { phase }.into());
        }
    }
    Ok(indices)
}

fn component_indices<'a>(places: &[Place<'a>]) -> Result<HashMap<&'a str, usize>, PlanError> {
    let mut indices = HashMap::with_capacity(places.len());
    for (index, place) in places.iter().enumerate().filter(|(_, place)| !place.gone) {
        let component = || place.name.to_owned();
        if place.name.is_empty() {
            return Err(Kind::EmptyComponent.into());
        }
        if place.name.contains('/') {
            return Err(Kind::SlashInComponent {
                component: component(),
            }
            .into());
        }
        if indices.insert(place.name, index).is_some() {
            return Err(Kind::DuplicateComponent {
                component: component(),
            }
            .into());
        }
    }
    Ok(indices)
}

fn phase_of(
    place: &Place<'_>,
    indices: &HashMap<&str, usize>,
    phases: &[Phase],
) -> Result<Option<usize>, PlanError> {
    let Some(name) = place.phase else {
        return Ok(None);
    };
    let Some(&index) = indices.get(name) else {
        return Err(Kind::UnknownPhase {
            component: place.name.to_owned(),
            unknown: name.to_owned(),
            known: Names::of(phases.iter().map(Phase::name)),
        }
        .into());
    };
    Ok(Some(index))
}

fn named_dependencies(
    places: &[Place<'_>],
    indices: &HashMap<&str, usize>,
) -> Result<Vec<Vec<usize>>, PlanError> {
    // The last node that has named each, so that a duplicate name counts once.
    let mut named_by = vec![usize::MAX; places.len()];
    let mut dependencies = Vec::with_capacity(places.len());
    for (node, place) in places.iter().enumerate() {
        let mut needed = Vec::with_capacity(place.after.len());
        for name in place.after {
            let component = || place.name.to_owned();
            let Some(&dependency) = indices.get(&**name) else {
                let others = places.iter().filter(|other| !other.gone);
                let others = others.map(|other| other.name);
                let others = others.filter(|&other| other != place.name);
                return Err(Kind::UnknownDependency {
                    component: component(),
                    unknown: name.clone().into_owned(),
                    known: Names::of(others),
                }
                .into());
            };
            if dependency == node {
                return Err(Kind::DependsOnItself {
                    component: component(),
                }
                .into());
            }
            if named_by[dependency] != node {
                named_by[dependency] = node;
                needed.push(dependency);
            }
        }
        dependencies.push(needed);
    }
    Ok(dependencies)
}

/// Adds the providers of the values that each component uses. Returns the values that no component
/// provides.
fn add_values(
    dependencies: &mut [Vec<usize>],
    places: &[Place<'_>],
) -> Result<Vec<(usize, Value)>, PlanError> {
    let mut providers = HashMap::new();
    for (node, place) in places.iter().enumerate() {
        for value in place.provides {
            let Some(first) = providers.insert(value.address, node) else {
                continue;
            };
            return Err(Kind::TwoProviders {
                value: value.name.to_string(),
                first: places[first].name.to_owned(),
                second: place.name.to_owned(),
            }
            .into());
        }
    }
    let mut not_provided: Vec<(usize, Value)> = Vec::new();
    let mut seen = HashSet::new();
    for (node, place) in places.iter().enumerate() {
        if place.uses.is_empty() {
            continue;
        }
        let mut known: HashSet<_> = dependencies[node].iter().copied().collect();
        for value in place.uses {
            match providers.get(&value.address) {
                Some(&provider) if provider == node => {
                    return Err(Kind::DependsOnItself {
                        component: place.name.to_owned(),
                    }
                    .into());
                }
                Some(&provider) if known.insert(provider) => dependencies[node].push(provider),
                Some(_) => {}
                None if seen.insert(value.address) => not_provided.push((node, value.clone())),
                None => {}
            }
        }
    }
    Ok(not_provided)
}

/// Adds the barriers and their edges, see invariant 3.
fn add_barriers(dependencies: &mut Vec<Vec<usize>>, members: &[Option<usize>], phases: usize) {
    let components = members.len();
    dependencies.resize(components + phases, Vec::new());
    for (node, phase) in members.iter().enumerate() {
        let Some(phase) = *phase else { continue };
        dependencies[node].push(components + phase);
        if let Some(before) = phase.checked_sub(1) {
            dependencies[components + before].push(node);
        }
    }
    for phase in 1..phases {
        dependencies[components + phase - 1].push(components + phase);
    }
}

/// Orders the nodes so that each comes after its dependencies. The nodes of a cycle, and their dependents,
/// are left out.
fn topological_order(dependencies: &[Vec<usize>], dependents: &[Vec<usize>]) -> Vec<usize> {
    let mut turns = Turns::new(dependencies);
    let nodes = 0..dependencies.len();
    let mut order: Vec<_> = nodes.filter(|&node| turns.has_come(node)).collect();
    let mut at = 0;
    while let Some(&node) = order.get(at) {
        at += 1;
        turns.done(node, dependents, &mut order);
    }
    order
}

/// Finds a cycle among the nodes that are not in `order`. It is the shortest cycle through the member that
/// was added first, which is both the first and the last of the path.
fn cycle(dependencies: &[Vec<usize>], order: &[usize]) -> Vec<usize> {
    let mut stuck = vec![true; dependencies.len()];
    for &node in order {
        stuck[node] = false;
    }
    // Each stuck node depends on another stuck one, so the walk reaches a cycle and stays in it.
    let next = |node: usize| {
        let mut needed = dependencies[node].iter().copied();
        needed.find(|&dependency| stuck[dependency]).unwrap_or(node)
    };
    let mut node = stuck.iter().position(|&stuck| stuck).unwrap_or(0);
    let mut seen = vec![false; dependencies.len()];
    while !seen[node] {
        seen[node] = true;
        node = next(node);
    }
    let mut first = node;
    let mut at = next(node);
    while at != node {
        first = first.min(at);
        at = next(at);
    }

    let mut from = vec![usize::MAX; dependencies.len()];
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        for &dependency in &dependencies[node] {
            if stuck[dependency] && from[dependency] == usize::MAX {
                from[dependency] = node;
                queue.push_back(dependency);
            }
        }
        if from[first] != usize::MAX {
            break;
        }
    }
    let mut path = vec![first];
    let mut at = from[first];
    while at != first && at != usize::MAX {
        path.push(at);
        at = from[at];
    }
    path.push(first);
    path.reverse();
    path
}

fn member(node: usize, places: &[Place<'_>], phases: &[Phase]) -> Member {
    match places.get(node) {
        Some(place) => Member::Component(place.name.to_owned()),
        None => Member::Phase(phases[node - places.len()].name().to_owned()),
    }
}

/// The level of each node. In `order`, the nodes of `before` come first.
fn levels(
    components: usize,
    order: impl Iterator<Item = usize>,
    before: &[Vec<usize>],
) -> Vec<usize> {
    let mut levels = vec![0; before.len()];
    for node in order {
        let highest = before[node].iter().map(|&node| levels[node]).max();
        levels[node] = highest.unwrap_or(0) + usize::from(node < components);
    }
    levels
}

/// Sorts all components, and the barriers of `order`, by level.
fn by_level(components: usize, order: &[usize], levels: &[usize]) -> Vec<usize> {
    let highest = levels.iter().copied().max().unwrap_or(0);
    let barriers = order.iter().copied().filter(|&node| node >= components);
    // Components of one level never depend on each other, and its barriers may depend on both.
    let mut levelled = vec![Vec::new(); highest + 1];
    for node in (0..components).chain(barriers) {
        levelled[levels[node]].push(node);
    }
    levelled.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Given<'a> = (&'a str, &'a [&'a str], Option<&'a str>);

    fn graph(given: &[Given<'_>], phases: &[&str]) -> Result<Graph, PlanError> {
        let owned = |name: &&str| Cow::Owned((*name).to_owned());
        let after: Vec<Vec<_>> = given
            .iter()
            .map(|(_, after, _)| after.iter().map(owned).collect())
            .collect();
        let places: Vec<_> = given
            .iter()
            .zip(&after)
            .map(|(&(name, _, phase), after)| Place {
                name,
                after,
                uses: &[],
                provides: &[],
                gone: false,
                phase,
            })
            .collect();
        let phases: Vec<_> = phases
            .iter()
            .map(|name| Phase::new((*name).to_owned(), None))
            .collect();
        Graph::new(&places, &phases)
    }

    #[track_caller]
    fn refused(given: &[Given<'_>], phases: &[&str], message: &str) -> PlanError {
        let error = graph(given, phases).unwrap_err();
        assert_eq!(error.to_string(), message);
        error
    }

    #[test]
    fn dependencies_start_first_and_stop_last() {
        let graph = graph(
            &[
                ("http", &["grpc", "cache"], None),
                ("grpc", &["db"], None),
                ("db", &[], None),
                ("cache", &[], None),
                ("lone", &[], None),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(
            graph.dependencies,
            [vec![1, 3], vec![2], vec![], vec![], vec![]]
        );
        assert_eq!(
            graph.dependents,
            [vec![], vec![0], vec![1], vec![0], vec![]]
        );
        assert_eq!(graph.order, [2, 3, 4, 1, 0]);
        assert_eq!(graph.start_levels, [3, 2, 1, 1, 1]);
        assert_eq!(graph.stop_levels, [1, 2, 3, 2, 1]);
        assert_eq!(graph.stop_order(), [0, 4, 1, 3, 2]);
    }

    #[test]
    fn a_dependency_that_is_named_twice_counts_once() {
        let graph = graph(
            &[
                ("a", &["b", "c", "b"], None),
                ("b", &[], None),
                ("c", &["b"], None),
            ],
            &[],
        );
        let graph = graph.unwrap();
        assert_eq!(graph.dependencies, [vec![1, 2], vec![], vec![1]]);
        assert_eq!(graph.dependents, [vec![], vec![0, 2], vec![0]]);
    }

    #[test]
    fn a_phase_stops_before_the_next_and_starts_after_it() {
        let given: &[Given<'_>] = &[
            ("db", &[], Some("close")),
            ("http", &[], Some("accept")),
            ("grpc", &[], Some("accept")),
            ("lone", &[], None),
        ];
        let graph = graph(given, &["accept", "empty", "close"]).unwrap();
        let [accept, empty, close] = [4, 5, 6];
        assert_eq!(graph.dependencies[0], [close]);
        assert_eq!(graph.dependencies[1], [accept]);
        assert_eq!(graph.dependencies[accept], [empty]);
        assert_eq!(graph.dependencies[empty], [0, close]);
        assert_eq!(graph.dependencies[close], [0; 0]);
        assert_eq!(graph.order, [close, 0, 3, empty, accept, 1, 2]);
        assert_eq!(graph.start_levels, [1, 2, 2, 1, 1, 1, 0]);
        assert_eq!(graph.stop_levels, [2, 1, 1, 1, 1, 1, 2]);
        assert_eq!(graph.start_order().collect::<Vec<_>>(), [0, 3, 1, 2]);
        assert_eq!(graph.phases, [Some(2), Some(0), Some(0), None]);
    }

    #[test]
    fn without_components_there_is_nothing_to_order() {
        assert_eq!(graph(&[], &[]).unwrap().order, [0; 0]);
        assert_eq!(graph(&[], &["a", "b"]).unwrap().order, [1, 0]);
    }

    #[test]
    fn names_are_checked() {
        let refused = |given, phases, message| refused(given, phases, message);
        refused(&[("", &[], None)], &[], "a component has an empty name");
        let error = refused(
            &[("a/b", &[], None)],
            &[],
            "component `a/b` has a `/` in its name: paths are made with it",
        );
        assert_eq!(error.component(), Some("a/b"));
        let error = refused(
            &[("a", &[], None), ("a", &[], None)],
            &[],
            "two components have the name `a`",
        );
        assert!(error.is_duplicate());
        assert_eq!(error.component(), Some("a"));
        refused(&[], &[""], "a phase has an empty name");
        let error = refused(&[], &["x", "y", "x"], "two phases have the name `x`");
        assert!(error.is_duplicate());
        assert_eq!(error.component(), None);
    }

    #[test]
    fn an_unknown_name_is_reported_with_the_known_ones() {
        let given: &[Given<'_>] = &[
            ("database", &[], None),
            ("grpc", &[], None),
            ("http", &["databases"], None),
        ];
        let error = refused(
            given,
            &[],
            "component `http` depends on `databases`, which does not exist: there are `database`, `grpc`",
        );
        assert!(error.is_unknown());
        assert_eq!(error.component(), Some("http"));
        // A component is never suggested to itself.
        refused(
            &[("http", &["htxp"], None)],
            &[],
            "component `http` depends on `htxp`, which does not exist: there is none",
        );
        let error = refused(
            &[("http", &[], Some("Accepts"))],
            &["accept"],
            "component `http` is in phase `Accepts`, which does not exist: there is `accept`",
        );
        assert!(error.is_unknown());
        refused(
            &[("http", &[], Some("accept"))],
            &[],
            "component `http` is in phase `accept`, which does not exist: there is none",
        );
    }

    #[test]
    fn no_more_than_ten_names_are_listed() {
        let names: Vec<_> = (0..12).map(|index| index.to_string()).collect();
        let mut given: Vec<Given<'_>> = names.iter().map(|name| (&**name, &[][..], None)).collect();
        given.push(("http", &["x"], None));
        refused(
            &given,
            &[],
            "component `http` depends on `x`, which does not exist: there are `0`, `1`, `2`, `3`, `4`, \
             `5`, `6`, `7`, `8`, `9` and 2 more",
        );
    }

    #[test]
    fn a_cycle_is_shown_with_its_path() {
        let error = refused(
            &[("a", &["a"], None)],
            &[],
            "component `a` depends on itself",
        );
        assert!(error.is_cycle());
        assert_eq!(error.component(), Some("a"));

        let cycle: &[Given<'_>] = &[("a", &["b"], None), ("b", &["a"], None)];
        let error = refused(
            cycle,
            &[],
            "the components depend on each other in a cycle: `a` → `b` → `a`",
        );
        assert!(error.is_cycle());
        assert_eq!(error.component(), Some("a"));
    }

    #[test]
    fn a_detour_and_what_depends_on_a_cycle_are_no_part_of_it() {
        let given: &[Given<'_>] = &[
            ("top", &["d"], None),
            ("d", &["c"], None),
            ("a", &["long", "c"], None),
            ("long", &["c"], None),
            ("c", &["a", "base"], None),
            ("base", &[], None),
        ];
        refused(
            given,
            &[],
            "the components depend on each other in a cycle: `a` → `c` → `a`",
        );
    }

    #[test]
    fn a_phase_in_a_cycle_is_shown_as_one() {
        let error = refused(
            &[
                ("db", &["http"], Some("close")),
                ("http", &[], Some("accept")),
            ],
            &["accept", "close"],
            "the components depend on each other in a cycle: `db` → `http` → phase `accept` → `db`",
        );
        assert_eq!(error.component(), Some("db"));
    }

    #[test]
    fn a_long_chain_a_star_and_a_long_cycle_are_no_problem() {
        const COUNT: usize = 100_000;
        let names: Vec<String> = (0..COUNT).map(|index| index.to_string()).collect();
        let name = |index: usize| vec![Cow::Owned(index.to_string())];
        let build = |after: &[Vec<Cow<'static, str>>]| {
            let places = names.iter().zip(after);
            let places = places.map(|(name, after)| Place {
                gone: false,
                name,
                after,
                uses: &[],
                provides: &[],
                phase: None,
            });
            Graph::new(&places.collect::<Vec<_>>(), &[])
        };

        let mut after: Vec<_> = (0..COUNT)
            .map(|index| index.checked_sub(1).map(name).unwrap_or_default())
            .collect();
        let chain = build(&after).unwrap();
        assert_eq!(chain.start_levels[COUNT - 1], COUNT);
        assert_eq!(chain.stop_levels[0], COUNT);

        after[0] = name(COUNT - 1);
        assert!(build(&after).unwrap_err().is_cycle());

        let star: Vec<_> = (0..COUNT)
            .map(|index| if index == 0 { Vec::new() } else { name(0) })
            .collect();
        let star = build(&star).unwrap();
        assert_eq!(star.dependents[0].len(), COUNT - 1);
        assert_eq!(star.start_levels[COUNT - 1], 2);
    }

    /// The name as a number, the names it is after, and the phase.
    type Numbered = (usize, Vec<usize>, Option<usize>);

    /// Components that may depend on those before them, in a random order of names. The phases fit, since
    /// dependents stop earlier.
    fn any_graph() -> impl Strategy<Value = (Vec<Numbered>, usize)> {
        let component = (
            vec(any::<prop::sample::Index>(), 0..4),
            any::<prop::sample::Index>(),
            any::<bool>(),
        );
        (vec(component, 1..30), 0..4_usize).prop_flat_map(|(given, phases)| {
            let count = given.len();
            let given: Vec<_> = given
                .into_iter()
                .enumerate()
                .map(|(at, (after, _, in_phase))| {
                    let after = match at {
                        0 => Vec::new(),
                        at => after.into_iter().map(|index| index.index(at)).collect(),
                    };
                    // Later ones stop earlier.
                    let phase = (in_phase && phases > 0).then(|| phases - 1 - at * phases / count);
                    (at, after, phase)
                })
                .collect();
            (Just(given).prop_shuffle(), Just(phases))
        })
    }

    fn build(given: &[Numbered], phases: usize) -> Result<Graph, PlanError> {
        let name = |at: &usize| Cow::Owned(at.to_string());
        let after: Vec<Vec<_>> = given
            .iter()
            .map(|(_, after, _)| after.iter().map(name).collect())
            .collect();
        let names: Vec<_> = given.iter().map(|(at, ..)| at.to_string()).collect();
        let phase_names: Vec<_> = (0..phases).map(|phase| phase.to_string()).collect();
        let places: Vec<_> = (0..given.len())
            .map(|index| Place {
                gone: false,
                name: &names[index],
                after: &after[index],
                uses: &[],
                provides: &[],
                phase: given[index].2.map(|phase| &*phase_names[phase]),
            })
            .collect();
        let phases: Vec<_> = phase_names
            .iter()
            .cloned()
            .map(|name| Phase::new(name, None))
            .collect();
        Graph::new(&places, &phases)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_respects_all_edges_and_all_phases((given, phases) in any_graph()) {
            let graph = build(&given, phases).unwrap();
            let mut place = vec![usize::MAX; graph.order.len()];
            for (at, &node) in graph.order.iter().enumerate() {
                place[node] = at;
            }
            prop_assert_eq!(graph.order.len(), given.len() + phases);
            prop_assert!(place.iter().all(|&at| at != usize::MAX));
            for (node, needed) in graph.dependencies.iter().enumerate() {
                for &dependency in needed {
                    prop_assert!(place[dependency] < place[node]);
                    prop_assert!(graph.dependents[dependency].contains(&node));
                    let step = usize::from(graph.is_component(node));
                    prop_assert!(graph.start_levels[dependency] + step <= graph.start_levels[node]);
                    let step = usize::from(graph.is_component(dependency));
                    prop_assert!(graph.stop_levels[node] + step <= graph.stop_levels[dependency]);
                }
            }
            let edges = |edges: &[Vec<usize>]| edges.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(edges(&graph.dependencies), edges(&graph.dependents));

            let index: HashMap<_, _> = given.iter().enumerate().map(|(index, given)| (given.0, index)).collect();
            let started: Vec<_> = graph.start_order().collect();
            let mut stopped = graph.stop_order();
            stopped.reverse();
            for order in [started, stopped] {
                prop_assert_eq!(order.len(), given.len());
                let mut at = vec![0; given.len()];
                for (turn, &component) in order.iter().enumerate() {
                    at[component] = turn;
                }
                for (component, (_, after, phase)) in given.iter().enumerate() {
                    prop_assert!(after.iter().all(|name| at[index[name]] < at[component]));
                    for (other, (_, _, others)) in given.iter().enumerate() {
                        if let (Some(phase), Some(others)) = (phase, others) {
                            prop_assert!(phase >= others || at[component] > at[other]);
                        }
                    }
                }
            }
        }

        #[test]
        fn an_edge_back_is_refused_and_the_path_is_a_real_cycle(
            (mut given, phases) in any_graph(),
            from in any::<prop::sample::Index>(),
        ) {
            // From a component to a direct or indirect dependent.
            let before = build(&given, phases).unwrap();
            let from = from.index(given.len());
            let mut to = from;
            while let Some(&above) = before.dependents[to].last() {
                to = above;
            }
            prop_assume!(before.is_component(to) && to != from);
            let name = given[to].0;
            given[from].1.push(name);

            let error = build(&given, phases).unwrap_err();
            prop_assert!(error.is_cycle());
            let text = error.to_string();
            let (_, path) = text.split_once(": ").unwrap();
            let path: Vec<_> = path.split(" → ").collect();
            prop_assert!(path.len() > 2);
            prop_assert_eq!(path.first(), path.last());
            prop_assert_eq!(path[0].trim_matches('`'), error.component().unwrap());
            let unique: HashSet<_> = path.iter().collect();
            prop_assert_eq!(unique.len(), path.len() - 1, "nothing but the first is there twice");
            for step in path.windows(2) {
                prop_assert!(depends(&given, step[0], step[1]), "{} → {} in {}", step[0], step[1], text);
            }
        }
    }

    /// Whether some member of a path depends on the next one.
    fn depends(given: &[Numbered], from: &str, to: &str) -> bool {
        let number = |text: &str| -> usize {
            text.rsplit(' ')
                .next()
                .unwrap()
                .trim_matches('`')
                .parse()
                .unwrap()
        };
        let find = |text: &str| given.iter().find(|given| given.0 == number(text)).unwrap();
        match (from.starts_with("phase"), to.starts_with("phase")) {
            (false, false) => find(from).1.contains(&number(to)),
            (false, true) => find(from).2 == Some(number(to)),
            (true, false) => find(to).2 == Some(number(from) + 1),
            (true, true) => number(from) + 1 == number(to),
        }
    }
}
