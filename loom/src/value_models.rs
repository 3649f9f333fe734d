//! The value of a task: it is dropped once, and never after the task was counted out without a handle.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;

use crate::harness::model;
use crate::value::Place;

/// Counts its drops.
struct Value(Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_value_is_dropped_once_whoever_goes_first() {
    model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (of_task, of_handle) = Place::for_both();
        let task = thread::spawn({
            let value = Value(Arc::clone(&drops));
            move || of_task.put(value)
        });
        drop(of_handle);

        // The handle is gone and the task has ended: so is the value.
        task.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_value_that_is_taken_is_the_takers() {
    model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (of_task, of_handle) = Place::for_both();
        let task = thread::spawn({
            let value = Value(Arc::clone(&drops));
            move || of_task.put(value)
        });
        let taken = of_handle.take();
        drop(of_handle);

        task.join().unwrap();
        assert_eq!(drops.load(SeqCst), usize::from(taken.is_none()));
        drop(taken);
        assert_eq!(drops.load(SeqCst), 1);
    });
}
