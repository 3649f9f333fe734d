//! A client of HTTP/1.1 that repeats nothing, so that what is lost is seen.

use std::io;
use std::net::SocketAddr;
use std::str;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// Kept for the next request, unless the answer says `Connection: close`.
    Kept,
    /// Closed: each request has its own.
    OnePerRequest,
}

#[derive(Debug)]
pub(crate) struct Client {
    service: SocketAddr,
    connections: Connections,
    kept: Option<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The answer says `Connection: close`.
    pub(crate) goodbye: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody takes connections.
    Refused,
    /// The connection broke before the request was written.
    NotSent,
    /// The request was written, and the connection ended without a whole answer.
    Unanswered,
}

impl Client {
    pub(crate) fn new(service: SocketAddr, connections: Connections) -> Self {
        Self {
            service,
            connections,
            kept: None,
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Result<Answer, Failure> {
        self.send("POST", path, body).await
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Failure> {
        let request = self.request(method, path, body);
        let mut stream = match self.kept.take().filter(is_open) {
            Some(stream) => stream,
            None => connect(self.service).await.or(Err(Failure::Refused))?,
        };
        let written = stream.write_all(request.as_bytes()).await;
        written.or(Err(Failure::NotSent))?;
        let answer = receive(&mut stream).await.or(Err(Failure::Unanswered))?;
        if self.connections == Connections::Kept && !answer.goodbye {
            self.kept = Some(stream);
        }
        Ok(answer)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let connection = match self.connections {
            Connections::Kept => "keep-alive",
            Connections::OnePerRequest => "close",
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.service,
            body.len()
        )
    }
}

async fn connect(service: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(service).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What every pool looks at before it hands out a connection: whether the server has closed it.
fn is_open(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

async fn receive(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(1024);
    let head = loop {
        if let Some(head) = Head::parse(&bytes) {
            break head;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(head.length);
    match head.body {
        Some(length) => {
            let begun = body.len();
            body.resize(length.max(begun), 0);
            stream.read_exact(&mut body[begun..]).await?;
        }
        None => drop(stream.read_to_end(&mut body).await?),
    }
    Ok(Answer {
        status: head.status,
        body,
        goodbye: head.goodbye,
    })
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// In bytes, with the empty line.
    length: usize,
    status: u16,
    /// The length of the body in bytes; without it, the body ends with the connection.
    body: Option<usize>,
    goodbye: bool,
}

impl Head {
    /// `None` if the head is not whole yet.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
        let text = str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
        let mut lines = text.split("\r\n");
        let mut head = Self {
            length: end + 4,
            status: lines.next()?.split(' ').nth(1)?.parse().ok()?,
            body: None,
            goodbye: false,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name {
                "content-length" => head.body = value.trim().parse().ok(),
                "connection" => head.goodbye = value.trim() == "close",
                _ => {}
            }
        }
        head.goodbye |= head.body.is_none();
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_not_whole_says_nothing() {
        assert_eq!(Head::parse(b""), None);
        assert_eq!(
            Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"),
            None
        );
    }

    #[test]
    fn a_head_says_where_the_body_begins_and_ends() {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n";
        let parsed = Head::parse(&[head.as_slice(), b"hi"].concat());
        let expected = Head {
            length: head.len(),
            status: 201,
            body: Some(2),
            goodbye: false,
        };
        assert_eq!(parsed, Some(expected));
    }

    #[test]
    fn a_goodbye_is_understood() {
        let head =
            Head::parse(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert!(head.is_some_and(|head| head.goodbye));
    }

    #[test]
    fn a_body_without_a_length_is_the_last_one() {
        let head = Head::parse(b"HTTP/1.0 503 Service Unavailable\r\n\r\n");
        assert!(head.is_some_and(|head| head.body.is_none() && head.goodbye));
    }
}
