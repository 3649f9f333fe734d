//! The report as a picture (feature `svg`).

mod canvas;
mod rows;

use std::fmt::Write;
use std::time::Duration;

use self::canvas::{Canvas, LINE, MARGIN, Scale};
use self::rows::Row;
use super::Report;
use crate::cleanup::words::one_line;
use crate::cleanup::words::shortened;
use crate::group::time::Rounded;
use crate::group::time::column;
use crate::lifecycle::step_kind::StepKind;

/// The page, in the units of the picture.
const WIDTH: u64 = 760;
/// The columns: names, bars, and how long each step took.
const BARS: (u64, u64) = (164, 664);
const TOOK: u64 = WIDTH - MARGIN;
const ROW: u64 = 26;
/// The characters of a line of text across the page.
const CHARACTERS: usize = 112;
const NAME: usize = 19;
/// How many rows and lines below them a panel has at most.
const ROWS: usize = 100;
const LINES: usize = 12;

/// Everything is below one class, so the picture can also stand inside a page.
const STYLE: &str = "\
.stop-report { --page: #ffffff; --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --done: #3f86c0; --wait: #f0b95b; \
--clean: #8f74c4; --start: #9aa7b8; --bad: #d32f2f; --good: #1f7a4d }
@media (prefers-color-scheme: dark) { .stop-report { --page: #12151b; --ink: #e6e9ef; --soft: #98a1b0; \
--line: #2a303b; --done: #4b96d4; --wait: #d19a3a; --clean: #9b82cf; --start: #6d7a8c; --bad: #ff6b6b; --good: #4cc38a } }
.stop-report text { font: 13px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; fill: var(--ink) }
.stop-report .page { fill: var(--page) }
.stop-report .title { font-size: 17px; font-weight: 600 }
.stop-report .soft { fill: var(--soft) }
.stop-report .small { font-size: 12px }
.stop-report .end { text-anchor: end }
.stop-report .middle { text-anchor: middle }
.stop-report .bad-text { fill: var(--bad) }
.stop-report .good-text { fill: var(--good) }
.stop-report .bad-text.inside { fill: var(--page) }
.stop-report .grid { stroke: var(--line); fill: none }
.stop-report .track { fill: var(--line) }
.stop-report .stop { fill: var(--done) }
.stop-report .wait { fill: var(--wait) }
.stop-report .cleanup { fill: var(--clean) }
.stop-report .start { fill: var(--start) }
.stop-report .bad { fill: var(--bad) }
.stop-report .skipped { fill: none; stroke: var(--soft); stroke-dasharray: 3 3 }
.stop-report .limit { stroke: var(--bad); stroke-dasharray: 5 4; fill: none }
.stop-report .begin { stroke: var(--soft); fill: none }
.stop-report .chain { stroke: var(--ink); stroke-width: 2; fill: none }
";

impl Report {
    /// Draws the stop as a picture in SVG: a self-contained file in the colours of the reader's screen,
    /// light or dark.
    ///
    /// Each component, each step of the cleanup and each wait of the stop has a row, with a bar from its
    /// begin to its end. What failed or was forced is red and says why. The track on top shows how much of
    /// the [budget](Self::budget) was used. A line joins the steps of the critical chain, the
    /// [steps](super::TimelineStep::critical) that the length of the stop came from. The errors and the
    /// tasks that were cut follow. The reports of nested lifecycles are drawn below.
    ///
    /// The same data always gives the same picture. Screen readers get the text of the report. A panel has
    /// at most 100 rows. The steps that went wrong and the critical chain come first, then the longest.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let migrate = Component::job("migrate", |_| async { Ok(()) });
    /// let report = Lifecycle::new("orders").component(migrate).run().await?;
    /// let picture = report.to_svg();
    /// assert!(picture.starts_with("<svg ") && picture.contains("orders"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut canvas = Canvas::default();
        self.draw(&mut canvas);
        let height = canvas.bottom() + MARGIN;
        let verdict = canvas::escaped(&one_line(&self.verdict()));
        let text = self.to_string();
        let text: Vec<_> = text.lines().map(canvas::escaped).collect();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"stop-report\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" style=\"max-width: 100%; height: auto\" role=\"img\">\n\
             <title>{verdict}</title>\n<desc>{}</desc>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>\n{}</svg>\n",
            text.join("\n"),
            canvas.drawn(),
        )
    }

    fn draw(&self, canvas: &mut Canvas) {
        canvas.down(MARGIN);
        self.draw_head(canvas);
        let rows = rows::of(self);
        let left_out = rows.len().saturating_sub(ROWS);
        let rows = rows::most_important(rows, ROWS);
        let scale = Scale::new(rows::shown(self, &rows), BARS);
        let top = canvas.bottom();
        self.draw_grid(canvas, &scale, top + ROW * rows.len() as u64);
        draw_chain(canvas, &rows, &scale);
        for row in &rows {
            draw_row(canvas, row, &scale);
        }
        canvas.down(LINE + 10);
        if left_out > 0 {
            canvas.line(
                "soft small",
                &format!("{left_out} more steps are not drawn"),
            );
        }
        self.draw_foot(canvas, &rows);
        for nested in &self.nested {
            nested.draw(canvas);
        }
    }

    /// The name, the verdict, and the track of the budget.
    fn draw_head(&self, canvas: &mut Canvas) {
        let verdict = self.verdict();
        let (name, how) = verdict
            .split_at_checked(self.name.len())
            .unwrap_or(("", &verdict));
        let (how, why) = how.split_once(", ").unwrap_or((how, ""));
        let class = if self.is_clean() {
            "good-text"
        } else {
            "bad-text"
        };
        let name = shortened(&one_line(name), 60);
        canvas.down(14);
        canvas.text("title", (MARGIN, canvas.bottom()), &name);
        let how = how.trim_start_matches(": ");
        canvas.text(&format!("title end {class}"), (TOOK, canvas.bottom()), how);
        canvas.down(6);
        canvas.line("soft", &shortened(&one_line(why), CHARACTERS));
        canvas.down(20);
        if self.budget != Duration::MAX {
            self.draw_budget(canvas);
        }
        canvas.down(12);
    }

    fn draw_budget(&self, canvas: &mut Canvas) {
        let top = canvas.bottom();
        let (left, right) = BARS;
        let budget = self.budget.as_nanos().max(1);
        let took = self.took().as_nanos();
        let share = u64::try_from(took * 100 / budget).unwrap_or(u64::MAX);
        let used = (right - left) * share.min(100) / 100;
        let class = if share > 100 { "bad" } else { "stop" };
        canvas.text("soft", (MARGIN, top + 5), "budget");
        canvas.rect("track", (left, top - 3), (right - left, 8));
        canvas.rect(class, (left, top - 3), (used.max(2), 8));
        let share = format!("{share} % of {}", Rounded(self.budget));
        canvas.text("soft small end", (TOOK, top + 5), &share);
        canvas.down(10);
    }

    /// The time axis, the begin of the stop, and the end of the budget if it is in the picture.
    fn draw_grid(&self, canvas: &mut Canvas, scale: &Scale, bottom: u64) {
        let top = canvas.bottom();
        let to_bottom = |at, class, canvas: &mut Canvas| {
            let x = scale.x(at);
            canvas.path(class, &format!("M{x} {top}V{bottom}"));
            x
        };
        for (at, text) in scale.ticks(self.stop_began) {
            let x = to_bottom(at, "grid", canvas);
            canvas.text("soft small middle", (x, bottom + LINE), &text);
        }
        if scale.first() < self.stop_began {
            to_bottom(self.stop_began, "begin", canvas);
        }
        let limit = self.stop_began.saturating_add(self.budget);
        if limit <= scale.last() {
            to_bottom(limit, "limit", canvas);
        }
    }

    /// The legend, the critical chain in words, and what went wrong.
    fn draw_foot(&self, canvas: &mut Canvas, rows: &[Row<'_>]) {
        let mut x = MARGIN;
        let y = canvas.bottom() + 14;
        for (class, word) in rows::legend(rows) {
            canvas.rect(class, (x, y - 9), (16, 10));
            canvas.text("soft small", (x + 22, y), word);
            x += 22 + canvas::width(word) + 18;
        }
        canvas.down(LINE + 6);
        let chain = self.timeline.iter().filter(|step| step.critical);
        let chain: Vec<_> = chain
            .map(|step| format!("{} {}", rows::subject(self, step), Rounded(step.took())))
            .collect();
        if !chain.is_empty() {
            let chain = one_line(&format!("critical chain: {}", chain.join(" → ")));
            canvas.line("small", &shortened(&chain, CHARACTERS));
        }
        let failures = self.failures();
        let forced = self.forced_tasks();
        let lines: Vec<_> = failures.iter().chain(&forced).collect();
        for line in lines.iter().take(LINES) {
            canvas.line("small bad-text", &shortened(&one_line(line), CHARACTERS));
        }
        if let more @ 1.. = lines.len().saturating_sub(LINES) {
            canvas.line(
                "small bad-text",
                &format!("{more} more in the text of the report"),
            );
        }
        if self.start_was_cut() {
            for line in self.never_started() {
                canvas.line("small soft", &shortened(&one_line(&line), CHARACTERS));
            }
        }
    }
}

/// A line from the end of each critical step to the begin of the next one.
fn draw_chain(canvas: &mut Canvas, rows: &[Row<'_>], scale: &Scale) {
    let below = |row: usize| canvas.bottom() + ROW * (row as u64 + 1) - 4;
    let critical: Vec<_> = rows
        .iter()
        .enumerate()
        .flat_map(|(at, row)| row.steps.iter().map(move |step| (at, *step)))
        .filter(|(_, step)| step.critical)
        .collect();
    let mut lines = String::new();
    for pair in critical.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let (x, end) = (scale.x(before.ended), scale.x(after.began));
        let (y, bottom) = (below(from), below(to));
        let _ = write!(lines, "M{x} {y}V{bottom}H{end}");
    }
    if !lines.is_empty() {
        canvas.path("chain", &lines);
    }
}

fn draw_row(canvas: &mut Canvas, row: &Row<'_>, scale: &Scale) {
    let top = canvas.bottom();
    let text = top + ROW / 2 + 5;
    let class = if row.is_bad() { "bad-text" } else { "" };
    canvas.text(
        class,
        (MARGIN, text),
        &shortened(&one_line(&row.name), NAME),
    );
    for step in &row.steps {
        let (from, to) = (scale.x(step.began), scale.x(step.ended));
        let length = to.saturating_sub(from).max(3);
        let class = rows::class(step);
        canvas.rect(class, (from, top + 5), (length, ROW - 10));
        if step.critical {
            let (left, right, y) = (from, from + length, top + ROW - 4);
            canvas.path("chain", &format!("M{left} {y}H{right}"));
        }
        if let Some(how) = rows::remark(step) {
            let class = if class == "bad" {
                "small bad-text"
            } else {
                "small soft"
            };
            canvas.beside(class, (from, from + length), text, &how, BARS);
        }
    }
    if let Some(step) = row
        .steps
        .iter()
        .rev()
        .find(|step| step.kind != StepKind::Start)
    {
        canvas.text("soft small end", (TOOK, text), &column(step.took()));
    }
    canvas.down(ROW);
}
