//! [`Provided`]: a value that one component has for those that use it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// A value that one component provides and others use, such as a pool or a bound address.
///
/// Make the components that use it with [`Component::using`](super::Component::using), which passes
/// it as an argument. That alone makes them start after its component is ready, and stop before it
/// does. The [plan](super::Lifecycle::plan) refuses a value that no component provides, one that
/// two provide, and a cycle through values.
///
/// | the value is | made by |
/// |---|---|
/// | what a resource has opened | [`Component::shared`](super::Component::shared) |
/// | anything else: a bound address, a loaded setting | [`new`](Self::new), and set through its [`provider`](Self::provider) |
///
/// The value is removed when its component has failed or has been told to stop, which is after all
/// that use it have ended. So only clones outside of the lifecycle still hold the value when the
/// component closes it. A component that ends well by itself, such as a
/// [job](super::Component::job), leaves its value in place until all components have ended.
///
/// # Clones
///
/// A clone is another handle on the same value. Dropping handles changes nothing.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::{Component, Lifecycle, Provided};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let limit = Provided::new("limit");
/// let report = Lifecycle::new("orders")
///     .component(Component::using(limit.provider()).job("settings", async |_, limit| Ok(limit.set(8))))
///     .component(Component::using(&limit).job("check", async |_, limit| Ok(assert_eq!(limit, 8))))
///     .run()
///     .await?;
/// assert!(report.is_clean());
/// assert_eq!(limit.get(), None);
/// # Ok(())
/// # }
/// ```
pub struct Provided<T> {
    name: Arc<str>,
    /// Shared, so that it can be cloned for others outside of the channel's lock.
    value: Arc<watch::Sender<Option<Here<T>>>>,
}

/// A value, and the path of the component that has provided it.
struct Here<T> {
    by: Arc<str>,
    value: Arc<T>,
}

/// Sets the value of a [`Provided`], as an argument of the component that provides it.
///
/// The value must be set when the component reports that it is [ready](super::Context::ready).
/// Otherwise the component fails, with an error that names the value.
///
/// # Clones
///
/// A clone sets the same value, from a helper of the component. It keeps nothing alive.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use taskgroup::BoxError;
/// use taskgroup::lifecycle::{Component, Context, Lifecycle, Provided, Provider};
/// use tokio::net::TcpListener;
///
/// async fn http(ctx: Context, address: Provider<SocketAddr>) -> Result<(), BoxError> {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     address.set(listener.local_addr()?);
///     ctx.ready();
///     Ok(ctx.stopping().await)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let address = Provided::new("address of http");
/// let lifecycle = Lifecycle::new("orders")
///     .component(Component::using(address.provider()).run("http", http))
///     .component(Component::using(&address).job("check", async |ctx, address| {
///         assert_ne!(address.port(), 0);
///         Ok(ctx.stop("checked"))
///     }));
/// assert!(lifecycle.run().await?.is_clean());
/// # Ok(())
/// # }
/// ```
pub struct Provider<T> {
    to: Provided<T>,
    by: Arc<str>,
}

/// A value as the plan sees it.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) name: Arc<str>,
    /// Identical for all handles on one value, and different for each value.
    pub(super) address: usize,
}

/// A value of any type, as its provider holds it.
pub(super) trait Outlet: Send + Sync {
    fn value(&self) -> Value;

    fn is_there(&self) -> bool;

    /// Takes the value out, if it belongs to the component with this very path.
    fn clear(&self, by: &Arc<str>);
}

impl<T> Provided<T> {
    /// Makes an empty one. The errors of a plan use this name.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self {
            name: name.as_ref().into(),
            value: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn provider_for(&self, by: &Arc<str>) -> Provider<T> {
        Provider {
            to: self.clone(),
            by: Arc::clone(by),
        }
    }

    /// Sets a value that belongs to the component with this path.
    pub(super) fn set(&self, by: &Arc<str>, value: T) {
        let here = Here {
            by: Arc::clone(by),
            value: Arc::new(value),
        };
        // The old value is dropped here, outside of the lock.
        drop(self.value.send_replace(Some(here)));
    }

    /// Returns the value as the plan sees it.
    pub(super) fn as_value(&self) -> Value {
        Value {
            name: Arc::clone(&self.name),
            address: Arc::as_ptr(&self.value) as usize,
        }
    }

    fn here(here: &Option<Here<T>>) -> Option<Arc<T>> {
        here.as_ref().map(|here| Arc::clone(&here.value))
    }
}

impl<T: Clone> Provided<T> {
    /// Returns the value, if it is there now.
    ///
    /// It is for code outside of the lifecycle. A component gets its values as
    /// [arguments](super::Component::using).
    #[must_use]
    pub fn get(&self) -> Option<T> {
        let here = Self::here(&self.value.borrow());
        here.map(|value| T::clone(&value))
    }

    /// Waits until the value is there, and returns it.
    ///
    /// It is for code outside of the lifecycle, and waits forever if no component provides the
    /// value. To avoid that, race it with [`Handle::report`](super::Handle::report).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait(&self) -> T {
        let mut value = self.value.subscribe();
        loop {
            let here = Self::here(&value.borrow_and_update());
            if let Some(value) = here {
                return T::clone(&value);
            }
            // The sender is in `self`, so the channel stays open.
            let _ = value.changed().await;
        }
    }
}

impl<T> Provider<T> {
    /// Sets the value, and replaces the previous one.
    pub fn set(&self, value: T) {
        self.to.set(&self.by, value);
    }
}

impl<T: Send + Sync + 'static> Outlet for Provided<T> {
    fn value(&self) -> Value {
        self.as_value()
    }

    fn is_there(&self) -> bool {
        self.value.borrow().is_some()
    }

    fn clear(&self, by: &Arc<str>) {
        let mut taken = None;
        self.value.send_if_modified(|here| {
            taken = here.take_if(|here| Arc::ptr_eq(&here.by, by));
            taken.is_some()
        });
        // The value is dropped here, outside of the lock.
        drop(taken);
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

impl<T> Clone for Provider<T> {
    fn clone(&self) -> Self {
        Self {
            to: self.to.clone(),
            by: Arc::clone(&self.by),
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

impl<T> fmt::Debug for Provider<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.to).finish()
    }
}
