//! HTTP/1.1 by hand: one request per connection, and all that can be seen on the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::service::{PATIENCE, Service};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The part of a request that a client has sent so far.
pub(crate) struct Half {
    stream: TcpStream,
}

/// A request that was sent and not answered yet.
pub(crate) struct InFlight {
    stream: TcpStream,
}

pub(crate) fn get(service: SocketAddr, path: &str) -> io::Result<Answer> {
    send(service, "GET", path, "")?.answer()
}

pub(crate) fn post(service: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
    send(service, "POST", path, body)?.answer()
}

pub(crate) fn send(
    service: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<InFlight> {
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    Ok(InFlight { stream })
}

/// A connection that its client does not want to close.
pub(crate) struct KeptAlive {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl KeptAlive {
    #[track_caller]
    pub(crate) fn connect(service: &Service) -> Self {
        let stream = TcpStream::connect_timeout(&service.http, PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
            host: service.http,
        }
    }

    /// Returns the head of the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut head).unwrap(), 0, "{head:?}");
        }
        let length = head.split_once("content-length: ").expect("a length").1;
        let length = length.lines().next().unwrap().parse().expect("a number");
        self.stream
            .read_exact(&mut vec![0; length])
            .expect("the body");
        head
    }
}

/// Sends all of a request but its last line, and returns when the service has read that.
#[track_caller]
pub(crate) fn half(service: &Service, path: &str) -> Half {
    let mut stream = TcpStream::connect_timeout(&service.http, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        service.http
    )
    .unwrap();
    service.process.reads(&stream);
    Half { stream }
}

impl Half {
    pub(crate) fn finish(mut self) -> io::Result<Answer> {
        self.stream.write_all(b"\r\n")?;
        InFlight {
            stream: self.stream,
        }
        .answer()
    }
}

/// Sends a request whose answer takes its time, and returns when the service has read it.
#[track_caller]
pub(crate) fn in_flight(service: &Service, path: &str) -> InFlight {
    let request = send(service.http, "GET", path, "").expect("the service listens");
    service.process.reads(&request.stream);
    request
}

impl InFlight {
    /// Reads until the service closes the connection.
    pub(crate) fn answer(mut self) -> io::Result<Answer> {
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer)?;
        parse(&answer).ok_or_else(|| io::Error::other(format!("not an answer: {answer:?}")))
    }

    /// Reads what has come so far, at least a byte, unless the connection is closed.
    pub(crate) fn some(&mut self) -> io::Result<String> {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// Reads what is left of it until the service closes the connection.
    pub(crate) fn rest(mut self) -> io::Result<String> {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest)?;
        Ok(rest)
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.1 ")?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}
