//! What the tests share.

use std::future::Future;

use tokio::runtime;

use crate::support::alive::Guard;

/// Runs a test on both kinds of runtime; time is real, so the test must not depend on it.
#[track_caller]
pub(crate) fn on_both<F>(test: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test());
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    runtime.block_on(async { handle.spawn(test()).await.unwrap() });
}

/// A future that never ends, and holds the guard until it is dropped.
pub(crate) async fn hold<T, E>(guard: Guard) -> Result<T, E> {
    std::future::pending::<()>().await;
    drop(guard);
    unreachable!("a pending future does not end")
}

/// Panics when it is dropped.
#[derive(Debug)]
pub(crate) struct Bomb(pub(crate) &'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

/// Runs a closure when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
