//! What a callback after cancellation logs.
//!
//! Alone in its file: tracing decides once per process, when a line is first logged, whether anybody
//! listens to it, and a test in another thread would take part in that.
#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use taskgroup::{CancellationToken, OnCancel};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Level, Metadata, Subscriber};

#[tokio::test]
async fn panic_is_logged_once_at_error_with_the_place_of_the_callback() {
    let log = Log::default();
    let _log = tracing::subscriber::set_default(log.clone());
    let token = CancellationToken::new();
    let place = line!() + 1;
    let callback = OnCancel::new(&token, || async { panic!("boom") });
    token.cancel();
    callback.finished().await;
    drop(callback);

    let events = log.0.lock().unwrap();
    let [(level, text)] = events.as_slice() else {
        panic!("expected one event, not {events:?}");
    };
    assert_eq!(*level, Level::ERROR);
    assert!(text.contains("boom"), "{text}");
    assert!(text.contains(&format!("{}:{place}:", file!())), "{text}");
}

/// Keeps level and text of every event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("taskgroup")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut events = self.0.lock().unwrap();
        events.push((*event.metadata().level(), text.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
