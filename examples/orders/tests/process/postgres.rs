//! The same with a real PostgreSQL server, started from the binaries of the distribution.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use taskgroup::testing::{Binary, Process};

use crate::database::every_promise_is_kept;
use crate::http;
use crate::service::{Service, Signal, wait_until};

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
        let initdb = unprivileged(&binaries.join("initdb"))
            .args(["--username=shop", "--auth=trust", "--no-sync", "--locale=C"])
            .args(["--pgdata".as_ref(), directory.as_os_str()]);
        initdb.start_with(at_home).wait().assert_code(0);

        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let data = directory.as_os_str();
        let postgres = unprivileged(&binaries.join("postgres"))
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-D".as_ref(), data, "-k".as_ref(), data]);
        let server = postgres.start_with(at_home);
        server.line("ready to accept connections");
        Self {
            server,
            directory,
            url: format!("postgres://shop@127.0.0.1:{port}/postgres"),
        }
    }

    #[track_caller]
    fn stop(self) {
        self.server.signal(Signal::Interrupt);
        self.server.wait().assert_code(0);
        fs::remove_dir_all(&self.directory).expect("the directory can be removed");
    }
}

/// PostgreSQL refuses to run as root; the package has brought a user for it.
fn unprivileged(program: &Path) -> Binary {
    let binary = match geteuid().is_root() {
        true => Binary::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .args([program]),
        false => Binary::new(program),
    };
    binary.env("LC_ALL", "C")
}

/// Where the user that the server runs as may be.
fn at_home(command: &mut Command) {
    command.current_dir(env::temp_dir());
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

    let service = Service::start(&["--db", &postgres.url]);
    wait_until("the fulfilment", || {
        let first = http::get(service.http, "/orders/1").expect("an answer");
        assert_eq!(first.status, 200);
        first
            .body
            .ends_with(r#""item":"tea","quantity":1,"status":"fulfilled"}"#)
    });
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
    postgres.stop();
}
