//! The same with a real PostgreSQL server, started from the binaries of the distribution.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::database::every_promise_is_kept;
use crate::http;
use crate::service::{Process, Service, Signal, wait_until};

/// A server on a free port, with its data in a directory of its own.
struct Postgres {
    server: Process,
    directory: PathBuf,
    url: String,
}

impl Postgres {
    #[track_caller]
    fn start(binaries: &Path) -> Self {
        // Not below the build directory: the user that the server runs as may not get there.
        let directory = env::temp_dir().join(format!("orders-postgres-{}", std::process::id()));
        let mut initdb = unprivileged(&binaries.join("initdb"));
        initdb.args(["--username=shop", "--auth=trust", "--no-sync", "--locale=C"]);
        initdb.arg("--pgdata").arg(&directory);
        Process::spawn(initdb).wait().assert_code(0);

        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut postgres = unprivileged(&binaries.join("postgres"));
        postgres.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        postgres.arg("-D").arg(&directory).arg("-k").arg(&directory);
        let server = Process::spawn(postgres);
        server.wait_for_stderr("ready to accept connections");
        Self {
            server,
            directory,
            url: format!("postgres://shop@127.0.0.1:{port}/postgres"),
        }
    }

    #[track_caller]
    fn stop(mut self) {
        self.server.signal(Signal::INT);
        self.server.wait().assert_code(0);
        fs::remove_dir_all(&self.directory).expect("the directory can be removed");
    }
}

/// PostgreSQL refuses to run as root; the package has brought a user for it.
fn unprivileged(program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C").current_dir(env::temp_dir());
    command
}

/// On the path, or where Debian keeps it.
fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let of_debian = versions.map(|version| version.path().join("bin"));
    let on_path = env::var_os("PATH");
    let on_path = on_path.iter().flat_map(env::split_paths);
    on_path
        .chain(of_debian)
        .find(|directory| directory.join("initdb").is_file())
}

#[test]
fn every_order_that_was_promised_through_a_stop_is_a_row_in_postgresql() {
    let Some(binaries) = binaries() else {
        // Not by `eprintln!`, which is shown for tests that fail only.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: no PostgreSQL here (Debian: postgresql)"
        );
        return;
    };
    let postgres = Postgres::start(&binaries);
    every_promise_is_kept(&postgres.url);

    let mut service = Service::start(&["--db", &postgres.url]);
    wait_until("the fulfilment", || {
        let first = http::get(service.http, "/orders/1").expect("an answer");
        assert_eq!(first.status, 200);
        first
            .body
            .ends_with(r#""item":"tea","quantity":1,"status":"fulfilled"}"#)
    });
    service.signal(Signal::TERM);
    service.wait().assert_code(0);
    postgres.stop();
}
