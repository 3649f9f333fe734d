//! [`TaskGroup::scope`] runs a body as the first member of its group.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::TaskGroup;
use super::isolated::{Blame, Isolated};
use super::spawner::Spawner;
use crate::group::engine::member::{Member, Returning};
use crate::group::engine::origin::Origin;
use crate::group::engine::seat::Kind;
use crate::group::error::TaskError;
use crate::group::failure::Failure;

impl<E: Send + 'static> TaskGroup<E> {
    /// Runs `body` as the first member of the group, waits for all members, and returns the body's value.
    ///
    /// If a `?` in the body fails, the group fails as with any task, so the others are cancelled and
    /// **joined**. In a plain function the `?` would drop the group, and so abort the tasks in the
    /// middle of their clean-up. The idea is Trio's nursery.
    ///
    /// - The body gets a [`Spawner`] of the group. It can borrow from its surroundings, because it runs
    ///   inside the returned future and not as a separate task.
    /// - When a task fails, the body learns it from the token, as every member does, and the group
    ///   waits for the body. A [grace](crate::group::Builder::grace) bounds that wait, and drops a body
    ///   that has not ended.
    /// - [`running`](Self::running) lists the body by the place of this call. It takes no slot of a
    ///   limit.
    ///
    /// # Errors
    ///
    /// Returns the first failure of the body or of a task, as [`wait`](Self::wait) does. If a task
    /// failed, the body's value is dropped. If the group is cancelled and the body ends with
    /// [`Cancelled`](crate::Cancelled), that is the error unless there is another one, because there is
    /// no value to return. In a closed group the body does not run, and the error has
    /// [`End::Aborted`](crate::End::Aborted).
    ///
    /// # Panics
    ///
    /// A panic in the body does not reach the caller. It is a failure of the body.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the group. The group is cancelled, the body is dropped, and the tasks
    /// are aborted.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let numbers = ["1", "2", "x"];
    /// let sum = TaskGroup::new().scope(async |spawner| {
    ///     let token = spawner.token().clone();
    ///     spawner.task("flush").spawn(async move { Ok(token.cancelled().await) });
    ///     let mut sum = 0;
    ///     for number in &numbers {
    ///         sum += number.parse::<i32>()?; // `flush` is told, and joined
    ///     }
    ///     spawner.cancel();
    ///     Ok(sum)
    /// });
    /// let error = sum.await.unwrap_err();
    /// assert!(format!("{error:#}").ends_with("invalid digit found in string"));
    /// # });
    /// ```
    ///
    /// [`Builder::grace`]: crate::group::Builder::grace
    #[track_caller]
    pub fn scope<B, F, T>(self, body: B) -> impl Future<Output = Result<T, TaskError<E>>>
    where
        // With `AsyncFnOnce` the compiler rejects a scope in a task, because it cannot tell that the
        // future is `Send`.
        B: FnOnce(Spawner<E>) -> F,
        F: Future<Output = Result<T, E>>,
    {
        self.run_scope(body, Location::caller())
    }

    async fn run_scope<B, F, T>(
        self,
        body: B,
        place: &'static Location<'static>,
    ) -> Result<T, TaskError<E>>
    where
        B: FnOnce(Spawner<E>) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let shared = Arc::clone(&self.hub.shared);
        let origin = Origin::unnamed(place);
        let label = origin.label(&shared);
        let lost = || shared.error_of(&label, Failure::Aborted);
        let Some(seat) = self.hub.seat(origin, Kind::Task) else {
            return Err(lost());
        };
        let blame = Blame {
            label: label.clone(),
            shared: Arc::clone(&shared),
            essential: false,
        };
        let body = Returning::new(Isolated::new(body(self.spawner()), blame));
        let mut member = pin!(Some(Member::new(body, seat)));
        // Declared after the member, so dropped before it. Everything that the body drops sees the
        // cause.
        let mut group = self;

        let ended = poll_fn(|cx| {
            let Some(mut member) = member.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            match member.as_mut().poll_unended(cx) {
                Poll::Pending if member.as_mut().repark(cx.waker()) => member.poll_unended(cx),
                poll => poll,
            }
        })
        .await;
        let ended = match ended {
            Ok(Ok(value)) => Some(Ok(value)),
            Ok(Err(error)) => shared.blame(&label, error).map(Err),
            // It was aborted with its group, whose wait reports that.
            Err(_) => None,
        };
        // Not earlier. Waiters above must find the failure when the body has left.
        member.set(None);
        group.wait().await?;
        ended.unwrap_or_else(|| Err(lost())).map_err(|mut error| {
            if let Some(cause) = shared.cause() {
                error.set_cause(cause);
            }
            error
        })
    }
}
