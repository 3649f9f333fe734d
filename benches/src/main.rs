//! Measures `taskgroup` against Tokio itself and against its neighbours, and prints the tables.
//!
//! `servers` measures what the gate adds to a request of axum and of tonic, `lifecycle` what the start and
//! the stop of a component cost, `pipelines` what it costs to work on an item, `scale` what thousands of
//! connections cost and how they end. `--quick` counts only what is the same in every run, of all of them,
//! and fails if a goal that was reached is lost.

mod words;

mod client;
mod contender;
mod crowd;
mod figures;
mod goals;
mod guests;
mod job;
mod ladder;
mod pipe;
mod piped;
mod scale;
mod served;
mod server;
mod stepped;
mod stepper;
mod table;
mod valgrind;
mod wall;

use std::env;
use std::error::Error;
use std::io;
use std::io::Write;
use std::process::ExitCode;

use crate::contender::Contender;
use crate::figures::Counted;
use crate::figures::EVERYBODY;
use crate::figures::Timed;
use crate::goals::Goal;
use crate::job::Job;
use crate::piped::CountedPipes;
use crate::piped::TimedPipes;
use crate::scale::Scale;
use crate::served::CountedServers;
use crate::served::TimedServers;
use crate::stepped::CountedSteps;
use crate::stepped::TimedSteps;
use crate::table::Goals;
use crate::valgrind::Valgrind;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match Job::from_args(&args) {
        Ok(Some(job)) => job.perform().map(|()| ExitCode::SUCCESS),
        Ok(None) => measure(&args),
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        writeln!(io::stderr(), "error: {error}").ok();
        ExitCode::FAILURE
    })
}

fn measure(args: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    match args {
        [] => all(),
        ["servers"] => servers(),
        ["lifecycle"] => lifecycle(),
        ["pipelines"] => pipelines(),
        ["scale"] => scale(10_000, 3),
        ["scale", count] => scale(count.parse()?, 1),
        ["--quick"] => quick(),
        _ => Err(
            "it takes `servers`, `lifecycle`, `pipelines`, `scale`, `--quick`, or nothing".into(),
        ),
    }
}

fn all() -> Result<ExitCode, Box<dyn Error>> {
    let counted = Counted::count(&mut Valgrind::find()?, &EVERYBODY, 1_000_000)?;
    let timed = Timed::time()?;
    let mut goals = goals::counted(&counted);
    goals.extend(goals::timed(&timed));
    write!(io::stdout(), "{}{counted}{timed}", Goals(&goals))?;
    Ok(ExitCode::SUCCESS)
}

fn servers() -> Result<ExitCode, Box<dyn Error>> {
    let timed = TimedServers::time(15)?;
    let counted = CountedServers::count(&mut Valgrind::find()?)?;
    let mut goals = goals::counted_servers(&counted);
    goals.extend(goals::timed_servers(&timed));
    write!(io::stdout(), "{}{counted}{timed}", Goals(&goals))?;
    Ok(ExitCode::SUCCESS)
}

fn lifecycle() -> Result<ExitCode, Box<dyn Error>> {
    let timed = TimedSteps::time(31)?;
    let counted = CountedSteps::count(&mut Valgrind::find()?, &stepped::ROWS)?;
    let mut goals = goals::counted_steps(&counted);
    goals.extend(goals::timed_steps(&timed));
    write!(io::stdout(), "{}{counted}{timed}", Goals(&goals))?;
    Ok(ExitCode::SUCCESS)
}

fn pipelines() -> Result<ExitCode, Box<dyn Error>> {
    let timed = TimedPipes::time()?;
    let counted = CountedPipes::count(&mut Valgrind::find()?)?;
    let mut goals = goals::counted_pipes(&counted);
    goals.extend(goals::timed_pipes(&timed));
    write!(io::stdout(), "{}{counted}{timed}", Goals(&goals))?;
    Ok(ExitCode::SUCCESS)
}

/// Fails if a goal is lost.
fn scale(count: usize, rounds: usize) -> Result<ExitCode, Box<dyn Error>> {
    let scale = Scale::measure(count, rounds)?;
    let goals = goals::scaled(&scale);
    write!(io::stdout(), "{}{scale}", Goals(&goals))?;
    verdict(&goals)
}

fn quick() -> Result<ExitCode, Box<dyn Error>> {
    let contenders = [
        Contender::Floor,
        Contender::JoinSet,
        Contender::JoinSetToken,
        Contender::Group,
    ];
    let mut valgrind = Valgrind::find()?;
    let servers = CountedServers::count(&mut valgrind)?;
    let counted = Counted::count(&mut valgrind, &contenders, 100_000)?;
    let steps = CountedSteps::count(&mut valgrind, &stepped::QUICK)?;
    let pipes = CountedPipes::count(&mut valgrind)?;
    let mut goals = goals::counted(&counted);
    goals.extend(goals::counted_servers(&servers));
    goals.extend(goals::counted_steps(&steps));
    goals.extend(goals::counted_pipes(&pipes));
    write!(
        io::stdout(),
        "{}{counted}{servers}{steps}{pipes}",
        Goals(&goals)
    )?;
    verdict(&goals)
}

fn verdict(goals: &[Goal]) -> Result<ExitCode, Box<dyn Error>> {
    let lost: Vec<&Goal> = goals.iter().filter(|goal| goal.is_lost()).collect();
    for goal in &lost {
        writeln!(io::stderr(), "lost: {goal}")?;
    }
    Ok(if lost.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
