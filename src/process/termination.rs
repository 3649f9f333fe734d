//! The termination message of a container, which `kubectl describe pod` shows.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::group::log::bounded;

/// Set by Kubernetes in every container.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";

/// Asks for the message, at this path.
const PATH: &str = "TERMINATION_MESSAGE_PATH";

/// Where a pod has the file, unless its manifest says otherwise.
const OF_A_POD: &str = "/dev/termination-log";

/// Kubernetes cuts a longer message at the front, and the first line matters most.
const LONGEST: usize = 4096;

/// Where the message goes, and whether a missing file is made.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    create: bool,
}

/// Writes `text` within `limit`, if the process is in a pod or was asked for it. Errors are ignored.
pub(crate) fn write(text: &str, limit: Duration) {
    if text.is_empty() {
        return;
    }
    if let Some(place) = place(|name| env::var_os(name)) {
        let text = shortened(text).to_owned();
        // It may be on a disk that hangs.
        drop(bounded::within(limit, (place, text), |(place, text)| {
            place.write(&text);
        }));
    }
}

fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<Place> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(path) = set(PATH) {
        return Some(Place {
            path: path.into(),
            create: true,
        });
    }
    // The platform has made the file. If it is not there, it would not be read.
    set(KUBERNETES).map(|_| Place {
        path: OF_A_POD.into(),
        create: false,
    })
}

impl Place {
    fn write(&self, text: &str) {
        let mut options = OpenOptions::new();
        options.write(true).truncate(true).create(self.create);
        if let Ok(mut file) = options.open(&self.path) {
            drop(file.write_all(text.as_bytes()));
        }
    }
}

/// As many whole characters of the text as fit.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_with(variables: &[(&str, &str)]) -> Option<Place> {
        place(|name| {
            let mut found = variables.iter().filter(|(variable, _)| *variable == name);
            found.next().map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn it_is_written_in_a_pod_and_where_it_was_asked_for() {
        assert_eq!(place_with(&[]), None);
        assert_eq!(place_with(&[(KUBERNETES, ""), (PATH, "")]), None);
        let of_a_pod = place_with(&[(KUBERNETES, "10.0.0.1")]).unwrap();
        assert_eq!(of_a_pod.path, PathBuf::from(OF_A_POD));
        assert!(!of_a_pod.create);
        let asked = place_with(&[(KUBERNETES, "10.0.0.1"), (PATH, "a/place")]).unwrap();
        assert_eq!(asked.path, PathBuf::from("a/place"));
        assert!(asked.create);
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(shortened("short"), "short");
        let long = format!("x{}", "ä".repeat(3_000));
        let cut = shortened(&long);
        assert_eq!(cut.len(), LONGEST - 1);
        assert!(long.starts_with(cut));
    }
}
