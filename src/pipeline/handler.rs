//! [`Handle`]: calls the handler of the user.

use std::future::Future;
use std::sync::Arc;

use super::error::JobError;
use super::home::Home;
use super::job::Job;
use super::parcel::Parcel;

/// Calls the handler of the user, with one job or with several.
pub(super) trait Handle<T: Send + 'static, R: Send + 'static>:
    Send + Sync + 'static
{
    type Future: Future<Output = Result<(), JobError>> + Send;

    /// Calls the handler with the whole batch, unless the batch is empty.
    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<Self::Future>;
}

/// A handler of one job.
pub(super) struct Each<F>(pub(super) F);

impl<T, R, F, W> Handle<T, R> for Each<F>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(Job<T, R>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), JobError>> + Send,
{
    type Future = W;

    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<W> {
        let job = Job::new(batch.pop()?, home);
        Some((self.0)(job))
    }
}

/// A handler of several jobs at once.
pub(super) struct Several<F>(pub(super) F);

impl<T, R, F, W> Handle<T, R> for Several<F>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(Vec<Job<T, R>>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), JobError>> + Send,
{
    type Future = W;

    fn call(&self, batch: &mut Vec<Parcel<T, R>>, home: &Arc<Home<T, R>>) -> Option<W> {
        let jobs: Vec<_> = batch.drain(..).map(|item| Job::new(item, home)).collect();
        (!jobs.is_empty()).then(|| (self.0)(jobs))
    }
}
