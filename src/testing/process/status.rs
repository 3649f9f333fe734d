//! Reads the state of other processes from `/proc` on Linux. On other systems the results are empty.

use std::fs;

use crate::group::signal::Signal;

/// Returns whether a signal is in one of these sets of a process.
pub(super) fn has(pid: u32, sets: &[&str], signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let is_set = |set: &&str| {
        let mut lines = status.lines();
        let mask = lines.find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal.number() - 1) & 1 == 1)
    };
    sets.iter().any(is_set)
}

/// Returns the live processes of a group, without its leader.
pub(super) fn group(leader: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut alive: Vec<_> = pids
        .filter(|pid| *pid != leader)
        .filter_map(|pid| Some((pid, command(pid, leader)?)))
        .collect();
    alive.sort();
    let line = |(pid, command)| format!("process {pid}: {command}");
    alive.into_iter().map(line).collect()
}

/// Returns the command of a process, if it is alive and in the group.
fn command(pid: u32, group: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain any text, including brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, _parent, its_group) = (fields.next()?, fields.next()?, fields.next()?);
    if state == "Z" || its_group.parse() != Ok(group) {
        return None;
    }
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(command.trim_end_matches('\0').replace('\0', " "))
}
