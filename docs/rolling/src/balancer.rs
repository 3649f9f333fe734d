//! The program of a load balancer that Debian has installed.

use std::io::ErrorKind;

use taskgroup::BoxError;
use tokio::process::Command;

/// Returns how to call it. `/usr/sbin` is not on everybody's path.
pub(crate) async fn program(name: &str, package: &str) -> Result<String, BoxError> {
    for program in [name.to_owned(), format!("/usr/sbin/{name}")] {
        match Command::new(&program).arg("-v").output().await {
            Ok(_) => return Ok(program),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{program}: {error}").into()),
        }
    }
    Err(format!("{name} is missing: install the package `{package}`").into())
}
