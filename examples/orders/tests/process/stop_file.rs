//! The way out, asked for by a file.

use std::fs;

use crate::service::{Service, fresh_path, orders_on_free_ports};

#[test]
fn the_stop_file_ends_it_with_0_and_is_named() {
    let file = fresh_path("stop");
    let file = file.to_str().unwrap();
    let service = Service::start(&["--stop-file", file]);
    fs::write(file, "").unwrap();
    let end = service.wait();
    end.assert_code(0);
    end.assert_says(&format!("stop file `{file}`"));
    end.assert_says("server `http` drained");
    assert!(fs::exists(file).unwrap());
}

#[test]
fn a_stop_file_that_is_there_already_is_not_missed() {
    let file = fresh_path("stop");
    let file = file.to_str().unwrap();
    fs::write(file, "").unwrap();
    let end = orders_on_free_ports(&["--stop-file", file]).start().wait();
    end.assert_code(0);
    end.assert_says(&format!("stop file `{file}` was there at the start"));
}
