//! The threads, file descriptors and children of this process, as Linux reports them in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;

/// Each resource that the process holds, by its identity, with the line that names it.
#[derive(Debug, Default)]
pub(super) struct Held {
    things: BTreeMap<Thing, String>,
    /// The first thread that is neither this one nor one of a runtime. It may be another test.
    stranger: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Thread(u32),
    /// The number may be reused for another resource.
    Descriptor(u32, String),
    Child(u32),
}

/// The thread names of Tokio and of this crate. The system cuts a name to 15 bytes.
const OURS: [&str; 3] = ["tokio-rt-worker", "tokio-runtime-w", "taskgroup-"];

impl Held {
    pub(super) const IS_KNOWN: bool = cfg!(target_os = "linux");

    pub(super) fn now() -> Self {
        if !Self::IS_KNOWN {
            return Self::default();
        }
        let mut held = Self::default();
        held.add_threads();
        held.add_descriptors();
        held.add_children();
        held
    }

    pub(super) fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }

    /// Returns the resources that are held now and were not held `before`.
    pub(super) fn since(&self, before: &Self) -> Vec<String> {
        let things = self.things.iter();
        let new = things.filter(|(thing, _)| !before.things.contains_key(thing));
        new.map(|(_, line)| line.clone()).collect()
    }

    fn add_threads(&mut self) {
        let main = std::process::id();
        let this = fs::read_link("/proc/thread-self").ok();
        let this = this.as_deref().and_then(number);
        let name_of = |tid| {
            let name = fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
            name.map(|name| name.trim_end().to_owned())
        };
        let own = this.and_then(|tid| name_of(tid).ok());
        for tid in numbers("/proc/self/task") {
            // The thread may have ended by now.
            let Ok(name) = name_of(tid) else { continue };
            if tid == main || this == Some(tid) || OURS.iter().any(|ours| name.starts_with(ours)) {
                continue;
            }
            // A thread without its own name has that of the thread that made it.
            if own.as_ref() != Some(&name) {
                self.stranger.get_or_insert_with(|| name.clone());
            }
            self.things
                .insert(Thing::Thread(tid), format!("thread {tid} `{name}`"));
        }
    }

    fn add_descriptors(&mut self) {
        let mut sockets = None;
        for fd in numbers("/proc/self/fd") {
            // The descriptor that reads this directory is gone.
            let Ok(target) = fs::read_link(format!("/proc/self/fd/{fd}")) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let inode = target.strip_prefix("socket:[");
            let inode = inode.and_then(|rest| rest.strip_suffix(']'));
            let kind = match inode {
                None => target.clone(),
                Some(inode) => {
                    let sockets = sockets.get_or_insert_with(|| sockets_by_inode("self"));
                    let known = sockets.get(inode).cloned();
                    known.unwrap_or_else(|| format!("socket {inode}"))
                }
            };
            let line = format!("descriptor {fd}: {kind}");
            self.things.insert(Thing::Descriptor(fd, target), line);
        }
    }

    fn add_children(&mut self) {
        let this = std::process::id();
        for pid in numbers("/proc") {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let Some((state, parent)) = state_and_parent(&stat) else {
                continue;
            };
            if parent != this {
                continue;
            }
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = command.trim_end_matches('\0').replace('\0', " ");
            let line = match state {
                "Z" => format!("child process {pid}, which has ended and was not waited for"),
                _ => format!("child process {pid}: {command}"),
            };
            self.things.insert(Thing::Child(pid), line);
        }
    }
}

/// Returns the names in a directory that are numbers.
fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| number(&entry.path())).collect()
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The command may contain any text, including brackets.
fn state_and_parent(stat: &str) -> Option<(&str, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?, fields.next()?.parse().ok()?))
}

/// Returns the sockets of the network that `process` is in, as a person would name each.
pub(in crate::testing) fn sockets_by_inode(process: &str) -> BTreeMap<String, String> {
    let mut sockets = BTreeMap::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{process}/net/{protocol}"));
        let table = table.unwrap_or_default();
        let protocol = protocol.trim_end_matches('6').to_uppercase();
        sockets.extend(
            table
                .lines()
                .skip(1)
                .filter_map(|line| inet(&protocol, line)),
        );
    }
    let table = fs::read_to_string(format!("/proc/{process}/net/unix")).unwrap_or_default();
    sockets.extend(table.lines().skip(1).filter_map(unix));
    sockets
}

/// Parses a row such as `0: 0100007F:1F90 00000000:0000 0A … inode`.
fn inet(protocol: &str, line: &str) -> Option<(String, String)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (here, there) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    let listens = *fields.get(3)? == "0A";
    let socket = match (listens, there.port()) {
        (true, _) => format!("{protocol} socket that listens on {here}"),
        (false, 0) => format!("{protocol} socket on {here}"),
        (false, _) => format!("{protocol} socket {here} to {there}"),
    };
    Some(((*fields.get(9)?).to_owned(), socket))
}

/// Parses a row such as `0000: 00000002 00000000 00010000 0001 01 12345 /run/x.sock`.
fn unix(line: &str) -> Option<(String, String)> {
    let mut fields = line.split_whitespace().skip(6);
    let inode = fields.next()?.to_owned();
    let socket = match fields.next() {
        Some(path) => format!("Unix socket {path}"),
        None => "Unix socket without a path".to_owned(),
    };
    Some((inode, socket))
}

/// The words of an address have the byte order of the processor.
pub(in crate::testing) fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let words = words.collect::<Option<Vec<_>>>()?;
    match words[..] {
        [word] => Some((Ipv4Addr::from(word), port).into()),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some((Ipv6Addr::from(bytes).to_canonical(), port).into())
        }
        _ => None,
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_connection_names_both_ends() {
        let row = "  1: 0100007F:1F90 0200007F:C001 01 00000000:00000000 00:00000000 00000000  0  0 4711 1";
        let named = inet("TCP", row).unwrap();
        let socket = "TCP socket 127.0.0.1:8080 to 127.0.0.2:49153".to_owned();
        assert_eq!(named, ("4711".to_owned(), socket));
    }

    #[test]
    fn an_address_of_version_6_is_read() {
        let loopback = address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(loopback.to_string(), "[::1]:80");
        assert_eq!(address("0100007F"), None);
    }

    #[test]
    fn a_command_with_brackets_does_not_hide_the_parent() {
        assert_eq!(state_and_parent("7 (a) b) Z 3 7 7"), Some(("Z", 3)));
    }
}
