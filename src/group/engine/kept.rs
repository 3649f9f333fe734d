//! Tests what the abort keeps of tasks that have ended. It has its own file because the loom models
//! compile the other file too.

use std::collections::HashSet;
use std::task::Waker;

use super::wakers::Wakers;

fn waker() -> Waker {
    Waker::noop().clone()
}

#[test]
fn a_task_that_waits_for_long_does_not_keep_the_places_of_all_others() {
    let wakers = Wakers::default();
    let stays = wakers.insert(waker());
    let go: Vec<_> = (0..10_000).map(|_| wakers.insert(waker())).collect();
    assert!(wakers.room() >= 10_000);
    go.into_iter().for_each(|key| wakers.remove(key));
    assert!(wakers.room() < 500, "{} places", wakers.room());
    assert!(wakers.holds(stays, &waker()));
    wakers.remove(stays);
    assert!(wakers.room() < 500, "{} places", wakers.room());
}

#[test]
fn a_place_is_one_tasks_whatever_comes_and_goes() {
    let wakers = Wakers::default();
    let mut alive = Vec::new();
    let mut random = 1_u64;
    for step in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // It repeatedly grows to some hundreds and shrinks to a few.
        let grows = step % 2000 < 1000;
        if alive.is_empty() || (random >> 33) % 4 < if grows { 3 } else { 1 } {
            alive.push(wakers.insert(waker()));
        } else {
            let index = usize::try_from(random >> 40).unwrap() % alive.len();
            wakers.remove(alive.swap_remove(index));
        }
        if step == 15_500 {
            // Tasks that were woken keep their places.
            wakers.abort();
        }
        let places: HashSet<_> = alive.iter().collect();
        assert_eq!(places.len(), alive.len());
        assert!(alive.iter().all(|key| wakers.holds(*key, &waker())));
    }
    alive.into_iter().for_each(|key| wakers.remove(key));
    assert!(wakers.room() <= 4 * 64);
}
