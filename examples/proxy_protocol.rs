//! How do I learn the address of the client behind a load balancer that speaks the PROXY protocol?
//!
//! HAProxy (`send-proxy`, `send-proxy-v2`) and others begin each connection with a header that has the address of
//! the client. It is read as TLS is, by a handshake of its own. So a client that sends only a part of it holds up
//! no other client, and has the server's `header_timeout` from its first byte on. What follows may be HTTP/1, HTTP/2 or,
//! with one more step in `proxied`, TLS.
//!
//! Accept such connections only from the balancer. Anybody else could claim any address.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use taskgroup::server::{Incoming, Io};
use taskgroup::{BoxError, TaskGroup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A connection whose header was read.
struct Proxied {
    io: Io,
    /// `None` if the balancer speaks for itself, as in its health checks.
    client: Option<SocketAddr>,
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with the end of its line.
const LONGEST_V1: usize = 107;

/// Reads the header, and not one byte of what follows it.
async fn proxied(mut io: Io) -> io::Result<Proxied> {
    let mut head = [0; 12];
    io.read_exact(&mut head).await?;
    let client = if head == V2 {
        version_2(&mut io).await?
    } else if head.starts_with(b"PROXY ") {
        version_1(&mut io, &head).await?
    } else {
        return Err(invalid("this is not the PROXY protocol"));
    };
    Ok(Proxied { io, client })
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n`, or `PROXY UNKNOWN …\r\n`.
async fn version_1(io: &mut Io, head: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_V1 {
            return Err(invalid("the line is too long"));
        }
        line.push(io.read_u8().await?);
    }
    let line = String::from_utf8(line).map_err(|_| invalid("the line is not text"))?;
    let words: Vec<_> = line.trim_end().split(' ').collect();
    match words[..] {
        [_, "UNKNOWN", ..] => Ok(None),
        [_, "TCP4" | "TCP6", client, _, port, _] => {
            let client: IpAddr = client
                .parse()
                .map_err(|_| invalid("the address is invalid"))?;
            let port = port.parse().map_err(|_| invalid("the port is invalid"))?;
            Ok(Some(SocketAddr::new(client, port)))
        }
        _ => Err(invalid("the line is not complete")),
    }
}

/// Version and command, family, length, addresses, and extensions that are skipped.
async fn version_2(io: &mut Io) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (io.read_u8().await?, io.read_u8().await?);
    let mut rest = vec![0; io.read_u16().await?.into()];
    io.read_exact(&mut rest).await?;
    let short = || invalid("the header is too short");
    match (command, family) {
        (0x20, _) => Ok(None),
        (0x21, 0x11) => {
            let (ip, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let port = rest.get(4..6).ok_or_else(short)?;
            let port = u16::from_be_bytes([port[0], port[1]]);
            Ok(Some(SocketAddr::new(IpAddr::from(*ip), port)))
        }
        (0x21, 0x21) => {
            let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let port = rest.get(16..18).ok_or_else(short)?;
            let port = u16::from_be_bytes([port[0], port[1]]);
            Ok(Some(SocketAddr::new(IpAddr::from(*ip), port)))
        }
        (0x21, _) => Ok(None),
        _ => Err(invalid("the version or the command is unknown")),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("PROXY protocol: {why}"))
}

/// The connect info of a request.
#[derive(Clone, Copy, Debug)]
struct Client(Option<SocketAddr>);

impl Connected<Incoming<'_>> for Client {
    fn connect_info(incoming: Incoming<'_>) -> Self {
        let proxied = incoming.transport().downcast_ref::<Proxied>();
        Self(proxied.and_then(|proxied| proxied.client))
    }
}

async fn who(ConnectInfo(Client(client)): ConnectInfo<Client>) -> String {
    match client {
        Some(client) => format!("you are {client}\n"),
        None => "you are the balancer\n".into(),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = Router::new().route("/", get(who));
    let app = app.into_make_service_with_connect_info::<Client>();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let mut group = TaskGroup::new();
    let http = taskgroup::server::axum::serve("http", listener, app).tls(proxied);
    group.spawn(http.run(group.token()));

    let version_1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec();
    let mut version_2 = V2.to_vec();
    version_2.extend(b"\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\xdc\x04\x01\xbb");
    let mut of_the_balancer = V2.to_vec();
    of_the_balancer.extend(b"\x20\0\0\0");
    // you are 192.0.2.7:56324
    // you are 192.0.2.8:56324
    // you are the balancer
    for header in [version_1, version_2, of_the_balancer] {
        print!("{}", ask(address, &header).await?);
    }
    // A client without a header is not served.
    assert_eq!(ask(address, b"").await.unwrap_or_default(), "");

    group.cancel();
    Ok(group.wait().await?)
}

/// Asks as the balancer does.
async fn ask(address: SocketAddr, header: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = b"GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
    stream.write_all(&[header, request].concat()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    Ok(body.unwrap_or_default())
}

impl AsyncRead for Proxied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Proxied {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
