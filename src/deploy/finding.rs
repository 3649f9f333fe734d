//! What a check has found.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// A stop loses requests, is killed, or does not begin.
    Error,
    /// A stop may be worse than it has to be, or the check depends on an assumption.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One rule that one file breaks.
///
/// It prints as `FILE:LINE: error D01: what was found; change it to what`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    file: PathBuf,
    line: usize,
    severity: Severity,
    id: &'static str,
    found: String,
    change: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        id: &'static str,
        (file, line): (&Path, usize),
        found: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            severity,
            id,
            found: found.into(),
            change: change.into(),
        }
    }

    /// Returns the id of the rule, `D01` to `D20`, or `D00` for a file that cannot be read.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the file, as it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the line in the file, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns what was found, with the numbers that were compared.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// Returns what to change.
    pub fn change(&self) -> &str {
        &self.change
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            severity,
            id,
            found,
            change,
        } = self;
        write!(
            out,
            "{}:{line}: {severity} {id}: {found}; {change}",
            file.display()
        )
    }
}

/// All that a check has found, ordered by file and line.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    assumptions: Vec<String>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    pub(super) fn assume(&mut self, assumption: impl Into<String>) {
        let assumption = assumption.into();
        if !self.assumptions.contains(&assumption) {
            self.assumptions.push(assumption);
        }
    }

    pub(super) fn sort(&mut self) {
        self.found.sort();
        self.found.dedup();
    }

    /// Returns the findings.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.found.iter()
    }

    /// Returns the values that were in no file and were not given, each as a sentence.
    pub fn assumptions(&self) -> impl Iterator<Item = &str> {
        self.assumptions.iter().map(String::as_str)
    }

    /// Returns whether a finding is an error.
    pub fn has_errors(&self) -> bool {
        self.found
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

/// A line for each finding, then a line for each assumption.
impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.iter().map(ToString::to_string);
        let assumed = self
            .assumptions
            .iter()
            .map(|assumption| format!("assumed: {assumption}"));
        let lines: Vec<_> = found.chain(assumed).collect();
        out.write_str(&lines.join("\n"))
    }
}
