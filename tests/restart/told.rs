//! What systemd is told.

use rustix::process::Signal;

use crate::tests;
use crate::world::{World, end, until};

tests![
    s13_systemd_is_told_of_the_new_main_process_by_the_old_one_and_of_no_stop,
    s13_systemd_is_told_of_the_begin_and_the_end_of_an_attempt_where_it_wants_to,
];

fn s13_systemd_is_told_of_the_new_main_process_by_the_old_one_and_of_no_stop() {
    let world = World::new().notified();
    let (first, _) = world.start();
    first.ready_notify();
    world.mode("exits");
    world.ask().assert_code(1);
    // A restart that has failed is no news.
    assert!(
        !first
            .notified()
            .iter()
            .any(|line| line.starts_with("MAINPID"))
    );
    world.mode("");
    let before = first.notified().len();

    let next = world.restart();

    first.wait().assert_code(0);
    let main = format!("MAINPID={next}");
    let since = || first.notified().split_off(before);
    until("MAINPID", || since().contains(&main));
    until("the heartbeat of the new process", || {
        let said = since();
        let at = said.iter().position(|line| *line == main).unwrap();
        said[at..]
            .iter()
            .filter(|line| *line == "WATCHDOG=1")
            .count()
            > 2
    });
    let said = since();
    let at = said.iter().position(|line| *line == main).unwrap();
    assert_eq!(said[at + 1], "READY=1");
    assert_eq!(said[at + 2], "BARRIER=1");
    // The new one says nothing before.
    assert!(!said[..at].iter().any(|line| line == "READY=1"), "{said:?}");
    assert!(!said.iter().any(|line| line == "STOPPING=1"), "{said:?}");
    world.line("alone", &next.to_string());
    end(next, Signal::TERM);
    until("its stop", || since().contains(&"STOPPING=1".to_owned()));
}

fn s13_systemd_is_told_of_the_begin_and_the_end_of_an_attempt_where_it_wants_to() {
    let world = World::new().notified();
    std::fs::write(world.place.join("notify-reload"), "").unwrap();
    let (first, _) = world.start();
    first.ready_notify();
    let before = first.notified().len();
    let said = || {
        let mut said = first.notified().split_off(before);
        said.retain(|line| line != "WATCHDOG=1" && !line.starts_with("STATUS="));
        said
    };

    // systemd has no word for a failure.
    world.mode("fails");
    world.ask().assert_code(1);
    until("the end of the attempt", || said().len() == 3);
    let attempt = said();
    assert_eq!([&*attempt[0], &*attempt[2]], ["RELOADING=1", "READY=1"]);
    let since = attempt[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(since.parse::<u64>().unwrap() > 0);

    world.mode("");
    let next = world.restart();
    first.wait().assert_code(0);
    let main = format!("MAINPID={next}");
    until("MAINPID", || said().contains(&main));
    let attempt = said().split_off(3);
    assert_eq!(
        [&*attempt[0], &*attempt[2], &*attempt[3]],
        ["RELOADING=1", &*main, "READY=1"]
    );
    world.line("alone", &next.to_string());
    end(next, Signal::TERM);
}
