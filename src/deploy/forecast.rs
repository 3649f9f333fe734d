//! [`Forecast`]: how long a stop is likely to take.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::group::build_error::BuildError;
use crate::group::random::Random;
use crate::group::time::Rounded;
use crate::lifecycle::{Plan, PlannedComponent, Report, StepKind};

/// The times that the components of a lifecycle take to stop, measured or as a stated distribution.
///
/// If both are given for one component, the last one counts. Times from reports are added to the
/// measured ones.
///
/// A component of a nested lifecycle has the path `outer/inner` as its name. A nested lifecycle with
/// times in its own name takes those, and one without takes what its components take, in their order.
///
/// # As a text
///
/// Each line has the name of a component and its measured seconds, or `median` and `p99` with one
/// value each. Empty lines and lines that begin with `#` are skipped.
///
/// ```text
/// # stops of the last week
/// database 0.8 1.2 0.9 3.1
/// http     median 2 p99 9.5
/// ```
///
/// # Examples
///
/// ```
/// use taskgroup::deploy::StopTimes;
///
/// let times: StopTimes = "database 0.8 1.2\nhttp median 2 p99 9.5".parse()?;
/// let error = "database soon".parse::<StopTimes>().unwrap_err();
/// assert_eq!(error.to_string(), "stop times, line 1: `time` cannot be `soon`: it is not a number of seconds");
/// # drop(times);
/// # Ok::<(), taskgroup::BoxError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopTimes {
    named: BTreeMap<String, Times>,
    /// From reports. Their components may be gone by now.
    reported: BTreeMap<String, Vec<Duration>>,
    /// By the path of the lifecycle, which is empty for the outermost.
    cleanups: BTreeMap<String, Vec<Duration>>,
}

#[derive(Clone, Debug)]
enum Times {
    Measured(Vec<Duration>),
    /// A log-normal distribution with this median and this 99th percentile.
    Stated(Duration, Duration),
}

impl StopTimes {
    /// Makes an empty collection. A component without times counts as one that stops at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds measured stop times of a component.
    #[must_use]
    pub fn measured(
        mut self,
        component: impl Into<String>,
        times: impl IntoIterator<Item = Duration>,
    ) -> Self {
        let entry = self.named.entry(component.into());
        let known = entry.or_insert_with(|| Times::Measured(Vec::new()));
        let mut all = match known {
            Times::Measured(times) => std::mem::take(times),
            Times::Stated(..) => Vec::new(),
        };
        all.extend(times);
        *known = Times::Measured(all);
        self
    }

    /// States that half of the stops of a component take no longer than `median`, and 99 of 100 no longer than `p99`.
    ///
    /// The times have a log-normal distribution, so most are short and a few are very long.
    #[must_use]
    pub fn stated(mut self, component: impl Into<String>, median: Duration, p99: Duration) -> Self {
        let times = Times::Stated(median, p99);
        self.named.insert(component.into(), times);
        self
    }

    /// Adds the times of a report, for each component that stopped and for the cleanup.
    ///
    /// A component that was forced, or that failed, counts with the time it had. Components that
    /// are no longer in the plan are left out of the forecast. The reports of nested lifecycles are
    /// added too.
    #[must_use]
    pub fn report(mut self, report: &Report) -> Self {
        self.add(report, "");
        self
    }

    fn add(&mut self, report: &Report, path: &str) {
        let mut cleanup = Duration::ZERO;
        for step in &report.timeline {
            match step.kind {
                StepKind::Stop => {
                    let times = self.reported.entry(join(path, &step.subject));
                    times.or_default().push(step.took());
                }
                StepKind::Cleanup => cleanup += step.took(),
                _ => {}
            }
        }
        let cleanups = self.cleanups.entry(path.to_owned());
        cleanups.or_default().push(cleanup);
        for nested in &report.nested {
            self.add(nested, &join(path, &nested.name));
        }
    }

    fn check(&self, plan: &Plan) -> Result<(), BuildError> {
        for (name, times) in &self.named {
            let what = || format!("stop times of component `{name}`");
            if !has(plan, name) {
                let why = "the plan has no component of that name";
                return Err(BuildError::new(
                    "stop times",
                    "component",
                    format!("`{name}`"),
                    why,
                ));
            }
            match times {
                Times::Measured(times) if times.is_empty() => {
                    return Err(BuildError::new(what(), "times", "empty", NO_TIMES));
                }
                Times::Stated(median, p99) if median.is_zero() => {
                    let why = format!(
                        "half of the stops would take no time, and one in 100 {}",
                        Rounded(*p99)
                    );
                    return Err(BuildError::new(what(), "median", "0s", why));
                }
                Times::Stated(median, p99) if p99 < median => {
                    let why = format!("the median is {}", Rounded(*median));
                    return Err(BuildError::new(
                        what(),
                        "p99",
                        Rounded(*p99).to_string(),
                        why,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn draw(&self, name: &str, random: &mut Random) -> Duration {
        match self.named.get(name) {
            Some(Times::Measured(times)) => pick(times, random),
            Some(Times::Stated(median, p99)) => log_normal(*median, *p99, random),
            None => pick(self.reported.get(name).map_or(&[], Vec::as_slice), random),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.named.contains_key(name) || self.reported.contains_key(name)
    }

    /// Whether a component of this nested lifecycle has times, and the lifecycle as a whole is not
    /// given any.
    fn knows_inside(&self, path: &str) -> bool {
        let is_inside = |name: &String| {
            let rest = name.strip_prefix(path);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let mut known = self.named.keys().chain(self.reported.keys());
        !self.named.contains_key(path) && known.any(is_inside)
    }

    fn cleanup(&self, path: &str, random: &mut Random) -> Duration {
        pick(self.cleanups.get(path).map_or(&[], Vec::as_slice), random)
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    }
}

/// Whether a component has this name, or in a nested lifecycle this path.
fn has(plan: &Plan, name: &str) -> bool {
    plan.components().any(|component| {
        let Some(rest) = name.strip_prefix(component.name()) else {
            return false;
        };
        let inside = rest.strip_prefix('/').zip(component.nested());
        rest.is_empty() || inside.is_some_and(|(rest, nested)| has(nested, rest))
    })
}

fn pick(times: &[Duration], random: &mut Random) -> Duration {
    let index = random.draw() * times.len() as f64;
    // The value is not negative, and the cast cuts its fraction.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    times.get(index as usize).copied().unwrap_or_default()
}

fn log_normal(median: Duration, p99: Duration, random: &mut Random) -> Duration {
    /// The distance of the 99th percentile of a normal distribution from its mean, in standard
    /// deviations.
    const P99: f64 = 2.326_347_874;
    let (median, p99) = (median.as_secs_f64(), p99.as_secs_f64());
    let deviation = (p99 / median).ln() / P99;
    // The Box-Muller transform, from two numbers below one to one of a normal distribution.
    let (first, second) = (1.0 - random.draw(), random.draw());
    let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
    let time = median * (deviation * normal).exp();
    Duration::try_from_secs_f64(time).unwrap_or(Duration::MAX)
}

/// Why a component needs times.
const NO_TIMES: &str = "there is nothing to draw from";

impl FromStr for StopTimes {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        let mut times = Self::new();
        for (index, line) in text.lines().enumerate() {
            let what = || format!("stop times, line {}", index + 1);
            let mut words = line.split_whitespace();
            let Some(name) = words.next().filter(|name| !name.starts_with('#')) else {
                continue;
            };
            let words: Vec<_> = words.collect();
            let seconds = |word: &str| {
                let seconds = word.parse().ok();
                let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let why = "it is not a number of seconds";
                time.ok_or_else(|| BuildError::new(what(), "time", format!("`{word}`"), why))
            };
            times = match words[..] {
                [] => {
                    let what = format!("{}, component `{name}`", what());
                    return Err(BuildError::new(what, "times", "empty", NO_TIMES));
                }
                ["median", median, "p99", p99] => {
                    times.stated(name, seconds(median)?, seconds(p99)?)
                }
                _ => {
                    let measured = words.iter().map(|word| seconds(word));
                    times.measured(name, measured.collect::<Result<Vec<_>, _>>()?)
                }
            };
        }
        Ok(times)
    }
}

/// The likely time of a stop, from a plan and the times of its components. [`Plan::forecast`] makes
/// it.
///
/// It counts the time that each component needs, not the time that it is allowed, so no component
/// is forced. That shows how often the budget is too short, and for which components. The jitter
/// and the lame duck of the budget are counted, and so is the cleanup if reports have times of it.
///
/// # The text
///
/// ```text
/// orders: 10000 stops, mean 3.2s, median 2.9s, 99th percentile 9.8s, budget 28s exceeded in 0.1 %
///
///             mean   p99    grace  over   decides
///   http      2.4s   9.5s   9s     1.2 %  100 %
///   database  800ms  3.1s   3s     4.9 %  100 %
///
///   up to 1s   |                                        |   0.2 %
///   up to 2s   |############                            |  15.3 %
///   …
///
/// critical chain http → database: in 98 % of the stops
/// ```
///
/// The table has the 20 components that decide most often. A component *decides* a stop if the stop
/// would have been shorter without it. It is *over* if it needs more than its grace and would be
/// forced.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::deploy::StopTimes;
/// use taskgroup::lifecycle::{Component, Lifecycle};
///
/// # let idle = |name: &'static str| Component::new(name, async |ctx| Ok(ctx.stopping().await));
/// let secs = Duration::from_secs;
/// let plan = Lifecycle::new("orders")
///     .budget(secs(10))
///     .component(idle("database"))
///     .component(idle("http").after(["database"]))
///     .plan()?;
/// let times = StopTimes::new()
///     .measured("database", [secs(1)])
///     .measured("http", [secs(2), secs(4)]);
///
/// let forecast = plan.forecast(&times)?;
/// assert_eq!((forecast.percentile(1), forecast.percentile(99)), (secs(3), secs(5)));
/// assert_eq!(forecast.exceeds(secs(10)), 0.0);
/// println!("{forecast}");
/// # Ok::<(), taskgroup::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Forecast {
    name: String,
    budget: Duration,
    /// How long each stop takes, the shortest first.
    stops: Vec<Duration>,
    rows: Vec<Row>,
    /// The chain that decides most often, and in how many stops.
    chain: (Vec<String>, usize),
    /// The components without any times.
    unknown: Vec<String>,
    /// The components that were still stopping when the budget was over, and in how many stops.
    late: Vec<(String, usize)>,
}

#[derive(Clone, Debug)]
struct Row {
    /// The path, in a nested lifecycle.
    name: String,
    /// Whether it is a lifecycle whose components have rows, too.
    has_parts: bool,
    grace: Duration,
    /// The shortest first.
    times: Vec<Duration>,
    over: usize,
    decides: usize,
}

/// How many stops are drawn, which is enough for the 99th percentile.
const STOPS: usize = 10_000;

/// The number of bars in the histogram, and the width of the longest.
const BARS: u32 = 12;
const WIDTH: usize = 40;

/// The number of components in the table, and of lines for those that are late.
const ROWS: usize = 20;
const LATE: usize = 5;

impl Plan {
    /// Returns how long the stop is likely to take if its components take these times.
    ///
    /// It draws 10,000 stops. The same plan and times give the same forecast.
    ///
    /// # Errors
    ///
    /// Returns an error if a name is unknown, if a component has no times at all, or if a stated
    /// distribution does not exist.
    pub fn forecast(&self, times: &StopTimes) -> Result<Forecast, BuildError> {
        times.check(self)?;
        let mut random = Random::new(Some(0));
        let mut rows = Vec::new();
        let level = Level::of(self, "", times, &mut rows);
        let mut stops = Vec::with_capacity(STOPS);
        let mut chains: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut late = vec![0; rows.len()];
        let total = self.budget().total();
        for _ in 0..STOPS {
            let jitter = self.budget().jitter_time().mul_f64(random.draw());
            let before = jitter + self.budget().lame_duck_time();
            let drawn = level.draw(before, times, &mut rows, &mut random);
            for (row, told, end) in drawn.times {
                late[row] += usize::from(told <= total && end > total);
            }
            for &row in &drawn.chain {
                rows[row].decides += 1;
            }
            *chains.entry(drawn.chain).or_default() += 1;
            stops.push(drawn.end);
        }
        stops.sort_unstable();
        rows.iter_mut().for_each(|row| row.times.sort_unstable());
        let name_of = |row: usize| rows[row].name.clone();
        let chain = chains.into_iter().max_by_key(|(_, count)| *count);
        let (mut chain, count) = chain.unwrap_or_default();
        // Its components stand for it.
        chain.retain(|&row| !rows[row].has_parts);
        let late = late.into_iter().enumerate().filter(|(_, count)| *count > 0);
        let mut late: Vec<_> = late.map(|(row, count)| (name_of(row), count)).collect();
        late.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let unknown = rows.iter().filter(|row| !row.has_parts);
        let unknown = unknown.filter(|row| !times.knows(&row.name));
        Ok(Forecast {
            name: self.name().to_owned(),
            budget: total,
            stops,
            chain: (chain.into_iter().map(name_of).collect(), count),
            unknown: unknown.map(|row| row.name.clone()).collect(),
            late,
            rows,
        })
    }
}

/// A lifecycle in the plan, whose components are drawn one by one.
struct Level<'a> {
    plan: &'a Plan,
    path: String,
    /// The row of each component, and what is in it if that is drawn too.
    parts: Vec<(usize, Option<Level<'a>>)>,
}

/// One stop of a lifecycle.
struct Drawn {
    end: Duration,
    /// The rows that decide its length, the first to stop at first. A nested lifecycle comes before its
    /// components.
    chain: Vec<usize>,
    /// When each component was told and when it had ended, with its row.
    times: Vec<(usize, Duration, Duration)>,
}

impl<'a> Level<'a> {
    fn of(plan: &'a Plan, path: &str, times: &StopTimes, rows: &mut Vec<Row>) -> Self {
        let mut parts = Vec::new();
        for component in plan.added() {
            let path = join(path, component.name());
            let nested = component.nested();
            let nested = nested.filter(|_| times.knows_inside(&path));
            let row = rows.len();
            rows.push(Row::of(component, path.clone(), nested.is_some()));
            let inside = nested.map(|nested| Level::of(nested, &path, times, rows));
            parts.push((row, inside));
        }
        Self {
            plan,
            path: path.to_owned(),
            parts,
        }
    }

    fn draw(
        &self,
        before: Duration,
        times: &StopTimes,
        rows: &mut [Row],
        random: &mut Random,
    ) -> Drawn {
        let graph = self.plan.graph();
        let mut needs = vec![Duration::ZERO; graph.order.len()];
        let mut chains = vec![Vec::new(); self.parts.len()];
        for (index, (row, inside)) in self.parts.iter().enumerate() {
            chains[index].push(*row);
            needs[index] = match inside {
                None => times.draw(&rows[*row].name, random),
                Some(level) => {
                    let drawn = level.draw(Duration::ZERO, times, rows, random);
                    chains[index].extend(drawn.chain);
                    drawn.end
                }
            };
            rows[*row].took(needs[index]);
        }
        // Dependents of a node stop before it.
        let mut ends = vec![before; graph.order.len()];
        let mut decided_by = vec![None; graph.order.len()];
        let mut told_at = vec![before; self.parts.len()];
        for &node in graph.order.iter().rev() {
            let users = graph.dependents[node].iter().copied();
            let last = users.max_by_key(|&user| ends[user]);
            let told = last.map_or(before, |last| ends[last]);
            // A component that ended at once has decided nothing.
            decided_by[node] = last.filter(|_| told > before);
            ends[node] = told.saturating_add(needs[node]);
            if let Some(at) = told_at.get_mut(node) {
                *at = told;
            }
        }
        let last = (0..ends.len()).max_by_key(|&node| ends[node]);
        let chain = std::iter::successors(last, |&node| decided_by[node]);
        let takes_time = |node: &usize| !needs[*node].is_zero();
        let mut chain: Vec<_> = chain.filter(takes_time).collect();
        chain.reverse();
        let end = last.map_or(before, |last| ends[last]);
        let parts = self.parts.iter().zip(told_at).zip(&ends);
        Drawn {
            end: end.saturating_add(times.cleanup(&self.path, random)),
            chain: chain
                .into_iter()
                .flat_map(|node| chains[node].clone())
                .collect(),
            times: parts
                .map(|(((row, _), told), end)| (*row, told, *end))
                .collect(),
        }
    }
}

impl Row {
    fn of(component: &PlannedComponent, path: String, has_parts: bool) -> Self {
        Self {
            name: path,
            has_parts,
            grace: component.grace(),
            times: Vec::with_capacity(STOPS),
            over: 0,
            decides: 0,
        }
    }

    fn took(&mut self, time: Duration) {
        self.times.push(time);
        self.over += usize::from(time > self.grace);
    }
}

impl Forecast {
    /// Returns the mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        mean(&self.stops)
    }

    /// Returns the time that this percentage of stops does not exceed. 50 is the median.
    ///
    /// # Panics
    ///
    /// Panics if `percent` is 0 or above 100.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.stops, percent)
    }

    /// Returns the share of stops that take longer than `limit`, from 0 to 1.
    #[must_use]
    pub fn exceeds(&self, limit: Duration) -> f64 {
        let within = self.stops.partition_point(|stop| *stop <= limit);
        share(self.stops.len() - within)
    }

    /// Returns the components that decide most often how long a stop takes, in the order in which
    /// they stop, and the share of stops that they decide.
    #[must_use]
    pub fn critical_chain(&self) -> (&[String], f64) {
        (&self.chain.0, share(self.chain.1))
    }

    /// Returns the components that are still stopping when the budget is over, the most frequent
    /// first, each with its share of stops.
    pub fn late(&self) -> impl Iterator<Item = (&str, f64)> {
        let late = self.late.iter();
        late.map(|(name, count)| (&**name, share(*count)))
    }
}

fn mean(times: &[Duration]) -> Duration {
    let sum: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let mean = sum / times.len().max(1) as f64;
    Duration::try_from_secs_f64(mean).unwrap_or(Duration::MAX)
}

/// `times` must be sorted.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    assert!(
        (1..=100).contains(&percent),
        "a percentile is from 1 to 100, and not {percent}"
    );
    let rank = (times.len() * percent).div_ceil(100);
    times
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

fn share(count: usize) -> f64 {
    count as f64 / STOPS as f64
}

/// A share, as a percentage to print.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent == 0.0 || percent == 100.0 {
            write!(f, "{percent:.0} %")
        } else if percent < 0.1 {
            f.write_str("< 0.1 %")
        } else {
            write!(f, "{percent:.1} %")
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, budget) = (&self.name, Rounded(self.budget));
        let exceeded = match self.stops.last() {
            Some(longest) if *longest > self.budget => {
                let share = self.exceeds(self.budget);
                format!("budget {budget} exceeded in {}", Percent(share))
            }
            _ => format!("budget {budget} never exceeded"),
        };
        let figures = [self.mean(), self.percentile(50), self.percentile(99)].map(Rounded);
        let [mean, median, p99] = figures;
        writeln!(
            f,
            "{name}: {STOPS} stops, mean {mean}, median {median}, 99th percentile {p99}, {exceeded}"
        )?;
        self.table(f)?;
        self.histogram(f)?;
        if !self.chain.0.is_empty() {
            let share = Percent(share(self.chain.1));
            let chain = self.chain.0.join(" → ");
            write!(f, "\ncritical chain {chain}: in {share} of the stops")?;
        }
        for (name, share) in self.late().take(LATE) {
            write!(
                f,
                "\nlate: `{name}` when the budget is over, in {}",
                Percent(share)
            )?;
        }
        match &self.unknown[..] {
            [] => Ok(()),
            unknown => write!(f, "\nno times, counted as 0s: {}", unknown.join(", ")),
        }
    }
}

impl Forecast {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "mean", "p99", "grace", "over", "decides"].map(str::to_owned);
        // Rows without known times do not help.
        let known = self.rows.iter();
        let mut known: Vec<_> = known
            .filter(|row| !self.unknown.contains(&row.name))
            .collect();
        known.sort_by_key(|row| std::cmp::Reverse(row.decides));
        let more = known.len().saturating_sub(ROWS);
        let rows = known.into_iter().take(ROWS).map(|row| {
            let over = Percent(share(row.over)).to_string();
            let decides = Percent(share(row.decides)).to_string();
            let times = [mean(&row.times), percentile(&row.times, 99), row.grace];
            let [mean, p99, grace] = times.map(|time| Rounded(time).to_string());
            [row.name.clone(), mean, p99, grace, over, decides]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        writeln!(f)?;
        for row in &rows {
            let cells = row.iter().zip(widths);
            let line: String = cells
                .map(|(cell, width)| format!("  {cell:width$}"))
                .collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        match more {
            0 => Ok(()),
            more => writeln!(f, "  … {more} more"),
        }
    }

    fn histogram(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a limit, a few very long stops would flatten the rest.
        let p99 = self.percentile(99);
        let step = round_up(p99 / BARS);
        let limits = (1..).map(|bar| step.saturating_mul(bar));
        let mut below = 0;
        let mut bars = Vec::new();
        for limit in limits {
            let within = self.stops.partition_point(|stop| *stop <= limit);
            bars.push((format!("up to {}", Rounded(limit)), within - below));
            below = within;
            if limit >= p99 {
                break;
            }
        }
        if below < self.stops.len() {
            bars.push(("longer".to_owned(), self.stops.len() - below));
        }
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let width = bars.iter().map(|(label, _)| label.len()).max();
        let width = width.unwrap_or(0);
        writeln!(f)?;
        for (label, count) in bars {
            // Rounded up, so that every non-empty bar is visible.
            let bar = "#".repeat((count * WIDTH).div_ceil(most.max(1)));
            let percent = Percent(share(count)).to_string();
            writeln!(f, "  {label:width$}  |{bar:WIDTH$}|  {percent:>6}")?;
        }
        Ok(())
    }
}

/// Returns the next of 1, 2 and 5 milliseconds, 10, 20 and so on.
fn round_up(time: Duration) -> Duration {
    let mut step = Duration::from_millis(1);
    loop {
        for factor in [1, 2, 5] {
            let rounded = step.saturating_mul(factor);
            if rounded >= time {
                return rounded;
            }
        }
        step = step.saturating_mul(10);
    }
}
