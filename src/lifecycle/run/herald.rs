//! Tells the log and the observers what has happened, separately from the run.
//!
//! The run acts, and the herald reports later. A log that blocks, because stderr is an unread pipe, or an
//! observer that blocks does not delay the run. The log and the observers get the same events in the same
//! order, the log first.

use std::sync::{Arc, mpsc as handover};
use std::thread;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::dispatcher;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::group::deadline;
use crate::group::log;
use crate::group::panic::Panic;
use crate::lifecycle::event::{Event, Observer};
use crate::lifecycle::plan::Plan;
use crate::lifecycle::trace;

pub(in crate::lifecycle) struct Herald {
    plan: Arc<Plan>,
    /// The observers, until the first event.
    observers: Vec<Observer>,
    telling: Option<Telling>,
}

enum News {
    Event(Event),
    /// This observer gets the events from here on.
    Observer(Observer),
}

struct Telling {
    events: mpsc::UnboundedSender<News>,
    /// Never yields a value. The sender is dropped when everything has been told.
    over: oneshot::Receiver<()>,
}

impl Herald {
    pub(in crate::lifecycle) fn new(plan: Arc<Plan>, observers: Vec<Observer>) -> Self {
        Self {
            plan,
            observers,
            telling: None,
        }
    }

    /// Adds observers, which get all events from now on.
    pub(in crate::lifecycle) fn join(&mut self, observers: Vec<Observer>) {
        match &self.telling {
            None => self.observers.extend(observers),
            Some(telling) => observers.into_iter().for_each(|observer| {
                let _ = telling.events.send(News::Observer(observer));
            }),
        }
    }

    /// Queues an event without waiting for it to be told.
    pub(in crate::lifecycle) fn tell(&mut self, event: Event) {
        trace::say(self.plan.name(), &event);
        if self.telling.is_none() && self.observers.is_empty() && !dispatcher::has_been_set() {
            // At most the crate `log` listens.
            return log::guarded(|| trace::event(self.plan.name(), &event));
        }
        let telling = self.telling.get_or_insert_with(|| {
            let observers = std::mem::take(&mut self.observers);
            Telling::begin(Arc::clone(&self.plan), observers)
        });
        let _ = telling.events.send(News::Event(event));
    }

    /// Waits until everything has been told, but no longer than `until`.
    pub(in crate::lifecycle) async fn end(&mut self, until: Option<Instant>) {
        let Some(Telling { events, over }) = self.telling.take() else {
            return;
        };
        drop(events);
        let _ = deadline::by(until, over).await;
    }
}

impl Telling {
    /// On a runtime with one thread it is a task, since no other thread could be blocked. On any other
    /// runtime it is a thread of its own, so that it blocks none of the runtime's threads.
    fn begin(plan: Arc<Plan>, observers: Vec<Observer>) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        let (ended, over) = oneshot::channel();
        let telling = tell_all(plan, observers, heard, ended).in_current_span();
        let runtime = Handle::current();
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            drop(runtime.spawn(telling));
            return Self { events, over };
        }
        let (give, take) = handover::channel();
        let on_runtime = runtime.clone();
        let thread = thread::Builder::new().name("taskgroup-events".into());
        let thread = thread.spawn(move || {
            if let Ok(telling) = take.recv() {
                on_runtime.block_on(telling);
            }
        });
        // The new thread would not find a subscriber that is set for this thread alone.
        let subscriber = dispatcher::get_default(Clone::clone);
        let subscriber = (!subscriber.is::<NoSubscriber>()).then_some(subscriber);
        let telling = async move {
            match subscriber {
                Some(subscriber) => telling.with_subscriber(subscriber).await,
                None => telling.await,
            }
        };
        match thread {
            Ok(_) => drop(give.send(telling)),
            // Late is better than never.
            Err(_) => drop(runtime.spawn(telling)),
        }
        Self { events, over }
    }
}

async fn tell_all(
    plan: Arc<Plan>,
    mut observers: Vec<Observer>,
    mut events: mpsc::UnboundedReceiver<News>,
    ended: oneshot::Sender<()>,
) {
    while let Some(news) = events.recv().await {
        let event = match news {
            News::Event(event) => event,
            News::Observer(observer) => {
                observers.push(observer);
                continue;
            }
        };
        log::guarded(|| trace::event(plan.name(), &event));
        for observer in &mut observers {
            // The panic hook reports a panic, and the herald goes on.
            drop(Panic::catch(|| observer(&event)));
        }
    }
    drop(Panic::catch(|| drop(observers)));
    drop(ended);
}
