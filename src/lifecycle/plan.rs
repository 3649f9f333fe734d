//! [`Plan`]: what a lifecycle is going to do.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use super::provided::Value;
use crate::lifecycle::plan::budget::Budget;
use crate::lifecycle::plan::error::Kind as Error;
use crate::lifecycle::plan::error::Limit;
use crate::lifecycle::plan::error::Part;
use crate::lifecycle::plan::error::Parts;
use crate::lifecycle::plan::error::PlanError;
use crate::lifecycle::plan::graph::Graph;
use crate::lifecycle::plan::graph::Place;
use crate::lifecycle::plan::phase::Phase;

use self::check::{check_budget, check_name, parts, whole};
use self::graces::Ask;

pub(super) mod phase;
pub(super) mod budget;
pub(super) mod error;
mod check;
pub(super) mod graph;
mod graces;
mod text;

/// What a lifecycle is going to do: the order of the start and of the stop, and the time that each
/// component has.
/// It is plain data, made and checked before anything is started.
///
/// A clone is a copy. Making, cloning or dropping a plan has no side effects.
///
/// # The graces
///
/// A component that asks for a grace gets it. With a grace of zero it is told to stop and forced at once.
///
/// The other components share the rest by weight. A resource or a job has weight 1, any other component 3,
/// or 6 if nothing stops before it, because callers wait for those. Each share is the largest with which
/// every chain of components that stop one after another fits into the [stop time](Budget::stop_time), in
/// whole milliseconds. In a [phase with a budget](super::Lifecycle::phase) the components share that budget instead.
/// So even if every component takes its whole grace, the last one has ended when the stop time is over.
///
/// # The text
///
/// A plan prints with a line for each component and without a line break at the end. The same plan always
/// gives the same text. A nested lifecycle without a budget of its own is printed with the time that it
/// gets here. Line breaks within names are printed as spaces.
///
/// Components are numbered. Those with the same number start, or stop, at the same time, unless something
/// before them takes longer. The numbers only describe the order. In fact a component starts when all components it
/// is `after` are ready. It is told to stop when all that are after it, directly or through others, and the
/// phases before its own, have ended. Nested lifecycles follow, each below its path.
///
/// In the stop, each line says how long the component has once it is told. It also says by when the
/// component has ended at the latest, [counted from the begin of the stop](PlannedComponent::stops_by). A
/// request can take that long.
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
///   1  http      within 10s  by 15s
///      worker    within 18s  by 23s
///   2  grpc      within 9s   by 24s
///   3  database  within 3s   by 27s
///      margin 1s: to end what was forced, and to report
///
/// longest chain http → grpc → database: 22s of 22s
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    name: Cow<'static, str>,
    /// In the order in which they were added, as in the graph.
    components: Vec<PlannedComponent>,
    phases: Vec<Phase>,
    budget: Budget,
    graph: Graph,
    /// The components that decide how long the stop may take.
    chain: Vec<usize>,
    /// What the components provide.
    provided: Vec<Value>,
    /// Whether it can do with less than its budget. Then the budget is the default, and nothing in the plan asks
    /// for a time.
    yields: bool,
    /// Whether a component or a phase asks for a time.
    asks: bool,
}

/// One component of a [`Plan`].
#[derive(Clone, Debug)]
pub struct PlannedComponent {
    name: Cow<'static, str>,
    kind: Kind,
    after: Vec<Cow<'static, str>>,
    phase: Option<Cow<'static, str>>,
    grace: Duration,
    stops_by: Duration,
    start_timeout: Duration,
    start_level: usize,
    stop_level: usize,
    drains: bool,
    // Boxed, because a plan is large, rare, and moved with its component.
    nested: Option<Box<Plan>>,
    /// What the component has said about itself, to plan again when a component is added.
    asked: Option<Duration>,
    uses: Vec<Value>,
    provides: Vec<Value>,
}

/// What a component says about itself.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: Cow<'static, str>,
    pub(super) after: Vec<Cow<'static, str>>,
    pub(super) uses: Vec<Value>,
    pub(super) provides: Vec<Value>,
    pub(super) phase: Option<Cow<'static, str>>,
    pub(super) grace: Option<Duration>,
    pub(super) start_timeout: Duration,
    pub(super) drains: bool,
    pub(super) nested: Option<Box<Plan>>,
    pub(super) kind: Kind,
    /// The component was stopped alone, while the rest goes on.
    pub(super) gone: bool,
}

/// The kind of a component, as the plan shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Component,
    Resource,
    Job,
    Lifecycle,
}

impl Plan {
    /// Makes the plan of components in the order in which they were added, and of phases in the order in
    /// which they stop.
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

        let asked = nodes.iter().enumerate();
        let asked = asked.map(|(index, node)| node.asked(graph.stop_levels[index]));
        let shared = graces::share(&graph, &phases, budget.stop_time(), asked.collect());
        let (graces, chain) = shared.map_err(|misfit| explain(misfit, &nodes, &phases, &budget))?;
        if budget.total() < budget.kept() {
            let limit = whole(&budget);
            let parts = parts(&budget, Vec::new());
            return Err(Error::OverBudget { limit, parts }.into());
        }
        let asks =
            nodes.iter().any(Node::asks) || phases.iter().any(|phase| phase.budget().is_some());
        let provided = nodes.iter().flat_map(|node| node.provides.iter().cloned());
        let provided: Vec<_> = provided.collect();
        // The names of the components that provide what each component uses, if it uses anything.
        let names: Vec<_> = match provided.is_empty() {
            true => Vec::new(),
            false => nodes.iter().map(|node| node.name.clone()).collect(),
        };
        let nodes = nodes.into_iter().zip(&graces);
        let nodes = nodes.map(|(node, &grace)| node.within(grace));
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>()?;
        let ends = ends(&graph, &graces, budget.before_the_stop());
        let times = graces.into_iter().zip(ends);
        let components = nodes.into_iter().zip(times).enumerate();
        let components =
            components.map(|(index, (node, times))| node.planned(index, times, &graph, &names));
        Ok(Self {
            name,
            components: components.collect(),
            phases,
            budget,
            graph,
            chain,
            provided,
            yields: false,
            asks,
        })
    }

    /// Lets it do with less than its budget inside another lifecycle, if nothing in it asks for a time.
    pub(super) fn yielding(mut self) -> Self {
        self.yields = !self.asks;
        self
    }

    /// The plan of a lifecycle that yields, with the time that it really gets.
    ///
    /// If that time is too short to be shared, every component is told and forced at once.
    fn within(&self, total: Duration) -> Result<Self, PlanError> {
        let make = |grace: Option<Duration>, budget| {
            let nodes = self.components.iter().map(|planned| Node {
                grace,
                ..planned.node(false)
            });
            Self::new(
                self.name.clone(),
                nodes.collect(),
                self.phases.clone(),
                budget,
            )
        };
        let plan = match make(None, Budget::new(total)) {
            Err(error) if error.is_budget() => make(Some(Duration::ZERO), Budget::default()),
            plan => plan,
        };
        Ok(Self {
            budget: Budget::new(total),
            yields: true,
            ..plan?
        })
    }

    /// Makes the plan with one more component, and without the components that are gone.
    ///
    /// The graces are shared anew. The components keep their numbers, and the new one gets the last.
    pub(super) fn with(&self, node: Node, gone: &[bool]) -> Result<Self, PlanError> {
        let nodes = self.components.iter().enumerate();
        let nodes = nodes.map(|(index, planned)| planned.node(gone.get(index) == Some(&true)));
        let nodes = nodes.chain([node]).collect();
        let name = self.name.clone();
        let mut plan = Self::new(name, nodes, self.phases.clone(), self.budget.clone())?;
        plan.yields = self.yields;
        // The enclosing lifecycle still provides what it has provided so far.
        let outer = &self.graph.not_provided;
        let is_outer = |value: &Value| {
            outer
                .iter()
                .any(|(_, known)| known.address == value.address)
        };
        let mut missing = plan.graph.not_provided.iter();
        match missing.find(|(_, value)| !is_outer(value)) {
            Some((index, value)) => Err(Error::NotProvided {
                component: plan.components[*index].name.to_string(),
                value: value.name.to_string(),
            }
            .into()),
            None => Ok(plan),
        }
    }

    /// Returns an error if a component uses a value that no component provides.
    pub(super) fn complete(self) -> Result<Self, PlanError> {
        match self.graph.not_provided.first() {
            None => Ok(self),
            Some((index, value)) => Err(Error::NotProvided {
                component: self.components[*index].name.to_string(),
                value: value.name.to_string(),
            }
            .into()),
        }
    }

    /// The values that components use and no component provides.
    pub(super) fn not_provided(&self) -> impl Iterator<Item = &Value> {
        self.graph.not_provided.iter().map(|(_, value)| value)
    }

    /// The values that the components provide.
    pub(super) fn provided(&self) -> impl Iterator<Item = &Value> {
        self.provided.iter()
    }

    /// Returns the name of the lifecycle.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the components in the order in which they start. Those that start at the same time are in
    /// the order in which they were added.
    pub fn components(&self) -> impl Iterator<Item = &PlannedComponent> {
        self.graph
            .start_order()
            .map(|index| &self.components[index])
    }

    /// Returns the budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the names of the phases in the order in which they stop, each with its budget.
    pub fn phases(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        self.phases
            .iter()
            .map(|phase| (phase.name(), phase.budget()))
    }

    /// Returns the chain of components that stop one after another and take the most time together, in the
    /// order in which they stop. To make the stop shorter, begin with these.
    pub fn longest_chain(&self) -> impl Iterator<Item = &PlannedComponent> {
        self.chain.iter().map(|&index| &self.components[index])
    }

    /// The graph. Its components are those of [`added`](Self::added).
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The components in the order in which they were added.
    pub(crate) fn added(&self) -> &[PlannedComponent] {
        &self.components
    }
}

impl PlannedComponent {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the components that it starts after and stops before, each once. Those named by `after` come
    /// first, then the providers of the values that it uses.
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

    /// Returns how long after the begin of the stop the component has ended at the latest, if all that stop
    /// before it take their whole graces.
    ///
    /// A request that the component serves can take that long, including the jitter, the lame duck and the
    /// drain.
    #[must_use]
    pub fn stops_by(&self) -> Duration {
        self.stops_by
    }

    /// Returns how long it may take to become ready.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.start_timeout
    }

    /// Returns its level in the start: how many components start one after another up to this one, from 1
    /// upwards.
    #[must_use]
    pub fn start_level(&self) -> usize {
        self.start_level
    }

    /// Returns its level in the stop: how many components stop one after another up to this one, from 1
    /// upwards.
    #[must_use]
    pub fn stop_level(&self) -> usize {
        self.stop_level
    }

    /// Returns whether it drains in the first phase of a two-phase stop.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// Whether it is a resource, or a lifecycle that has one. Its users must not lose it.
    pub(super) fn has_resource(&self) -> bool {
        match &self.nested {
            Some(nested) => nested.components.iter().any(Self::has_resource),
            None => self.kind == Kind::Resource,
        }
    }

    /// Whether the lifecycle goes on while this component runs. Resources, and lifecycles of resources
    /// alone, do not count.
    pub(super) fn is_work(&self) -> bool {
        match &self.nested {
            Some(nested) => nested.components.iter().any(Self::is_work),
            None => self.kind != Kind::Resource,
        }
    }

    /// Returns the plan of the nested lifecycle, if the component is one.
    #[must_use]
    pub fn nested(&self) -> Option<&Plan> {
        self.nested.as_deref()
    }
}

impl PlannedComponent {
    /// What the component has said about itself, or almost nothing once it is gone.
    fn node(&self, gone: bool) -> Node {
        let (name, start_timeout, kind) = (self.name.clone(), self.start_timeout, self.kind);
        if gone {
            return Node {
                name,
                after: Vec::new(),
                uses: Vec::new(),
                provides: Vec::new(),
                phase: None,
                grace: Some(Duration::ZERO),
                start_timeout,
                drains: false,
                nested: None,
                kind,
                gone,
            };
        }
        Node {
            name,
            after: self.after.clone(),
            uses: self.uses.clone(),
            provides: self.provides.clone(),
            phase: self.phase.clone(),
            grace: self.asked,
            start_timeout,
            drains: self.drains,
            nested: self.nested.clone(),
            kind,
            gone,
        }
    }
}

impl Node {
    fn place(&self) -> Place<'_> {
        Place {
            name: &self.name,
            after: &self.after,
            uses: &self.uses,
            provides: &self.provides,
            phase: self.phase.as_deref(),
            gone: self.gone,
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
            (Some(grace), Some(nested)) if !nested.yields && grace < nested.budget.total() => {
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

    /// Whether the component asks for a time of its own.
    fn asks(&self) -> bool {
        self.grace.is_some() || self.nested.as_ref().is_some_and(|nested| !nested.yields)
    }

    /// Gives a lifecycle that yields the time that it really gets.
    fn within(mut self, grace: Duration) -> Result<Self, PlanError> {
        if let Some(nested) = self.nested.as_mut().filter(|nested| nested.yields) {
            **nested = nested.within(grace)?;
        }
        Ok(self)
    }

    /// The grace that it asks for. A lifecycle asks for the budget that was set for it, and any other
    /// component without a grace asks for a part of the rest.
    fn asked(&self, stop_level: usize) -> Ask {
        let nested = self.nested.as_ref().filter(|nested| !nested.yields);
        match self.grace.or_else(|| Some(nested?.budget.total())) {
            Some(grace) => Ask::Grace(grace),
            None => Ask::Weight(weight(self.kind, self.nested.as_deref(), stop_level)),
        }
    }

    fn planned(
        self,
        index: usize,
        (grace, stops_by): (Duration, Duration),
        graph: &Graph,
        names: &[Cow<'static, str>],
    ) -> PlannedComponent {
        let mut after = self.after;
        let in_phase = usize::from(graph.phases[index].is_some());
        let dependencies = &graph.dependencies[index];
        let dependencies = &dependencies[..dependencies.len() - in_phase];
        // The graph has checked for duplicate names.
        if after.len() > dependencies.len() || !self.uses.is_empty() {
            let mut seen = HashSet::new();
            after.retain(|name| seen.insert(name.clone()));
        }
        let of_values = dependencies[after.len()..].iter();
        after.extend(of_values.map(|&provider| names[provider].clone()));
        PlannedComponent {
            name: self.name,
            kind: self.kind,
            after,
            phase: self.phase,
            grace,
            stops_by,
            start_timeout: self.start_timeout,
            start_level: graph.start_levels[index],
            stop_level: graph.stop_levels[index],
            drains: self.drains,
            nested: self.nested,
            asked: self.grace,
            uses: self.uses,
            provides: self.provides,
        }
    }
}

/// The weight of a component. A lifecycle weighs as much as its longest chain.
fn weight(kind: Kind, nested: Option<&Plan>, stop_level: usize) -> u32 {
    let Some(nested) = nested.filter(|nested| nested.yields) else {
        return kind.weight(stop_level);
    };
    let chain = nested.longest_chain();
    let weights = chain.map(|inside| weight(inside.kind, inside.nested(), inside.stop_level));
    weights.sum::<u32>().max(1)
}

impl Kind {
    /// The weight of a component that asks for no grace.
    ///
    /// Closing a resource takes little time, and a job has ended by then. The others have work to finish.
    /// Callers wait for the components that stop first, so those weigh the most.
    fn weight(self, stop_level: usize) -> u32 {
        match (self, stop_level) {
            (Self::Resource | Self::Job, _) => 1,
            (Self::Component | Self::Lifecycle, 1) => 6,
            (Self::Component | Self::Lifecycle, _) => 3,
        }
    }
}

/// Returns by when each component has ended at the latest, if the first ones are told after `before`.
fn ends(graph: &Graph, graces: &[Duration], before: Duration) -> Vec<Duration> {
    let mut ends = vec![before; graph.order.len()];
    // The dependents of a node stop before it.
    for &node in graph.order.iter().rev() {
        let users = graph.dependents[node].iter().map(|&user| ends[user]);
        let told = users.max().unwrap_or(before);
        let grace = graces.get(node).copied().unwrap_or_default();
        ends[node] = told.saturating_add(grace);
    }
    ends
}

fn explain(misfit: graces::Misfit, nodes: &[Node], phases: &[Phase], budget: &Budget) -> PlanError {
    let name = |index: usize| nodes[index].name.to_string();
    let chain = misfit.chain.into_iter();
    let chain = chain.map(|(index, grace)| Part::Component(name(index), grace));
    let chain = chain.collect();
    let (limit, parts) = match misfit.phase.map(|index| &phases[index]) {
        Some(phase) => {
            let limit = Limit {
                time: phase.budget().unwrap_or(Duration::MAX),
                phase: Some(phase.name().to_owned()),
            };
            (limit, Parts(chain))
        }
        None => (whole(budget), parts(budget, chain)),
    };
    // The parts that are kept may already exceed the budget.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn node(name: &'static str, after: &[&'static str]) -> Node {
        Node {
            name: name.into(),
            after: after.iter().map(|&name| name.into()).collect(),
            uses: Vec::new(),
            provides: Vec::new(),
            phase: None,
            grace: None,
            start_timeout: secs(30),
            drains: false,
            nested: None,
            kind: Kind::Component,
            gone: false,
        }
    }

    impl Node {
        fn grace(self, seconds: u64) -> Self {
            Self {
                grace: Some(secs(seconds)),
                ..self
            }
        }

        fn phase(self, name: &'static str) -> Self {
            Self {
                phase: Some(name.into()),
                ..self
            }
        }

        fn kind(self, kind: Kind) -> Self {
            Self { kind, ..self }
        }

        fn drains(self) -> Self {
            Self {
                drains: true,
                ..self
            }
        }

        fn nested(self, plan: Plan) -> Self {
            Self {
                nested: Some(Box::new(plan)),
                ..self.kind(Kind::Lifecycle)
            }
        }
    }

    fn plan(nodes: Vec<Node>, budget: impl Into<Budget>) -> Result<Plan, PlanError> {
        Plan::new("orders", nodes, Vec::new(), budget.into())
    }

    #[track_caller]
    fn refused(nodes: Vec<Node>, budget: impl Into<Budget>, message: &str) -> PlanError {
        let error = plan(nodes, budget).unwrap_err();
        assert_eq!(error.to_string(), message);
        error
    }

    fn orders() -> Vec<Node> {
        vec![
            node("database", &[]).kind(Kind::Resource),
            node("http", &["grpc"]).grace(10),
            node("grpc", &["database"]),
            node("worker", &["database"]),
        ]
    }

    #[test]
    fn a_plan_prints_as_a_text() {
        let plan = plan(orders(), Budget::kubernetes()).unwrap();
        let text = "\
orders: 4 components, budget 28s (Kubernetes' terminationGracePeriodSeconds: 30s)

start
  1  database  resource  within 30s
  2  grpc                within 30s  after database
     worker              within 30s  after database
  3  http                within 30s  after grpc

stop
     lame duck 5s: not ready, still serving
  1  http      within 10s  by 15s
     worker    within 18s  by 23s
  2  grpc      within 9s   by 24s
  3  database  within 3s   by 27s
     margin 1s: to end what was forced, and to report

longest chain http → grpc → database: 22s of 22s";
        assert_eq!(plan.to_string(), text);
    }

    #[test]
    fn every_part_and_every_phase_is_in_the_text() {
        let budget = Budget::new(secs(60))
            .jitter(secs(2))
            .lame_duck(secs(5))
            .drain(secs(3))
            .cleanup(secs(4));
        let phases = vec![
            Phase::new("accept", secs(8)),
            Phase::new("work", None),
            Phase::new("close", None),
        ];
        let nodes = vec![
            node("db", &[]).phase("close").kind(Kind::Resource).grace(0),
            node("http", &["db"]).phase("accept").drains(),
            node("grpc", &["db"]).phase("accept").drains().grace(2),
            node("migrate", &["db", "db"]).kind(Kind::Job),
        ];
        let plan = Plan::new("orders", nodes, phases, budget).unwrap();
        let text = "\
orders: 4 components, budget 60s

start
  1  db       resource  within 30s
  2  http               within 30s  after db
     grpc               within 30s  after db
     migrate  job       within 30s  after db

stop
     jitter up to 2s: still ready
     lame duck 5s: not ready, still serving
     drain within 3s: 2 components at once
  1  http     within 8s   by 18s  phase accept (8s)  drains
     grpc     within 2s   by 12s  phase accept (8s)  drains
     migrate  within 45s  by 55s
  2  db       at once     by 55s  phase close
     cleanup within 4s
     margin 1s: to end what was forced, and to report

longest chain migrate → db: 45s of 45s";
        assert_eq!(plan.to_string(), text);
        assert_eq!(plan.phases().count(), 3);
    }

    #[test]
    fn a_nested_plan_is_indented_below_its_path() {
        let queue =
            Plan::new("queue", vec![node("consumer", &[])], vec![], secs(2).into()).unwrap();
        let mail = vec![node("smtp", &[]), node("queue", &["smtp"]).nested(queue)];
        let mail = Plan::new("mailer", mail, vec![], secs(5).into()).unwrap();
        let plan = plan(
            vec![node("mail", &[]).nested(mail), node("http", &["mail"])],
            secs(10),
        );
        let text = "\
orders: 2 components, budget 10s

start
  1  mail  lifecycle  within 30s
  2  http             within 30s  after mail

stop
  1  http  within 4s  by 4s
  2  mail  within 5s  by 9s
     margin 1s: to end what was forced, and to report

longest chain http → mail: 9s of 9s

  orders/mail: 2 components, budget 5s

  start
    1  smtp              within 30s
    2  queue  lifecycle  within 30s  after smtp

  stop
    1  queue  within 2s    by 2s
    2  smtp   within 2.5s  by 4.5s
       margin 500ms: to end what was forced, and to report

  longest chain queue → smtp: 4.5s of 4.5s

    orders/mail/queue: 1 component, budget 2s

    start
      1  consumer  within 30s

    stop
      1  consumer  within 1.8s  by 1.8s
         margin 200ms: to end what was forced, and to report

    longest chain consumer: 1.8s of 1.8s";
        assert_eq!(plan.unwrap().to_string(), text);
    }

    #[test]
    fn many_components_keep_their_columns_and_a_long_chain_is_cut() {
        const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        let nodes = (0..12).map(|index| node(NAMES[index], &NAMES[index.saturating_sub(1)..index]));
        let text = plan(nodes.collect(), secs(13)).unwrap().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[3], "   1  a  within 30s");
        assert_eq!(lines[12], "  10  j  within 30s  after i");
        assert_eq!(lines[17], "   1  l  within 1.846s  by 1.846s");
        assert_eq!(
            lines[29],
            "      margin 1s: to end what was forced, and to report"
        );
        let last = "longest chain l → k → j → i → h → g → f → e → … 3 more … → a: 11.999s of 12s";
        assert_eq!(lines[31], last);
    }

    #[test]
    fn a_plan_may_have_nothing_to_do_and_any_time() {
        let text = "\
orders: no components, budget any time

stop
     margin 1s: to end what was forced, and to report";
        assert_eq!(plan(vec![], Duration::MAX).unwrap().to_string(), text);

        let text = plan(vec![node("a\nb", &[])], Duration::MAX)
            .unwrap()
            .to_string();
        assert!(text.contains("\n  1  a b  within any time\n"), "{text}");
        assert!(
            text.ends_with("longest chain a b: any time of any time"),
            "{text}"
        );
    }

    #[test]
    fn a_program_can_read_the_plan() {
        let mut nodes = orders();
        nodes[1].after.push("grpc".into());
        let plan = plan(nodes, Budget::kubernetes()).unwrap();
        assert_eq!(plan.name(), "orders");
        assert_eq!(plan.budget(), &Budget::kubernetes());
        let names: Vec<_> = plan.components().map(PlannedComponent::name).collect();
        assert_eq!(names, ["database", "grpc", "worker", "http"]);
        let added: Vec<_> = plan.added().iter().map(PlannedComponent::name).collect();
        assert_eq!(added, ["database", "http", "grpc", "worker"]);
        let chain: Vec<_> = plan.longest_chain().map(PlannedComponent::name).collect();
        assert_eq!(chain, ["http", "grpc", "database"]);
        assert_eq!(plan.graph().components, 4);

        let http = &plan.added()[1];
        assert_eq!(http.after().collect::<Vec<_>>(), ["grpc"], "each once");
        assert_eq!((http.grace(), http.start_timeout()), (secs(10), secs(30)));
        assert_eq!((http.start_level(), http.stop_level()), (3, 1));
        assert_eq!((http.phase(), http.drains()), (None, false));
        assert!(http.nested().is_none());
    }

    #[test]
    fn the_name_of_a_lifecycle_is_a_part_of_a_path() {
        let named = |name| Plan::new(name, vec![], vec![], Budget::local()).unwrap_err();
        assert_eq!(named("").to_string(), "a lifecycle has an empty name");
        assert_eq!(
            named("a/b").to_string(),
            "lifecycle `a/b` has a `/` in its name: paths are made with it"
        );
        assert_eq!(named("a/b").component(), None);
    }

    #[test]
    fn a_budget_that_is_smaller_than_its_parts_names_all_of_them() {
        let nodes = || {
            vec![
                node("db", &[]).grace(5),
                node("grpc", &["db"]).grace(10),
                node("http", &["grpc"]).grace(10),
                node("lone", &[]),
            ]
        };
        let budget = Budget::kubernetes().cleanup(secs(2));
        let error = refused(
            nodes(),
            budget,
            "the budget of 28s is smaller than its parts: lame duck 5s + `http` 10s + `grpc` 10s + \
             `db` 5s + cleanup 2s + margin 1s = 33s",
        );
        assert!(error.is_budget());
        assert_eq!(error.component(), None);
        let budget = Budget::new(secs(30))
            .jitter(secs(2))
            .drain(secs(3))
            .lame_duck(secs(40));
        refused(
            nodes(),
            budget.clone(),
            "the budget of 30s is smaller than its parts: jitter 2s + lame duck 40s + drain 3s + \
             `http` 10s + `grpc` 10s + `db` 5s + margin 1s = 71s",
        );
        let kept = "the budget of 30s is smaller than its parts: jitter 2s + lame duck 40s + \
                    drain 3s + margin 1s = 46s";
        refused(vec![], budget.clone(), kept);
        refused(vec![node("a", &[])], budget, kept);
        refused(
            vec![node("a", &[]).grace(1)],
            Budget::new(secs(30)).cleanup(Duration::MAX),
            "the budget of 30s is smaller than its parts: `a` 1s + cleanup any time + margin 1s = any time",
        );
    }

    #[test]
    fn graces_that_fit_to_the_nanosecond_are_fine() {
        let budget = Budget::new(secs(28)).lame_duck(secs(5)).cleanup(secs(2));
        assert!(plan(vec![node("a", &[]).grace(20)], budget.clone()).is_ok());
        assert!(
            plan(
                vec![node("a", &[]).grace(20)],
                budget.jitter(Duration::from_nanos(1))
            )
            .is_err()
        );
    }

    #[test]
    fn a_component_for_which_nothing_is_left_is_named() {
        let nodes = vec![node("db", &[]), node("grpc", &["db"]).grace(22)];
        let error = refused(
            nodes,
            Budget::kubernetes(),
            "the budget of 28s leaves no time for `db`, which asks for no grace: lame duck 5s + \
             `grpc` 22s + margin 1s = 28s",
        );
        assert!(error.is_budget());
        assert_eq!(error.component(), Some("db"));
    }

    #[test]
    fn the_budget_of_a_phase_is_checked_too() {
        let accept = |seconds| vec![Phase::new("accept", secs(seconds))];
        let nodes = |grpc: Node| {
            let http = node("http", &["grpc"]).phase("accept").grace(4);
            vec![http, grpc.phase("accept")]
        };
        let refused = |nodes, phases, message: &str| {
            let error = Plan::new("orders", nodes, phases, Budget::local()).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.is_budget());
        };
        refused(
            nodes(node("grpc", &[]).grace(2)),
            accept(5),
            "the budget of 5s of phase `accept` is smaller than its parts: `http` 4s + `grpc` 2s = 6s",
        );
        refused(
            nodes(node("grpc", &[])),
            accept(4),
            "the budget of 4s of phase `accept` leaves no time for `grpc`, which asks for no grace: \
             `http` 4s = 4s",
        );
        refused(
            vec![node("http", &[]).phase("accept")],
            accept(0),
            "the budget of 0s of phase `accept` leaves no time for `http`, which asks for no grace",
        );
    }

    #[test]
    fn a_budget_of_zero_stops_nothing() {
        let error = refused(
            vec![],
            Duration::ZERO,
            "the budget is 0s: there is no time to stop anything",
        );
        assert!(error.is_budget());
    }

    #[test]
    fn a_budget_fits_into_the_limit_of_the_platform_with_its_hook_and_a_second_more() {
        let error = refused(
            vec![],
            Budget::new(secs(30)).platform("TERMINATION_GRACE_PERIOD_SECONDS", secs(30)),
            "budget 30s + 1s = 31s is more than TERMINATION_GRACE_PERIOD_SECONDS of 30s",
        );
        assert!(error.is_budget());
        refused(
            vec![],
            Budget::new(Duration::MAX).platform("systemd's TimeoutStopSec", secs(90)),
            "budget any time + 1s = any time is more than systemd's TimeoutStopSec of 90s",
        );
        let pod = |seconds| Budget::new(secs(28)).platform("a pod's limit", secs(seconds));
        refused(
            vec![],
            pod(30).pre_stop(secs(5)),
            "preStop 5s + budget 28s + 1s = 34s is more than a pod's limit of 30s",
        );
        assert!(plan(orders(), pod(34).pre_stop(secs(5))).is_ok());
        assert!(plan(orders(), pod(29)).is_ok());
        let error = refused(
            vec![],
            Budget::kubernetes().pre_stop(secs(30)),
            "preStop 30s + budget 0s + 1s = 31s is more than Kubernetes' terminationGracePeriodSeconds of 30s",
        );
        assert!(error.is_budget());
        let presets = [
            Budget::docker(),
            Budget::ecs(),
            Budget::cloud_run(),
            Budget::heroku(),
            Budget::fly(),
            Budget::nomad(),
        ];
        for preset in presets {
            assert!(plan(vec![node("http", &[])], preset).is_ok());
        }
    }

    #[test]
    fn the_hook_of_a_pod_is_printed_before_the_stop() {
        let budget = Budget::kubernetes().pre_stop(secs(5));
        let text = plan(orders(), budget).unwrap().to_string();
        let head = "budget 23s (Kubernetes' terminationGracePeriodSeconds: 30s)";
        assert!(text.contains(head), "{text}");
        let stop = "\nstop\n     preStop 5s: before the signal\n     lame duck 5s: not ready, still serving\n";
        assert!(text.contains(stop), "{text}");
        assert!(plan(orders(), Budget::kubernetes()).is_ok());
        assert!(plan(orders(), Budget::systemd()).is_ok());
    }

    #[test]
    fn a_variable_that_is_not_a_number_of_seconds_is_named() {
        let budget = Budget::kubernetes().platform_from("GRACE_SECONDS".into(), Some("30s".into()));
        refused(
            vec![],
            budget.platform("pod", secs(60)),
            "environment variable `GRACE_SECONDS` is no number of seconds: `30s`",
        );
    }

    #[test]
    fn a_component_that_drains_needs_time_to_drain() {
        let error = refused(
            vec![node("http", &[]).drains()],
            secs(10),
            "component `http` drains, but the budget has no time to drain",
        );
        assert_eq!(error.component(), Some("http"));
        let budget = Budget::local().drain(secs(2));
        let text = plan(vec![node("http", &[])], budget).unwrap().to_string();
        assert!(
            text.contains("\n     drain within 2s: nobody drains\n"),
            "{text}"
        );
    }

    #[test]
    fn a_start_timeout_of_zero_is_refused() {
        let mut http = node("http", &[]);
        http.start_timeout = Duration::ZERO;
        let error = refused(
            vec![http],
            secs(10),
            "component `http` has a start timeout of 0s: it could never be ready",
        );
        assert_eq!(error.component(), Some("http"));
    }

    #[test]
    fn a_nested_lifecycle_that_yields_is_planned_in_the_time_that_it_gets() {
        let inside = |nodes| Plan::new("mail", nodes, vec![], Budget::default()).unwrap();
        let mail = |nodes| node("mail", &[]).nested(inside(nodes).yielding());
        let chain = || vec![node("smtp", &[]), node("queue", &["smtp"])];
        // Its own default would be 10 s.
        for total in [secs(4), secs(100)] {
            let plan = plan(vec![node("db", &[]), mail(chain())], total).unwrap();
            let planned = plan.added()[1].nested().unwrap();
            assert_eq!(planned.budget().total(), plan.added()[1].grace());
            assert_eq!(planned.name(), "mail");
            let last = planned.added()[0].stops_by();
            assert!(last <= planned.budget().stop_time(), "{plan}");
            assert!(last * 10 > planned.budget().stop_time() * 9, "{plan}");
        }
        // The same inside a lifecycle that yields too.
        let middle = mail(vec![mail(chain())]);
        let plan = plan(vec![middle], secs(100)).unwrap();
        let middle = &plan.added()[0];
        let inner = &middle.nested().unwrap().added()[0];
        assert_eq!(inner.nested().unwrap().budget().total(), inner.grace());
        assert!(inner.grace() <= middle.grace());
    }

    #[test]
    fn a_nested_lifecycle_that_yields_and_gets_next_to_nothing_is_forced_at_once() {
        for grace in [Duration::ZERO, Duration::from_micros(1)] {
            let nodes = vec![node("smtp", &[]), node("queue", &["smtp"])];
            let inside = Plan::new("mail", nodes, vec![], Budget::default()).unwrap();
            let mut mail = node("mail", &[]).nested(inside.yielding());
            mail.grace = Some(grace);
            let plan = plan(vec![mail], secs(10)).unwrap();
            let inside = plan.added()[0].nested().unwrap();
            assert_eq!(inside.budget().total(), grace);
            assert!(
                inside
                    .added()
                    .iter()
                    .all(|planned| planned.grace().is_zero())
            );
        }
    }

    #[test]
    fn a_nested_lifecycle_needs_the_whole_of_its_budget() {
        let mail =
            || node("mail", &[]).nested(Plan::new("mail", vec![], vec![], secs(5).into()).unwrap());
        let error = refused(
            vec![mail().grace(4)],
            secs(10),
            "component `mail` has a grace of 4s, but the lifecycle in it has a budget of 5s",
        );
        assert_eq!(error.component(), Some("mail"));
        let grace = |node| plan(vec![node], secs(10)).unwrap().added()[0].grace();
        assert_eq!(grace(mail()), secs(5));
        assert_eq!(grace(mail().grace(6)), secs(6));
        refused(
            vec![mail()],
            secs(5),
            "the budget of 5s is smaller than its parts: `mail` 5s + margin 500ms = 5.5s",
        );
    }

    #[test]
    fn a_large_plan_is_made_and_printed() {
        let nodes: Vec<_> = (0..10_000)
            .map(|index: usize| Node {
                name: index.to_string().into(),
                after: index
                    .checked_sub(7)
                    .map(|index| index.to_string().into())
                    .into_iter()
                    .collect(),
                ..node("", &[])
            })
            .collect();
        let plan = plan(nodes, secs(3_600)).unwrap();
        assert_eq!(plan.longest_chain().count(), 1_429);
        assert_eq!(plan.to_string().lines().count(), 20_000 + 8);
    }
}
