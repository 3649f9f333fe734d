//! Lines of the kit in the output of a test.

use std::panic::catch_unwind;

/// Prints a line in the output of the test.
///
/// The test harness captures `eprintln!` and not `writeln!`. `eprintln!` panics on a closed pipe, which must not hide what the
/// test itself has found.
pub(super) fn say(line: &str) {
    let _ = catch_unwind(|| eprintln!("{line}"));
}
