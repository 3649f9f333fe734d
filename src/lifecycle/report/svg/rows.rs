//! The rows of a picture: the steps of the report, those of one component together.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::group::end::End;
use crate::lifecycle::report::Report;
use crate::lifecycle::report::TimelineStep;
use crate::lifecycle::step_kind::StepKind;

/// The steps of a component, or of something else with a name.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) name: String,
    pub(super) steps: Vec<&'a TimelineStep>,
}

impl Row<'_> {
    pub(super) fn is_bad(&self) -> bool {
        self.steps.iter().any(|step| step.end.is_failure())
    }

    /// Rows that went wrong count most, then the critical ones, then the longest.
    fn weight(&self) -> (bool, bool, Duration) {
        let critical = self.steps.iter().any(|step| step.critical);
        let took = self.steps.iter().map(|step| step.took()).max();
        (self.is_bad(), critical, took.unwrap_or_default())
    }
}

/// The rows of a report, in the order in which they begin in the stop.
pub(super) fn of(report: &Report) -> Vec<Row<'_>> {
    let with_start = report.start_was_cut();
    let is_shown = |step: &&TimelineStep| {
        with_start || (step.kind != StepKind::Start && step.ended >= report.stop_began)
    };
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for step in report.timeline.iter().filter(is_shown) {
        let name = subject(report, step);
        // A step of the cleanup may have the name of a component, or of another step.
        let alone = !matches!(step.kind, StepKind::Start | StepKind::Stop);
        match places.get(&name).filter(|_| !alone) {
            Some(&at) if !rows[at].steps.iter().any(|other| other.kind == step.kind) => {
                rows[at].steps.push(step);
            }
            _ => {
                if !alone {
                    places.insert(name.clone(), rows.len());
                }
                rows.push(Row {
                    name,
                    steps: vec![step],
                });
            }
        }
    }
    let begin = |row: &Row<'_>| row.steps.last().map(|step| step.began);
    rows.sort_by_key(begin);
    rows
}

/// At most `count` rows, in their order.
pub(super) fn most_important(mut rows: Vec<Row<'_>>, count: usize) -> Vec<Row<'_>> {
    if rows.len() > count {
        let mut weights: Vec<_> = rows.iter().map(Row::weight).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let (least, mut left) = (weights[count - 1], count);
        rows.retain(|row| {
            let keep = left > 0 && row.weight() >= least;
            left -= usize::from(keep);
            keep
        });
    }
    rows
}

/// From the first row, or the begin of the stop, to the end.
pub(super) fn shown(report: &Report, rows: &[Row<'_>]) -> Range<Duration> {
    let steps = rows.iter().flat_map(|row| &row.steps);
    let first = steps.map(|step| step.began).min();
    let with_start = report.start_was_cut();
    let first = first.filter(|_| with_start).unwrap_or(report.stop_began);
    first.min(report.stop_began)..report.ended
}

/// The name of a row.
pub(super) fn subject(report: &Report, step: &TimelineStep) -> String {
    match step.kind {
        StepKind::Jitter | StepKind::LameDuck | StepKind::Drain if step.subject == report.name => {
            step.kind.to_string()
        }
        _ => step.subject.clone(),
    }
}

/// The colour of a step.
pub(super) fn class(step: &TimelineStep) -> &'static str {
    match step.kind {
        _ if step.end.is_failure() => "bad",
        _ if step.end == End::Skipped => "skipped",
        StepKind::Start => "start",
        StepKind::Jitter | StepKind::LameDuck | StepKind::Drain => "wait",
        StepKind::Stop => "stop",
        StepKind::Cleanup => "cleanup",
    }
}

/// How it ended, unless it was done.
pub(super) fn remark(step: &TimelineStep) -> Option<String> {
    (step.end != End::Done).then(|| crate::cleanup::words::one_line(&step.how()))
}

/// The colours that occur, each with its meaning.
pub(super) fn legend(rows: &[Row<'_>]) -> Vec<(&'static str, &'static str)> {
    let words = [
        ("start", "start"),
        ("wait", "still serving"),
        ("stop", "stopping"),
        ("cleanup", "cleanup"),
        ("bad", "failed or forced"),
        ("skipped", "skipped"),
    ];
    let occurs = |class: &str| {
        let mut steps = rows.iter().flat_map(|row| &row.steps);
        steps.any(|step| self::class(step) == class)
    };
    words
        .into_iter()
        .filter(|(class, _)| occurs(class))
        .collect()
}
