//! [`Fake`]: a component or a task that behaves as a test wants.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::group::lock::lock;
use crate::lifecycle::Component;
use crate::testing::dice::Dice;
use crate::testing::journal::Journal;

/// A component or a task that behaves as a test wants, well or badly, and counts its calls.
///
/// Without options it is ready at once, runs until it is told to stop, and ends at once. Each option changes
/// one part of its life:
///
/// | part | option |
/// |---|---|
/// | it starts | [`starts`](Self::starts) |
/// | it runs, without being told anything | [`runs`](Self::runs) |
/// | it has been told to stop | [`stops`](Self::stops) |
/// | it is dropped | [`panics_in_drop`](Self::panics_in_drop) |
/// | it is gone | [`leaves_a_task`](Self::leaves_a_task) |
///
/// An [`Act`] is its behaviour in that part. A clone is a handle to the same fake, so a test can make the
/// component or the task from it, and look at it afterwards.
///
/// # Examples
///
/// A database that hangs in the stop is forced, and the others go on:
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::Lifecycle;
/// use taskgroup::testing::{Act, Fake, Moment};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let database = Fake::new("database").stops(Duration::ZERO, Act::Hang);
/// let http = Fake::new("http").stops(Duration::from_secs(1), Act::Ok);
/// let run = Lifecycle::new("orders")
///     .component(database.component().grace(Duration::from_secs(2)))
///     .component(http.component().after(["database"]))
///     .start()
///     .await?;
///
/// let report = run.stop("a deployment").await;
/// assert_eq!(report.took(), Duration::from_secs(3));
/// assert_eq!(http.count(Moment::Ended), 1);
/// assert_eq!((database.count(Moment::Ended), database.count(Moment::Dropped)), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fake {
    name: Arc<str>,
    script: Script,
    journal: Journal,
    seen: Arc<watch::Sender<Seen>>,
    gate: Arc<Gate>,
}

/// What a [`Fake`] does in a part of its life.
///
/// # Examples
///
/// See [`Fake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// It continues normally.
    Ok,
    /// It ends well, but too early. In a stop it is the same as `Ok`.
    End,
    /// It fails with this message.
    Fail(&'static str),
    /// It panics with this message.
    Panic(&'static str),
    /// It fails with an error whose `Display` panics.
    FailInDisplay,
    /// It fails with an error whose `source` panics.
    FailInSource,
    /// It hangs and reacts to nothing until it is dropped.
    Hang,
    /// It blocks its thread until [`Fake::release`] is called, even if it is dropped.
    Block,
}

/// What can happen in the life of a [`Fake`].
///
/// # Examples
///
/// See [`Fake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// It was polled for the first time.
    Started,
    /// It became ready.
    Ready,
    /// It was told to stop.
    Told,
    /// It ended well.
    Ended,
    /// It returned an error.
    Failed,
    /// It began to panic.
    Panicked,
    /// Its future was dropped. This is always the last moment.
    Dropped,
}

#[derive(Clone, Debug)]
struct Script {
    start: (Duration, Act),
    run: Option<(Duration, Act)>,
    stop: (Duration, Act),
    drop: Option<&'static str>,
    leaves_a_task: bool,
}

/// How often each moment has come, in the order of the enum.
#[derive(Clone, Copy, Debug, Default)]
struct Seen([usize; 7]);

/// The gate where a blocked thread waits.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Fake {
    /// Makes a fake that behaves well, with a new journal.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            script: Script {
                start: (Duration::ZERO, Act::Ok),
                run: None,
                stop: (Duration::ZERO, Act::Ok),
                drop: None,
                leaves_a_task: false,
            },
            journal: Journal::new(),
            seen: Arc::new(watch::Sender::default()),
            gate: Arc::default(),
        }
    }

    /// Makes a fake whose times are below `longest`, and that sometimes fails, panics or hangs.
    ///
    /// Nine in ten parts of its life go well.
    #[must_use]
    pub fn random(name: impl Into<Arc<str>>, dice: &mut Dice, longest: Duration) -> Self {
        let mut part = || {
            let act = match dice.below(40) {
                0 => Act::Fail("a random failure"),
                1 => Act::Panic("a random panic"),
                2 | 3 => Act::Hang,
                _ => Act::Ok,
            };
            (dice.time(longest), act)
        };
        let (start, run, stop) = (part(), part(), part());
        let fake = Self::new(name)
            .starts(start.0, start.1)
            .stops(stop.0, stop.1);
        match run.1 {
            Act::Ok | Act::Hang => fake,
            act => fake.runs(run.0, act),
        }
    }

    /// Writes into `journal`, beside other fakes.
    #[must_use]
    pub fn journal(mut self, journal: &Journal) -> Self {
        self.journal = journal.clone();
        self
    }

    /// Does `act` this long after its start. [`Act::Ok`] makes it ready.
    ///
    /// It does not look at the token until then.
    #[must_use]
    pub fn starts(mut self, after: Duration, act: Act) -> Self {
        self.script.start = (after, act);
        self
    }

    /// Does `act` this long after it became ready, if it has not been told to stop by then.
    ///
    /// With [`Act::Ok`] it goes on until it is told to stop.
    #[must_use]
    pub fn runs(mut self, after: Duration, act: Act) -> Self {
        self.script.run = Some((after, act));
        self
    }

    /// Does `act` this long after it was told to stop. [`Act::Ok`] lets it end.
    #[must_use]
    pub fn stops(mut self, after: Duration, act: Act) -> Self {
        self.script.stop = (after, act);
        self
    }

    /// Panics with this message when its future is dropped, unless the thread is panicking already.
    #[must_use]
    pub fn panics_in_drop(mut self, message: &'static str) -> Self {
        self.script.drop = Some(message);
        self
    }

    /// Starts a task with `tokio::spawn` that is never joined and never ends.
    #[must_use]
    pub fn leaves_a_task(mut self) -> Self {
        self.script.leaves_a_task = true;
        self
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a component of it. The caller can add a grace, an order and other options.
    #[track_caller]
    pub fn component(&self) -> Component {
        self.component_that(false)
    }

    /// Makes a component that drains at once, if `drains` is set.
    #[track_caller]
    pub(super) fn component_that(&self, drains: bool) -> Component {
        let fake = self.clone();
        Component::new(self.name.to_string(), move |ctx| async move {
            let token = ctx.token().clone();
            if drains {
                let ctx = ctx.clone();
                ctx.group().clone().spawn(async move {
                    let begins = ctx.draining();
                    if ctx.token().run_until_cancelled(begins).await.is_some() {
                        ctx.drained();
                    }
                    Ok(())
                });
            }
            fake.live(token, || ctx.ready()).await
        })
    }

    /// Makes a task of it, which listens to `token`.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::testing::{Act, Fake};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let mut group = TaskGroup::new();
    /// let mail = Fake::new("mail").runs(Duration::from_secs(1), Act::Fail("no route"));
    /// group.task("mail").spawn(mail.task(group.token()));
    /// let error = group.wait().await.unwrap_err();
    /// assert!(format!("{error:#}").ends_with("failed: no route"));
    /// # }
    /// ```
    pub fn task(
        &self,
        token: &CancellationToken,
    ) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        self.clone().live(token.clone(), || {})
    }

    /// Returns how often a moment has come.
    #[must_use]
    pub fn count(&self, moment: Moment) -> usize {
        self.seen.borrow().count(moment)
    }

    /// Waits until a moment has come. Returns at once if it already has.
    ///
    /// # Errors
    ///
    /// Every future of the fake has ended without reaching it. The error has the journal.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::testing::{Act, Fake, Moment};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let group = TaskGroup::new();
    /// let mail = Fake::new("mail").starts(Duration::from_secs(1), Act::Fail("no route"));
    /// group.spawn(mail.task(group.token()));
    /// let error = mail.reaches(Moment::Ready).await.unwrap_err();
    /// assert!(error.to_string().contains("1s mail fails: no route"), "{error}");
    /// # }
    /// ```
    pub async fn reaches(&self, moment: Moment) -> Result<(), BoxError> {
        let mut seen = self.seen.subscribe();
        let decided = |seen: &Seen| {
            let gone = seen.count(Moment::Dropped) == seen.count(Moment::Started);
            seen.count(moment) > 0 || (gone && seen.count(Moment::Started) > 0)
        };
        // The sender is in `self`, so this cannot fail.
        let reached = seen.wait_for(decided).await;
        let reached = reached.is_ok_and(|seen| seen.count(moment) > 0);
        if reached {
            return Ok(());
        }
        let (name, journal) = (&self.name, &self.journal);
        Err(format!("{name} is gone, and this has not come: {moment}\n{journal}").into())
    }

    /// Releases the threads that [`Act::Block`] blocks, now and later.
    pub fn release(&self) {
        *lock(&self.gate.is_open) = true;
        self.gate.opened.notify_all();
    }

    async fn live(self, token: CancellationToken, ready: impl FnOnce()) -> Result<(), BoxError> {
        self.comes(Moment::Started, "");
        let guard = Gone(self);
        let fake = &guard.0;
        if fake.script.leaves_a_task {
            tokio::spawn(pending::<()>());
        }
        let (after, act) = fake.script.start;
        sleep(after).await;
        if fake.act(act).await?.is_break() {
            return Ok(());
        }
        ready();
        fake.comes(Moment::Ready, "");
        if let Some((after, act)) = fake.script.run {
            let told = token.run_until_cancelled(sleep(after)).await.is_none();
            if !told && fake.act(act).await?.is_break() {
                return Ok(());
            }
        }
        token.cancelled().await;
        fake.comes(Moment::Told, "");
        let (after, act) = fake.script.stop;
        sleep(after).await;
        if fake.act(act).await?.is_continue() {
            fake.comes(Moment::Ended, "");
        }
        Ok(())
    }

    /// Breaks if it ends here.
    async fn act(&self, act: Act) -> Result<std::ops::ControlFlow<()>, BoxError> {
        use std::ops::ControlFlow;

        let fails = |error: Box<Bad>| {
            self.comes(Moment::Failed, error.message);
            Err(error.into())
        };
        match act {
            Act::Ok => Ok(ControlFlow::Continue(())),
            Act::End => {
                self.comes(Moment::Ended, "");
                Ok(ControlFlow::Break(()))
            }
            Act::Fail(message) => fails(Bad::boxed(message, None)),
            Act::FailInDisplay => fails(Bad::boxed("an error that panics", Some(In::Display))),
            Act::FailInSource => fails(Bad::boxed("an error that panics", Some(In::Source))),
            Act::Panic(message) => {
                self.comes(Moment::Panicked, message);
                // Without the panic hook, because a planned panic belongs in the journal and not on stderr.
                resume_unwind(Box::new(message.to_owned()))
            }
            Act::Hang => pending().await,
            Act::Block => {
                self.gate.wait();
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn comes(&self, moment: Moment, message: &str) {
        let colon = if message.is_empty() { "" } else { ": " };
        let name = &self.name;
        self.journal
            .note(format_args!("{name} {moment}{colon}{message}"));
        self.seen.send_modify(|seen| seen.0[moment as usize] += 1);
    }
}

impl Seen {
    fn count(&self, moment: Moment) -> usize {
        self.0[moment as usize]
    }
}

impl Gate {
    fn wait(&self) {
        let is_open = lock(&self.is_open);
        let opened = self.opened.wait_while(is_open, |is_open| !*is_open);
        drop(opened.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Notes the end of a future, however it ends.
struct Gone(Fake);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.comes(Moment::Dropped, "");
        if let Some(message) = self.0.script.drop.filter(|_| !std::thread::panicking()) {
            resume_unwind(Box::new(message.to_owned()));
        }
    }
}

/// An error that may panic when it is inspected.
#[derive(Debug)]
struct Bad {
    message: &'static str,
    panics: Option<In>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Display,
    Source,
}

impl Bad {
    fn boxed(message: &'static str, panics: Option<In>) -> Box<Self> {
        Box::new(Self { message, panics })
    }

    fn panics_in(&self, place: In) {
        if self.panics == Some(place) {
            resume_unwind(Box::new(format!("{place:?} of the error of a fake panics")));
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.panics_in(In::Display);
        f.write_str(self.message)
    }
}

impl Error for Bad {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.panics_in(In::Source);
        None
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Started => "starts",
            Self::Ready => "is ready",
            Self::Told => "is told to stop",
            Self::Ended => "ends",
            Self::Failed => "fails",
            Self::Panicked => "panics",
            Self::Dropped => "is gone",
        })
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake")
            .field("name", &self.name)
            .field("script", &self.script)
            .field("seen", &*self.seen.borrow())
            .finish_non_exhaustive()
    }
}
