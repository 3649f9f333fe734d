//! One file, and the values in it with their lines.

use std::path::Path;
use std::time::Duration;

use super::finding::Finding;
use super::finding::Severity;

/// The formats that are read. JSON is YAML too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Unit,
    Haproxy,
    Nginx,
    Dockerfile,
    Fly,
    Nomad,
    Procfile,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A file and a line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: std::path::PathBuf,
    pub(super) line: usize,
}

impl<T> At<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: f(self.value),
            place: self.place,
        }
    }
}

#[derive(Debug)]
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn place(&self, line: usize) -> Place {
        Place {
            file: self.path.to_owned(),
            line,
        }
    }

    pub(super) fn at<T>(&self, line: usize, value: T) -> At<T> {
        At {
            value,
            place: self.place(line),
        }
    }

    /// The lines and their numbers, without comments that begin a line, and without blank lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', ';']))
    }

    pub(super) fn refused(&self, line: usize, found: &str, change: &str) -> Finding {
        Finding::new(Severity::Error, "D00", (self.path, line), found, change)
    }

    /// The first line with the mark of a template engine. Prometheus' alerts have such marks of their own, in annotations.
    pub(super) fn template_line(&self) -> Option<usize> {
        let marked = |(_, line): &(usize, &str)| {
            line.contains("{{") || line.contains("{%") || line.contains("${{")
        };
        let rules = self
            .text
            .lines()
            .any(|line| line.trim_start().starts_with("- alert:"));
        let found = self.text.lines().enumerate().find(marked)?;
        (!rules).then_some(found.0 + 1)
    }

    pub(super) fn format(&self) -> Option<Format> {
        let name = self.path.file_name()?.to_str()?;
        let folder = self
            .path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str())
            .unwrap_or("");
        let extension = self
            .path
            .extension()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        match (name, extension) {
            _ if name.starts_with("Dockerfile") || name.starts_with("Containerfile") => {
                Some(Format::Dockerfile)
            }
            ("Procfile", _) => Some(Format::Procfile),
            ("fly.toml", _) => Some(Format::Fly),
            (_, "yaml" | "yml" | "json") => Some(Format::Yaml),
            (_, "service") => Some(Format::Unit),
            (_, "conf") if folder.ends_with(".service.d") => Some(Format::Unit),
            (_, "nomad" | "hcl") => Some(Format::Nomad),
            (_, "cfg") => Some(Format::Haproxy),
            (_, "conf") => Some(Format::Nginx),
            _ => None,
        }
    }
}

/// Parses a time such as `90`, `1min 30s`, `1m30s` or `200ms`. A number without a unit counts `unit`.
pub(super) fn duration(text: &str, unit: Duration) -> Option<Duration> {
    let text = text.trim().trim_matches('"');
    if text.eq_ignore_ascii_case("infinity") {
        return Some(Duration::MAX);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "" => unit.as_secs_f64(),
            "us" | "usec" => 1e-6,
            "ms" | "msec" => 1e-3,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str) -> Option<f64> {
        duration(text, Duration::from_secs(1)).map(|time| time.as_secs_f64())
    }

    #[test]
    fn times_are_read_as_each_platform_writes_them() {
        assert_eq!(read("90"), Some(90.0));
        assert_eq!(read("1min 30s"), Some(90.0));
        assert_eq!(read("1m30s"), Some(90.0));
        assert_eq!(read("200ms"), Some(0.2));
        assert_eq!(read("\"5s\""), Some(5.0));
        assert_eq!(
            duration("5000", Duration::from_millis(1)),
            Some(Duration::from_secs(5))
        );
        assert_eq!(
            duration("infinity", Duration::from_secs(1)),
            Some(Duration::MAX)
        );
    }

    #[test]
    fn an_invalid_time_is_none() {
        for text in ["", "s", "5 parsecs", "-1", "5s!", "1e9999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
