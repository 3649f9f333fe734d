//! A [`StopRequest`] says why code asks for a stop, and with which exit status.

use std::borrow::Cow;
use std::fmt;

/// Why code asks for a stop, and the exit status for it.
///
/// Every call that stops something takes it, such as
/// [`Context::stop`](crate::lifecycle::Context::stop), [`Handle::stop`](crate::lifecycle::Handle::stop)
/// and [`TaskGroup::cancel_because`](crate::TaskGroup::cancel_because). A plain reason converts into a
/// request, so the short form is `ctx.stop("the queue is empty")`. The [`Cause`](crate::Cause) carries
/// it.
///
/// The status applies only if the stop went well. A failure or a forced stop sets its own status.
///
/// # Examples
///
/// ```
/// use taskgroup::Exit;
/// use taskgroup::group::StopRequest;
/// # #[cfg(feature = "lifecycle")]
/// use taskgroup::lifecycle::{Component, Lifecycle};
///
/// # #[cfg(feature = "lifecycle")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let config = Component::new("config", |ctx| async move {
///     ctx.ready();
///     // The supervisor of this service starts it again after a 75.
///     ctx.stop(StopRequest::new("the configuration has changed").code(75));
///     Ok(ctx.stopping().await)
/// });
/// let report = Lifecycle::new("orders").component(config).run().await?;
/// assert_eq!(Exit::from(report).code(), 75);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "lifecycle"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRequest {
    reason: Option<Cow<'static, str>>,
    code: Option<u8>,
}

impl StopRequest {
    /// Asks for a stop with this reason.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Some(reason.into()),
            code: None,
        }
    }

    /// Sets the exit status of a program that stops for this request and stops well. The default is
    /// [`ExitPolicy::requested`](crate::process::ExitPolicy::requested) of the policy.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }

    /// Returns the reason, or `None` for a call without one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Returns the exit status, or `None` if the policy decides.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        self.code
    }
}

impl From<&'static str> for StopRequest {
    fn from(reason: &'static str) -> Self {
        Self::new(reason)
    }
}

impl From<String> for StopRequest {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

impl From<Cow<'static, str>> for StopRequest {
    fn from(reason: Cow<'static, str>) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for StopRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled on request")?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
