//! Sidecars of real child processes.
//!
//! The output of a child goes into one end of a socket pair, which all of its own children inherit:
//! the other end reads its end when the last of them is gone.
#![cfg(unix)]

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Pid, getpgid, getpgrp};
use taskgroup::{CancellationToken, End, Sidecar, SidecarError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::task::JoinHandle;

type Outcome = Result<(), SidecarError>;

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);
/// For processes that never end.
const SHORT: Duration = Duration::from_millis(50);

/// The output of a child and of its own children.
struct Output(BufReader<UnixStream>);

impl Output {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// Reads on until all processes that could write are gone.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).await.unwrap();
        rest
    }
}

fn sh(script: &str) -> (Command, Output) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(OwnedFd::from(theirs));
    let output = UnixStream::from_std(ours).unwrap();
    (command, Output(BufReader::new(output)))
}

/// Starts a script and waits until it has written its line `ready`.
async fn started(
    script: &str,
    grace: Duration,
    token: &CancellationToken,
) -> (JoinHandle<Outcome>, Output) {
    let (command, mut output) = sh(script);
    let sidecar = cache().grace(grace).serve_process(token, command);
    let sidecar = tokio::spawn(sidecar);
    assert_eq!(output.line().await, "ready");
    (sidecar, output)
}

/// Starts a script, fires the token when it is ready, and returns the outcome and the rest of the
/// output, which ends when no process is left.
async fn stopped(script: &str, grace: Duration) -> (Outcome, String) {
    let token = CancellationToken::new();
    let (sidecar, output) = started(script, grace, &token).await;
    token.cancel();
    let outcome = sidecar.await.unwrap();
    (outcome, output.rest().await)
}

/// Runs a script that ends by itself.
async fn unasked(script: &str) -> SidecarError {
    let (command, output) = sh(script);
    let token = CancellationToken::new();
    let outcome: Outcome = cache().serve_process(&token, command).await;
    output.rest().await;
    outcome.unwrap_err()
}

fn cache() -> Sidecar {
    Sidecar::new("cache").grace(PLENTY)
}

#[tokio::test]
async fn process_that_ends_by_sigterm_has_stopped() {
    let (outcome, _) = stopped("echo ready; exec sleep 3600", PLENTY).await;
    outcome.unwrap();
}

#[tokio::test]
async fn process_that_exits_with_0_after_sigterm_has_stopped() {
    let script = "trap 'echo bye; exit 0' TERM; sleep 3600 & echo ready; wait";
    let (outcome, rest) = stopped(script, PLENTY).await;
    outcome.unwrap();
    assert_eq!(rest, "bye\n", "and the `sleep` it has left behind is gone");
}

#[tokio::test]
async fn process_that_exits_with_143_after_sigterm_has_stopped() {
    let script = "trap 'exit 143' TERM; sleep 3600 & echo ready; wait";
    let (outcome, _) = stopped(script, PLENTY).await;
    outcome.unwrap();
}

#[tokio::test]
async fn process_that_exits_otherwise_after_sigterm_has_failed_while_draining() {
    let script = "trap 'exit 7' TERM; sleep 3600 & echo ready; wait";
    let (outcome, _) = stopped(script, PLENTY).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.end(), End::Failed);
    assert_eq!(error.exit_status().unwrap().code(), Some(7));
    assert_eq!(
        format!("{error:#}"),
        "server `cache` failed while draining: exit status: 7",
    );
}

#[tokio::test]
async fn process_that_ignores_sigterm_is_killed_with_its_group_at_the_end_of_the_grace() {
    let script = "trap '' TERM; sleep 3600 & echo ready; wait; sleep 3600";
    let (outcome, rest) = stopped(script, SHORT).await;
    let error = outcome.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(
        format!("{error:#}"),
        "server `cache` did not drain within 50ms: it was killed",
    );
    assert_eq!(rest, "");
}

#[tokio::test]
async fn grace_of_zero_kills_at_once() {
    let script = "trap '' TERM; echo ready; exec sleep 3600";
    let (outcome, _) = stopped(script, Duration::ZERO).await;
    assert!(outcome.unwrap_err().is_timed_out());
}

#[tokio::test]
async fn sigterm_goes_to_the_process_and_not_to_its_children() {
    // The pause gives a child that has got a SIGTERM the time to say so.
    let script = "
        trap 'sleep 0.2; echo parent; exit 0' TERM
        sh -c 'trap \"echo child\" TERM; echo ready; sleep 3600 & wait; wait' &
        wait
    ";
    let (outcome, rest) = stopped(script, PLENTY).await;
    outcome.unwrap();
    assert_eq!(rest, "parent\n");
}

#[tokio::test]
async fn process_on_a_fired_token_is_started_and_asked_at_once() {
    let token = CancellationToken::new();
    token.cancel();
    let (command, output) = sh("exec sleep 3600");
    let outcome: Outcome = cache().serve_process(&token, command).await;
    outcome.unwrap();
    output.rest().await;
}

#[tokio::test]
async fn process_that_exits_with_0_unasked_has_ended_early() {
    let error = unasked("exit 0").await;
    assert_eq!(error.end(), End::EndedEarly);
    assert_eq!(error.exit_status(), None);
}

#[tokio::test]
async fn process_that_exits_otherwise_unasked_has_failed() {
    let error = unasked("exit 3").await;
    assert_eq!(error.end(), End::Failed);
    assert_eq!(error.exit_status().unwrap().code(), Some(3));
    assert_eq!(
        format!("{error:#}"),
        "server `cache` failed: exit status: 3"
    );
}

#[tokio::test]
async fn process_that_is_ended_by_a_signal_of_somebody_else_has_failed() {
    for (script, status) in [
        ("kill -TERM $$", "signal: 15 (SIGTERM)"),
        ("kill -KILL $$", "signal: 9 (SIGKILL)"),
    ] {
        let error = unasked(script).await;
        assert_eq!(error.end(), End::Failed);
        assert_eq!(
            format!("{error:#}"),
            format!("server `cache` failed: {status}"),
        );
    }
}

#[tokio::test]
async fn process_that_ends_unasked_leaves_none_of_its_group_behind() {
    let error = unasked("sleep 3600 & exit 0").await;
    assert_eq!(error.end(), End::EndedEarly);
}

#[tokio::test]
async fn process_that_cannot_be_started_has_failed_and_the_program_is_named() {
    let token = CancellationToken::new();
    let outcome: Outcome = cache()
        .serve_process(&token, Command::new("no-such-program"))
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.end(), End::Failed);
    let message = format!("{error:#}");
    let expected = "server `cache` failed: could not start `no-such-program`: ";
    assert!(message.starts_with(expected), "{message}");
    let source = error.source().and_then(Error::source).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn process_leads_a_group_of_its_own() {
    let (command, mut output) = sh("echo $$; exec sleep 3600");
    let token = CancellationToken::new();
    let sidecar = tokio::spawn(cache().serve_process(&token, command));
    let id = output.line().await.parse().unwrap();
    let process = Pid::from_raw(id).unwrap();
    assert_eq!(getpgid(Some(process)), Ok(process));
    assert_ne!(getpgrp(), process);
    token.cancel();
    sidecar.await.unwrap().unwrap();
}

#[tokio::test]
async fn drop_kills_the_process_and_its_group_at_once() {
    let script = "trap '' TERM; sleep 3600 & echo ready; wait; sleep 3600";
    for fire in [false, true] {
        let token = CancellationToken::new();
        let (sidecar, output) = started(script, PLENTY, &token).await;
        if fire {
            token.cancel();
            tokio::task::yield_now().await;
        }
        sidecar.abort();
        assert!(sidecar.await.unwrap_err().is_cancelled());
        assert_eq!(output.rest().await, "");
    }
}

#[tokio::test]
async fn nothing_is_started_before_the_first_poll() {
    let (command, output) = sh("echo started");
    drop(cache().serve_process(&CancellationToken::new(), command));
    assert_eq!(output.rest().await, "");
}

#[tokio::test]
async fn future_is_send_and_owns_the_token() {
    fn check<F: Future<Output = Result<(), SidecarError>> + Send + 'static>(future: F) -> F {
        future
    }
    let token = CancellationToken::new();
    let mut sidecar = Box::pin(check(
        cache().serve_process(&token, sh("exec sleep 3600").0),
    ));
    drop(token);
    poll_fn(|cx| {
        assert!(sidecar.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}
