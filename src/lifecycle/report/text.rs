//! The report as text, for a reader with five seconds.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::Report;
use super::TimelineStep;
use crate::cleanup::words::one_line;
use crate::cleanup::words::shortened;
use crate::group::end::End;
use crate::group::time::Rounded;
use crate::group::time::column;
use crate::lifecycle::component_state::ComponentState;
use crate::lifecycle::step_kind::StepKind;

/// The cells of a bar.
const BAR: usize = 20;
/// The longest name and the longest result in a row.
const NAME: usize = 24;
const RESULT: usize = 40;
/// How many never-started components, and how many forced tasks, are named.
const NAMED: usize = 8;
const TASKS: usize = 20;
/// The state of a component that has never begun.
const NEVER_STARTED: ComponentState = ComponentState::Ended(End::Skipped);
/// The indent of a nested report.
const INDENT: &str = "  ";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.verdict()];
        if self.start_was_cut() {
            lines.extend(self.never_started());
        } else {
            lines.extend(self.started());
        }
        lines.extend(self.rows());
        lines.extend(self.failures());
        lines.extend(self.forced_tasks());
        lines.extend(self.best_efforts());
        let nested = self.nested.iter().flat_map(Self::lines);
        lines.extend(nested.map(|line| format!("{INDENT}{line}")));
        lines
            .into_iter()
            .map(|line| one_line(&line).trim_end().to_owned())
            .collect()
    }

    /// The first line.
    pub(crate) fn verdict(&self) -> String {
        let no_start = self
            .errors
            .first()
            .is_some_and(|e| e.during == Some(StepKind::Start));
        let how = match (self.has_failed(), self.was_forced()) {
            (true, false) if no_start => "FAILED to start",
            (true, true) if no_start => "FAILED to start and FORCED",
            (true, false) => "FAILED",
            (true, true) => "FAILED and FORCED",
            (false, true) => "FORCED",
            (false, false) => "clean",
        };
        let budget = Rounded(self.budget);
        let in_flight = match self.in_flight {
            0 => String::new(),
            count => format!("; {count} in flight"),
        };
        one_line(&format!(
            "{}: {how}, stopped in {} of {budget}: {}{in_flight}",
            self.name,
            Rounded(self.took()),
            self.cause,
        ))
    }

    /// Whether a component never became ready. Then the rows of the start are worth reading.
    pub(super) fn start_was_cut(&self) -> bool {
        let mut starts = self.starts();
        let mut components = self.components.iter();
        starts.any(|step| step.end != End::Done)
            || components.any(|component| component.state == NEVER_STARTED)
    }

    fn starts(&self) -> impl Iterator<Item = &TimelineStep> {
        let steps = self.timeline.iter();
        steps.filter(|step| step.kind == StepKind::Start)
    }

    /// The whole start on one line. `None` if nothing was started.
    fn started(&self) -> Option<String> {
        let began = self.starts().map(|step| step.began).min()?;
        // Components begin when others are ready, apart from those that were added later.
        let (mut ended, mut count) = (began, 0);
        for step in self.starts() {
            if step.began > ended {
                break;
            }
            ended = ended.max(step.ended);
            count += 1;
        }
        let components = match count {
            1 => "1 component".to_owned(),
            count => format!("{count} components"),
        };
        let later = match self.starts().count() - count {
            0 => String::new(),
            later => format!(", and {later} later"),
        };
        let took = Rounded(ended.saturating_sub(began));
        Some(format!("  started {components} in {took}{later}"))
    }

    /// A line for each reason.
    pub(super) fn never_started(&self) -> Vec<String> {
        let never = self.components.iter().filter(|c| c.state == NEVER_STARTED);
        let never: Vec<_> = never.collect();
        let mut reasons: Vec<&str> = Vec::new();
        for component in &never {
            if !reasons.contains(&&*component.message) {
                reasons.push(&component.message);
            }
        }
        let line = |reason| {
            let of_it = never.iter().filter(|c| c.message == reason);
            let names: Vec<_> = of_it.map(|c| shortened(&c.component, NAME)).collect();
            let (named, others) = names.split_at(names.len().min(NAMED));
            let others = match others.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let reason = match reason {
                "" => String::new(),
                reason => format!(" ({})", one_line(reason)),
            };
            format!("  never started: {}{others}{reason}", named.join(", "))
        };
        reasons.into_iter().map(line).collect()
    }

    fn rows(&self) -> Vec<String> {
        let with_start = self.start_was_cut();
        let steps = self.timeline.iter();
        let steps: Vec<_> = steps
            .filter(|step| with_start || step.kind != StepKind::Start)
            .collect();
        // Leaves out what was stopped long before the rest.
        let parts = steps
            .iter()
            .filter(|step| with_start || step.ended >= self.stop_began);
        let first = parts.map(|step| step.began).min();
        let shown = self.stop_began.min(first.unwrap_or(self.stop_began))..self.ended;
        let cells: Vec<_> = steps.iter().map(|step| self.cells(step, &shown)).collect();

        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
        let [at, kind, subject, _, took, _] =
            [0, 1, 2, 3, 4, 5].map(|column| width(column).unwrap_or(0));
        let row = |(step, [a, k, s, bar, t, result]): (&&TimelineStep, &[String; 6])| {
            let mark = if step.end.is_failure() { '!' } else { ' ' };
            format!("  {mark} {a:>at$}  {k:kind$}  {s:subject$}  |{bar}|  {t:>took$}  {result}")
        };
        steps.iter().zip(&cells).map(row).collect()
    }

    fn cells(&self, step: &TimelineStep, shown: &Range<Duration>) -> [String; 6] {
        let at = if step.began < self.stop_began {
            format!("-{}", column(self.stop_began - step.began))
        } else {
            column(step.began - self.stop_began)
        };
        // A step of the lifecycle itself needs no subject.
        let subject = match step.kind {
            StepKind::Jitter | StepKind::LameDuck if step.subject == self.name => "",
            _ => &step.subject,
        };
        [
            at,
            step.kind.to_string(),
            shortened(subject, NAME),
            bar(step, shown),
            column(step.took()),
            shortened(&step.how(), RESULT),
        ]
    }

    /// The failures behind the exit status, as an [`Exit`](crate::Exit) writes them.
    pub(super) fn failures(&self) -> Vec<String> {
        let steps = self.cleanup.iter().flat_map(|report| report.failures());
        let errors = self.errors.iter().map(|error| format!("{error:#}"));
        let failures = errors.chain(steps.map(ToString::to_string));
        let line = |(index, failure)| {
            let word = if index == 0 { "error" } else { "also" };
            format!("{word}: {failure}")
        };
        failures.enumerate().map(line).collect()
    }

    pub(super) fn forced_tasks(&self) -> Vec<String> {
        let tasks = self.stragglers.iter().take(TASKS);
        let mut lines: Vec<_> = tasks.map(|task| format!("forced: {task}")).collect();
        if let others @ 1.. = self.stragglers.len().saturating_sub(TASKS) {
            lines.push(format!("forced: {others} more"));
        }
        lines
    }

    /// The best-effort steps of the cleanup that were not done.
    fn best_efforts(&self) -> Vec<String> {
        let steps = self.cleanup.iter().flat_map(|report| &report.steps);
        steps
            .filter(|step| step.best_effort && step.end != End::Done)
            .map(|step| format!("best effort: {step}"))
            .collect()
    }
}

/// The cells of a bar that a step covers, at least one.
fn bar(step: &TimelineStep, shown: &Range<Duration>) -> String {
    let length = shown.end.saturating_sub(shown.start).as_nanos().max(1);
    let cells = BAR as u128;
    let since = |time: Duration| time.saturating_sub(shown.start).as_nanos().min(length);
    let first = (since(step.began) * cells / length).min(cells - 1);
    let end = (since(step.ended) * cells).div_ceil(length).max(first + 1);
    let cell = |at| match (first..end).contains(&at) {
        true => '#',
        false => '.',
    };
    (0..cells).map(cell).collect()
}
