//! [`LameDuck`]: the time in which a server is no longer ready and still serves.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The time between the token and the stop of a server, in which it goes on serving.
///
/// Clients, usually a load balancer, need time to notice that a server is no longer
/// [ready](crate::lifecycle::Readiness). A server that stops earlier loses the requests that they still send.
/// So the lame duck has to be **longer than the detection takes in the worst case**, which is the period of the
/// probe, times the failures it needs, plus the time that the news takes to spread. A shorter lame duck does
/// not help.
///
/// Everything is served, on new connections too. In the second half answers over HTTP/1 say
/// `Connection: close`, so that clients which do not probe go elsewhere as well. Then the stop begins, with its
/// full grace. Handlers do not see the lame duck, because their [`Stop`](crate::server::Stop) begins with the
/// stop. Only servers are lame ducks. Other tasks with the same token stop when it fires, so give what the
/// handlers need another token (see [`then_cancel`](crate::server::serve::Serve::then_cancel)).
///
/// A plain [`Duration`] is enough for [`Serve::lame_duck`](crate::server::serve::Serve::lame_duck). Servers can
/// share a value of this type and are then lame ducks together, and it can be [skipped](Self::skip). The name
/// is Google's: *Site Reliability Engineering*, chapter 20.
///
/// # Clones
///
/// A clone is another handle on the same lame duck.
///
/// # Drop
///
/// Dropping a handle, even the last one, changes nothing.
///
/// # Examples
///
/// An operator stops the server where no load balancer has to notice it.
///
/// ```
/// use std::time::Duration;
/// use axum::Router;
/// use taskgroup::CancellationToken;
/// use taskgroup::server::LameDuck;
///
/// # #[cfg(feature = "axum")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lame_duck = LameDuck::new(Duration::from_secs(5));
/// let token = CancellationToken::new();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let http = taskgroup::server::axum::serve("http", listener, Router::new())
///     .lame_duck(lame_duck.clone())
///     .run(&token);
///
/// lame_duck.skip();
/// token.cancel();
/// http.await?; // at once
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct LameDuck {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    length: Duration,
    begun: OnceLock<Instant>,
    skipped: CancellationToken,
}

impl LameDuck {
    /// Makes a lame duck of `length`.
    ///
    /// Any duration is valid. [`Duration::ZERO`] ends at once, and [`Duration::MAX`] lasts until it is
    /// [skipped](Self::skip).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::server::LameDuck;
    ///
    /// assert_eq!(LameDuck::new(Duration::from_secs(5)).length(), Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                length,
                begun: OnceLock::new(),
                skipped: CancellationToken::new(),
            }),
        }
    }

    /// Returns how long it lasts unless it is skipped.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.shared.length
    }

    /// Ends it now, or as soon as it begins.
    ///
    /// A second call does nothing.
    ///
    /// # Examples
    ///
    /// See [`LameDuck`].
    pub fn skip(&self) {
        self.shared.skipped.cancel();
    }

    /// Returns whether it was skipped, even if it was over by then.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        self.shared.skipped.is_cancelled()
    }

    /// Begins it, unless another server has begun it, and waits for its second half.
    pub(crate) async fn half(&self) {
        self.part(self.length() / 2).await;
    }

    /// The same, but waits for its end.
    pub(crate) async fn over(&self) {
        self.part(self.length()).await;
    }

    async fn part(&self, part: Duration) {
        if part.is_zero() {
            // A timer would take a millisecond even for a zero length.
            return;
        }
        let begun = *self.shared.begun.get_or_init(Instant::now);
        let waiting = async {
            match begun.checked_add(part) {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        // `None` if it is skipped.
        let _ = self.shared.skipped.run_until_cancelled(waiting).await;
    }
}

impl From<Duration> for LameDuck {
    fn from(length: Duration) -> Self {
        Self::new(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn lasts(lame_duck: &LameDuck) -> Duration {
        let begin = Instant::now();
        lame_duck.half().await;
        lame_duck.over().await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn its_halves_are_equal() {
        let lame_duck = LameDuck::new(4 * SECOND);
        let begin = Instant::now();

        lame_duck.half().await;
        assert_eq!(begin.elapsed(), 2 * SECOND);
        lame_duck.over().await;
        assert_eq!(begin.elapsed(), 4 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_server_is_a_lame_duck_for_the_time_that_is_left() {
        let lame_duck = LameDuck::new(4 * SECOND);
        lame_duck.half().await;

        assert_eq!(lasts(&lame_duck).await, 2 * SECOND);
        assert_eq!(lasts(&lame_duck).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_length_there_is_none() {
        assert_eq!(lasts(&LameDuck::new(Duration::ZERO)).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_skipped_before_it_begins_and_in_the_middle() {
        let early = LameDuck::new(Duration::MAX);
        early.skip();
        assert_eq!(lasts(&early).await, Duration::ZERO);

        let late = LameDuck::new(Duration::MAX);
        let waiting = tokio::spawn({
            let late = late.clone();
            async move { lasts(&late).await }
        });
        tokio::time::sleep(3 * SECOND).await;
        assert!(!late.is_skipped());
        late.skip();
        assert_eq!(waiting.await.unwrap(), 3 * SECOND);
    }
}
