//! [`Leaks`]: detects what a test has left behind.

mod held;

use std::fmt;
use std::panic::Location;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::ThreadId;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::runtime::RuntimeFlavor;
use tokio::task::yield_now;

use super::say::say;
use crate::group::census;
use crate::group::running::Running;
use crate::group::running::RunningTask;
use crate::group::time::Rounded;

use self::held::Held;
#[cfg(unix)]
pub(super) use self::held::address;
#[cfg(unix)]
pub(super) use self::held::sockets_by_inode;

/// Fails a test that leaves tasks, threads, file descriptors or child processes behind.
///
/// It notes what exists when it is made, and compares at the end. Earlier tasks and resources do not count.
///
/// | left | compared | named by |
/// |---|---|---|
/// | tasks of groups | everywhere | name and place of spawn |
/// | tasks of a plain `tokio::spawn` on this runtime | everywhere | their number; Tokio does not tell their place |
/// | threads | Linux | name |
/// | file descriptors, sockets among them | Linux | number and kind; a socket by both its addresses |
/// | child processes | Linux | pid and command |
///
/// Idle threads of Tokio and the threads of this crate do not count. Tokio keeps its blocking threads for
/// 10&s, and the thread that listens to signals lives as long as the process. If a library opens a descriptor
/// once and keeps it, as the first use of signals does, open it before making the guard, or
/// [ignore](Self::ignore) it.
///
/// A joined task may be counted for a moment longer, and an aborted one is dropped at its next turn. The
/// comparison therefore waits for up to [`patience`](Self::patience), and ends as soon as nothing is left.
///
/// # Tests beside each other
///
/// Tasks are counted by runtime, and each test has its own. Threads, descriptors and children belong to the
/// process. They are compared if no other test runs in it, which is the case under nextest, with
/// `--test-threads=1`, with `--exact`, or if no other thread could be a test. Otherwise a line on stderr says
/// that they were not compared. [`alone`](Self::alone) makes that a failure.
///
/// # Drop
///
/// Dropping the guard also compares, so the one line `let _leaks = Leaks::watch();` at the top of a test is
/// enough. On a runtime of one thread no task runs during the drop, so a task that was aborted right before
/// still counts. End such a test with [`check`](Self::check).
///
/// While a panic unwinds, the drop does not compare, because the test has already failed.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
/// use taskgroup::testing::Leaks;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let leaks = Leaks::watch();
/// let mut group = TaskGroup::new();
/// group.spawn(async { Ok(()) });
/// group.wait().await?;
/// leaks.check().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a guard that is dropped at once compares nothing with nothing"]
pub struct Leaks {
    place: &'static Location<'static>,
    thread: ThreadId,
    runtime: Option<Handle>,
    tasks: usize,
    groups: u64,
    held: Held,
    /// The number of this guard, and whether another one was alive when it was made.
    number: usize,
    has_company: bool,
    alone: bool,
    patience: Duration,
    ignored: Vec<String>,
    checked: bool,
}

/// How many guards have been made in this process, and how many are alive.
static MADE: AtomicUsize = AtomicUsize::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// The default maximum of a comparison's wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many turns the other tasks get at least before something counts as left.
const TURNS: usize = 3;

/// The pause between two looks.
const STEP: Duration = Duration::from_millis(1);

impl Leaks {
    /// Notes what is there now.
    ///
    /// # Panics
    ///
    /// The process has no free descriptor to read `/proc` with.
    #[track_caller]
    pub fn watch() -> Self {
        let runtime = Handle::try_current().ok();
        let has_company = ALIVE.fetch_add(1, Ordering::SeqCst) > 0;
        Self {
            place: Location::caller(),
            thread: thread::current().id(),
            tasks: runtime.as_ref().map_or(0, tasks),
            runtime,
            groups: census::next(),
            number: MADE.fetch_add(1, Ordering::SeqCst),
            has_company,
            held: Held::now(),
            alone: false,
            patience: PATIENCE,
            ignored: Vec::new(),
            checked: false,
        }
    }

    /// Sets how long the comparison waits for leftovers to go away. The default is 2 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Ignores everything whose line contains `part`.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::testing::Leaks;
    ///
    /// let _leaks = Leaks::watch().ignore("/var/lib/orders.sqlite");
    /// ```
    pub fn ignore(mut self, part: impl Into<String>) -> Self {
        self.ignored.push(part.into());
        self
    }

    /// Fails the test if other tests in the process keep it from comparing threads, descriptors and children.
    /// On systems other than Linux it always fails.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Compares, and fails the test if anything is left.
    ///
    /// # Panics
    ///
    /// Something is left when the patience is over, and the message has a line for each. It also panics if
    /// the guard has to be [alone](Self::alone) and is not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future compares once more, as dropping the guard does.
    pub async fn check(mut self) {
        let mut left = self.left();
        let began = Instant::now();
        let mut turns = 0;
        // On a busy machine one look may take longer than the patience.
        while !left.is_empty() && (turns < TURNS || began.elapsed() < self.patience) {
            // During a sleep of Tokio's, a paused clock would advance.
            yield_now().await;
            thread::sleep(STEP);
            left = self.left();
            turns += 1;
        }
        self.checked = true;
        self.judge(&left);
    }

    /// Returns what is left now, a line for each, without waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::testing::Leaks;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let leaks = Leaks::watch();
    /// let task = tokio::spawn(std::future::pending::<()>());
    /// assert_eq!(leaks.left(), ["1 task of a plain `tokio::spawn`"]);
    /// task.abort();
    /// leaks.check().await;
    /// # }
    /// ```
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut left = self.tasks_left();
        let now = Held::now();
        if self.blind(&now).is_none() {
            left.extend(now.since(&self.held));
        }
        let is_ignored = |line: &String| self.ignored.iter().any(|part| line.contains(part));
        left.retain(|line| !is_ignored(line));
        left
    }

    fn tasks_left(&self) -> Vec<String> {
        let Some(runtime) = &self.runtime else {
            return lines(&census::running(self.groups, Some(self.thread)));
        };
        // Groups are made on the workers too, if there are any.
        let has_workers = runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let thread = (!has_workers || self.has_had_company()).then_some(self.thread);
        tasks_left(runtime, self.tasks, self.groups, thread)
    }

    /// Returns why threads, descriptors and children cannot be compared, or `None` if they can.
    fn blind(&self, now: &Held) -> Option<String> {
        if !Held::IS_KNOWN {
            return Some("this system does not tell what a process holds".into());
        }
        if is_one_at_a_time() {
            return None;
        }
        if self.has_had_company() {
            return Some("another test had a guard at the same time".into());
        }
        let stranger = self.held.stranger().or_else(|| now.stranger())?;
        Some(format!("thread `{stranger}` may be another test"))
    }

    fn has_had_company(&self) -> bool {
        self.has_company || MADE.load(Ordering::SeqCst) > self.number + 1
    }

    fn judge(&self, left: &[String]) {
        let blind = self.blind(&Held::now());
        if let Some(why) = &blind {
            let message = format!(
                "leaks ({}): threads, descriptors and child processes were not compared: {why}. \
                 Run it with --test-threads=1 or nextest.",
                self.place
            );
            assert!(!self.alone, "{message}");
            say(&message);
        }
        assert!(
            left.is_empty(),
            "the test has left behind, {} after its end (guard at {}):\n  {}",
            Rounded(self.patience),
            self.place,
            left.join("\n  ")
        );
    }

    /// Waits on this thread if that can help.
    fn wait(&self) -> Vec<String> {
        let flavor = self.runtime.as_ref().map(Handle::runtime_flavor);
        let turns = flavor != Some(RuntimeFlavor::CurrentThread);
        let began = Instant::now();
        let mut looks = 0;
        loop {
            let left = self.left();
            looks += 1;
            let only_tasks = !turns && left == self.tasks_left();
            let is_over = looks > TURNS && began.elapsed() >= self.patience;
            if left.is_empty() || only_tasks || is_over {
                return left;
            }
            thread::sleep(STEP);
        }
    }
}

/// Returns the tasks that a runtime has beyond the number `before`. The tasks of groups are those from number
/// `groups` on, and only those made on `thread` if that is given. The rest is the number of other tasks.
pub(super) fn tasks_left(
    runtime: &Handle,
    before: usize,
    groups: u64,
    thread: Option<ThreadId>,
) -> Vec<String> {
    let members = census::running(groups, thread);
    let counted = members.iter().filter(|task| !task.is_blocking());
    let counted: usize = counted.map(RunningTask::count).sum();
    let all = tasks(runtime).saturating_sub(before);
    let mut left = lines(&members);
    match all.saturating_sub(counted) {
        0 => {}
        1 => left.push("1 task of a plain `tokio::spawn`".into()),
        raw => left.push(format!("{raw} tasks of a plain `tokio::spawn`")),
    }
    left
}

fn tasks(runtime: &Handle) -> usize {
    runtime.metrics().num_alive_tasks()
}

fn lines(running: &Running) -> Vec<String> {
    running.iter().map(|task| format!("task {task}")).collect()
}

/// Returns whether the test runner runs one test at a time in a process.
fn is_one_at_a_time() -> bool {
    let has = |name| std::env::var_os(name).is_some();
    let one = std::env::var("RUST_TEST_THREADS").is_ok_and(|threads| threads == "1");
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let pairs = arguments.windows(2);
    let says_one = arguments
        .iter()
        .any(|argument| argument == "--test-threads=1")
        || pairs
            .into_iter()
            .any(|pair| pair[0] == "--test-threads" && pair[1] == "1");
    has("NEXTEST") || one || says_one || arguments.iter().any(|argument| argument == "--exact")
}

impl Drop for Leaks {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
        if self.checked || thread::panicking() {
            return;
        }
        let left = self.wait();
        self.judge(&left);
    }
}

impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaks")
            .field("place", &self.place)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}
