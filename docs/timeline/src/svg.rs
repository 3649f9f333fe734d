//! The drawing as a picture, in the colours of the reader's screen, light or dark.

use crate::source::Bar;
use crate::source::Moment;
use crate::source::Panel;
use crate::source::Row;

const WIDTH: i64 = 1000;
const LEFT: i64 = 146;
const RIGHT: i64 = WIDTH - 24;
const ROW: i64 = 28;
const SUB: i64 = 22;
/// Title, note and the labels of the events, above the rows.
const HEAD: i64 = 96;
/// The labels of the exits and the axis, below the rows.
const FOOT: i64 = 64;
const LEGEND: i64 = 44;

const STYLE: &str = "
  text { font: 12px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; fill: #1f2430 }
  .page { fill: #ffffff } .title { font-size: 17px; font-weight: 600 } .note, .tick, .sub { fill: #667085 }
  .name { font-weight: 600 } .sub { font-size: 11.5px } .grid { stroke: #eceef2 } .axis { stroke: #98a1b0 }
  .serving { fill: #d7e6f4 } .serving-label { fill: #24486b }
  .draining { fill: #f4bf4f } .draining-label { fill: #4a3300 }
  .work { fill: #3f86c0 } .work-label { fill: #ffffff }
  .closing { fill: #a98bd0 } .closing-label { fill: #ffffff }
  .token { fill: #333d4f } .token-label { fill: #ffffff }
  .waiting { fill: #ffffff; stroke: #98a1b0; stroke-dasharray: 3 3 } .waiting-label { fill: #667085 }
  .done { stroke: #23875a } .done-label { fill: #23875a } .refused { stroke: #667085 } .refused-label { fill: #667085 }
  .mark { stroke: #ffffff; stroke-width: 4; stroke-linejoin: round; paint-order: stroke }
  .forced { stroke: #c93636 } .forced-label { fill: #c93636; font-weight: 600 }
  .signal { stroke: #1f2430 } .signal-pill { fill: #1f2430 } .limit { stroke: #b7791f; stroke-dasharray: 4 4 }
  .limit-pill { fill: #b7791f } .good { stroke: #23875a } .good-pill { fill: #23875a }
  .bad { stroke: #c93636 } .bad-pill { fill: #c93636 } .pill-label { fill: #ffffff; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9ef } .page { fill: #12151b } .note, .tick, .sub { fill: #98a1b0 }
    .grid { stroke: #232833 } .axis { stroke: #5c6675 }
    .serving { fill: #233a52 } .serving-label { fill: #bcd8f2 } .draining { fill: #c4922e } .draining-label { fill: #1c1300 }
    .closing { fill: #7c5fa8 } .token { fill: #dfe4ec } .token-label { fill: #12151b }
    .waiting { fill: #12151b; stroke: #5c6675 } .waiting-label { fill: #98a1b0 }
    .done, .good { stroke: #3fb981 } .done-label { fill: #3fb981 } .refused-label { fill: #98a1b0 }
    .mark { stroke: #12151b } .forced, .bad { stroke: #f06a6a } .forced-label { fill: #f06a6a } .signal { stroke: #e6e9ef }
    .signal-pill { fill: #e6e9ef } .signal-text { fill: #12151b }
  }
";

/// Draws all panels, one below the other.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let height = LEGEND + panels.iter().map(panel_height).sum::<i64>();
    let titles: Vec<_> = panels.iter().map(|panel| panel.title.as_str()).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>\n",
        escape(&titles.join(" · "))
    );
    let mut top = 0;
    for panel in panels {
        svg += &draw_panel(panel, top);
        top += panel_height(panel);
    }
    svg + &legend(top) + "</svg>\n"
}

/// The labels that have no room: they would run into something else.
pub(crate) fn crowded(panels: &[Panel]) -> Vec<String> {
    let mut crowded = Vec::new();
    for panel in panels {
        for row in &panel.rows {
            for bar in row.bars.iter().filter(|bar| !bar.label.is_empty()) {
                if text_width(&bar.label) + 16 > x(panel, bar.to) - x(panel, bar.from) {
                    crowded.push(format!("{}: {}: {}", panel.title, row.name, bar.label));
                }
            }
            for mark in &row.marks {
                if x(panel, mark.at) + 14 + text_width(&mark.label) > RIGHT {
                    crowded.push(format!("{}: {}: {}", panel.title, row.name, mark.label));
                }
            }
        }
    }
    crowded
}

fn panel_height(panel: &Panel) -> i64 {
    HEAD + rows_height(panel) + FOOT
}

fn rows_height(panel: &Panel) -> i64 {
    panel.rows.iter().map(row_height).sum()
}

fn row_height(row: &Row) -> i64 {
    if row.sub { SUB } else { ROW }
}

fn draw_panel(panel: &Panel, top: i64) -> String {
    let (first, last) = (top + HEAD, top + HEAD + rows_height(panel));
    let mut svg = format!(
        "<text class=\"title\" x=\"24\" y=\"{}\">{}</text>\n<text class=\"note\" x=\"24\" y=\"{}\">{}</text>\n",
        top + 34,
        escape(&panel.title),
        top + 55,
        escape(&panel.note)
    );
    svg += &axis(panel, first, last);
    for event in &panel.events {
        svg += &event_line(panel, event, first, last);
    }
    let mut y = first;
    for row in &panel.rows {
        svg += &draw_row(panel, row, y);
        y += row_height(row);
    }
    for event in &panel.events {
        svg += &pill(
            panel,
            event,
            if is_end(event) { last + 8 } else { first - 30 },
        );
    }
    svg
}

fn axis(panel: &Panel, first: i64, last: i64) -> String {
    let mut svg = String::new();
    for second in panel.from / 1000..=panel.to / 1000 {
        let x = x(panel, second * 1000);
        svg += &format!(
            "<path class=\"grid\" d=\"M{x} {first}V{last}\"/>\n\
             <text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>\n",
            last + 46
        );
    }
    svg + &format!(
        "<path class=\"axis\" d=\"M{LEFT} {0}H{RIGHT}\"/>\n",
        last + 30
    )
}

fn event_line(panel: &Panel, event: &Moment, first: i64, last: i64) -> String {
    let (from, to) = if is_end(event) {
        (first, last + 30)
    } else {
        (first - 10, last)
    };
    let x = x(panel, event.at);
    format!(
        "<path class=\"{}\" stroke-width=\"1.5\" d=\"M{x} {from}V{to}\"/>\n",
        event.kind
    )
}

fn pill(panel: &Panel, event: &Moment, y: i64) -> String {
    let width = text_width(&event.label) + 22;
    let x = x(panel, event.at);
    format!(
        "<rect class=\"{0}-pill\" x=\"{1}\" y=\"{y}\" width=\"{width}\" height=\"20\" rx=\"10\"/>\n\
         <text class=\"pill-label {0}-text\" x=\"{x}\" y=\"{2}\" text-anchor=\"middle\">{3}</text>\n",
        event.kind,
        x - width / 2,
        y + 14,
        escape(&event.label)
    )
}

fn is_end(event: &Moment) -> bool {
    matches!(event.kind.as_str(), "good" | "bad")
}

fn draw_row(panel: &Panel, row: &Row, top: i64) -> String {
    let middle = top + row_height(row) / 2;
    let (class, indent) = if row.sub { ("sub", 38) } else { ("name", 24) };
    let mut svg = format!(
        "<text class=\"{class}\" x=\"{indent}\" y=\"{}\">{}</text>\n",
        middle + 4,
        escape(&row.name)
    );
    let half = row_height(row) / 2 - if row.sub { 3 } else { 4 };
    for bar in &row.bars {
        svg += &draw_bar(panel, bar, middle, half);
    }
    for mark in &row.marks {
        svg += &draw_mark(panel, mark, middle);
    }
    svg
}

fn draw_bar(panel: &Panel, bar: &Bar, middle: i64, half: i64) -> String {
    let (from, to) = (x(panel, bar.from), x(panel, bar.to));
    let rect = format!(
        "<rect class=\"{}\" x=\"{from}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"/>\n",
        bar.kind,
        middle - half,
        to - from,
        2 * half
    );
    let label = format!(
        "<text class=\"{}-label\" x=\"{}\" y=\"{}\">{}</text>\n",
        bar.kind,
        from + 8,
        middle + 4,
        escape(&bar.label)
    );
    if bar.label.is_empty() {
        rect
    } else {
        rect + &label
    }
}

fn draw_mark(panel: &Panel, mark: &Moment, middle: i64) -> String {
    let x = x(panel, mark.at);
    let sign = match mark.kind.as_str() {
        "done" => format!("M{} {middle}l3 4l6 -8", x + 5),
        _ => format!("M{} {}l8 8m0 -8l-8 8", x + 5, middle - 4),
    };
    format!(
        "<path class=\"{0}\" fill=\"none\" stroke-width=\"2\" d=\"{sign}\"/>\n\
         <text class=\"mark {0}-label\" x=\"{1}\" y=\"{2}\">{3}</text>\n",
        mark.kind,
        x + 19,
        middle + 4,
        escape(&mark.label)
    )
}

fn legend(top: i64) -> String {
    let mut svg = String::new();
    let mut x = LEFT;
    for (kind, label) in [
        ("serving", "in service"),
        (
            "draining",
            "draining: nothing new, finish what is in flight",
        ),
        ("work", "one request"),
        ("closing", "closing"),
        ("waiting", "waiting"),
    ] {
        svg += &format!(
            "<rect class=\"{kind}\" x=\"{x}\" y=\"{}\" width=\"22\" height=\"12\" rx=\"3\"/>\n\
             <text class=\"tick\" x=\"{}\" y=\"{}\">{label}</text>\n",
            top + 8,
            x + 29,
            top + 18
        );
        x += 29 + text_width(label) + 24;
    }
    svg
}

fn x(panel: &Panel, at: i64) -> i64 {
    LEFT + (at - panel.from) * (RIGHT - LEFT) / (panel.to - panel.from).max(1)
}

/// The width of a label, a little too large for most.
fn text_width(text: &str) -> i64 {
    let letters = i64::try_from(text.chars().count()).unwrap_or(i64::MAX / 100);
    letters * 66 / 10
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
