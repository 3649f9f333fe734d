//! [`Check`]: a repeated test of something that a service needs to be ready.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::BoxError;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::time::Rounded;

type Attempt = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A repeated test of something that a service needs to be ready, such as a database, a broker or a
/// disk.
///
/// Pass it to [`Lifecycle::check`](crate::lifecycle::Lifecycle::check), or to
/// [`Readiness::check`](crate::lifecycle::Readiness::check). A check may fail and recover any
/// number of times while the service runs. It fails until it has passed once. An error, a panic and
/// an attempt that takes longer than the [timeout](Self::timeout) are failures. The next attempt
/// still follows.
///
/// A check of [named services](Self::services) counts for these services alone, any other for all.
///
/// An attempt that blocks its thread cannot be given up, so use `spawn_blocking` in it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::Check;
///
/// # async fn ping() -> std::io::Result<()> { Ok(()) }
/// let database = Check::new("database", async || Ok(ping().await?))
///     .every(Duration::from_secs(5))
///     .timeout(Duration::from_millis(500))
///     .services(["shop.Orders"]);
/// assert_eq!(database.name(), "database");
/// ```
#[must_use = "a check does nothing until it is given to a lifecycle or to a readiness"]
pub struct Check {
    name: Cow<'static, str>,
    services: Vec<String>,
    every: Duration,
    timeout: Duration,
    attempt: Box<dyn FnMut() -> Attempt + Send>,
}

/// The status of a check.
#[derive(Clone, Debug)]
pub(super) struct Status {
    id: u64,
    pub(super) name: String,
    /// Empty if it counts for all services.
    services: Vec<String>,
    /// `None` while it passes.
    pub(super) failure: Option<String>,
}

/// All checks of a readiness.
pub(super) type Statuses = watch::Sender<Vec<Status>>;

/// Removes the check when it is dropped.
struct Registered {
    statuses: Statuses,
    id: u64,
}

impl Check {
    /// The default pause between two attempts.
    pub const DEFAULT_EVERY: Duration = Duration::from_secs(10);

    /// The default time that an attempt may take.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

    /// Makes a check that passes when `attempt` returns `Ok`.
    pub fn new<F, A>(name: impl Into<Cow<'static, str>>, mut attempt: F) -> Self
    where
        F: FnMut() -> A + Send + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            services: Vec::new(),
            every: Self::DEFAULT_EVERY,
            timeout: Self::DEFAULT_TIMEOUT,
            attempt: Box::new(move || Box::pin(attempt())),
        }
    }

    /// Sets the pause between the end of one attempt and the next, by default [10
    /// seconds](Self::DEFAULT_EVERY).
    ///
    /// With zero the next attempt comes at once. With [`Duration::MAX`] only one attempt is made.
    pub fn every(mut self, pause: Duration) -> Self {
        self.every = pause;
        self
    }

    /// Sets how long an attempt may take, by default [1 second](Self::DEFAULT_TIMEOUT).
    ///
    /// An attempt that takes longer is dropped and has failed. With zero an attempt passes only if
    /// it is ready at once. [`Duration::MAX`] sets no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the check count for these gRPC services alone. It does not affect the service as a
    /// whole.
    ///
    /// A second call replaces the names.
    pub fn services<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.services = names.into_iter().map(Into::into).collect();
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the check count, and returns the future that runs it forever.
    pub(super) fn run(self, statuses: &Statuses) -> impl Future<Output = ()> + Send + use<> {
        let registered = Registered::new(statuses, &self);
        self.go_on(registered)
    }

    async fn go_on(mut self, registered: Registered) {
        loop {
            let failure = self.failure().await;
            let changed = registered.set(failure.clone());
            if changed {
                tell(&self.name, failure.as_deref());
            }
            yield_now().await;
            sleep(self.every).await;
        }
    }

    /// Makes one attempt. A panic of the user's code does not leave this function.
    async fn failure(&mut self) -> Option<String> {
        let attempt = match Panic::catch(&mut self.attempt) {
            Ok(attempt) => attempt,
            Err(panic) => return Some(format!("panicked: {}", panic.message())),
        };
        let mut attempt = Box::pin(Panic::catch_future(attempt));
        let ended = timeout(self.timeout, &mut attempt).await;
        let dropped = Panic::catch(move || drop(attempt));
        match (ended, dropped) {
            (Ok(Ok(Ok(()))), Ok(())) => None,
            (Ok(Ok(Err(error))), _) => Some(message_of(error)),
            (Ok(Err(panic)), _) | (_, Err(panic)) => Some(format!("panicked: {}", panic.message())),
            (Err(_), Ok(())) => Some(format!("took longer than {}", Rounded(self.timeout))),
        }
    }
}

impl Status {
    pub(super) fn counts_for(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| name == service)
    }

    /// Whether it counts for the service as a whole.
    pub(super) fn counts_for_all(&self) -> bool {
        self.services.is_empty()
    }
}

impl Registered {
    fn new(statuses: &Statuses, check: &Check) -> Self {
        let mut id = 0;
        statuses.send_modify(|statuses| {
            id = statuses
                .iter()
                .map(|status| status.id + 1)
                .max()
                .unwrap_or(0);
            statuses.push(Status {
                id,
                name: check.name.clone().into_owned(),
                services: check.services.clone(),
                failure: Some("has not been run yet".to_owned()),
            });
        });
        Self {
            statuses: statuses.clone(),
            id,
        }
    }

    /// Returns whether the check has begun to fail, or to pass.
    fn set(&self, failure: Option<String>) -> bool {
        let mut turned = false;
        self.statuses.send_if_modified(|statuses| {
            let status = statuses.iter_mut().find(|status| status.id == self.id);
            status.is_some_and(|status| {
                turned = status.failure.is_some() != failure.is_some();
                let changed = status.failure != failure;
                status.failure = failure;
                changed
            })
        });
        turned
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.statuses
            .send_modify(|statuses| statuses.retain(|status| status.id != self.id));
    }
}

/// A panic in the error's message or its destructor is caught.
fn message_of(error: BoxError) -> String {
    let message = Panic::catch(|| error.to_string());
    drop(Panic::catch(move || drop(error)));
    message.unwrap_or_else(|_| "failed with an error whose message panicked".to_owned())
}

fn tell(name: &str, failure: Option<&str>) {
    log::guarded(|| match failure {
        Some(failure) => {
            tracing::warn!(target: "taskgroup", "readiness check `{name}` fails: {failure}");
        }
        None => tracing::info!(target: "taskgroup", "readiness check `{name}` passes"),
    });
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("services", &self.services)
            .field("every", &self.every)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
