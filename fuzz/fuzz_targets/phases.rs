//! The phases of a server's stop, with any times and whatever the server is seen to do. They come in their order,
//! and the stop ends within its bound.

#![no_main]
#![allow(
    dead_code,
    reason = "the sources are compiled here as a part of nothing else"
)]

#[path = "../../src/server/gate/sequence.rs"]
mod sequence;
mod time;

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use self::sequence::{Next, Phase, Plan, Seen};
use self::time::Time;

#[derive(Arbitrary, Debug)]
struct Input {
    grace: Time,
    linger: Time,
    idle_grace: Time,
    flush: Time,
    kill_grace: Time,
    fit: Option<Time>,
    steps: Vec<Step>,
}

/// What is seen, and for how long the loop is held up.
#[derive(Arbitrary, Debug)]
struct Step {
    swept: bool,
    open: u8,
    ended: bool,
    cut: bool,
    late: Option<u16>,
    /// Whether a request has ended meanwhile.
    progress: bool,
}

fn rank(phase: Phase) -> usize {
    match phase {
        Phase::Lingering => 0,
        Phase::Draining => 1,
        Phase::Flushing => 2,
        Phase::Killing => 3,
    }
}

fuzz_target!(|input: Input| {
    let mut plan = Plan {
        grace: input.grace.into(),
        linger: input.linger.into(),
        idle_grace: input.idle_grace.into(),
        flush: input.flush.into(),
        kill_grace: input.kill_grace.into(),
    };
    if let Some(left) = input.fit.map(Duration::from) {
        let before = plan.bound();
        plan.fit(left);
        assert!(
            plan.bound() <= left.min(before),
            "{plan:?} does not fit into {left:?}"
        );
    }
    assert!(plan.idle_grace() <= plan.grace);
    let (mut phase, mut elapsed, mut in_phase) = (Phase::Lingering, Duration::ZERO, Duration::ZERO);
    let (mut since_cut, mut still) = (Duration::ZERO, Duration::ZERO);
    let mut late = Duration::ZERO;
    // What comes after the script: nothing ends by itself.
    let stuck = Step {
        swept: true,
        open: 1,
        ended: false,
        cut: true,
        late: None,
        progress: false,
    };
    for step in input.steps.iter().chain(std::iter::repeat_n(&stuck, 16)) {
        if step.progress {
            still = Duration::ZERO;
        }
        let seen = Seen {
            elapsed,
            in_phase,
            since_cut,
            still,
            swept: step.swept,
            open: step.open.into(),
            ended: step.ended,
            cut: step.cut,
        };
        match plan.next(phase, seen) {
            Next::Done => return,
            Next::Enter(next) => {
                assert!(
                    rank(next) > rank(phase),
                    "{phase:?} is followed by {next:?}"
                );
                (phase, in_phase) = (next, Duration::ZERO);
                if phase == Phase::Flushing {
                    (since_cut, still) = (Duration::ZERO, Duration::ZERO);
                }
            }
            Next::Wait(wait) => {
                assert!(!wait.is_zero(), "a wait of nothing in {phase:?} would spin");
                let held_up = Duration::from_millis(step.late.unwrap_or_default().into());
                late = late.saturating_add(held_up);
                let wait = wait.saturating_add(held_up);
                for clock in [&mut elapsed, &mut in_phase, &mut since_cut, &mut still] {
                    *clock = clock.saturating_add(wait);
                }
            }
        }
        assert!(
            elapsed <= plan.bound().saturating_add(late),
            "{elapsed:?} of {:?}",
            plan.bound()
        );
    }
    panic!("it does not end: {phase:?} after {elapsed:?}");
});
