//! [`World`]: a directory, a service in it, and its clients.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use taskgroup::BoxError;
use taskgroup::testing::{Binary, Ended, Load, Process, Reply};

use crate::service::{PLACE, ROLE, TIMEOUT};

/// More than any machine needs.
const PLENTY: Duration = Duration::from_secs(60);

/// A directory, and the service whose control socket is there.
pub(crate) struct World {
    pub(crate) place: PathBuf,
    timeout: Duration,
    is_notified: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("taskgroup-restart-{}-{number}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place).unwrap();
        Self {
            place,
            timeout: PLENTY,
            is_notified: false,
        }
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn notified(mut self) -> Self {
        self.is_notified = true;
        self
    }

    /// How the next process behaves.
    pub(crate) fn mode(&self, mode: &str) {
        fs::write(self.place.join("mode"), mode).unwrap();
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.place.join("restart.sock")
    }

    fn binary(&self, role: &str) -> Binary {
        Binary::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(PLACE, &self.place)
            .env(TIMEOUT, self.timeout.as_millis().to_string())
            .patience(PLENTY)
    }

    /// Starts a process of the service, and waits until it serves.
    pub(crate) fn start(&self) -> (Process, SocketAddr) {
        let service = self.starts();
        let line = service.ready_line(&format!("{} serves at ", service.id()));
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        // Before that it refuses to be replaced.
        service.ready_http(address, "/readyz");
        (service, address)
    }

    /// Starts a process of the service.
    pub(crate) fn starts(&self) -> Process {
        let binary = self.binary("service");
        match self.is_notified {
            // The variable names the process itself.
            true => {
                let exe = std::env::current_exe().unwrap();
                let script = r#"WATCHDOG_PID=$$ exec "$0""#;
                let sh = Binary::new("sh").args(["-c".into(), script.into(), exe.into_os_string()]);
                sh.env(ROLE, "service")
                    .env(PLACE, &self.place)
                    .env(TIMEOUT, self.timeout.as_millis().to_string())
                    .env("WATCHDOG_USEC", "100000")
                    .patience(PLENTY)
                    .notified()
                    .start()
            }
            false => binary.start(),
        }
    }

    /// `service --restart`
    pub(crate) fn ask(&self) -> Ended {
        self.binary("ask").start().wait()
    }

    /// Restarts in place, and returns the id of the new process.
    #[track_caller]
    pub(crate) fn restart(&self) -> u32 {
        let asked = self.ask();
        asked.assert_code(0);
        let pid = asked.stdout().split(' ').nth(1).map(str::to_owned);
        pid.unwrap().parse().unwrap()
    }

    /// Waits until `file` has this line.
    #[track_caller]
    pub(crate) fn line(&self, file: &str, line: &str) {
        let what = format!("{line:?} in {file}");
        until(&what, || self.lines(file).iter().any(|has| has == line));
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.place.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PLENTY, "{what} has not come");
        thread::sleep(Duration::from_millis(2));
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Ends a process that is not a child of this one, and waits until it is gone.
#[track_caller]
pub(crate) fn end(id: u32, signal: Signal) {
    kill_process(pid(id), signal).unwrap();
    until("its end", || !is_there(id));
}

/// Whether the process is there and is no zombie.
pub(crate) fn is_there(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    test_kill_process(pid(id)).is_ok() && !status.contains(") Z ")
}

/// The answer to a request on a new connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    talk(TcpStream::connect(address)?, path)
}

pub(crate) fn get_locally(socket: &std::path::Path, path: &str) -> io::Result<String> {
    talk(UnixStream::connect(socket)?, path)
}

fn talk(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Which process answers.
pub(crate) fn who(address: SocketAddr) -> u32 {
    let answer = get(address, "/pid").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.rsplit('\n').next().unwrap().parse().unwrap()
}

/// A client that keeps its connection.
pub(crate) struct Kept(TcpStream);

impl Kept {
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PLENTY))?;
        Ok(Self(stream))
    }

    pub(crate) fn send(&mut self, path: &str) -> io::Result<()> {
        write!(self.0, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
    }

    /// The head and the body of the next answer.
    pub(crate) fn answer(&mut self) -> io::Result<(String, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(self.byte()?));
        }
        let length = head.to_lowercase();
        let length = length
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = (0..length.unwrap_or(0)).map(|_| self.byte().map(char::from));
        Ok((head, body.collect::<io::Result<_>>()?))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Clients that repeat nothing. To be refused is a loss too.
pub(crate) fn load(address: SocketAddr) -> [Load; 2] {
    let each = move || std::future::ready(once(address));
    let kept = move || std::future::ready(again(address));
    [Load::start(4, each), Load::start(4, kept)]
}

fn once(address: SocketAddr) -> Result<Reply, BoxError> {
    let answer = get(address, "/pid")?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(Reply::Done),
        false => Err(answer.into()),
    }
}

fn again(address: SocketAddr) -> Result<Reply, BoxError> {
    KEPT.with_borrow_mut(|kept| {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Kept::new(address)?,
        };
        client.send("/pid")?;
        let (head, _) = client.answer()?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(head.into());
        }
        if !head.contains("connection: close") {
            *kept = Some(client);
        }
        Ok(Reply::Done)
    })
}
