//! How a [`Plan`] prints.

use std::fmt;
use std::time::Duration;

use super::Kind;
use super::Plan;
use super::PlannedComponent;
use crate::group::time::Rounded;
use crate::lifecycle::plan::phase::Phase;

/// How many names of a chain are printed. The rest is counted.
const CHAIN: usize = 8;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::default();
        text.plan(self, self.name());
        f.write_str(&text.lines.join("\n"))
    }
}

/// The lines so far, and the prefix of the next ones.
#[derive(Default)]
struct Text {
    lines: Vec<String>,
    indent: String,
}

impl Text {
    fn line(&mut self, line: &str) {
        // Line breaks in names become spaces, and an empty last cell leaves no trailing space.
        let line = format!("{}{line}", self.indent).replace(char::is_control, " ");
        self.lines.push(line.trim_end().to_owned());
    }

    /// Prints one plan, and the plans nested in it below their paths.
    fn plan(&mut self, plan: &Plan, path: &str) {
        self.line(&head(plan, path));
        if let Some(detected) = plan.budget.detected_as() {
            self.line(&format!("detected {detected}"));
        }
        if !plan.components.is_empty() {
            self.line("");
            match plan.budget.start_time() {
                Duration::MAX => self.line("start"),
                limit => self.line(&format!("start within {}", Rounded(limit))),
            }
            self.table(plan, plan.graph.start_order(), |index| {
                let component = &plan.components[index];
                (component.start_level, start(component))
            });
        }
        self.line("");
        self.line("stop");
        self.before(plan);
        self.table(plan, plan.graph.stop_order().into_iter(), |index| {
            let component = &plan.components[index];
            (
                component.stop_level,
                stop(
                    component,
                    plan.graph.phases[index].map(|phase| &plan.phases[phase]),
                ),
            )
        });
        self.after(plan);
        if !plan.components.is_empty() {
            self.line("");
            self.line(&chain(plan));
        }
        for component in plan.components() {
            if let Some(nested) = &component.nested {
                self.line("");
                let outer = self.indent.len();
                self.indent.push_str("  ");
                self.plan(nested, &format!("{path}/{}", component.name));
                self.indent.truncate(outer);
            }
        }
    }

    /// The lines before the first component is told to stop.
    fn before(&mut self, plan: &Plan) {
        let budget = plan.budget();
        let margin = margin(plan);
        if !budget.pre_stop_time().is_zero() {
            let time = Rounded(budget.pre_stop_time());
            self.line(&format!("{margin}preStop {time}: before the signal"));
        }
        if !budget.jitter_time().is_zero() {
            let time = Rounded(budget.jitter_time());
            self.line(&format!("{margin}jitter up to {time}: still ready"));
        }
        if !budget.lame_duck_time().is_zero() {
            let time = Rounded(budget.lame_duck_time());
            self.line(&format!(
                "{margin}lame duck {time}: not ready, still serving"
            ));
        }
        if !budget.drain_time().is_zero() {
            let time = Rounded(budget.drain_time());
            let count = plan.components.iter().filter(|component| component.drains);
            let who = match count.count() {
                0 => "nobody drains".to_owned(),
                1 => "1 component".to_owned(),
                count => format!("{count} components at once"),
            };
            self.line(&format!("{margin}drain within {time}: {who}"));
        }
    }

    /// The lines after the last component.
    fn after(&mut self, plan: &Plan) {
        let budget = plan.budget();
        let margin = margin(plan);
        if !budget.cleanup_time().is_zero() {
            let time = Rounded(budget.cleanup_time());
            self.line(&format!("{margin}cleanup within {time}"));
        }
        let time = Rounded(budget.margin());
        self.line(&format!(
            "{margin}margin {time}: to end what was forced, and to report"
        ));
    }

    /// Prints a line for each component of `order`, with its number if that differs from the line before.
    fn table<const N: usize>(
        &mut self,
        plan: &Plan,
        order: impl Iterator<Item = usize>,
        row: impl Fn(usize) -> (usize, [String; N]),
    ) {
        let rows: Vec<_> = order.map(row).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|(_, cells)| cells[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let numbers = digits(plan);
        let mut last = 0;
        for (level, cells) in &rows {
            let number = match *level == last {
                true => String::new(),
                false => level.to_string(),
            };
            last = *level;
            let mut line = format!("  {number:>numbers$}");
            // Empty columns are left out.
            for (cell, width) in cells.iter().zip(widths).filter(|(_, width)| *width > 0) {
                line.push_str(&format!("  {cell:width$}"));
            }
            self.line(&line);
        }
    }
}

fn head(plan: &Plan, path: &str) -> String {
    let count = match plan.components.len() {
        0 => "no components".to_owned(),
        1 => "1 component".to_owned(),
        count => format!("{count} components"),
    };
    let budget = Rounded(plan.budget.total());
    let platform = match plan.budget.platform_limit() {
        Some((platform, limit)) => format!(" ({platform}: {})", Rounded(limit)),
        None => String::new(),
    };
    format!("{path}: {count}, budget {budget}{platform}")
}

/// The cells of a component in the start.
fn start(component: &PlannedComponent) -> [String; 4] {
    let kind = match component.kind {
        // Most components are plain ones. Leaving out their kind makes the others stand out.
        Kind::Component => "",
        Kind::Resource => "resource",
        Kind::Job => "job",
        Kind::Lifecycle => "lifecycle",
    };
    let after = match component.after.is_empty() {
        true => String::new(),
        false => format!("after {}", component.after.join(", ")),
    };
    let within = format!("within {}", Rounded(component.start_timeout));
    [component.name.to_string(), kind.to_owned(), within, after]
}

/// The cells of a component in the stop.
fn stop(component: &PlannedComponent, phase: Option<&Phase>) -> [String; 5] {
    let within = match component.grace {
        Duration::ZERO => "at once".to_owned(),
        grace => format!("within {}", Rounded(grace)),
    };
    let phase = match phase.map(|phase| (phase.name(), phase.budget())) {
        Some((name, Some(budget))) => format!("phase {name} ({})", Rounded(budget)),
        Some((name, None)) => format!("phase {name}"),
        None => String::new(),
    };
    let drains = match component.drains {
        true => "drains",
        false => "",
    };
    let by = match component.stops_by {
        // A time without a limit is not worth printing.
        Duration::MAX => String::new(),
        by => format!("by {}", Rounded(by)),
    };
    let name = component.name.to_string();
    [name, within, by, phase, drains.to_owned()]
}

fn chain(plan: &Plan) -> String {
    let names: Vec<_> = plan.longest_chain().map(PlannedComponent::name).collect();
    let mut shown = names.join(" → ");
    if let [first @ .., last] = &names[..] {
        if first.len() > CHAIN {
            let more = first.len() - CHAIN;
            shown = format!("{} → … {more} more … → {last}", first[..CHAIN].join(" → "));
        }
    }
    let graces = plan.longest_chain().map(PlannedComponent::grace);
    let sum = graces.fold(Duration::ZERO, Duration::saturating_add);
    let limit = Rounded(plan.budget.stop_time());
    format!("longest chain {shown}: {} of {limit}", Rounded(sum))
}

/// The indent of a line without a number, so that the names line up.
fn margin(plan: &Plan) -> String {
    " ".repeat(digits(plan) + 4)
}

/// How wide the numbers are.
fn digits(plan: &Plan) -> usize {
    let levels = plan.components.iter().map(|component| {
        // The highest number of both orders is the widest.
        component.start_level.max(component.stop_level)
    });
    levels.max().unwrap_or(0).to_string().len()
}
