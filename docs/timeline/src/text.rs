//! The drawing as text, for those who read the page where no picture is shown.

use crate::source::Moment;
use crate::source::Panel;
use crate::source::Row;

const NAMES: i64 = 16;
const COLUMNS_PER_SECOND: i64 = 8;

/// Draws one panel, 80 columns wide or a little more.
pub(crate) fn draw(panel: &Panel) -> String {
    let (ends, begins): (Vec<_>, Vec<_>) = panel.events.iter().partition(|event| is_end(event));
    let mut lines = Vec::new();
    for event in &begins {
        let mut line = Line::default();
        line.put(column(panel, event.at), &format!("▼ {}", event.label));
        for earlier in begins.iter().take(lines.len()) {
            line.rule(column(panel, earlier.at));
        }
        lines.push(line);
    }
    for row in &panel.rows {
        let mut line = draw_row(panel, row);
        for event in &panel.events {
            line.rule(column(panel, event.at));
        }
        lines.push(line);
    }
    for event in &ends {
        let mut line = Line::default();
        line.put(column(panel, event.at), &format!("▲ {}", event.label));
        lines.push(line);
    }
    lines.push(axis(panel));
    lines.iter().map(Line::text).collect()
}

fn is_end(event: &Moment) -> bool {
    matches!(event.kind.as_str(), "good" | "bad")
}

fn draw_row(panel: &Panel, row: &Row) -> Line {
    let mut line = Line::default();
    line.put(
        0,
        &format!("{}{}", if row.sub { "  " } else { "" }, row.name),
    );
    for bar in &row.bars {
        let (from, to) = (column(panel, bar.from), column(panel, bar.to));
        let length = to - from;
        line.put(from, &glyph(&bar.kind).repeat(length));
        if !bar.label.is_empty() && bar.label.chars().count() + 4 <= length {
            line.put(from + 2, &format!(" {} ", bar.label));
        }
    }
    for mark in &row.marks {
        line.put(
            column(panel, mark.at),
            &format!("{} {}", glyph(&mark.kind), mark.label),
        );
    }
    line
}

fn glyph(kind: &str) -> &'static str {
    match kind {
        "serving" => "─",
        "draining" => "▒",
        "work" => "█",
        "closing" => "░",
        "token" => "═",
        "waiting" => "·",
        "done" => "✓",
        "refused" => "×",
        _ => "✗",
    }
}

fn axis(panel: &Panel) -> Line {
    let mut line = Line::default();
    for second in panel.from / 1000..=panel.to / 1000 {
        line.put(column(panel, second * 1000), &format!("{second} s"));
    }
    line
}

fn column(panel: &Panel, at: i64) -> usize {
    let column = NAMES + (at - panel.from) * COLUMNS_PER_SECOND / 1000;
    usize::try_from(column).unwrap_or_default()
}

/// A line of characters that is written into at any column.
#[derive(Default)]
struct Line(Vec<char>);

/// A cell that nothing was written into.
const BLANK: char = '\0';

impl Line {
    fn put(&mut self, column: usize, text: &str) {
        for (at, c) in (column..).zip(text.chars()) {
            *self.cell(at) = c;
        }
    }

    /// Marks a column where nothing else stands.
    fn rule(&mut self, column: usize) {
        let cell = self.cell(column);
        if *cell == BLANK {
            *cell = '│';
        }
    }

    fn cell(&mut self, column: usize) -> &mut char {
        if self.0.len() <= column {
            self.0.resize(column + 1, BLANK);
        }
        &mut self.0[column]
    }

    fn text(&self) -> String {
        let line: String = self.0.iter().collect();
        format!("{}\n", line.replace(BLANK, " ").trim_end())
    }
}
