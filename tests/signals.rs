//! What `Signals` says without a signal; what it does with one is in tests/process.
#![cfg(feature = "signal")]

use std::io::ErrorKind;

use taskgroup::{Signal, Signals};

#[test]
fn an_empty_set_is_refused() {
    for refused in [Signals::terminate_on([]), Signals::watch([])] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "signals: `set` cannot be empty: there would be nothing to listen for"
        );
    }
}

#[test]
fn a_signal_of_another_platform_is_refused_by_name() {
    let (foreign, name) = match cfg!(unix) {
        true => (Signal::Break, "Ctrl-Break"),
        false => (Signal::Terminate, "SIGTERM"),
    };
    for refused in [
        Signals::terminate_on([Signal::Interrupt, foreign]),
        Signals::watch([Signal::Interrupt, foreign]),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let message = format!("signals: `set` cannot be {name}: this platform does not have it");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn no_runtime_is_needed_to_register() {
    assert!(Signals::terminate().is_ok());
}

#[test]
fn a_signal_that_is_named_twice_counts_once() {
    let signal = if cfg!(unix) {
        Signal::User1
    } else {
        Signal::Break
    };
    let signals = Signals::watch([signal, signal]).unwrap();
    let expected = format!("set: [{signal:?}], terminating: false");
    assert!(format!("{signals:?}").contains(&expected));
}

#[test]
fn watched_signals_cannot_insist() {
    let signals = Signals::watch([Signal::Interrupt]).unwrap();
    let error = signals.insist_on([Signal::Interrupt]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "signals: `insist_on` cannot be set: signals that are only watched cannot insist"
    );
}

#[test]
fn a_signal_that_is_not_in_the_set_cannot_insist_and_is_named() {
    let error = Signals::terminate().unwrap().insist_on([Signal::User1]);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "signals: `insist_on` cannot be SIGUSR1: it is not in the set"
    );
}

#[test]
fn signals_are_send_and_sync() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<Signals>();
}

#[test]
fn a_signal_has_the_name_and_number_of_the_system() {
    let names = [
        (Signal::Interrupt, "SIGINT", 2),
        (Signal::Terminate, "SIGTERM", 15),
        (Signal::Hangup, "SIGHUP", 1),
        (Signal::Quit, "SIGQUIT", 3),
        (Signal::Break, "Ctrl-Break", 2),
        (Signal::Close, "console close", 15),
        (Signal::Shutdown, "system shutdown", 15),
    ];
    for (signal, name, number) in names {
        assert_eq!(
            (signal.to_string().as_str(), signal.number()),
            (name, number)
        );
    }
    assert_eq!(Signal::User1.to_string(), "SIGUSR1");
    assert_eq!(Signal::User2.to_string(), "SIGUSR2");
}
