//! Connections in memory, with their faults.

use std::io::ErrorKind;

use taskgroup::testing::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::SECOND;

#[tokio::test(start_paused = true)]
async fn both_directions_carry_what_is_written_up_to_the_end() {
    let (mut client, mut server) = Link::new().pair();
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    let mut read = String::new();
    server.read_to_string(&mut read).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    drop(server);
    client.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "pingpong");
    assert_eq!(
        client.write(b"x").await.unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_arrives_later_and_in_order() {
    let (mut client, mut server) = Link::new().delay(SECOND).pair();
    let began = Instant::now();
    client.write_all(b"a").await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    client.write_all(b"b").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'a');
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(server.read_u8().await.unwrap(), b'b');
    assert_eq!(began.elapsed(), SECOND * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn slices_are_all_that_one_read_and_one_write_take() {
    let (mut client, mut server) = Link::new().slices(2).pair();
    assert_eq!(client.write(b"abc").await.unwrap(), 2);
    let mut buffer = [0; 8];
    assert_eq!(server.read(&mut buffer).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_stops_the_writer_until_it_reads_again() {
    let (mut client, mut server) = Link::new().holds(3).pair();
    client.write_all(b"abc").await.unwrap();
    assert!(timeout(SECOND, client.write_all(b"d")).await.is_err());
    let writes = tokio::spawn(async move { client.write_all(b"d").await });
    assert_eq!(server.read_u8().await.unwrap(), b'a');
    writes.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_a_time_resets_both_ends_while_they_wait() {
    let (mut client, mut server) = Link::new().holds(0).cut_after(SECOND).pair();
    let began = Instant::now();
    let (read, write) = tokio::join!(server.read_u8(), client.write_all(b"x"));
    for error in [read.unwrap_err(), write.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_so_many_bytes_loses_what_is_under_way() {
    let (mut client, mut server) = Link::new().delay(SECOND).cut_after_bytes(2).pair();
    client.write_all(b"ab").await.unwrap();
    assert_eq!(
        server.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        client.write(b"c").await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}
