//! One cancel reaches everybody, whatever their number and wherever they are in the tree.

use taskgroup::{BoxError, Cancelled, TaskGroup};

use crate::fixtures::on_both;
use crate::support::alive::Alive;

const MANY: usize = 10_000;

#[test]
fn one_cancel_reaches_ten_thousand_tasks() {
    on_both(|| async {
        let alive = Alive::default();
        let mut group = TaskGroup::new();
        for _ in 0..MANY {
            let (token, guard) = (group.token().clone(), alive.guard());
            group.spawn(async move {
                token.cancelled().await;
                drop(guard);
                Err::<(), BoxError>(Cancelled.into())
            });
        }
        tokio::task::yield_now().await;
        assert_eq!(alive.count(), MANY);

        group.cancel();
        group.wait().await.unwrap();
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn one_cancel_reaches_every_level_of_a_tree() {
    on_both(|| async {
        let alive = Alive::default();
        let mut group = TaskGroup::new();
        let mut levels = vec![group.child("0")];
        for level in 1..100 {
            levels.push(levels[level - 1].child("below"));
        }
        for level in &levels {
            let (token, guard) = (level.token().clone(), alive.guard());
            level.spawn(async move {
                token.cancelled().await;
                drop(guard);
                Ok(())
            });
        }

        group.cancel();
        for level in levels.iter_mut().rev() {
            level.wait().await.unwrap();
        }
        group.wait().await.unwrap();
        assert_eq!(alive.count(), 0);
    });
}
