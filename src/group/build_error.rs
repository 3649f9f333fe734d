//! A [`BuildError`] reports an option with an invalid value.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

/// An option whose value is invalid, wherever in the crate it was set.
///
/// Setters take any value. The call that builds or runs something checks all values first and returns
/// this error before anything begins. Every value that the docs of an option allow is used unchanged.
///
/// The message names the thing to be built, the option and the value.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// let error = TaskGroup::builder().name("resize").limit(0).build().unwrap_err();
/// assert_eq!(error.option(), "limit");
/// assert_eq!(error.to_string(), "group `resize`: `limit` cannot be 0: no task could ever start");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BuildError {
    what: Cow<'static, str>,
    option: &'static str,
    value: Cow<'static, str>,
    why: Cow<'static, str>,
}

impl BuildError {
    /// `value` and `why` end the sentence "`limit` cannot be".
    pub(crate) fn new(
        what: impl Into<Cow<'static, str>>,
        option: &'static str,
        value: impl Into<Cow<'static, str>>,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            what: what.into(),
            option,
            value: value.into(),
            why: why.into(),
        }
    }

    /// For something without a name.
    pub(crate) fn empty_name(what: &'static str) -> Self {
        Self::new(what, "name", "empty", "no message could name it")
    }

    /// Returns the name of the option, which is the name of its method or of the parameter.
    #[must_use]
    pub fn option(&self) -> &str {
        self.option
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            option,
            value,
            why,
        } = self;
        write!(f, "{what}: `{option}` cannot be {value}: {why}")
    }
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("BuildError")
                .field("what", &self.what)
                .field("option", &self.option)
                .field("value", &self.value)
                .field("why", &self.why)
                .finish();
        }
        fmt::Display::fmt(self, f)
    }
}

impl Error for BuildError {}

/// For calls that the system can also fail, as [`InvalidInput`](io::ErrorKind::InvalidInput) with the
/// error inside.
impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// For [`Exit`](crate::Exit).
impl AsRef<dyn Error + Send + Sync> for BuildError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
