//! A websocket by hand: frames that are short, and a mask that changes nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::service::{AT_ONCE, PATIENCE, STOP_SIGNALS, Service, Signal};

/// From RFC 6455, with what the service has to make of it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const FINAL: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];

struct Client(TcpStream);

impl Client {
    #[track_caller]
    fn connect(service: &Service) -> Self {
        let mut stream = TcpStream::connect_timeout(&service.http, PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let handshake = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            service.http
        );
        stream.write_all(handshake.as_bytes()).unwrap();
        let head = read_head(&mut stream).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(ACCEPT), "{head}");
        Self(stream)
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("a short payload");
        let mut frame = vec![FINAL | opcode, MASKED | length];
        frame.extend(MASK);
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    #[track_caller]
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut payload).expect("its payload");
        (head[0] & !FINAL, payload)
    }

    #[track_caller]
    fn assert_closed(mut self) {
        assert_eq!(self.0.read(&mut [0]).expect("an end"), 0);
    }
}

/// Not a byte more: what follows are frames.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

#[test]
fn a_websocket_echoes_until_its_client_leaves() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    for text in [b"one", b"two"] {
        client.send(TEXT, text);
        assert_eq!(client.receive(), (TEXT, text.to_vec()));
    }
    client.send(CLOSE, b"");
    assert_eq!(client.receive().0, CLOSE);
    client.assert_closed();
}

#[test]
fn a_websocket_is_told_that_the_service_goes_away() {
    for (signal, _) in STOP_SIGNALS {
        let service = Service::start(&["--grace", "30"]);
        let mut client = Client::connect(&service);
        client.send(TEXT, b"hello");
        assert_eq!(client.receive().1, b"hello");

        let begin = Instant::now();
        service.signal(signal);
        let (opcode, payload) = client.receive();
        assert_eq!((opcode, &payload[..2]), (CLOSE, &GOING_AWAY[..]));
        client.send(CLOSE, &GOING_AWAY);
        client.assert_closed();
        service.wait().assert_code(0);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_websocket_whose_client_does_not_answer_is_given_up_before_it_is_cut() {
    let service = Service::start(&["--grace", "2.5"]);
    let client = Client::connect(&service);
    service.signal(Signal::Terminate);
    service.wait().assert_code(0);
    drop(client);
}
