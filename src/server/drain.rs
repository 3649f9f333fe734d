//! [`DrainReport`]: how the connections and requests of a stopped server ended.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::group::time::Rounded;
use crate::group::time::is_late;

/// How many different paths of cut requests a report keeps.
pub(crate) const MOST_PATHS: usize = 8;

/// How many characters of a path a report keeps. Paths come from peers, and go to a log.
const LONGEST_PATH: usize = 100;

/// Reports the drain of a server, what was in flight when it began and how that ended.
///
/// The counts are taken at the end of the drain, before anything is cut. Its `Display` is one line for an
/// operator:
///
/// - ``server `http` drained in 312ms: 12 requests answered, 2 idle connections closed``
/// - ``server `http` was given 5s to drain: 3 requests on 2 connections were cut (GET /slow, GET /events)``
///
/// # Examples
///
/// ```
/// use taskgroup::server::DrainReport;
///
/// fn log(report: &DrainReport) {
///     if report.is_clean() {
///         tracing::info!("{report}");
///     } else {
///         tracing::error!(cut = report.requests_cut(), "{report}");
///     }
/// }
/// # let _ = log;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainReport {
    server: Cow<'static, str>,
    /// Its paths are the ones to show, without duplicates and bounded in number and length.
    counts: Counts,
    more_paths: bool,
    more_stuck: bool,
}

/// What a server counts while it drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) connections_at_stop: usize,
    pub(crate) requests_at_stop: usize,
    /// Answered in full between the stop and the end of the drain.
    pub(crate) answered: usize,
    /// Connections that were closed because they had no request in flight.
    pub(crate) idle_cut: usize,
    pub(crate) requests_cut: usize,
    /// Connections cut with a request in flight.
    pub(crate) connections_cut: usize,
    pub(crate) upgrades_cut: usize,
    /// Handlers that block a thread, although they were cut.
    pub(crate) stuck: usize,
    /// Their names.
    pub(crate) stuck_paths: Vec<String>,
    /// Other connections that have not ended, although they were cut.
    pub(crate) unended: usize,
    /// Handlers and bodies that have panicked since the server began.
    pub(crate) panicked: usize,
    /// Method and path of the cut requests, such as `GET /slow`, without the query, which may hold secrets.
    pub(crate) paths: Vec<String>,
    /// From the stop until the last connection was gone, or until the server gave up waiting.
    pub(crate) took: Duration,
    /// The time the server was given.
    pub(crate) drain: Duration,
}

impl DrainReport {
    pub(crate) fn new(server: impl Into<Cow<'static, str>>, mut counts: Counts) -> Self {
        let more_paths = to_be_shown(&mut counts.paths);
        let more_stuck = to_be_shown(&mut counts.stuck_paths);
        Self {
            server: server.into(),
            counts,
            more_paths,
            more_stuck,
        }
    }

    /// Returns the name of the server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns whether everything that was in flight was answered, in the time given.
    ///
    /// A drain is not clean if a request, a connection with one, or an upgraded connection was cut, if
    /// something is [stuck](Self::stuck) or [has not ended](Self::unended), or if it [took](Self::took) longer than the time
    /// [given](Self::drain), which happens when the runtime is blocked. Closed idle connections do not count,
    /// because they lose nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.is_cut() && self.is_over() && !self.is_late()
    }

    /// Whether everything had ended when the server gave up waiting.
    pub(crate) fn is_over(&self) -> bool {
        self.stuck() + self.unended() == 0
    }

    /// Returns the number of connections that were open when the stop began, including idle and upgraded ones.
    #[must_use]
    pub fn connections_at_stop(&self) -> usize {
        self.counts.connections_at_stop
    }

    /// Returns the number of requests that were in flight when the stop began.
    #[must_use]
    pub fn requests_at_stop(&self) -> usize {
        self.counts.requests_at_stop
    }

    /// Returns the number of requests that were answered in full during the drain.
    ///
    /// It includes requests that came in the very moment of the stop, so it may exceed
    /// [`requests_at_stop`](Self::requests_at_stop).
    #[must_use]
    pub fn answered(&self) -> usize {
        self.counts.answered
    }

    /// Returns the number of connections that were closed because they had no request in flight. Nothing is
    /// lost with these.
    #[must_use]
    pub fn idle_cut(&self) -> usize {
        self.counts.idle_cut
    }

    /// Returns the number of requests that were not answered in full when the time was up.
    #[must_use]
    pub fn requests_cut(&self) -> usize {
        self.counts.requests_cut
    }

    /// Returns the number of connections that were cut with a request in flight on them.
    #[must_use]
    pub fn connections_cut(&self) -> usize {
        self.counts.connections_cut
    }

    /// Returns the number of upgraded connections, usually websockets, that were cut.
    #[must_use]
    pub fn upgrades_cut(&self) -> usize {
        self.counts.upgrades_cut
    }

    /// Returns the number of handlers that were cut and did not end, because they block their thread. They may
    /// still be running.
    ///
    /// A handler that awaits forever is not stuck. It is dropped when it is cut.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.counts.stuck
    }

    /// Returns method and path of the stuck handlers, without their queries.
    ///
    /// Each is listed once. At most 8 are kept, of at most 100 characters each.
    #[must_use]
    pub fn stuck_paths(&self) -> &[String] {
        &self.counts.stuck_paths
    }

    /// Returns the number of other connections that were cut and had not ended when the server gave up waiting.
    ///
    /// They block no thread. Either their task waits for something else and does not touch its stream, as the
    /// task of a websocket may, or the runtime has not come to them yet.
    #[must_use]
    pub fn unended(&self) -> usize {
        self.counts.unended
    }

    /// Returns the number of handlers and response bodies that have panicked since the server began, not only
    /// during the drain.
    ///
    /// Panics do not make a drain unclean, because their clients have been told or have noticed.
    #[must_use]
    pub fn panicked(&self) -> usize {
        self.counts.panicked
    }

    /// Returns method and path of the cut requests, such as `GET /slow`, without their queries.
    ///
    /// Each is listed once. At most 8 are kept, of at most 100 characters each.
    #[must_use]
    pub fn paths(&self) -> &[String] {
        &self.counts.paths
    }

    /// Returns the time from the stop to the end of the last connection.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.counts.took
    }

    /// Returns the time the server was given to drain.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.counts.drain
    }

    fn is_cut(&self) -> bool {
        let Counts {
            requests_cut,
            connections_cut,
            upgrades_cut,
            ..
        } = self.counts;
        requests_cut + connections_cut + upgrades_cut > 0
    }

    fn is_late(&self) -> bool {
        is_late(self.took(), self.drain())
    }

    /// Whether a drain in which nothing was cut shows how long it took.
    fn shows_time(&self) -> bool {
        self.is_late() && (!self.is_cut() || !self.is_over())
    }

    fn fmt_clean(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "server `{}` drained in {}: ",
            self.server,
            Rounded(self.took())
        )?;
        let mut list = List::new(f, ", ");
        if self.answered() > 0 {
            list.item(format_args!(
                "{} answered",
                Count(self.answered(), "request")
            ))?;
        }
        if self.idle_cut() > 0 {
            let idle = Count(self.idle_cut(), "idle connection");
            list.item(format_args!("{idle} closed"))?;
        }
        if list.is_empty {
            list.item(format_args!("nothing was in flight"))?;
        }
        self.fmt_panicked(&mut list)
    }

    fn fmt_unclean(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, drain) = (&self.server, Rounded(self.drain()));
        write!(f, "server `{server}` was given {drain} to drain: ")?;
        let mut list = List::new(f, "; ");
        if self.requests_cut() + self.connections_cut() > 0 {
            list.item(format_args!("{}", Cut(self)))?;
        }
        if self.upgrades_cut() > 0 {
            let upgrades = Count(self.upgrades_cut(), "upgraded connection");
            list.item(format_args!("{upgrades} {} cut", were(self.upgrades_cut())))?;
        }
        if self.stuck() > 0 {
            let stuck = Count(self.stuck(), "handler");
            let paths = Paths(self.stuck_paths(), self.more_stuck);
            list.item(format_args!(
                "{stuck} blocked a thread and did not end{paths}"
            ))?;
        }
        if self.unended() > 0 {
            let unended = Count(self.unended(), "connection");
            list.item(format_args!("{unended} did not end"))?;
        }
        if self.shows_time() {
            list.item(format_args!("it took {}", Rounded(self.took())))?;
        }
        self.fmt_panicked(&mut list)
    }

    fn fmt_panicked(&self, list: &mut List<'_, '_>) -> fmt::Result {
        match self.panicked() {
            0 => Ok(()),
            panicked => list.item(format_args!("{} since its start", Count(panicked, "panic"))),
        }
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            self.fmt_clean(f)
        } else {
            self.fmt_unclean(f)
        }
    }
}

/// The requests and connections that were cut, such as `3 requests on 2 connections were cut (GET /slow)`.
struct Cut<'a>(&'a DrainReport);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, connections) = (self.0.requests_cut(), self.0.connections_cut());
        match (requests, connections) {
            (0, _) => write!(f, "{} ", Count(connections, "connection"))?,
            (_, 0) => write!(f, "{} ", Count(requests, "request"))?,
            _ => {
                let (requests, connections) =
                    (Count(requests, "request"), Count(connections, "connection"));
                write!(f, "{requests} on {connections} ")?;
            }
        }
        let subjects = if requests == 0 { connections } else { requests };
        write!(f, "{} cut", were(subjects))?;
        Paths(self.0.paths(), self.0.more_paths).fmt(f)
    }
}

/// Paths in parentheses, and whether there are more.
struct Paths<'a>(&'a [String], bool);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(paths, is_more) = self;
        if paths.is_empty() {
            return Ok(());
        }
        let more = if *is_more { ", …" } else { "" };
        write!(f, " ({}{more})", paths.join(", "))
    }
}

/// Writes items with a separator between them.
struct List<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    separator: &'static str,
    is_empty: bool,
}

impl<'a, 'f> List<'a, 'f> {
    fn new(f: &'a mut fmt::Formatter<'f>, separator: &'static str) -> Self {
        Self {
            f,
            separator,
            is_empty: true,
        }
    }

    fn item(&mut self, item: fmt::Arguments<'_>) -> fmt::Result {
        if !self.is_empty {
            self.f.write_str(self.separator)?;
        }
        self.is_empty = false;
        self.f.write_fmt(item)
    }
}

/// A count with its noun, such as `1 request` or `2 requests`.
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, thing) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {thing}{plural}")
    }
}

fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// Keeps the paths to show, and returns whether there are more.
fn to_be_shown(paths: &mut Vec<String>) -> bool {
    let mut shown = Vec::new();
    for path in std::mem::take(paths).into_iter().map(shortened) {
        if shown.contains(&path) {
            continue;
        }
        if shown.len() == MOST_PATHS {
            *paths = shown;
            return true;
        }
        shown.push(path);
    }
    *paths = shown;
    false
}

fn shortened(mut path: String) -> String {
    if let Some((end, _)) = path.char_indices().nth(LONGEST_PATH) {
        path.truncate(end);
        path.push('…');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_5s() -> Counts {
        Counts {
            took: Duration::from_micros(312_456),
            drain: Duration::from_secs(5),
            ..Counts::default()
        }
    }

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn clean(counts: Counts, message: &str) {
        let report = DrainReport::new("http", counts);
        assert_eq!(report.to_string(), message);
        assert!(report.is_clean());
    }

    #[track_caller]
    fn not_clean(counts: Counts, message: &str) {
        let report = DrainReport::new("http", counts);
        assert_eq!(report.to_string(), message);
        assert!(!report.is_clean());
    }

    #[test]
    fn a_drain_with_nothing_in_flight() {
        clean(
            given_5s(),
            "server `http` drained in 312ms: nothing was in flight",
        );
    }

    #[test]
    fn a_drain_that_took_next_to_no_time() {
        clean(
            Counts {
                took: Duration::from_micros(999),
                ..given_5s()
            },
            "server `http` drained in 999µs: nothing was in flight",
        );
    }

    #[test]
    fn a_drain_that_answered_everything() {
        clean(
            Counts {
                answered: 12,
                idle_cut: 2,
                ..given_5s()
            },
            "server `http` drained in 312ms: 12 requests answered, 2 idle connections closed",
        );
    }

    #[test]
    fn a_drain_that_answered_one_request() {
        clean(
            Counts {
                answered: 1,
                ..given_5s()
            },
            "server `http` drained in 312ms: 1 request answered",
        );
    }

    #[test]
    fn an_idle_connection_that_was_closed_is_not_a_loss() {
        clean(
            Counts {
                idle_cut: 1,
                ..given_5s()
            },
            "server `http` drained in 312ms: 1 idle connection closed",
        );
    }

    #[test]
    fn cut_requests_are_named() {
        not_clean(
            Counts {
                answered: 9,
                requests_cut: 3,
                connections_cut: 2,
                paths: paths(&["GET /slow", "GET /events", "GET /slow"]),
                ..given_5s()
            },
            "server `http` was given 5s to drain: \
             3 requests on 2 connections were cut (GET /slow, GET /events)",
        );
    }

    #[test]
    fn one_cut_request_whose_path_is_unknown() {
        not_clean(
            Counts {
                requests_cut: 1,
                connections_cut: 1,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 1 request on 1 connection was cut",
        );
    }

    #[test]
    fn a_cut_request_on_a_connection_that_ended() {
        not_clean(
            Counts {
                requests_cut: 2,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 2 requests were cut",
        );
    }

    #[test]
    fn a_cut_connection_without_a_whole_request() {
        not_clean(
            Counts {
                connections_cut: 1,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 1 connection was cut",
        );
    }

    #[test]
    fn cut_upgrades() {
        not_clean(
            Counts {
                upgrades_cut: 1,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 1 upgraded connection was cut",
        );
    }

    #[test]
    fn a_drain_with_stuck_handlers() {
        not_clean(
            Counts {
                stuck: 2,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 2 handlers blocked a thread and did not end",
        );
    }

    #[test]
    fn panics_are_told_and_are_no_loss() {
        clean(
            Counts {
                panicked: 1,
                ..given_5s()
            },
            "server `http` drained in 312ms: nothing was in flight, 1 panic since its start",
        );
        not_clean(
            Counts {
                stuck: 1,
                panicked: 2,
                ..given_5s()
            },
            "server `http` was given 5s to drain: 1 handler blocked a thread and did not end; \
             2 panics since its start",
        );
    }

    #[test]
    fn a_drain_that_answered_everything_too_late() {
        not_clean(
            Counts {
                answered: 3,
                took: Duration::from_millis(7_500),
                ..given_5s()
            },
            "server `http` was given 5s to drain: it took 7.5s",
        );
    }

    #[test]
    fn the_last_millisecond_is_not_late() {
        let in_time = |took| DrainReport::new("http", Counts { took, ..given_5s() }).is_clean();

        assert!(in_time(Duration::from_millis(5_001)));
        assert!(!in_time(Duration::from_millis(5_002)));
    }

    #[test]
    fn everything_at_once() {
        not_clean(
            Counts {
                requests_cut: 8,
                connections_cut: 7,
                upgrades_cut: 2,
                stuck: 1,
                paths: paths(&["POST /orders"]),
                took: Duration::from_secs(6),
                ..given_5s()
            },
            "server `http` was given 5s to drain: 8 requests on 7 connections were cut (POST /orders); \
             2 upgraded connections were cut; 1 handler blocked a thread and did not end; it took 6s",
        );
    }

    #[test]
    fn no_more_than_eight_paths_are_kept() {
        let all: Vec<_> = (1..=9).map(|n| format!("GET /{n}")).collect();
        let counts = |paths| Counts {
            requests_cut: 9,
            paths,
            ..given_5s()
        };

        let report = DrainReport::new("http", counts(all.clone()));
        assert_eq!(report.paths(), &all[..8]);
        assert!(report.to_string().ends_with("GET /7, GET /8, …)"));

        let repeated = [&all[..8], &all[..8]].concat();
        let report = DrainReport::new("http", counts(repeated));
        assert_eq!(report.paths(), &all[..8]);
        assert!(report.to_string().ends_with("GET /7, GET /8)"));
    }

    #[test]
    fn a_long_path_is_shortened() {
        let path = format!("GET /{}", "ä".repeat(200));
        let counts = Counts {
            requests_cut: 1,
            paths: vec![path],
            ..given_5s()
        };

        let report = DrainReport::new("http", counts);

        assert_eq!(report.paths()[0], format!("GET /{}…", "ä".repeat(95)));
    }

    #[test]
    fn the_numbers_are_those_that_were_counted() {
        let report = DrainReport::new(
            "http",
            Counts {
                connections_at_stop: 1,
                requests_at_stop: 2,
                answered: 3,
                idle_cut: 4,
                requests_cut: 5,
                connections_cut: 6,
                upgrades_cut: 7,
                stuck: 8,
                panicked: 9,
                ..given_5s()
            },
        );

        assert_eq!(report.server(), "http");
        assert_eq!(report.connections_at_stop(), 1);
        assert_eq!(report.requests_at_stop(), 2);
        assert_eq!(report.answered(), 3);
        assert_eq!(report.idle_cut(), 4);
        assert_eq!(report.requests_cut(), 5);
        assert_eq!(report.connections_cut(), 6);
        assert_eq!(report.upgrades_cut(), 7);
        assert_eq!(report.stuck(), 8);
        assert_eq!(report.panicked(), 9);
        assert_eq!(report.took(), Duration::from_micros(312_456));
        assert_eq!(report.drain(), Duration::from_secs(5));
    }
}
