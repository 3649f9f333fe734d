//! [`Using`]: components that get values as arguments.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;

use super::component::{Component, Work, supervise};
use super::context::Context;
use super::plan::Kind;
use super::provided::Provided;
use super::uses::{Declared, Uses, Wire};
use crate::BoxError;
use crate::cleanup::Outcome;
use crate::group::TaskGroup;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::panic::Panic;
use crate::supervise::Supervisor;

/// Makes a component that gets values as arguments. [`Component::using`] returns it.
///
/// Its methods are the constructors of [`Component`]. Their functions get the values as one more
/// argument, after the [`Context`].
#[must_use = "it is not a component yet"]
pub struct Using<V: Wire> {
    declared: Declared,
    wires: V,
}

impl Component {
    /// Makes a component that runs until it is told to stop.
    ///
    /// `run` is called in its own task when the component starts, and has to call
    /// [`Context::ready`].
    ///
    /// # Examples
    ///
    /// See [`Context`].
    #[track_caller]
    pub fn new<F, W>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(Context) -> W + Send + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        Self::using(()).run(name, |ctx, ()| run(ctx))
    }

    /// Makes a component of a function whose error is not a [`BoxError`], such as
    /// `anyhow::Result<()>`.
    ///
    /// Otherwise it is [`new`](Self::new), for which the compiler could not infer the error type of
    /// a closure. A closure around such a function works everywhere, as in
    /// `async |ctx| Ok(migrate(ctx).await?)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Context, Lifecycle};
    ///
    /// async fn worker(ctx: Context) -> anyhow::Result<()> {
    ///     ctx.ready();
    ///     anyhow::bail!("the queue is gone")
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let report = Lifecycle::new("orders").component(Component::function("worker", worker)).run().await?;
    /// assert_eq!(report.first_error().unwrap().message, "the queue is gone");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn function<F, W, E>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(Context) -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::using(()).function(name, |ctx, ()| run(ctx))
    }

    /// Makes a component that is opened, is passive while it is used, and is closed after all that
    /// use it.
    ///
    /// It is ready when `open` has returned. `close` gets the value that `open` returned, such as a
    /// pool, a connection, or the handle of a server that one call starts and another stops. To let
    /// others use the value, see [`shared`](Self::shared). `close` also gets the [`Outcome`] of the
    /// whole so far, with its cause. It can then commit a transaction if everything was done, and
    /// roll it back if not. If the stop begins before `open` has returned, `open` is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    /// use tokio::fs::{File, remove_file};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let path = std::env::temp_dir().join(format!("lock-of-an-example-{}", std::process::id()));
    /// let lock = path.clone();
    /// let lock = Component::resource(
    ///     "lock",
    ///     async |_ctx| Ok((File::create(&lock).await?, lock)),
    ///     async |(_file, lock), _| Ok(remove_file(lock).await?),
    /// );
    /// let handle = Lifecycle::new("orders").component(lock);
    /// # let lifecycle = handle;
    /// # let handle = lifecycle.handle();
    /// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("enough") });
    /// assert!(lifecycle.run().await?.is_clean());
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn resource<O, F, T, C, G>(name: impl Into<Cow<'static, str>>, open: O, close: C) -> Self
    where
        O: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
        T: Send + 'static,
        C: FnOnce(T, Outcome) -> G + Send + 'static,
        G: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::using(()).resource(name, |ctx, ()| open(ctx), close)
    }

    /// Makes a resource whose value others use, and returns the value with it.
    ///
    /// It is a [`resource`](Self::resource). The value has the name of the component. The
    /// components that are [using](Self::using) it get a clone of what `open` returned.
    ///
    /// # Examples
    ///
    /// See [`using`](Self::using).
    #[track_caller]
    pub fn shared<O, F, T, C, G>(
        name: impl Into<Cow<'static, str>>,
        open: O,
        close: C,
    ) -> (Self, Provided<T>)
    where
        O: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
        T: Clone + Send + Sync + 'static,
        C: FnOnce(T, Outcome) -> G + Send + 'static,
        G: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::using(()).shared(name, |ctx, ()| open(ctx), close)
    }

    /// Makes a component that is ready when it has ended, such as a migration or a warm-up.
    ///
    /// If the stop begins before that, its token fires, and it has its grace to end.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let report = Lifecycle::new("orders")
    ///     .component(Component::job("migrate", |_| async { Err("table `orders` is locked".into()) }))
    ///     .component(Component::new("http", |_| async { unreachable!() }).after(["migrate"]))
    ///     .run()
    ///     .await?;
    /// let error = report.first_error().unwrap();
    /// assert_eq!(format!("{error:#}"), "component `migrate` did not start: table `orders` is locked");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn job<F, W>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(Context) -> W + Send + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        Self::using(()).job(name, |ctx, ()| run(ctx))
    }

    /// Makes a component that gets values of other components as an argument.
    ///
    /// It starts after the components that provide them are ready, and stops before they do,
    /// without a call of [`after`](Self::after). [`Uses`] lists what can be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::BoxError;
    /// use taskgroup::lifecycle::{Component, Context, Lifecycle, Provided};
    ///
    /// # #[derive(Clone)]
    /// # struct Pool;
    /// # impl Pool {
    /// #     async fn connect() -> std::io::Result<Self> { Ok(Self) }
    /// #     async fn migrate(&self) -> std::io::Result<()> { Ok(()) }
    /// #     async fn close(self) -> std::io::Result<()> { Ok(()) }
    /// # }
    /// async fn worker(ctx: Context, (_pool, batch): (Pool, usize)) -> Result<(), BoxError> {
    ///     assert_eq!(batch, 100);
    ///     ctx.ready();
    ///     ctx.stop("all is done");
    ///     Ok(ctx.stopping().await)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let (database, pool) = Component::shared(
    ///     "database",
    ///     async |_ctx| Ok(Pool::connect().await?),
    ///     async |pool, _| Ok(pool.close().await?),
    /// );
    /// let batch = Provided::new("batch");
    /// let migrate = Component::using((&pool, batch.provider())).job("migrate", async |_ctx, (pool, batch)| {
    ///     pool.migrate().await?;
    ///     Ok(batch.set(100))
    /// });
    /// let report = Lifecycle::new("orders")
    ///     .component(Component::using((&pool, &batch)).run("worker", worker))
    ///     .component(migrate)
    ///     .component(database)
    ///     .run()
    ///     .await?;
    /// assert!(report.is_clean(), "{report}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn using<U: Uses>(values: U) -> Using<U::Wires> {
        let mut declared = Declared::default();
        let wires = values.declare(&mut declared);
        Using { declared, wires }
    }
}

impl<V: Wire> Using<V> {
    /// Makes a component that runs until it is told to stop, like [`Component::new`].
    #[track_caller]
    pub fn run<F, W>(self, name: impl Into<Cow<'static, str>>, run: F) -> Component
    where
        F: FnOnce(Context, V::Values) -> W + Send + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        let run = |ctx, values| run(ctx, values).into_task(Inside);
        self.make(name.into(), Kind::Component, run)
    }

    /// Makes a component of a function with its own error type, like [`Component::function`].
    #[track_caller]
    pub fn function<F, W, E>(self, name: impl Into<Cow<'static, str>>, run: F) -> Component
    where
        F: FnOnce(Context, V::Values) -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let run = |ctx, values| async move { run(ctx, values).await.map_err(Into::into) };
        self.make(name.into(), Kind::Component, run)
    }

    /// Makes a component of supervised tasks, like [`Component::supervisor`].
    ///
    /// `children` gets a supervisor of this name, adds the children and the options, and returns it.
    /// A child that fails is started again with a clone of the value that its closure has.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle, Provided};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let topic: Provided<String> = Provided::new("topic");
    /// let consumer = Component::using(&topic).supervisor("consumer", |supervisor, topic| {
    ///     supervisor.child("poll", move |token| {
    ///         let topic = topic.clone();
    ///         async move {
    ///             assert_eq!(topic, "orders");
    ///             Ok(token.cancelled().await)
    ///         }
    ///     })
    /// });
    /// let settings = async |_, topic: taskgroup::lifecycle::Provider<_>| Ok(topic.set("orders".to_owned()));
    /// let lifecycle = Lifecycle::new("orders")
    ///     .component(Component::using(topic.provider()).job("settings", settings))
    ///     .component(consumer);
    /// let run = lifecycle.start().await?;
    /// assert!(run.stop("enough").await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn supervisor<F>(self, name: impl Into<Cow<'static, str>>, children: F) -> Component
    where
        F: FnOnce(Supervisor, V::Values) -> Supervisor + Send + 'static,
    {
        let name = name.into();
        let supervisor = Supervisor::new(name.clone());
        let run = |ctx, values| async move { supervise(ctx, children(supervisor, values)).await };
        self.make(name, Kind::Component, run)
    }

    /// Makes a component that is ready when it has ended, like [`Component::job`].
    #[track_caller]
    pub fn job<F, W>(self, name: impl Into<Cow<'static, str>>, run: F) -> Component
    where
        F: FnOnce(Context, V::Values) -> W + Send + 'static,
        W: IntoTask<BoxError, Value = (), Task: Send + 'static>,
    {
        let run =
            |ctx: Context, values| until_done(ctx.clone(), run(ctx, values).into_task(Inside));
        self.make(name.into(), Kind::Job, run).may_end()
    }

    /// Makes a component that is opened, used and closed, like [`Component::resource`].
    #[track_caller]
    pub fn resource<O, F, T, C, G>(
        self,
        name: impl Into<Cow<'static, str>>,
        open: O,
        close: C,
    ) -> Component
    where
        O: FnOnce(Context, V::Values) -> F + Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
        T: Send + 'static,
        C: FnOnce(T, Outcome) -> G + Send + 'static,
        G: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let run = |ctx, values| open_and_close(ctx, values, open, |_, _: &T| (), close);
        self.make(name.into(), Kind::Resource, run)
    }

    /// Makes a resource whose value others use, like [`Component::shared`].
    #[track_caller]
    pub fn shared<O, F, T, C, G>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        open: O,
        close: C,
    ) -> (Component, Provided<T>)
    where
        O: FnOnce(Context, V::Values) -> F + Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
        T: Clone + Send + Sync + 'static,
        C: FnOnce(T, Outcome) -> G + Send + 'static,
        G: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let name = name.into();
        let shared = Provided::new(&name);
        self.declared.provides.push(Box::new(shared.clone()));
        let to = shared.clone();
        let share = move |ctx: &Context, opened: &T| to.set(ctx.path(), opened.clone());
        let run = |ctx, values| open_and_close(ctx, values, open, share, close);
        (self.make(name, Kind::Resource, run), shared)
    }

    #[track_caller]
    fn make<F, W>(self, name: Cow<'static, str>, kind: Kind, run: F) -> Component
    where
        F: FnOnce(Context, V::Values) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let wires = self.wires;
        let start = |ctx: Context, _: &TaskGroup| -> Work {
            Box::pin(async move {
                match wires.take(ctx.path()) {
                    Some(values) => run(ctx, values).await,
                    // A component that it uses has just failed. The stop is on its way.
                    None => Ok(ctx.stopping().await),
                }
            })
        };
        let mut component = Component::of(name, kind, Box::new(start));
        component.uses = self.declared.uses;
        component.provides = self.declared.provides;
        component
    }
}

/// Runs a job, which must have provided its values by its end.
async fn until_done<W>(ctx: Context, work: W) -> Result<(), BoxError>
where
    W: Future<Output = Result<(), BoxError>>,
{
    work.await?;
    // A job that is told to stop before it is done need not have provided anything.
    match ctx.not_provided() {
        Some(error) if !ctx.token().is_cancelled() => Err(error.into()),
        _ => Ok(()),
    }
}

async fn open_and_close<V, O, F, T, S, C, G>(
    ctx: Context,
    values: V,
    open: O,
    share: S,
    close: C,
) -> Result<(), BoxError>
where
    O: FnOnce(Context, V) -> F,
    F: Future<Output = Result<T, BoxError>>,
    S: FnOnce(&Context, &T),
    C: FnOnce(T, Outcome) -> G,
    G: Future<Output = Result<(), BoxError>>,
{
    let opening = async { open(ctx.clone(), values).await };
    let Some(opened) = ctx.token().run_until_cancelled(opening).await else {
        return Ok(());
    };
    let opened = opened?;
    share(&ctx, &opened);
    ctx.ready();
    ctx.stopping().await;
    // A panicking destructor is reported after everything that is open has been closed.
    let taken_out = Panic::catch(|| ctx.take_out());
    let closed = close(opened, ctx.outcome()).await;
    if let Err(panic) = taken_out {
        panic.resume();
    }
    closed
}

impl<V: Wire> fmt::Debug for Using<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses = self.declared.uses.iter().map(|value| &value.name);
        let provides = self
            .declared
            .provides
            .iter()
            .map(|outlet| outlet.value().name);
        f.debug_struct("Using")
            .field("uses", &uses.collect::<Vec<_>>())
            .field("provides", &provides.collect::<Vec<_>>())
            .finish()
    }
}
