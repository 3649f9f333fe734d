//! The output of a process, line by line, while it runs.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::group::lock::Lock;
use crate::testing::journal::Journal;

/// The output so far.
pub(super) struct Output {
    texts: Arc<Lock<[String; 3]>>,
    journal: Journal,
    /// Held by each reader.
    open: Arc<()>,
    /// Ends the listener when it is dropped.
    owner: Arc<()>,
}

#[derive(Clone, Copy)]
pub(super) enum Source {
    Stdout,
    Stderr,
    Notify,
}

/// How long the listener waits before it checks whether its owner is still there.
const LOOK: Duration = Duration::from_millis(100);

impl Output {
    pub(super) fn new(journal: &Journal) -> Self {
        Self {
            texts: Arc::default(),
            journal: journal.clone(),
            open: Arc::default(),
            owner: Arc::default(),
        }
    }

    /// Reads a pipe to its end, in a separate thread.
    pub(super) fn collect(&self, source: Source, mut pipe: impl Read + Send + 'static) {
        let (texts, journal) = (Arc::clone(&self.texts), self.journal.clone());
        let open = Arc::clone(&self.open);
        thread::spawn(move || {
            let _open = open;
            let mut bytes = [0; 4096];
            let mut line = Vec::new();
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                // The text comes first, because a wait for a line looks there.
                texts.lock()[source as usize] += &String::from_utf8_lossy(&bytes[..count]);
                for &byte in &bytes[..count] {
                    match byte {
                        b'\n' => note(&journal, source, &std::mem::take(&mut line)),
                        byte => line.push(byte),
                    }
                }
            }
            if !line.is_empty() {
                note(&journal, source, &line);
            }
        });
    }

    /// Reads the messages to a socket, as long as `self` exists.
    pub(super) fn listen(&self, socket: UnixDatagram) {
        let (texts, journal) = (Arc::clone(&self.texts), self.journal.clone());
        let owner = Arc::downgrade(&self.owner);
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a time that is not zero");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while owner.strong_count() > 0 {
                let Ok(count) = socket.recv(&mut bytes) else {
                    continue;
                };
                let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
                for line in message.lines() {
                    texts.lock()[Source::Notify as usize] += &format!("{line}\n");
                    note(&journal, Source::Notify, line.as_bytes());
                }
            }
        });
    }

    pub(super) fn text(&self, source: Source) -> String {
        self.texts.lock()[source as usize].clone()
    }

    /// Returns the first whole line on stdout or stderr that contains `part`.
    pub(super) fn find(&self, part: &str) -> Option<String> {
        let texts = self.texts.lock();
        let texts = [Source::Stdout, Source::Stderr].map(|source| &texts[source as usize]);
        let mut lines = texts
            .into_iter()
            .flat_map(|text| text.split_inclusive('\n'));
        let line = lines.find(|line| line.ends_with('\n') && line.contains(part))?;
        Some(line.trim_end().to_owned())
    }

    /// Returns whether more output can still come.
    pub(super) fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }
}

fn note(journal: &Journal, source: Source, line: &[u8]) {
    let source = match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
        Source::Notify => "notify",
    };
    journal.note(format_args!("{source}: {}", String::from_utf8_lossy(line)));
}
