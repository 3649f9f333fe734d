//! A child process, with its output and its end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(5);

/// A process that is killed when the test is over.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct End {
    /// `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A path that no other test uses, and that does not exist.
pub(crate) fn fresh_path(name: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("consumer-{}-{number}-{name}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what} has not come about");
        thread::sleep(STEP);
    }
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let pipe = child.stdout.take().expect("stdout is a pipe");
        collect(pipe, Arc::clone(&stdout));
        let pipe = child.stderr.take().expect("stderr is a pipe");
        collect(pipe, Arc::clone(&stderr));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("the process can be signalled");
    }

    pub(crate) fn is_gone(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_stderr(&self, text: &str) {
        self.wait_for_stderr_times(text, 1);
    }

    #[track_caller]
    pub(crate) fn wait_for_stderr_times(&self, text: &str, times: usize) {
        wait_until(&format!("{text:?} on stderr"), || {
            self.stderr().matches(text).count() >= times
        });
    }

    /// Sends a signal until the process is gone: one that comes right after the first is the same request.
    #[track_caller]
    pub(crate) fn insist(&mut self, signal: Signal) -> End {
        wait_until("the forced end of the process", || {
            self.signal(signal);
            self.is_gone()
        });
        self.wait()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> End {
        let mut status = None;
        wait_until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // The pipes close with the process; their readers may be a little behind.
        for output in [&self.stdout, &self.stderr] {
            wait_until("the end of the output", || Arc::strong_count(output) == 1);
        }
        End {
            code: status.and_then(|status| status.code()),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: impl Into<Option<i32>>) {
        assert_eq!(self.code, code.into(), "{}", self.stderr);
    }

    #[track_caller]
    pub(crate) fn assert_says(&self, text: &str) {
        assert!(
            self.stderr.contains(text),
            "expected {text:?} in:\n{}",
            self.stderr
        );
    }

    #[track_caller]
    pub(crate) fn assert_never_says(&self, text: &str) {
        assert!(
            !self.stderr.contains(text),
            "unexpected {text:?} in:\n{}",
            self.stderr
        );
    }
}

fn collect(mut pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            text.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
}
