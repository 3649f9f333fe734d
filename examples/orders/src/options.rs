//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::store::Database;

/// An order service: REST in front, gRPC behind it, a worker, a database, an orderly way out.
///
/// Serves until Ctrl-C, SIGTERM or a stop file, then finishes what is in flight. A second signal ends the
/// process at once; SIGUSR1 lists the running tasks.
#[derive(Debug, Parser)]
// The last one of an option that is given twice counts: what wrappers and aliases need.
#[command(name = "orders", version, args_override_self = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves on free ports under load, sends itself SIGTERM in the middle of it, and reports.
    Demo {
        /// Draws the stop, as a picture in SVG.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },

    /// Starts and stops it under load, again and again, and measures what the process holds. Linux only.
    Soak {
        /// How long.
        #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
        length: Duration,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Where the REST front listens; port 0 takes a free one.
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) http: String,

    /// Where the gRPC server listens; port 0 takes a free one.
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) grpc: String,

    /// Where `GET /metrics` is served, and the probes; without it 127.0.0.1:9090, or a free port if that is taken.
    ///
    /// Port 0 takes a free one. An address that was asked for is in the ready line, as ` metrics=ADDR`; the log
    /// has it in any case.
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,

    /// `sqlite:PATH` or `postgres://…`; without it, a fresh SQLite file whose path is printed.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) db: Option<Database>,

    /// How long the whole stop may take; without it what the platform that is found leaves, such as 28 in a pod, or
    /// elsewhere 28, or what the other times need if that is more.
    ///
    /// What does not fit into a budget is refused at the start. TERMINATION_GRACE_PERIOD_SECONDS in the
    /// environment is the limit of the platform: the budget has to be smaller, and does not grow.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) budget: Option<Duration>,

    /// How long each server may drain, fractions are allowed; without it 5, or less in a small budget.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) grace: Option<Duration>,

    /// How long a connection without a request may stay open while its server drains.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) idle_grace: Duration,

    /// How long everything serves on after the signal, no longer ready, before it stops; without it 5 in a pod of
    /// Kubernetes, else 0.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) lame_duck: Option<Duration>,

    /// How long the metrics wait at the end for one more scrape, which sees how the stop went.
    ///
    /// Without a scrape it is a wait for nothing. Set it to the interval of the scrapes and their timeout.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) last_scrape: Duration,

    /// Stops when there is a file at this path.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) stop_file: Option<PathBuf>,

    /// Prints in which order it would start and stop, and in what time, and exits.
    #[arg(long, global = true)]
    pub(crate) plan: bool,

    /// Compares deployment files with the plan, prints what is wrong, and exits with 1 if a stop would not work.
    #[arg(long, global = true, value_name = "FILE", num_args = 1..)]
    pub(crate) check_deploy: Vec<PathBuf>,

    /// With --plan, prints how long the stop is likely to take if the components take the times of this file.
    ///
    /// Each line has the name of a component and seconds that were measured, or `median` and `p99` with one each.
    #[arg(long, global = true, value_name = "FILE", requires = "plan")]
    pub(crate) times: Option<PathBuf>,

    /// Adds routes under /faults that make things go wrong.
    #[arg(long, global = true)]
    pub(crate) faults: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Times;

    fn parse(arguments: &[&str]) -> Result<CommandLine, String> {
        let arguments = ["orders"].iter().chain(arguments);
        CommandLine::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn options(arguments: &[&str]) -> Options {
        parse(arguments)
            .expect("arguments that can be parsed")
            .options
    }

    #[test]
    fn without_arguments_it_serves_on_the_documented_ports_with_five_seconds_of_grace() {
        let line = parse(&[]).unwrap();
        assert!(line.command.is_none());
        assert_eq!(line.options.http, "127.0.0.1:8080");
        assert_eq!(line.options.grpc, "127.0.0.1:50051");
        assert_eq!(Times::of(&line.options).grace, Duration::from_secs(5));
        assert_eq!(line.options.idle_grace, Duration::from_secs(1));
        assert_eq!(line.options.lame_duck, None);
        assert_eq!(line.options.last_scrape, Duration::ZERO);
        assert!(line.options.db.is_none());
        assert!(line.options.metrics.is_none());
        assert!(line.options.stop_file.is_none());
        assert!(!line.options.plan);
        assert!(line.options.check_deploy.is_empty());
        assert!(!line.options.faults);
    }

    #[test]
    fn a_time_may_be_a_fraction_of_a_second() {
        let quarter = Duration::from_millis(250);
        assert_eq!(options(&["--budget", "0.25"]).budget, Some(quarter));
        assert_eq!(options(&["--grace", "0.25"]).grace, Some(quarter));
        assert_eq!(options(&["--idle-grace", "0.25"]).idle_grace, quarter);
        assert_eq!(options(&["--lame-duck", "0.25"]).lame_duck, Some(quarter));
        assert_eq!(options(&["--grace", "0"]).grace, Some(Duration::ZERO));
    }

    #[test]
    fn times_are_for_the_plan_alone() {
        let times = options(&["--plan", "--times", "stops.txt"]).times;
        assert_eq!(times, Some(PathBuf::from("stops.txt")));
        let error = parse(&["--times", "stops.txt"]).unwrap_err();
        assert!(error.contains("--plan"), "{error}");
    }

    #[test]
    fn the_demo_takes_the_same_options_before_and_behind_its_name() {
        for arguments in [["--grace", "2", "demo"], ["demo", "--grace", "2"]] {
            let line = parse(&arguments).unwrap();
            assert!(matches!(line.command, Some(Command::Demo { svg: None })));
            assert_eq!(line.options.grace, Some(Duration::from_secs(2)));
        }
    }

    #[test]
    fn several_deployment_files_are_checked_together() {
        let files = options(&["--check-deploy", "a.yaml", "b.cfg"]).check_deploy;
        assert_eq!(files, [PathBuf::from("a.yaml"), PathBuf::from("b.cfg")]);
    }

    #[test]
    fn an_option_that_is_given_twice_has_the_last_value() {
        assert_eq!(options(&["--http", "a:1", "--http", "b:2"]).http, "b:2");
    }

    #[test]
    fn a_bad_time_is_refused_and_named_with_its_option() {
        for option in [
            "--budget",
            "--grace",
            "--idle-grace",
            "--lame-duck",
            "--last-scrape",
        ] {
            for bad in ["soon", "-1", "NaN", "inf", "1e30"] {
                let error = parse(&[&format!("{option}={bad}")]).unwrap_err();
                let named = format!("'{bad}' for '{option} <SECONDS>'");
                assert!(error.contains(&named), "{error}");
            }
        }
    }

    #[test]
    fn a_database_of_an_unknown_kind_is_refused_and_named() {
        let error = parse(&["--db", "mysql://localhost/orders"]).unwrap_err();
        assert!(error.contains("mysql://localhost/orders"), "{error}");
        assert!(error.contains("sqlite:"), "{error}");
        assert!(error.contains("postgres://"), "{error}");
    }
}
