//! Loom's primitives under the names that the crate's `group/engine/sync.rs` and
//! `server/sync.rs` give.

pub(crate) use loom::sync::atomic::AtomicBool;
pub(crate) use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::Ordering;

/// A mutex whose poison is ignored.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn wake(waker: std::task::Waker) {
    waker.wake();
}

/// What a record needs of tokio-util's token: once `cancel` has returned, all clones have fired.
#[derive(Clone, Debug)]
pub(crate) struct CancellationToken(loom::sync::Arc<AtomicBool>);

impl CancellationToken {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Arc::new(AtomicBool::new(false)))
    }

    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A cell that is filled once; to look into it, and to fill it, are steps that loom interleaves.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_filled: AtomicBool,
    filling: Lock<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            is_filled: AtomicBool::new(false),
            filling: Lock::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let is_filled = self.is_filled.load(Ordering::SeqCst);
        is_filled.then(|| self.value.get()).flatten()
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        let _filling = self.filling.lock();
        let value = self.value.get_or_init(init);
        self.is_filled.store(true, Ordering::SeqCst);
        value
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        Self {
            value: std::sync::OnceLock::from(value),
            is_filled: AtomicBool::new(true),
            filling: Lock::new(()),
        }
    }
}
