//! [`Load`]: clients that send requests again and again while a service stops.

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::BoxError;
use crate::testing::process::get;

/// Clients that send one request after another, until nothing listens or the load is ended.
///
/// Each client is a thread with its own runtime, so it does not share one with the service.
///
/// The request function decides what counts as lost, by returning an error. A request that was refused before
/// it was sent does not count, because a client behind a load balancer sends it elsewhere.
///
/// # Drop
///
/// Each client ends after its current request.
///
/// # Examples
///
/// ```
/// use taskgroup::testing::{Load, Reply};
///
/// let load = Load::start(2, async || Ok(Reply::Done));
/// load.reaches(100);
/// let loaded = load.end();
/// assert!(loaded.done() >= 100);
/// loaded.assert_nothing_lost();
/// ```
#[must_use = "a load that is dropped at once sends next to nothing"]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// The result of a request that was not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was answered correctly.
    Done,
    /// It was refused. The client sends no more requests.
    Refused,
}

/// The results of all the requests of a [`Load`].
#[derive(Clone, Debug)]
pub struct Loaded {
    done: usize,
    lost: Vec<String>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    done: AtomicUsize,
    /// How many clients are running.
    clients: AtomicUsize,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many losses a message shows.
const SHOWN: usize = 10;

impl Load {
    /// Starts `clients` clients that send `request` again and again.
    ///
    /// # Panics
    ///
    /// The threads, or the runtimes for them, cannot be made.
    pub fn start<F, Fut>(clients: usize, request: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, BoxError>>,
    {
        let shared = Arc::new(Shared::default());
        shared.clients.store(clients, Ordering::SeqCst);
        let request = Arc::new(request);
        let client = |_| {
            let (shared, request) = (Arc::clone(&shared), Arc::clone(&request));
            thread::spawn(move || ask(&shared, &*request))
        };
        let clients = (0..clients).map(client).collect();
        Self { shared, clients }
    }

    /// Starts `clients` clients that send `GET path` to `address`, each request on a new connection.
    ///
    /// An answer with a status below 500 counts as done, and a refused connection as refused. All other
    /// results are losses, such as a 5xx, an answer that is cut, or a connection that is reset.
    pub fn http(clients: usize, address: SocketAddr, path: impl Into<String>) -> Self {
        let path = path.into();
        Self::start(clients, move || {
            let reply = match get(address, &path, PATIENCE) {
                Ok((status, _)) if status < 500 => Ok(Reply::Done),
                Ok((status, _)) => Err(format!("GET {path}: {status}").into()),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Reply::Refused),
                Err(error) => Err(format!("GET {path}: {error}").into()),
            };
            std::future::ready(reply)
        })
    }

    /// Waits until `count` requests have been answered.
    ///
    /// # Panics
    ///
    /// They are not answered within 30 s, or no client is left.
    #[track_caller]
    pub fn reaches(&self, count: usize) {
        let began = Instant::now();
        loop {
            let clients = self.shared.clients.load(Ordering::SeqCst);
            let done = self.shared.done.load(Ordering::SeqCst);
            if done >= count {
                return;
            }
            let goes_on = clients > 0 && began.elapsed() < PATIENCE;
            assert!(
                goes_on,
                "{done} of {count} requests are done, and {clients} clients go on"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the load after the requests that are under way, and returns the results of all.
    ///
    /// # Panics
    ///
    /// A request has panicked.
    pub fn end(mut self) -> Loaded {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let clients = std::mem::take(&mut self.clients).into_iter();
        let lost = clients.flat_map(|client| client.join().expect("a request panicked"));
        let lost = lost.collect();
        Loaded {
            done: self.shared.done.load(Ordering::SeqCst),
            lost,
        }
    }
}

/// Sends requests until the load is over, and returns the losses.
fn ask<F, Fut>(shared: &Shared, request: &F) -> Vec<String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Reply, BoxError>>,
{
    struct Leaves<'a>(&'a AtomicUsize);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let _leaves = Leaves(&shared.clients);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a client");
    let mut lost = Vec::new();
    while !shared.is_over.load(Ordering::SeqCst) {
        match runtime.block_on(request()) {
            Ok(Reply::Done) => {
                shared.done.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Reply::Refused) => break,
            Err(error) => lost.push(error.to_string()),
        }
    }
    lost
}

impl Loaded {
    /// Returns how many requests were answered.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Returns the losses, with the error of each.
    #[must_use]
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// Fails if any request was lost.
    #[track_caller]
    pub fn assert_nothing_lost(&self) -> &Self {
        let (count, all) = (self.lost.len(), self.done + self.lost.len());
        let shown: Vec<_> = self.lost.iter().take(SHOWN).map(String::as_str).collect();
        let shown = shown.join("\n  ");
        assert!(
            count == 0,
            "{count} of {all} requests were lost:\n  {shown}"
        );
        self
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("done", &self.shared.done)
            .field("clients", &self.shared.clients)
            .finish_non_exhaustive()
    }
}
