//! `TimeoutStopSec`, as the service manager says it.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The variable in which a unit may give its own name.
const UNIT: &str = "SYSTEMD_UNIT";

/// The process that the manager has started.
const MAIN_PROCESS: &str = "SYSTEMD_EXEC_PID";

/// The unit of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    name: String,
    /// Whether it is one of the manager of a user.
    is_users: bool,
}

/// Asks, which takes two seconds at most.
pub(super) fn ask() -> Result<Duration, String> {
    let unit = unit()?;
    let mut command = Command::new("systemctl");
    if unit.is_users {
        command.arg("--user");
    }
    command.args(["show", "--property=TimeoutStopUSec", "--value", "--"]);
    let answer = first_line(command.arg(&unit.name), Instant::now() + PATIENCE);
    let answer = answer.map_err(|error| format!("cannot ask systemctl: {error}"))?;
    parse_span(&answer).ok_or_else(|| format!("systemctl says {answer:?} of `{}`", unit.name))
}

fn unit() -> Result<Unit, String> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_cgroup = parse_cgroup(&cgroup);
    match std::env::var(UNIT) {
        Ok(name) if !name.is_empty() => {
            let is_users = of_cgroup.is_some_and(|unit| unit.is_users);
            return Ok(Unit { name, is_users });
        }
        _ => {}
    }
    if std::env::var(MAIN_PROCESS).is_ok_and(|pid| pid != std::process::id().to_string()) {
        return Err("the unit was not started for this process".into());
    }
    of_cgroup.ok_or_else(|| "the process is in no unit of systemd".into())
}

/// Finds the innermost unit. That of a login or of a container is no service.
fn parse_cgroup(text: &str) -> Option<Unit> {
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers) = (parts.next()?, parts.next()?);
        let is_managers = (id == "0" && controllers.is_empty()) || controllers == "name=systemd";
        is_managers.then(|| parts.next()).flatten()
    })?;
    let is_unit = |part: &&str| {
        [".service", ".scope", ".slice"]
            .iter()
            .any(|end| part.ends_with(end))
    };
    let mut units = path.split('/').filter(is_unit).rev();
    let name = units.next().filter(|unit| unit.ends_with(".service"))?;
    Some(Unit {
        name: name.to_owned(),
        is_users: units.any(|unit| unit.starts_with("user@") && unit.ends_with(".service")),
    })
}

/// Returns the first line that a command writes. It is gone when this returns.
fn first_line(command: &mut Command, until: Instant) -> io::Result<String> {
    // Not a pipe: there is no reading from it with a timeout, and who has inherited it can hold it open.
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::null())
        .spawn()?;
    // The command holds the other end as well.
    command.stdout(Stdio::null());
    let line = read_line(&mut ours, until);
    drop(child.kill());
    drop(child.wait());
    line
}

fn read_line(stream: &mut UnixStream, until: Instant) -> io::Result<String> {
    let (mut line, mut buffer) = (Vec::new(), [0; 256]);
    // The longest span has nine parts.
    while line.len() < 256 && !line.contains(&b'\n') {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // That is what the timeout is called.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.lines().next().unwrap_or_default().trim().to_owned())
}

/// Parses a time span as systemd prints it: `1min 30s`, `500ms`, `1.500000s`, `infinity`.
fn parse_span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    if text.trim().is_empty() {
        return None;
    }
    let mut parts = text.split_whitespace().map(parse_part);
    parts.try_fold(Duration::ZERO, |sum, part| sum.checked_add(part?))
}

fn parse_part(part: &str) -> Option<Duration> {
    let end = part.find(|char: char| !char.is_ascii_digit() && char != '.');
    let (number, unit) = part.split_at(end.unwrap_or(part.len()));
    let micros: u64 = match unit {
        "y" => 31_557_600_000_000,
        "month" => 2_629_800_000_000,
        "w" => 604_800_000_000,
        "d" => 86_400_000_000,
        "h" => 3_600_000_000,
        "min" => 60_000_000,
        "s" => 1_000_000,
        "ms" => 1_000,
        "us" | "μs" | "µs" => 1,
        "" if number == "0" => 0,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut sum = whole.parse::<u64>().ok()?.checked_mul(micros)?;
    let mut scale = micros;
    for digit in fraction.chars() {
        scale /= 10;
        sum = sum.checked_add(u64::from(digit.to_digit(10)?) * scale)?;
    }
    Some(Duration::from_micros(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_prints_them() {
        let seconds = Duration::from_secs;
        for (text, span) in [
            ("1min 30s", seconds(90)),
            ("5s", seconds(5)),
            ("500ms", Duration::from_millis(500)),
            ("1min 30s 500ms", Duration::from_millis(90_500)),
            ("1.500000s", Duration::from_millis(1_500)),
            ("2h", seconds(7_200)),
            ("1w 2d", seconds(9 * 86_400)),
            ("1month", seconds(2_629_800)),
            ("1y", seconds(31_557_600)),
            ("7us", Duration::from_micros(7)),
            ("0", Duration::ZERO),
            ("infinity", Duration::MAX),
        ] {
            assert_eq!(parse_span(text), Some(span), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_none() {
        for text in [
            "",
            " ",
            "soon",
            "90",
            "s",
            "1.2.3s",
            "-1s",
            "1min 30",
            "[not set]",
            "99999999999999y",
            "18446744073709551615us 1us 99999999999y",
        ] {
            assert_eq!(parse_span(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_unit_is_the_innermost_service() {
        let unit = |text| parse_cgroup(text).map(|unit| (unit.name, unit.is_users));
        let service = |is_users| Some(("orders.service".to_owned(), is_users));

        assert_eq!(unit("0::/system.slice/orders.service\n"), service(false));
        assert_eq!(
            unit("0::/system.slice/orders.service/workers"),
            service(false)
        );
        assert_eq!(
            unit("0::/user.slice/user-7.slice/user@7.service/app.slice/orders.service"),
            service(true)
        );
        assert_eq!(
            unit("4:cpu:/x.service\n1:name=systemd:/system.slice/orders.service\n"),
            service(false)
        );
    }

    #[test]
    fn a_login_and_a_container_are_no_service() {
        for text in [
            "",
            "0::/",
            "0::/user.slice/user-7.slice/session-3.scope",
            "0::/user.slice/user-7.slice/user@7.service/app.slice/shell.scope",
            "0::/system.slice/docker-0a1b.scope",
            "4:cpu:/system.slice/orders.service",
        ] {
            assert_eq!(parse_cgroup(text), None, "{text}");
        }
    }

    #[test]
    fn a_command_that_says_nothing_is_given_up_and_killed() {
        let until = Instant::now() + Duration::from_millis(50);
        let error = first_line(Command::new("sleep").arg("1000"), until).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn who_inherits_the_output_and_stays_does_not_hold_it_up() {
        let until = Instant::now() + Duration::from_secs(60);
        let mut command = Command::new("sh");
        let line = first_line(command.args(["-c", "sleep 5 & echo 5s; wait"]), until);
        assert_eq!(line.unwrap(), "5s");
    }
}
