//! [`Outbox`]: the messages for the service manager, and when to send them.
//!
//! It has no clock and no socket. A message that could not be sent is kept and joined with later ones, so at
//! most one message waits.

use std::fmt::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::progress::Progress;
use crate::group::cause::Cause;
use crate::lifecycle::{Event, EventKind};

/// Each extension of the stop. A blocked runtime no longer extends it.
const EXTENSION: Duration = Duration::from_secs(10);

/// How long the process has after the budget, to write its report and to exit.
const AFTER_THE_BUDGET: Duration = Duration::from_secs(1);

/// How many steps are sent at once, before there is a pause between them.
const BURST: u32 = 16;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Outbox {
    message: Message,
    progress: Progress,
    watchdog: Option<Every>,
    extension: Option<Extension>,
    /// When to send a message that waits.
    send_at: Option<Instant>,
    sent: u32,
    refilled: Option<Instant>,
}

#[derive(Debug, Default)]
struct Message {
    is_ready: bool,
    is_stopping: bool,
    /// When the reload began, on the clock of the manager.
    reloads_since: Option<Duration>,
    is_alive: bool,
    extend: Option<Duration>,
    status: Option<String>,
}

#[derive(Debug)]
struct Every {
    period: Duration,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Extension {
    /// When the budget is used up, if ever.
    until: Option<Instant>,
    next: Instant,
}

impl Outbox {
    /// Makes an outbox. `watchdog` is the timeout of the manager's watchdog.
    pub(super) fn new(watchdog: Option<Duration>) -> Self {
        Self {
            message: Message::default(),
            progress: Progress::default(),
            watchdog: watchdog.map(|within| Every {
                period: (within / 2).max(Duration::from_millis(1)),
                next: None,
            }),
            extension: None,
            send_at: None,
            sent: 0,
            refilled: None,
        }
    }

    /// Takes in an event. Returns whether to send the message at once.
    pub(super) fn on(&mut self, event: &Event, now: Instant) -> bool {
        let mut is_urgent = false;
        match &event.kind {
            EventKind::AllReady => {
                self.message.is_ready = true;
                is_urgent = true;
            }
            EventKind::StopTriggered { budget, cause } => {
                match cause {
                    Cause::Reload => self.message.reloads_since = Some(monotonic()),
                    // Another process is the main one by now.
                    Cause::HandedOver(_) => {}
                    _ => self.message.is_stopping = true,
                }
                self.extension = Some(Extension {
                    until: now.checked_add(*budget),
                    next: now,
                });
                self.extend(now);
                is_urgent = true;
            }
            EventKind::Stopped { .. } => {
                self.extension = None;
                is_urgent = true;
            }
            _ => {}
        }
        if self.progress.on(event) {
            self.message.status = Some(self.progress.line(&event.lifecycle));
        }
        !self.message.is_empty() && (is_urgent || self.may_send(now))
    }

    /// Takes in that it is `now`. Returns whether to send the message.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if let Some(watchdog) = &mut self.watchdog {
            if watchdog.next.is_none_or(|next| next <= now) {
                watchdog.next = now.checked_add(watchdog.period);
                self.message.is_alive = true;
            }
        }
        self.extend(now);
        let is_due = self.send_at.is_some_and(|at| at <= now);
        self.message.is_alive
            || self.message.extend.is_some()
            || (is_due && !self.message.is_empty())
    }

    /// Returns when to look again unless an event comes before.
    pub(super) fn next(&self) -> Option<Instant> {
        let watchdog = self.watchdog.as_ref().and_then(|watchdog| watchdog.next);
        let extension = self.extension.as_ref().map(|extension| extension.next);
        [watchdog, extension, self.send_at]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn text(&self) -> String {
        self.message.text()
    }

    /// Notes that the message was sent.
    pub(super) fn sent(&mut self) {
        self.message = Message::default();
        self.send_at = None;
    }

    /// Notes that the message has to wait for `wait`.
    pub(super) fn refused(&mut self, now: Instant, wait: Duration) {
        self.send_at = now.checked_add(wait);
    }

    fn extend(&mut self, now: Instant) {
        let Some(extension) = &mut self.extension else {
            return;
        };
        if now < extension.next {
            return;
        }
        let left = extension
            .until
            .map_or(Duration::MAX, |until| until.saturating_duration_since(now));
        if left.is_zero() {
            self.extension = None;
            return;
        }
        let by = EXTENSION.min(left.saturating_add(AFTER_THE_BUDGET));
        extension.next = now + by / 2;
        self.message.extend = Some(by);
    }

    /// After a burst, messages wait a little, so that thousands of components do not flood the manager.
    fn may_send(&mut self, now: Instant) -> bool {
        let since = self.refilled.get_or_insert(now);
        let pauses = now.saturating_duration_since(*since).as_millis() / PAUSE.as_millis();
        if pauses > 0 {
            *since = now;
            self.sent = self
                .sent
                .saturating_sub(u32::try_from(pauses).unwrap_or(u32::MAX));
        }
        if self.send_at.is_none() && self.sent < BURST {
            self.sent += 1;
            return true;
        }
        if self.send_at.is_none() {
            self.send_at = now.checked_add(PAUSE);
        }
        false
    }
}

/// The clock that the service manager compares the begin of a reload with.
pub(super) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

impl Message {
    fn is_empty(&self) -> bool {
        !self.is_ready
            && !self.is_stopping
            && self.reloads_since.is_none()
            && !self.is_alive
            && self.extend.is_none()
            && self.status.is_none()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.is_ready {
            text.push_str("READY=1\n");
        }
        if self.is_stopping {
            text.push_str("STOPPING=1\n");
        }
        if let Some(since) = self.reloads_since {
            let _ = writeln!(text, "RELOADING=1\nMONOTONIC_USEC={}", since.as_micros());
        }
        if let Some(extend) = self.extend {
            let _ = writeln!(text, "EXTEND_TIMEOUT_USEC={}", extend.as_micros());
        }
        if let Some(status) = &self.status {
            let _ = writeln!(text, "STATUS={status}");
        }
        if self.is_alive {
            text.push_str("WATCHDOG=1\n");
        }
        text
    }
}
