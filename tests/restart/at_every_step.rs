//! Either side dies at every step of the protocol. A side that dies is an end of file for the other.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::peer::Peer;
use crate::tests;
use crate::world::{World, end, load, until, who};

tests![
    s13_a_new_process_that_dies_at_any_step_before_it_accepts_changes_nothing,
    s13_when_the_old_process_dies_at_any_step_the_new_one_goes_on_alone,
    s13_an_old_process_that_takes_its_sockets_back_ends_the_new_one,
];

/// How far the new process comes.
const STEPS: [&str; 6] = ["", "HELLO", "END", "READY", "YOURS", "FAILED"];

fn s13_a_new_process_that_dies_at_any_step_before_it_accepts_changes_nothing() {
    let world = World::new();
    let (first, address) = world.start();
    let loads = load(address);
    for step in STEPS {
        let mut peer = match step {
            "" => Peer::connect(&world.control()),
            _ => Peer::admitted(&world.control(), 4711),
        };
        if !matches!(step, "" | "HELLO") {
            peer.until("END");
            assert_eq!(peer.descriptors.len(), 2);
        }
        match step {
            "READY" => peer.send("READY"),
            "YOURS" => {
                peer.send("READY");
                peer.until("YOURS");
            }
            "FAILED" => peer.send("FAILED it has changed its mind"),
            _ => {}
        }
        drop(peer);
        // The old one accepts, and the next one is admitted.
        assert_eq!(who(address), first.id(), "{step}");
    }

    until("a restart", || world.ask().code() == Some(0));

    for load in loads {
        load.end().assert_nothing_lost();
    }
    first.wait().assert_code(0);
    end(who(address), Signal::TERM);
}

/// The test is the old process, and dies at this step.
fn dies_at(step: &str) {
    let world = World::new();
    let control = UnixListener::bind(world.control()).unwrap();
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = http.local_addr().unwrap();
    let new = world.starts();
    let mut peer = Peer::new(control.accept().unwrap().0);
    drop(control);
    let hello = format!("HELLO 1 {}", new.id());
    assert_eq!(peer.line(), Some(hello));
    peer.send("OLD 4711");
    peer.pass("OFFER 0 http", Some(http.as_fd()));
    peer.send("END");
    if step != "END" {
        peer.until("READY");
    }
    if matches!(step, "YOURS" | "ACCEPTING") {
        peer.send("YOURS");
    }
    if step == "ACCEPTING" {
        peer.until("ACCEPTING");
        // It has a lease that is never given up.
        peer.send("LEASE service/worker");
        peer.send("LEASED");
    }
    drop(http);
    drop(peer);

    new.line(&format!("{} serves at {address}", new.id()));
    assert_eq!(who(address), new.id(), "{step}");
    world.line("alone", &new.id().to_string());
    world.line("work", &format!("begins {}", new.id()));
    // And it can be replaced in turn.
    until("a restart", || world.ask().code() == Some(0));
    new.wait().assert_code(0);
    end(who(address), Signal::TERM);
}

fn s13_when_the_old_process_dies_at_any_step_the_new_one_goes_on_alone() {
    for step in ["END", "READY", "YOURS", "ACCEPTING"] {
        dies_at(step);
    }
}

fn s13_an_old_process_that_takes_its_sockets_back_ends_the_new_one() {
    for step in ["END", "READY"] {
        let world = World::new();
        let control = UnixListener::bind(world.control()).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = world.starts();
        let mut peer = Peer::new(control.accept().unwrap().0);
        peer.line();
        peer.send("OLD 4711");
        peer.pass("OFFER 0 http", Some(http.as_fd()));
        peer.send("END");
        if step == "READY" {
            peer.until("READY");
        }

        peer.send("ABORT it has changed its mind");

        new.wait()
            .assert_code(1)
            .assert_says("it has changed its mind");
        assert!(world.control().exists());
        assert_eq!(world.lines("work"), [""; 0]);
    }
}
