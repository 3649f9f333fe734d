//! [`Plan`]: what is going to happen, before it does.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use super::budget::Budget;
use super::graph::Graph;
use super::graph::Place;
use super::phase::Phase;
use super::plan_error::Kind as Error;
use super::plan_error::Limit;
use super::plan_error::Part;
use super::plan_error::Parts;
use super::plan_error::PlanError;

mod graces;
mod text;

/// What a lifecycle is going to do: who starts after whom, who stops before whom, and the time that
/// each has; plain data, made and checked before anything is started.
///
/// # The graces
///
/// A component that asks for a grace gets it; with zero it is told to stop and forced at once. The others
/// share evenly what is left. The largest share is taken with which every chain of components that stop
/// one after another fits into the [stop time](Budget::stop_time), in whole milliseconds. In a
/// [phase with a budget](Phase::budget) they share that one, and the phase counts as it is. So if
/// nobody overruns his grace, nobody has less of it; and no order of overruns makes the stop take longer
/// than its budget.
///
/// # The text
///
/// A plan prints as a text that is the same each time, with a line for each component. It does not end
/// in a line break. Components are numbered: what has one number starts, or stops, at the same time,
/// unless something before it takes longer. In fact nothing waits for a number: a component starts when all
/// it is `after` are ready, and is told to stop when all that are after it, and the phases before its
/// own, have ended. Nested lifecycles follow, each below its path. Whatever would break a line is a space.
///
/// ```text
/// orders: 4 components, budget 28s (Kubernetes' terminationGracePeriodSeconds: 30s)
///
/// start
///   1  database  resource  within 30s
///   2  grpc                within 30s  after database
///      worker              within 30s  after database
///   3  http                within 30s  after grpc
///
/// stop
///      lame duck 5s: not ready, still serving
///   1  http      within 10s
///      worker    within 6s
///   2  grpc      within 6s
///   3  database  within 6s
///      margin 1s: to end what was forced, and to report
///
/// longest chain http → grpc → database: 22s of 22s
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    name: Cow<'static, str>,
    /// In the order in which they were added, as the graph has them.
    components: Vec<PlannedComponent>,
    phases: Vec<Phase>,
    budget: Budget,
    graph: Graph,
    /// The components that decide how long the stop may take.
    chain: Vec<usize>,
}

/// One component of a [`Plan`].
#[derive(Clone, Debug)]
pub struct PlannedComponent {
    name: Cow<'static, str>,
    kind: Kind,
    after: Vec<Cow<'static, str>>,
    phase: Option<Cow<'static, str>>,
    grace: Duration,
    start_timeout: Duration,
    start_level: usize,
    stop_level: usize,
    drains: bool,
    nested: Option<Plan>,
}

/// What a component says about itself.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: Cow<'static, str>,
    pub(super) after: Vec<Cow<'static, str>>,
    pub(super) phase: Option<Cow<'static, str>>,
    pub(super) grace: Option<Duration>,
    pub(super) start_timeout: Duration,
    pub(super) drains: bool,
    pub(super) nested: Option<Plan>,
    pub(super) kind: Kind,
}

/// What a component is, as the plan shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Component,
    Resource,
    Job,
    Lifecycle,
}

impl Plan {
    /// Makes the plan of components in the order in which they were added, and of phases in the order
    /// in which they stop.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        nodes: Vec<Node>,
        phases: Vec<Phase>,
        budget: Budget,
    ) -> Result<Self, PlanError> {
        let name = name.into();
        check_name(&name)?;
        let places: Vec<_> = nodes.iter().map(Node::place).collect();
        let graph = Graph::new(&places, &phases)?;
        nodes.iter().try_for_each(|node| node.check(&budget))?;
        check_budget(&budget)?;

        let asked = nodes.iter().map(Node::asked).collect();
        let shared = graces::share(&graph, &phases, budget.stop_time(), asked);
        let (graces, chain) = shared.map_err(|misfit| explain(misfit, &nodes, &phases, &budget))?;
        if budget.total() < budget.kept() {
            let limit = whole(&budget);
            let parts = parts(&budget, Vec::new());
            return Err(Error::OverBudget { limit, parts }.into());
        }
        let components = nodes.into_iter().zip(graces).enumerate();
        let components =
            components.map(|(index, (node, grace))| node.planned(index, grace, &graph));
        Ok(Self {
            name,
            components: components.collect(),
            phases,
            budget,
            graph,
            chain,
        })
    }

    /// Returns the name of the lifecycle.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the components in the order in which they start; those that start at the same time as
    /// they were added.
    pub fn components(&self) -> impl Iterator<Item = &PlannedComponent> {
        self.graph
            .start_order()
            .map(|index| &self.components[index])
    }

    /// Returns the budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the phases in the order in which they stop.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Returns the components that stop one after another and have the most time together, in the order
    /// in which they stop: to make the stop shorter, begin with them.
    pub fn longest_chain(&self) -> impl Iterator<Item = &PlannedComponent> {
        self.chain.iter().map(|&index| &self.components[index])
    }

    /// The graph, whose components are those of [`added`](Self::added).
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The components in the order in which they were added.
    pub(super) fn added(&self) -> &[PlannedComponent] {
        &self.components
    }
}

impl PlannedComponent {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it starts after and stops before, each once, as it was named.
    pub fn after(&self) -> impl Iterator<Item = &str> {
        self.after.iter().map(|name| &**name)
    }

    /// Returns the name of its phase, if it is in one.
    #[must_use]
    pub fn phase(&self) -> Option<&str> {
        self.phase.as_deref()
    }

    /// Returns how long it may take to stop.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Returns how long it may take to become ready.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.start_timeout
    }

    /// Returns how many components start one after another up to this one, from 1 upwards.
    #[must_use]
    pub fn start_level(&self) -> usize {
        self.start_level
    }

    /// Returns how many components stop one after another up to this one, from 1 upwards.
    #[must_use]
    pub fn stop_level(&self) -> usize {
        self.stop_level
    }

    /// Returns whether it drains in the first phase of a two-phase stop.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// Returns the plan of the lifecycle that it is, if it is one.
    #[must_use]
    pub fn nested(&self) -> Option<&Plan> {
        self.nested.as_ref()
    }
}

impl Node {
    fn place(&self) -> Place<'_> {
        Place {
            name: &self.name,
            after: &self.after,
            phase: self.phase.as_deref(),
        }
    }

    fn check(&self, budget: &Budget) -> Result<(), PlanError> {
        let component = || self.name.to_string();
        if self.start_timeout.is_zero() {
            return Err(Error::ZeroStartTimeout {
                component: component(),
            }
            .into());
        }
        if self.drains && budget.drain_time().is_zero() {
            return Err(Error::NoDrainTime {
                component: component(),
            }
            .into());
        }
        match (self.grace, &self.nested) {
            (Some(grace), Some(nested)) if grace < nested.budget.total() => {
                Err(Error::NestedGrace {
                    component: component(),
                    grace,
                    total: nested.budget.total(),
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    /// The grace that it asks for: a lifecycle for its budget.
    fn asked(&self) -> Option<Duration> {
        let nested = self.nested.as_ref();
        self.grace.or_else(|| Some(nested?.budget.total()))
    }

    fn planned(self, index: usize, grace: Duration, graph: &Graph) -> PlannedComponent {
        let mut after = self.after;
        // The graph has found out whether a name is there twice.
        let in_phase = usize::from(graph.phases[index].is_some());
        if after.len() > graph.dependencies[index].len() - in_phase {
            let mut seen = HashSet::new();
            after.retain(|name| seen.insert(name.clone()));
        }
        PlannedComponent {
            name: self.name,
            kind: self.kind,
            after,
            phase: self.phase,
            grace,
            start_timeout: self.start_timeout,
            start_level: graph.start_levels[index],
            stop_level: graph.stop_levels[index],
            drains: self.drains,
            nested: self.nested,
        }
    }
}

fn check_name(name: &str) -> Result<(), PlanError> {
    if name.is_empty() {
        return Err(Error::EmptyName.into());
    }
    if name.contains('/') {
        let name = name.to_owned();
        return Err(Error::Slash { name }.into());
    }
    Ok(())
}

fn check_budget(budget: &Budget) -> Result<(), PlanError> {
    let total = budget.total();
    if let Some(invalid) = budget.invalid_variable() {
        return Err(Error::InvalidVariable(invalid.clone()).into());
    }
    if total.is_zero() {
        return Err(Error::ZeroBudget.into());
    }
    if let Some((platform, limit)) = budget.platform_limit() {
        if total >= limit {
            return Err(Error::OverPlatform {
                total,
                platform: platform.to_owned(),
                limit,
            }
            .into());
        }
    }
    Ok(())
}

fn explain(misfit: graces::Misfit, nodes: &[Node], phases: &[Phase], budget: &Budget) -> PlanError {
    let name = |index: usize| nodes[index].name.to_string();
    let chain = misfit.chain.into_iter();
    let chain = chain.map(|(index, grace)| Part::Component(name(index), grace));
    let chain = chain.collect();
    let (limit, parts) = match misfit.phase.map(|index| &phases[index]) {
        Some(phase) => {
            let limit = Limit {
                time: phase.budget_time().unwrap_or(Duration::MAX),
                phase: Some(phase.name().to_owned()),
            };
            (limit, Parts(chain))
        }
        None => (whole(budget), parts(budget, chain)),
    };
    // What is kept may be too much by itself.
    let fits = misfit.phase.is_some() || budget.kept() <= budget.total();
    match misfit.nothing_for.filter(|_| fits).map(name) {
        Some(component) => Error::NothingLeft {
            limit,
            component,
            parts,
        },
        None => Error::OverBudget { limit, parts },
    }
    .into()
}

fn whole(budget: &Budget) -> Limit {
    Limit {
        time: budget.total(),
        phase: None,
    }
}

/// All parts of a budget, in the order of a stop.
fn parts(budget: &Budget, chain: Vec<Part>) -> Parts {
    let before = [
        ("jitter", budget.jitter_time()),
        ("lame duck", budget.lame_duck_time()),
        ("drain", budget.drain_time()),
    ];
    let after = [
        ("cleanup", budget.cleanup_time()),
        ("margin", budget.margin()),
    ];
    let kept = |(name, time): (&'static str, Duration)| {
        (!time.is_zero()).then_some(Part::Kept(name, time))
    };
    let before = before.into_iter().filter_map(kept);
    let after = after.into_iter().filter_map(kept);
    Parts(before.chain(chain).chain(after).collect())
}
