//! Counts what a job executes and allocates, by running this very program under valgrind.

use std::collections::HashMap;
use std::collections::HashSet;
use std::env;
use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process;
use std::process::Command;

use crate::job::Job;

/// What a job executed.
#[derive(Clone, Copy, Debug)]
pub struct Executed {
    pub instructions: f64,
    /// Instructions outside malloc and its kin.
    pub outside_malloc: f64,
    /// Locked read-modify-writes.
    pub locked: f64,
}

impl Executed {
    pub fn minus(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            outside_malloc: self.outside_malloc - other.outside_malloc,
            locked: self.locked - other.locked,
        }
    }

    pub fn over(self, tasks: f64) -> Self {
        Self {
            instructions: self.instructions / tasks,
            outside_malloc: self.outside_malloc / tasks,
            locked: self.locked / tasks,
        }
    }
}

/// What a job asked the allocator for.
#[derive(Clone, Copy, Debug)]
pub struct Allocated {
    pub blocks: f64,
    pub bytes: f64,
    /// The most bytes that were in use at one time.
    pub peak: f64,
}

impl Allocated {
    pub fn minus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks - other.blocks,
            bytes: self.bytes - other.bytes,
            peak: self.peak - other.peak,
        }
    }

    pub fn over(self, tasks: f64) -> Self {
        Self {
            blocks: self.blocks / tasks,
            bytes: self.bytes / tasks,
            peak: self.peak / tasks,
        }
    }
}

/// The counting tools, and what they have learnt about the objects they met.
#[derive(Debug)]
pub struct Valgrind {
    program: PathBuf,
    profile: PathBuf,
    /// The addresses of the locked instructions of each object.
    locked: HashMap<String, HashSet<u64>>,
}

impl Valgrind {
    /// Finds the tools.
    ///
    /// # Errors
    ///
    /// One that names the missing tool.
    pub fn find() -> Result<Self, Box<dyn Error>> {
        output(Command::new("valgrind").arg("--version"))?;
        output(Command::new("objdump").arg("--version"))?;
        let profile = format!("taskgroup-benches.{}.callgrind", process::id());
        Ok(Self {
            program: env::current_exe()?,
            profile: env::temp_dir().join(profile),
            locked: HashMap::new(),
        })
    }

    /// Runs the job under callgrind.
    pub fn executed(&mut self, job: Job) -> Result<Executed, Box<dyn Error>> {
        self.executed_by(job, output)
    }

    /// Has `run` run the job under callgrind.
    pub fn executed_by(
        &mut self,
        job: Job,
        run: impl FnOnce(&mut Command) -> Result<String, Box<dyn Error>>,
    ) -> Result<Executed, Box<dyn Error>> {
        let mut callgrind = Command::new("valgrind");
        callgrind
            .args([
                "--tool=callgrind",
                "--dump-instr=yes",
                "--compress-strings=no",
            ])
            .arg("--compress-pos=no")
            .arg(format!("--callgrind-out-file={}", self.profile.display()))
            .arg(&self.program)
            .args(job.to_args());
        run(&mut callgrind)?;
        let profile = fs::read_to_string(&self.profile);
        fs::remove_file(&self.profile)?;
        self.sum(&profile?)
    }

    /// Runs the job under DHAT.
    pub fn allocated(&self, job: Job) -> Result<Allocated, Box<dyn Error>> {
        self.allocated_by(job, output)
    }

    /// Has `run` run the job under DHAT; it returns what was printed.
    pub fn allocated_by(
        &self,
        job: Job,
        run: impl FnOnce(&mut Command) -> Result<String, Box<dyn Error>>,
    ) -> Result<Allocated, Box<dyn Error>> {
        let mut dhat = Command::new("valgrind");
        dhat.args(["--tool=dhat", "--dhat-out-file=/dev/null"]);
        dhat.arg(&self.program).args(job.to_args());
        let summary = run(&mut dhat)?;
        let (bytes, blocks) = bytes_in_blocks(&summary, "Total:")?;
        let (peak, _) = bytes_in_blocks(&summary, "At t-gmax:")?;
        Ok(Allocated {
            blocks,
            bytes,
            peak,
        })
    }

    /// Adds up a profile, see "Callgrind Format Specification" in valgrind's manual.
    fn sum(&mut self, profile: &str) -> Result<Executed, Box<dyn Error>> {
        let (mut instructions, mut in_malloc, mut locked) = (0, 0, 0);
        let (mut object, mut called_object) = ("", None);
        let (mut is_call, mut calls_malloc) = (false, false);
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                object = name;
            } else if let Some(name) = line.strip_prefix("cob=") {
                called_object = Some(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                calls_malloc = !is_libc(object)
                    && is_libc(called_object.take().unwrap_or(object))
                    && ALLOCATOR.contains(&name);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with("0x") {
                let (address, count) = address_and_count(line)?;
                // The line after `calls=` holds the cost of the callee, listed again under it.
                if !is_call {
                    instructions += count;
                    if self.locked_in(object)?.contains(&address) {
                        locked += count;
                    }
                } else if calls_malloc {
                    in_malloc += count;
                }
                is_call = false;
            }
        }
        Ok(Executed {
            instructions: instructions as f64,
            outside_malloc: (instructions - in_malloc) as f64,
            locked: locked as f64,
        })
    }

    fn locked_in(&mut self, object: &str) -> Result<&HashSet<u64>, Box<dyn Error>> {
        if !self.locked.contains_key(object) {
            let addresses = locked_instructions(object)?;
            self.locked.insert(object.to_owned(), addresses);
        }
        Ok(&self.locked[object])
    }
}

const ALLOCATOR: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "aligned_alloc",
];

fn is_libc(object: &str) -> bool {
    object.contains("libc.so")
}

fn address_and_count(line: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(address), Some(_line), Some(count)) => {
            let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
            Ok((address, count.parse()?))
        }
        _ => Err(format!("callgrind wrote `{line}`, which is no address, line and count").into()),
    }
}

/// The addresses of an object's `lock …` instructions and of its `xchg` with memory, which locks
/// without saying so.
fn locked_instructions(object: &str) -> Result<HashSet<u64>, Box<dyn Error>> {
    if !cfg!(target_arch = "x86_64") || object == "???" {
        return Ok(HashSet::new());
    }
    let listing = output(Command::new("objdump").args(["-d", "--no-show-raw-insn", object]))?;
    let locked = listing.lines().filter_map(|line| {
        let (address, instruction) = line.split_once(":\t")?;
        let is_locked = instruction.starts_with("lock ")
            || (instruction.starts_with("xchg ") && instruction.contains('('));
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        is_locked.then_some(address)
    });
    Ok(locked.collect())
}

/// Reads `12,345` and `67` from `==1== Total:     12,345 bytes in 67 blocks`.
fn bytes_in_blocks(summary: &str, title: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let line = summary
        .lines()
        .find_map(|line| Some(line.split_once(title)?.1));
    let line = line.ok_or_else(|| format!("DHAT printed no `{title}`: {summary}"))?;
    let numbers: Vec<f64> = line
        .split_ascii_whitespace()
        .filter_map(|word| word.replace(',', "").parse().ok())
        .collect();
    match numbers[..] {
        [bytes, blocks] => Ok((bytes, blocks)),
        _ => Err(format!("DHAT printed `{line}`, which is no bytes and blocks").into()),
    }
}

/// Runs a command to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let package = match program.as_str() {
                "objdump" => "binutils",
                name => name,
            };
            format!("`{program}` is not installed; on Debian it is in the package `{package}`")
        }
        _ => format!("`{program}` did not start: {error}"),
    })?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?} ended with {}:\n{text}", output.status).into())
    }
}
