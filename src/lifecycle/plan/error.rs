//! [`PlanError`]: why a plan could not be made.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::budget::{Budget, InvalidVariable};
use crate::group::time::Rounded;

/// The components, phases or the budget make no valid plan, or a call named something that is not in it.
/// Nothing has been started or stopped.
///
/// The message names the first mistake that was found, with the names and the numbers.
///
/// # Examples
///
/// The messages look like these:
///
/// ```text
/// component `http` depends on `databases`, which does not exist: there are `database`, `grpc`
/// component `worker` uses `pool`, which no component provides
/// the components depend on each other in a cycle: `a` → `b` → `a`
/// the budget of 28s is smaller than its parts: lame duck 5s + `http` 20s + `db` 5s + margin 1s = 31s
/// preStop 5s + budget 28s + 1s = 34s is more than Kubernetes' terminationGracePeriodSeconds of 30s
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct PlanError {
    kind: Box<Kind>,
}

/// The mistake. Names are without backquotes here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::lifecycle) enum Kind {
    #[error("a lifecycle has an empty name")]
    EmptyName,
    #[error("a component has an empty name")]
    EmptyComponent,
    #[error("a phase has an empty name")]
    EmptyPhase,
    #[error("lifecycle `{name}` has a `/` in its name: paths are made with it")]
    Slash { name: String },
    #[error("component `{component}` has a `/` in its name: paths are made with it")]
    SlashInComponent { component: String },
    #[error("two components have the name `{component}`")]
    DuplicateComponent { component: String },
    #[error("two phases have the name `{phase}`")]
    DuplicatePhase { phase: String },
    #[error("component `{component}` depends on `{unknown}`, which does not exist: {known}")]
    UnknownDependency {
        component: String,
        unknown: String,
        known: Names,
    },
    #[error("component `{component}` is in phase `{unknown}`, which does not exist: {known}")]
    UnknownPhase {
        component: String,
        unknown: String,
        known: Names,
    },
    #[error("lifecycle `{lifecycle}` has no component `{unknown}`: {known}")]
    UnknownComponent {
        lifecycle: String,
        unknown: String,
        known: Names,
    },
    #[error("lifecycle `{lifecycle}` is not running: `{component}` cannot be stopped")]
    NotRunning {
        lifecycle: String,
        component: String,
    },
    #[error("lifecycle `{lifecycle}` is stopping, or has ended: `{component}` cannot be added")]
    Over {
        lifecycle: String,
        component: String,
    },
    #[error("component `{component}` depends on `{dependency}`, which was stopped or has failed")]
    DependsOnGone {
        component: String,
        dependency: String,
    },
    #[error("component `{component}` uses `{value}`, which no component provides")]
    NotProvided { component: String, value: String },
    #[error("components `{first}` and `{second}` both provide `{value}`")]
    TwoProviders {
        value: String,
        first: String,
        second: String,
    },
    #[error("component `{component}` depends on itself")]
    DependsOnItself { component: String },
    #[error("the components depend on each other in a cycle: {}", joined(.path, " → "))]
    Cycle {
        /// Each depends on the next, and the first is repeated at the end.
        path: Vec<Member>,
    },
    #[error("component `{component}` has a start timeout of 0s: it could never be ready")]
    ZeroStartTimeout { component: String },
    #[error("component `{component}` drains, but the budget has no time to drain")]
    NoDrainTime { component: String },
    #[error(
        "component `{component}` has a grace of {}, but the lifecycle in it has a budget of {}",
        Rounded(*.grace),
        Rounded(*.total)
    )]
    NestedGrace {
        component: String,
        grace: Duration,
        total: Duration,
    },
    #[error("the budget is 0s: there is no time to stop anything")]
    ZeroBudget,
    #[error("the start has to be over within 0s: nothing could ever be ready")]
    ZeroStart,
    #[error("{limit} is smaller than its parts{parts}")]
    OverBudget { limit: Limit, parts: Parts },
    #[error("{limit} leaves no time for `{component}`, which asks for no grace{parts}")]
    NothingLeft {
        limit: Limit,
        component: String,
        parts: Parts,
    },
    #[error(
        "{} is more than {platform} of {}",
        OverLimit(*.pre_stop, *.total),
        Rounded(*.limit)
    )]
    OverPlatform {
        pre_stop: Duration,
        total: Duration,
        platform: String,
        limit: Duration,
    },
    #[error("the watchdog cannot be armed: {error}")]
    NoWatchdog { error: String },
    #[error("environment variable `{}` is no number of seconds: `{}`", .0.variable, .0.value)]
    InvalidVariable(InvalidVariable),
}

/// A member of a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Member {
    Component(String),
    /// The barrier that waits for all components of the phase.
    Phase(String),
}

/// The first few valid names, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct Names {
    first: Vec<String>,
    count: usize,
}

/// A budget, of a whole stop or of one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct Limit {
    pub(in crate::lifecycle) time: Duration,
    pub(in crate::lifecycle) phase: Option<String>,
}

/// The parts that have to fit in a budget, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lifecycle) struct Parts(pub(in crate::lifecycle) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Part {
    Kept(&'static str, Duration),
    Component(String, Duration),
}

impl Names {
    /// How many names are listed.
    const LISTED: usize = 10;

    pub(in crate::lifecycle) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut first, mut count) = (Vec::new(), 0);
        for name in names {
            if count < Self::LISTED {
                first.push(format!("`{name}`"));
            }
            count += 1;
        }
        Self { first, count }
    }
}

impl PlanError {
    /// The thread for the watchdog could not be started.
    pub(in crate::lifecycle) fn no_watchdog(error: &std::io::Error) -> Self {
        let error = error.to_string();
        Kind::NoWatchdog { error }.into()
    }

    /// Returns whether components depend on each other in a cycle, or one on itself.
    #[must_use]
    pub fn is_cycle(&self) -> bool {
        matches!(
            *self.kind,
            Kind::Cycle { .. } | Kind::DependsOnItself { .. }
        )
    }

    /// Returns whether a component, or a call, names a component or a phase that does not exist, or a
    /// component uses a value that no component provides.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            *self.kind,
            Kind::UnknownDependency { .. }
                | Kind::UnknownPhase { .. }
                | Kind::UnknownComponent { .. }
                | Kind::NotProvided { .. }
        )
    }

    /// Returns whether two components, or two phases, have the same name, or two components provide the
    /// same value.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(
            *self.kind,
            Kind::DuplicateComponent { .. }
                | Kind::DuplicatePhase { .. }
                | Kind::TwoProviders { .. }
        )
    }

    /// Returns whether the times do not fit into the budget, into the budget of a phase or of a nested
    /// lifecycle, or into the limit of the platform.
    #[must_use]
    pub fn is_budget(&self) -> bool {
        matches!(
            *self.kind,
            Kind::ZeroBudget
                | Kind::ZeroStart
                | Kind::OverBudget { .. }
                | Kind::NothingLeft { .. }
                | Kind::OverPlatform { .. }
                | Kind::NestedGrace { .. }
                | Kind::NoDrainTime { .. }
        )
    }

    /// Returns the name of the component that the error is about, if any. For a cycle it is the component
    /// that was added first.
    #[must_use]
    pub fn component(&self) -> Option<&str> {
        match &*self.kind {
            Kind::SlashInComponent { component }
            | Kind::DuplicateComponent { component }
            | Kind::UnknownDependency { component, .. }
            | Kind::UnknownPhase { component, .. }
            | Kind::UnknownComponent {
                unknown: component, ..
            }
            | Kind::NotRunning { component, .. }
            | Kind::Over { component, .. }
            | Kind::DependsOnGone { component, .. }
            | Kind::NotProvided { component, .. }
            | Kind::TwoProviders {
                second: component, ..
            }
            | Kind::DependsOnItself { component }
            | Kind::ZeroStartTimeout { component }
            | Kind::NoDrainTime { component }
            | Kind::NestedGrace { component, .. }
            | Kind::NothingLeft { component, .. } => Some(component),
            Kind::Cycle { path } => path.iter().find_map(|member| match member {
                Member::Component(component) => Some(component.as_str()),
                Member::Phase(_) => None,
            }),
            Kind::EmptyName
            | Kind::EmptyComponent
            | Kind::EmptyPhase
            | Kind::Slash { .. }
            | Kind::DuplicatePhase { .. }
            | Kind::ZeroBudget
            | Kind::ZeroStart
            | Kind::OverBudget { .. }
            | Kind::OverPlatform { .. }
            | Kind::InvalidVariable(_)
            | Kind::NoWatchdog { .. } => None,
        }
    }
}

/// For [`Exit`](crate::Exit).
impl AsRef<dyn Error + Send + Sync> for PlanError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}

impl From<Kind> for PlanError {
    fn from(kind: Kind) -> Self {
        Self {
            kind: Box::new(kind),
        }
    }
}

/// `main` prints the message of an error that it returns. `{:#?}` shows the fields.
impl fmt::Debug for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.alternate() {
            true => f.debug_tuple("PlanError").field(&self.kind).finish(),
            false => fmt::Display::fmt(self, f),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(name) => write!(f, "`{name}`"),
            Self::Phase(name) => write!(f, "phase `{name}`"),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("there is none");
        }
        let verb = if self.count == 1 { "is" } else { "are" };
        write!(f, "there {verb} {}", joined(&self.first, ", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the budget of {}", Rounded(self.time))?;
        match &self.phase {
            Some(phase) => write!(f, " of phase `{phase}`"),
            None => Ok(()),
        }
    }
}

/// What a platform waits for: its hook, the budget, and what has to be left.
struct OverLimit(Duration, Duration);

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pre_stop, total) = *self;
        let slack = Budget::SLACK;
        if !pre_stop.is_zero() {
            write!(f, "preStop {} + ", Rounded(pre_stop))?;
        }
        let sum = pre_stop.saturating_add(total).saturating_add(slack);
        write!(
            f,
            "budget {} + {} = {}",
            Rounded(total),
            Rounded(slack),
            Rounded(sum)
        )
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(name, time) => write!(f, "{name} {}", Rounded(*time)),
            Self::Component(name, time) => write!(f, "`{name}` {}", Rounded(*time)),
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.0.iter().map(|part| match part {
            Part::Kept(_, time) | Part::Component(_, time) => *time,
        });
        let sum = times.fold(Duration::ZERO, Duration::saturating_add);
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ": {} = {}", joined(&self.0, " + "), Rounded(sum))
    }
}

fn joined(items: &[impl ToString], between: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(between)
}
