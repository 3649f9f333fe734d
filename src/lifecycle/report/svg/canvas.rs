//! Shapes and words at whole units, from the top of the picture to its bottom.

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use crate::cleanup::words::shortened;

/// The space around everything.
pub(super) const MARGIN: u64 = 20;
/// The height of a line of text.
pub(super) const LINE: u64 = 18;

/// What was drawn, and how far down it goes.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    drawn: String,
    bottom: u64,
}

impl Canvas {
    pub(super) fn drawn(&self) -> &str {
        &self.drawn
    }

    pub(super) fn bottom(&self) -> u64 {
        self.bottom
    }

    pub(super) fn down(&mut self, by: u64) {
        self.bottom += by;
    }

    pub(super) fn rect(&mut self, class: &str, (x, y): (u64, u64), (width, height): (u64, u64)) {
        let _ = writeln!(
            self.drawn,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"3\"/>"
        );
    }

    pub(super) fn path(&mut self, class: &str, path: &str) {
        let _ = writeln!(self.drawn, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (u64, u64), text: &str) {
        let text = escaped(text);
        let class = match class {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        let _ = writeln!(self.drawn, "<text{class} x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    /// A line of text below what was drawn.
    pub(super) fn line(&mut self, class: &str, text: &str) {
        self.down(LINE);
        self.text(class, (MARGIN, self.bottom), text);
    }

    /// Text in a bar, or at the side that has more room, cut to that room.
    pub(super) fn beside(
        &mut self,
        class: &str,
        (from, to): (u64, u64),
        y: u64,
        text: &str,
        (left, right): (u64, u64),
    ) {
        let room = (from.saturating_sub(left), right.saturating_sub(to));
        let fits = |room: u64| {
            let characters = usize::try_from(room.saturating_sub(8) / 7);
            shortened(text, characters.unwrap_or(0))
        };
        if to - from >= width(text) + 16 {
            self.text(&format!("{class} inside"), (from + 8, y), text);
        } else if room.1 >= room.0 {
            self.text(class, (to + 8, y), &fits(room.1));
        } else {
            self.text(&format!("{class} end"), (from - 8, y), &fits(room.0));
        }
    }
}

/// The times that are shown, and where they are in the picture.
#[derive(Debug)]
pub(super) struct Scale {
    shown: Range<Duration>,
    bars: (u64, u64),
}

impl Scale {
    pub(super) fn new(shown: Range<Duration>, bars: (u64, u64)) -> Self {
        Self { shown, bars }
    }

    pub(super) fn first(&self) -> Duration {
        self.shown.start
    }

    pub(super) fn last(&self) -> Duration {
        self.shown.end
    }

    pub(super) fn x(&self, at: Duration) -> u64 {
        let (left, right) = self.bars;
        let length = self.length().as_nanos().max(1);
        let since = at.saturating_sub(self.shown.start).as_nanos().min(length);
        let x = since * u128::from(right - left) / length;
        left + u64::try_from(x).unwrap_or(0)
    }

    /// Up to ten times with round distances, counted from `zero`, and their labels.
    pub(super) fn ticks(&self, zero: Duration) -> Vec<(Duration, String)> {
        let length = self.length().as_nanos();
        let mut step: u128 = 1_000;
        let mut factors = [2, 5, 10].iter().cycle();
        let mut unit = step;
        while length / step > 8 {
            let Some(&factor) = factors.next() else { break };
            step = unit * factor;
            if factor == 10 {
                unit = step;
            }
        }
        let Ok(step) = u64::try_from(step).map(Duration::from_nanos) else {
            return Vec::new();
        };
        let mut ticks = Vec::new();
        let mut at = zero;
        while let Some(earlier) = at.checked_sub(step).filter(|at| *at >= self.shown.start) {
            at = earlier;
        }
        while at <= self.shown.end {
            let label = match at < zero {
                true => format!("−{:?}", zero - at),
                false => format!("{:?}", at - zero),
            };
            ticks.push((at, label.replace("ns", "")));
            at += step;
        }
        ticks
    }

    fn length(&self) -> Duration {
        self.shown.end.saturating_sub(self.shown.start)
    }
}

/// The width of a text of the usual size, a little too large for most.
pub(super) fn width(text: &str) -> u64 {
    text.chars().count() as u64 * 7
}

/// The text without what XML would take for markup, and without what XML does not allow.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(from: u64, to: u64, zero: u64) -> Vec<String> {
        let ms = Duration::from_millis;
        let scale = Scale::new(ms(from)..ms(to), (0, 100));
        let ticks = scale.ticks(ms(zero));
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_times_from_the_begin_of_the_stop() {
        assert_eq!(
            labels(60_000, 67_500, 60_000).join(" "),
            "0 1s 2s 3s 4s 5s 6s 7s"
        );
        assert_eq!(
            labels(0, 130, 90).join(" "),
            "−80ms −60ms −40ms −20ms 0 20ms 40ms"
        );
        assert_eq!(labels(5, 5, 5), ["0"]);
        assert!(labels(0, 86_400_000, 0).len() <= 10);
    }

    #[test]
    fn markup_and_control_characters_are_escaped() {
        assert_eq!(escaped("a<b>&\u{1b}\u{ffff}"), "a&lt;b&gt;&amp; \u{fffd}");
    }

    #[test]
    fn a_time_outside_of_the_picture_is_at_its_edge() {
        let ms = Duration::from_millis;
        let scale = Scale::new(ms(10)..ms(20), (100, 200));
        assert_eq!(
            [0, 10, 15, 20, 30].map(|at| scale.x(ms(at))),
            [100, 100, 150, 200, 200]
        );
    }
}
