//! The runner: what libtest offers to cargo and nextest (`--list`, `--exact`, filters), no more.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use taskgroup::{BoxError, Exit};

pub(crate) type Test = (&'static str, fn());

/// Names each test by its function.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::runner::Test] = &[$((stringify!($name), $name as fn())),*];
    };
}

pub(crate) fn run(tests: &[&[Test]]) -> Exit {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|name| !name.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| match has("--exact") {
                true => name == *filter,
                false => name.contains(*filter),
            })
    };
    let tests: Vec<Test> = tests
        .concat()
        .into_iter()
        .filter(|(name, _)| wanted(name) && !has("--ignored"))
        .collect();
    if has("--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Exit::from(Ok::<(), BoxError>(()));
    }
    let failed = run_all(&tests);
    println!("\n{} passed", tests.len() - failed.len());
    Exit::from(match failed.is_empty() {
        true => Ok(()),
        false => Err(BoxError::from(format!("failed: {failed:?}"))),
    })
}

/// Runs four at a time: the tests wait for their children, they do not compute.
fn run_all(tests: &[Test]) -> Vec<&'static str> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Named for .ci/limited, as libtest does it.
                    let thread = thread::Builder::new().name((*name).to_owned());
                    let ok = thread.spawn(*test).unwrap().join().is_ok();
                    println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
                    if !ok {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}
