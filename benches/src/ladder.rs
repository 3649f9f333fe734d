//! How many bytes a contender adds to a future.
//!
//! Tokio rounds the memory of a task up to 128 bytes, so what a wrapper adds is not seen in one
//! task, only in the size of future at which the next 128 bytes begin. The ladder holds the sizes
//! below one such edge: each 8 bytes of wrapper lift one more of its futures over the edge.

use std::hint::black_box;

use taskgroup::{BoxError, TaskGroup};

use crate::contender::Contender;

/// What one step of the ladder adds to a future.
pub const STEP: f64 = 8.0;

/// What a task grows by at the edge.
pub const EDGE: f64 = 128.0;

/// A future that keeps so many words, the way people write them.
async fn keep<const WORDS: usize>(words: [u64; WORDS]) -> Result<(), BoxError> {
    black_box(&words);
    Ok(())
}

/// Spawns one future of each size, up to 152 bytes: the last one that fits under the edge when it
/// is spawned without any wrapper.
macro_rules! spawn_sizes {
    ($task:ident => $spawn:expr) => {
        spawn_sizes!($task => $spawn, 8 9 10 11 12 13 14 15 16 17 18)
    };
    ($task:ident => $spawn:expr, $($words:literal)*) => {{
        $({
            let $task = keep([0; $words]);
            drop($spawn);
        })*
    }};
}

/// Spawns the whole ladder so many times and waits for all of it.
pub async fn climb(contender: Contender, rounds: usize) {
    match contender {
        Contender::Group => {
            let mut group = TaskGroup::new();
            for _ in 0..rounds {
                spawn_sizes!(task => group.spawn(task));
            }
            assert!(group.wait().await.is_ok());
        }
        _ => {
            for _ in 0..rounds {
                spawn_sizes!(task => tokio::spawn(task));
            }
        }
    }
}
