//! [`Progress`]: one line for an operator about the state of a lifecycle.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::group::time::Rounded;
use crate::lifecycle::{Event, EventKind};

/// How many components a line names.
const NAMED: usize = 5;

/// The manager reads no more than 4096 bytes of a message.
const LONGEST: usize = 512;

/// How far a lifecycle has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The components that are waited for, and whether each was forced.
    waiting: BTreeMap<Arc<str>, bool>,
    is_stopping: bool,
    is_ready: bool,
    /// The text to use while the lifecycle waits for no component.
    stage: String,
}

impl Progress {
    /// Takes in an event. Returns whether the line has changed.
    pub(super) fn on(&mut self, event: &Event) -> bool {
        match &event.kind {
            EventKind::StartBegan if !self.is_stopping => self.wait_for(event),
            EventKind::Ready(_) if !self.is_stopping => return self.forget(event),
            EventKind::AllReady => {
                self.is_ready = true;
                self.stage = "ready".into();
            }
            EventKind::StopTriggered { cause, .. } => {
                self.is_stopping = true;
                self.waiting.clear();
                self.stage = format!("stopping: {cause}");
            }
            EventKind::JitterBegan(length) => {
                self.stage = format!("stopping in {}, still ready", Rounded(*length));
            }
            EventKind::LameDuckBegan(length) => {
                self.stage = format!("lame duck: still serving, for {}", Rounded(*length));
            }
            EventKind::DrainBegan(within) if *within < Duration::MAX => {
                self.stage = format!("draining: for {} at most", Rounded(*within));
            }
            EventKind::DrainBegan(_) => self.stage = "draining".into(),
            EventKind::StopBegan(_) => self.wait_for(event),
            EventKind::Forced(_) => {
                if let Some(is_forced) = event
                    .component
                    .as_ref()
                    .and_then(|path| self.waiting.get_mut(path))
                {
                    *is_forced = true;
                }
            }
            EventKind::Ended { .. } => return self.forget(event),
            EventKind::CleanupBegan => {
                self.waiting.clear();
                self.stage = "cleaning up".into();
            }
            EventKind::Stopped { took, errors } => {
                self.waiting.clear();
                self.stage = format!("stopped in {}", Rounded(*took));
                match errors {
                    0 => {}
                    1 => self.stage.push_str(", 1 error"),
                    errors => drop(write!(self.stage, ", {errors} errors")),
                }
            }
            _ => return false,
        }
        true
    }

    /// Returns the line. Its cost does not depend on how many components are waited for.
    pub(super) fn line(&self, lifecycle: &str) -> String {
        if self.waiting.is_empty() {
            return clean(&self.stage);
        }
        let what = match (self.is_stopping, self.is_ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "starting",
        };
        let mut line = format!("{what}: waiting for ");
        for (count, (path, is_forced)) in self.waiting.iter().take(NAMED).enumerate() {
            let comma = if count > 0 { ", " } else { "" };
            let name = path
                .strip_prefix(lifecycle)
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or(path);
            let forced = if *is_forced { " (forced)" } else { "" };
            let _ = write!(line, "{comma}{name}{forced}");
        }
        if let more @ 1.. = self.waiting.len().saturating_sub(NAMED) {
            let _ = write!(line, " and {more} more");
        }
        clean(&line)
    }

    fn wait_for(&mut self, event: &Event) {
        self.waiting
            .extend(event.component.clone().map(|path| (path, false)));
    }

    /// Returns whether other components are still waited for. If not, the next step follows at once.
    fn forget(&mut self, event: &Event) -> bool {
        if let Some(path) = &event.component {
            self.waiting.remove(path);
        }
        !self.waiting.is_empty()
    }
}

/// Keeps the text on one line, whatever the name of a component or a cause contains. After a line break, the
/// rest would be another message.
fn clean(line: &str) -> String {
    let mut clean: String = line
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    if clean.len() > LONGEST {
        let end = (0..=LONGEST - '…'.len_utf8())
            .rev()
            .find(|end| clean.is_char_boundary(*end));
        clean.truncate(end.unwrap_or(0));
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_line() {
        assert_eq!(clean("a\nMAINPID=1"), "a MAINPID=1");
        let long = clean(&"ä".repeat(LONGEST));
        assert!(long.len() <= LONGEST && long.ends_with('…'), "{long}");
    }

    #[test]
    fn no_more_than_a_few_are_named() {
        let mut progress = Progress {
            is_stopping: true,
            ..Progress::default()
        };
        for index in 0..7 {
            progress
                .waiting
                .insert(format!("orders/c{index}").into(), index == 1);
        }
        assert_eq!(
            progress.line("orders"),
            "draining: waiting for c0, c1 (forced), c2, c3, c4 and 2 more"
        );
    }
}
