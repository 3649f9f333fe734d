//! [`Provided`]: a value that one component has for those that start after it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// A value that one component provides to those that start after it: a pool, a bound address.
///
/// Its component fills it with [`Context::provide`](super::Context::provide) before it is ready, so
/// a component that comes [after](super::Component::after) it finds it there. When the component
/// has been told to stop, which is after all that use it have ended, the value is taken out again:
/// what the component closes is not held by anybody any more who goes by the dependencies. That of
/// a [job](super::Component::job), which ends before they begin, stays until all components have
/// ended. A component takes out its own value only, and not that of another which has taken its
/// place.
///
/// # Clones
///
/// A clone is another handle on the same value. Dropping handles changes nothing.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::{Lifecycle, Provided};
/// use taskgroup::Component;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let limit = Provided::<u32>::new("limit");
/// let (ours, theirs) = (limit.clone(), limit.clone());
/// let report = Lifecycle::new("orders")
///     .component(Component::resource(
///         "settings",
///         |ctx| async move { Ok(ctx.provide(&ours, 8)) },
///         |()| async { Ok(()) },
///     ))
///     .component(Component::job("check", |_| async move { Ok(assert_eq!(theirs.get()?, 8)) }).after(["settings"]))
///     .component(Component::job("end", |ctx| async move { Ok(ctx.stop("done")) }).after(["check"]))
///     .run()
///     .await?;
/// assert!(report.is_clean());
/// assert!(limit.get().is_err());
/// # Ok(())
/// # }
/// ```
pub struct Provided<T> {
    name: Arc<str>,
    /// Shared, so that it is cloned for others when the channel is not locked.
    value: Arc<watch::Sender<Option<Here<T>>>>,
}

/// A value, and who has provided it.
struct Here<T> {
    by: Arc<str>,
    value: Arc<T>,
}

/// A value was asked for that is not there.
///
/// ``nothing provides `db` now: its component has to be started before this one``
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing provides `{name}` now: its component has to be started before this one")]
pub struct NotProvided {
    name: Arc<str>,
}

impl NotProvided {
    /// Returns the name of the value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Provided<T> {
    /// Makes an empty one; the name is for the error of who finds it empty.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self {
            name: name.as_ref().into(),
            value: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Puts a value in that belongs to the component with this path.
    pub(super) fn set(&self, by: &Arc<str>, value: T) {
        let here = Here {
            by: Arc::clone(by),
            value: Arc::new(value),
        };
        // The old value is dropped here, and not under the lock.
        drop(self.value.send_replace(Some(here)));
    }

    /// Takes the value out, if it belongs to this very component.
    pub(super) fn clear(&self, by: &Arc<str>) {
        let mut taken = None;
        self.value.send_if_modified(|here| {
            taken = here.take_if(|here| Arc::ptr_eq(&here.by, by));
            taken.is_some()
        });
    }

    /// Returns what is the same for all handles on this value, and for no other.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.value) as usize
    }

    fn here(here: &Option<Here<T>>) -> Option<Arc<T>> {
        here.as_ref().map(|here| Arc::clone(&here.value))
    }
}

impl<T: Clone> Provided<T> {
    /// Returns the value.
    ///
    /// # Errors
    ///
    /// It is not there yet, or not any more.
    pub fn get(&self) -> Result<T, NotProvided> {
        let here = Self::here(&self.value.borrow());
        here.map(|value| T::clone(&value))
            .ok_or_else(|| NotProvided {
                name: Arc::clone(&self.name),
            })
    }

    /// Waits until the value is there, and returns it.
    ///
    /// It waits for ever if nobody provides one: for code that is no component, race it with
    /// [`Handle::ready`](super::Handle::ready).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn wait(&self) -> T {
        let mut value = self.value.subscribe();
        loop {
            let here = Self::here(&value.borrow_and_update());
            if let Some(value) = here {
                return T::clone(&value);
            }
            // The sender is ours, so it does not go away.
            let _ = value.changed().await;
        }
    }
}

impl<T> Clone for Provided<T> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            value: Arc::clone(&self.value),
        }
    }
}

impl<T> fmt::Debug for Provided<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provided")
            .field("name", &self.name)
            .field("is_there", &self.value.borrow().is_some())
            .finish()
    }
}
