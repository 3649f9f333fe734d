//! Reads the state of other processes from `/proc` on Linux. On other systems the results are empty.

use std::fs;
use std::net::SocketAddr;

use crate::group::signal::Signal;
use crate::testing::leaks::address;
use crate::testing::leaks::sockets_by_inode;

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

/// Returns the live processes of a group, without its leader, each followed by its sockets.
pub(super) fn left_by(leader: u32) -> Vec<String> {
    let mut left = Vec::new();
    for (pid, command) in group(leader) {
        left.push(format!("process {pid}: {command}"));
        let sockets = sockets(pid).into_iter();
        left.extend(sockets.map(|socket| format!("process {pid}: {socket}")));
    }
    left
}

/// Returns whether a process lives that is in the group and does not lead it.
pub(super) fn has_left(leader: u32) -> bool {
    !group(leader).is_empty()
}

fn group(leader: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut alive: Vec<_> = pids
        .filter(|pid| *pid != leader)
        .filter_map(|pid| Some((pid, command(pid, leader)?)))
        .collect();
    alive.sort();
    alive
}

/// Returns the sockets of a process that somebody could reach: those with an address or a path.
fn sockets(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let targets = entries
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    let known = sockets_by_inode(&pid.to_string());
    let mut sockets: Vec<_> = targets
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            known.get(inode.strip_suffix(']')?).cloned()
        })
        .filter(|socket| !socket.ends_with("without a path"))
        .collect();
    sockets.sort();
    sockets.dedup();
    sockets
}

/// Returns whether the side `there` of a TCP connection was accepted and has read all that its peer has sent, or
/// `None` if there is no such connection, or no way to tell.
pub(super) fn has_read(there: SocketAddr, peer: SocketAddr) -> Option<bool> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let mut rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.find_map(|row| {
        let fields: Vec<_> = row.split_whitespace().collect();
        let ends = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        if ends != (there, peer) {
            return None;
        }
        let (_, unread) = fields.get(4)?.split_once(':')?;
        // Before it is accepted, no process has it.
        Some(u64::from_str_radix(unread, 16) == Ok(0) && *fields.get(9)? != "0")
    })
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
