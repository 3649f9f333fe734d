//! The source of a drawing: what happened when, line by line.

use std::error::Error;
use std::fmt;

/// A drawing of its own: one shutdown. All times are milliseconds, 0 is the first signal.
#[derive(Debug, Default)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) events: Vec<Moment>,
    pub(crate) rows: Vec<Row>,
}

/// One line of bars.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Whether it belongs to the row above it.
    pub(crate) sub: bool,
    pub(crate) bars: Vec<Bar>,
    pub(crate) marks: Vec<Moment>,
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) kind: String,
    pub(crate) label: String,
}

/// Something that happens at one time, in a row or across all of them.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) at: i64,
    pub(crate) kind: String,
    pub(crate) label: String,
}

/// A line that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    line: usize,
    why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Error for Unreadable {}

/// Reads the panels of a source, whose format its own first lines describe.
pub(crate) fn parse(source: &str) -> Result<Vec<Panel>, Unreadable> {
    let mut panels = Vec::new();
    for (at, line) in source.lines().enumerate() {
        if !line.is_empty() && !line.starts_with('#') {
            read(line, &mut panels).map_err(|why| Unreadable { line: at + 1, why })?;
        }
    }
    Ok(panels)
}

fn read(line: &str, panels: &mut Vec<Panel>) -> Result<(), String> {
    let (keyword, rest) = word(line);
    if keyword == "panel" {
        panels.push(Panel {
            title: rest.to_owned(),
            ..Panel::default()
        });
        return Ok(());
    }
    let panel = panels.last_mut().ok_or("a line before the first panel")?;
    match keyword {
        "note" => panel.note = rest.to_owned(),
        "span" => {
            let (from, to) = word(rest);
            (panel.from, panel.to) = (time(from)?, time(to)?);
        }
        "event" => panel
            .events
            .push(moment(rest, panel, &["signal", "limit", "good", "bad"])?),
        "row" | "sub" => panel.rows.push(Row {
            name: rest.to_owned(),
            sub: keyword == "sub",
            bars: Vec::new(),
            marks: Vec::new(),
        }),
        "bar" => {
            let kinds = ["serving", "draining", "work", "closing", "token", "waiting"];
            let (from, rest) = word(rest);
            let Moment {
                at: to,
                kind,
                label,
            } = moment(rest, panel, &kinds)?;
            let from = within(panel, time(from)?)?;
            last_row(panel)?.bars.push(Bar {
                from,
                to,
                kind,
                label,
            });
        }
        "mark" => {
            let mark = moment(rest, panel, &["done", "refused", "forced"])?;
            last_row(panel)?.marks.push(mark);
        }
        other => return Err(format!("what is `{other}`?")),
    }
    Ok(())
}

fn moment(text: &str, panel: &Panel, kinds: &[&str]) -> Result<Moment, String> {
    let (at, rest) = word(text);
    let (kind, label) = word(rest);
    if !kinds.contains(&kind) {
        return Err(format!("what is `{kind}`?"));
    }
    let at = within(panel, time(at)?)?;
    Ok(Moment {
        at,
        kind: kind.to_owned(),
        label: label.to_owned(),
    })
}

fn last_row(panel: &mut Panel) -> Result<&mut Row, String> {
    panel
        .rows
        .last_mut()
        .ok_or_else(|| "it belongs to no row".to_owned())
}

fn within(panel: &Panel, at: i64) -> Result<i64, String> {
    if (panel.from..=panel.to).contains(&at) {
        Ok(at)
    } else {
        Err(format!("{at} ms is outside of the span"))
    }
}

/// Reads seconds with up to three decimals. In integers the same source gives the same picture
/// everywhere.
fn time(text: &str) -> Result<i64, String> {
    let unreadable = |_| format!("what time is `{text}`?");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let magnitude = format!("{}{decimals:0<3}", whole.trim_start_matches('-'));
    let millis: i64 = magnitude.parse().map_err(unreadable)?;
    Ok(if whole.starts_with('-') {
        -millis
    } else {
        millis
    })
}

fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}
