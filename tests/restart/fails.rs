//! Restarts that fail, after which the old process goes on and the next attempt works.

use std::time::Duration;

use rustix::process::Signal;

use crate::peer::Peer;
use crate::tests;
use crate::world::{World, end, is_there, load, until, who};

tests![
    s13_a_new_process_that_exits_hangs_or_fails_changes_nothing_and_the_next_one_works,
    s13_a_new_process_that_is_killed_while_it_starts_changes_nothing,
    s13_a_stop_of_the_old_process_ends_a_restart_that_is_under_way,
    s13_a_restart_is_refused_by_name_while_another_is_under_way_or_nobody_is_there,
    s13_a_control_path_that_is_no_socket_is_left_alone,
];

fn s13_a_new_process_that_exits_hangs_or_fails_changes_nothing_and_the_next_one_works() {
    let world = World::new().timeout(Duration::from_secs(2));
    let (first, address) = world.start();
    let loads = load(address);
    for (mode, why) in [
        (
            "exits",
            "the new process has ended before it accepted: exit status: 1",
        ),
        ("hangs", "it was not ready within 2s"),
        ("fails", "the cache is cold"),
    ] {
        world.mode(mode);
        let asked = world.ask();
        asked
            .assert_code(1)
            .assert_says("the restart has failed")
            .assert_says(why);
        assert_eq!(who(address), first.id(), "{mode}");
    }
    // Whatever they were, they are gone.
    let left = first.story().to_string();
    world.mode("");

    let next = world.restart();

    assert_eq!(who(address), next, "{left}");
    for load in loads {
        load.end().assert_nothing_lost();
    }
    first.wait().assert_code(0);
    end(next, Signal::TERM);
}

fn s13_a_new_process_that_is_killed_while_it_starts_changes_nothing() {
    let world = World::new();
    let (first, address) = world.start();
    world.mode("hangs");
    // Started by somebody else, not by the old process.
    let hangs = world.starts();
    // It has its sockets when the old one refuses another.
    until("the sockets", || {
        world.ask().stderr().contains("already handing over")
    });
    hangs.kill();
    hangs.wait();
    assert_eq!(who(address), first.id());
    world.mode("");

    let next = world.start();

    assert_eq!(who(address), next.0.id());
    first.wait().assert_code(0);
    end(next.0.id(), Signal::TERM);
}

fn s13_a_stop_of_the_old_process_ends_a_restart_that_is_under_way() {
    let world = World::new();
    let (first, _) = world.start();
    world.mode("hangs");
    let hangs = world.starts();
    until("the sockets", || {
        world.ask().stderr().contains("already handing over")
    });

    first.signal(taskgroup::Signal::Terminate);

    first.wait().assert_code(0);
    let ended = hangs.wait();
    ended
        .assert_code(1)
        .assert_says("the old process is stopping");
    assert!(!world.place.join("http.sock").exists());
}

fn s13_a_restart_is_refused_by_name_while_another_is_under_way_or_nobody_is_there() {
    let world = World::new();
    world
        .ask()
        .assert_code(1)
        .assert_says("no process listens at");
    let (first, address) = world.start();
    let mut peer = Peer::admitted(&world.control(), 4711);
    peer.until("END");

    let asked = world.ask();
    asked.assert_code(1).assert_says("the restart was refused");
    asked.assert_says(&format!(
        "process {} is already handing over to process 4711",
        first.id()
    ));
    let mut other = Peer::connect(&world.control());
    other.send("HELLO 2 4712");
    assert!(
        other
            .line()
            .unwrap()
            .starts_with("REFUSED this process speaks version 1")
    );
    drop(peer);

    // And the next one is not.
    until("the next turn", || world.ask().code() == Some(0));
    assert_ne!(who(address), first.id());
    until("its end", || !is_there(first.id()));
    end(who(address), Signal::TERM);
}

fn s13_a_control_path_that_is_no_socket_is_left_alone() {
    let world = World::new();
    std::fs::write(world.control(), "precious").unwrap();
    let ended = world.starts().wait();
    ended
        .assert_code(1)
        .assert_says("a file that is not a socket is there");
    assert_eq!(std::fs::read(world.control()).unwrap(), b"precious");
}
