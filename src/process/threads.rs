//! Lists the threads of this process by name.

/// Returns the names of all threads except that of `main` and those of this crate. Only Linux tells them.
///
/// Linux cuts a name to 15 bytes. The order is that of the system.
#[cfg(target_os = "linux")]
pub(super) fn names() -> Option<Vec<String>> {
    let main = std::process::id().to_string();
    let mut names = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let thread = thread.ok()?;
        if thread.file_name() == *main {
            continue;
        }
        // The thread may have ended in the meantime.
        let Ok(name) = std::fs::read(thread.path().join("comm")) else {
            continue;
        };
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        if !name.starts_with("taskgroup-") {
            names.push(name);
        }
    }
    Some(names)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn names() -> Option<Vec<String>> {
    None
}

/// Says which threads are left, each name once: ``2 threads are left: 2 × `worker` ``. `None` if the system
/// does not tell.
pub(super) fn describe(names: Option<&[String]>) -> String {
    let Some(names) = names else {
        return "the system does not tell which threads are left".into();
    };
    let mut counts = std::collections::BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0_usize) += 1;
    }
    let one = |(name, count): (&&String, &usize)| match count {
        1 => format!("`{name}`"),
        count => format!("{count} × `{name}`"),
    };
    let each: Vec<_> = counts.iter().map(one).collect();
    match names.len() {
        0 => "only the thread of `main` is left".into(),
        1 => format!(
            "1 thread is left beside that of `main`: {}",
            each.join(", ")
        ),
        more => format!(
            "{more} threads are left beside that of `main`: {}",
            each.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_said_once_with_its_count() {
        let names = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(
            describe(Some(&names)),
            "3 threads are left beside that of `main`: `a`, 2 × `b`"
        );
        assert_eq!(
            describe(Some(&names[..1])),
            "1 thread is left beside that of `main`: `b`"
        );
        assert_eq!(describe(Some(&[])), "only the thread of `main` is left");
    }

    #[test]
    fn a_system_that_does_not_tell_is_said_so() {
        let line = "the system does not tell which threads are left";
        assert_eq!(describe(None), line);
        if cfg!(not(target_os = "linux")) {
            assert_eq!(describe(names().as_deref()), line);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        let (ask, asked) = std::sync::mpsc::channel();
        let (told, tell) = std::sync::mpsc::channel();
        let other = std::thread::Builder::new().name("left-over".into());
        let other = other.spawn(move || {
            // The thread has set its name by now.
            ask.send(()).unwrap();
            tell.recv().unwrap();
        });
        asked.recv().unwrap();
        let names = names().unwrap();
        assert!(names.iter().any(|name| name == "left-over"), "{names:?}");
        told.send(()).unwrap();
        other.unwrap().join().unwrap();
    }
}
