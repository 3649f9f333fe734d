//! Restarts that go well.

use std::fs;

use rustix::process::Signal;

use crate::tests;
use crate::world::{Kept, World, end, get, get_locally, is_there, load, who};

tests![
    s13_in_ten_restarts_in_a_row_under_load_no_request_is_lost,
    s13_what_the_old_process_has_accepted_it_answers_and_it_stays_ready_until_it_ends,
    s13_what_may_not_run_twice_begins_when_the_old_process_has_given_it_up,
    s13_a_unix_socket_is_handed_over_with_its_path_which_the_last_process_removes,
];

fn s13_in_ten_restarts_in_a_row_under_load_no_request_is_lost() {
    let world = World::new();
    let (first, address) = world.start();
    let loads = load(address);
    let mut last = first.id();
    assert_eq!(who(address), last);

    for round in 1..=10 {
        loads.iter().for_each(|load| load.reaches(round * 50));
        let next = world.restart();
        assert_ne!(next, last);
        // Only the new one accepts now.
        assert_eq!(who(address), next);
        last = next;
        // The next one waits until the one before is gone.
        world.line("alone", &last.to_string());
    }

    loads.iter().for_each(|load| load.reaches(600));
    for load in loads {
        load.end().assert_nothing_lost();
    }
    let ended = first.wait();
    ended.assert_code(0);
    let own = format!("{} ends: handed over to process ", first.id());
    assert!(ended.stdout().contains(&own), "{}", ended.stdout());
    end(last, Signal::TERM);
    assert!(!world.control().exists());
}

fn s13_what_the_old_process_has_accepted_it_answers_and_it_stays_ready_until_it_ends() {
    let world = World::new();
    let (first, address) = world.start();
    let mut slow = Kept::new(address).unwrap();
    slow.send("/slow").unwrap();
    world.line("slow", "begun");
    let mut probe = Kept::new(address).unwrap();
    probe.send("/readyz").unwrap();
    assert!(probe.answer().unwrap().0.starts_with("HTTP/1.1 200"));
    // This one is in the middle of a request at the handover, and so is not closed.
    probe.send("/slow").unwrap();
    probe.send("/readyz").unwrap();

    let next = world.restart();

    assert_eq!(who(address), next);
    assert!(is_there(first.id()));
    let refused = world.ask();
    refused.assert_code(1);
    let why = format!(
        "process {} has handed over to process {next}, and is still there",
        first.id()
    );
    refused.assert_says(&why);
    fs::write(world.place.join("release"), "").unwrap();
    assert_eq!(slow.answer().unwrap().1, first.id().to_string());
    let (head, body) = probe.answer().unwrap();
    assert_eq!(body, first.id().to_string(), "{head}");
    first.wait().assert_code(0);
    world.line("alone", &next.to_string());
    end(next, Signal::TERM);
}

fn s13_what_may_not_run_twice_begins_when_the_old_process_has_given_it_up() {
    let world = World::new();
    let (first, address) = world.start();
    let mut slow = Kept::new(address).unwrap();
    slow.send("/slow").unwrap();
    world.line("slow", "begun");

    let next = world.restart();

    // The lease comes while the old process still drains, and the end later.
    world.line("work", &format!("begins {next}"));
    assert!(is_there(first.id()));
    // What waits for the end of the old process does not keep the new one from being ready.
    let ready = get(address, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let [first_id, next_id] = [first.id(), next].map(|id| id.to_string());
    let work = [
        format!("begins {first_id}"),
        format!("ends {first_id}"),
        format!("begins {next_id}"),
    ];
    assert_eq!(world.lines("work"), work);
    assert_eq!(world.lines("alone"), std::slice::from_ref(&first_id));
    fs::write(world.place.join("release"), "").unwrap();
    slow.answer().unwrap();
    first.wait().assert_code(0);
    world.line("alone", &next_id);
    end(next, Signal::TERM);
}

fn s13_a_unix_socket_is_handed_over_with_its_path_which_the_last_process_removes() {
    let world = World::new();
    let (first, _) = world.start();
    let path = world.place.join("http.sock");

    let next = world.restart();
    first.wait().assert_code(0);

    let answer = get_locally(&path, "/pid").unwrap();
    assert!(answer.ends_with(&next.to_string()), "{answer}");
    world.line("alone", &next.to_string());
    end(next, Signal::TERM);
    assert!(!path.exists());
    assert!(!world.control().exists());
}
