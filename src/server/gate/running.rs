//! Which handler is inside a poll, on which thread.
//!
//! A handler that blocks its thread cannot be asked for its name. So each thread that polls handlers
//! has a place, which says what it polls. A request writes its label there once for each thread, and a flag at
//! each poll. Nothing is locked for that.
//!
//! Invariant: a place is written by its own thread only. The flag is set after the rest, and so whoever sees the
//! flag sees the label.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::label::Label;
use crate::group::lock::lock;

static PLACES: Mutex<Vec<Arc<Place>>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: Mine = Mine::new();
}

struct Place {
    is_running: AtomicBool,
    /// Identifies the gate.
    gate: AtomicUsize,
    /// Identifies the request at that gate, with the key of its connection in the upper half.
    request: AtomicU64,
    label: [AtomicU64; Label::WORDS],
}

/// The place of this thread, which is given up when the thread ends.
struct Mine(Arc<Place>);

/// Says that this thread polls a request now.
#[inline]
pub(super) fn enter(gate: usize, request: u64, label: &Label) {
    // A destructor may run when the place of its thread is gone.
    let _ = MINE.try_with(|Mine(place)| {
        let is_known = place.request.load(Ordering::Relaxed) == request
            && place.gate.load(Ordering::Relaxed) == gate;
        if !is_known {
            place.write(gate, request, label);
        }
        place.is_running.store(true, Ordering::Release);
    });
}

/// Says that this thread no longer polls anything.
#[inline]
pub(super) fn leave() {
    let _ = MINE.try_with(|Mine(place)| place.is_running.store(false, Ordering::Relaxed));
}

/// Returns the labels of what is inside a poll for this gate.
pub(super) fn of(gate: usize) -> Vec<Label> {
    let places = lock(&PLACES);
    let running = places.iter().filter(|place| {
        place.is_running.load(Ordering::Acquire) && place.gate.load(Ordering::Relaxed) == gate
    });
    running.map(|place| place.read()).collect()
}

impl Place {
    fn write(&self, gate: usize, request: u64, label: &Label) {
        self.gate.store(gate, Ordering::Relaxed);
        self.request.store(request, Ordering::Relaxed);
        for (place, word) in self.label.iter().zip(label.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Label {
        let words = self.label.each_ref();
        Label::of_words(words.map(|word| word.load(Ordering::Relaxed)))
    }
}

impl Mine {
    fn new() -> Self {
        let place = Arc::new(Place {
            is_running: AtomicBool::new(false),
            gate: AtomicUsize::new(0),
            request: AtomicU64::new(0),
            label: Default::default(),
        });
        lock(&PLACES).push(Arc::clone(&place));
        Self(place)
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        lock(&PLACES).retain(|place| !Arc::ptr_eq(place, &self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        let mut label = Label::NONE;
        label.write_text(text);
        label
    }

    fn names(gate: usize) -> Vec<String> {
        of(gate).iter().map(Label::to_string).collect()
    }

    #[test]
    fn what_is_inside_a_poll_is_named_and_what_has_left_is_not() {
        let gate = 0xabcd_0001;
        enter(gate, 7 << 32, &label("GET /slow"));
        assert_eq!(names(gate), ["GET /slow"]);
        leave();
        assert!(names(gate).is_empty());
        enter(
            gate,
            7 << 32,
            &label("the same request is not written again"),
        );
        assert_eq!(names(gate), ["GET /slow"]);
        leave();
    }

    #[test]
    fn a_thread_that_has_ended_is_forgotten_and_another_is_seen_from_here() {
        let gate = 0xabcd_0002;
        let (there, is_there) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            enter(gate, 1, &label("GET /there"));
            there.send(()).unwrap();
            may_go.recv().unwrap();
        });
        is_there.recv().unwrap();
        assert_eq!(names(gate), ["GET /there"]);
        go.send(()).unwrap();
        thread.join().unwrap();
        assert!(names(gate).is_empty());
    }
}
