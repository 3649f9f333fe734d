//! What a server reads before hyper does, and as hyper begins: the preface of HTTP/2 or a first line, a TLS record, a
//! PROXY header in front of either. Whatever comes, in whatever pieces, the connection ends, and the next client is
//! served.

#![no_main]

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use libfuzzer_sys::fuzz_target;
use rcgen::CertifiedKey;
use taskgroup::CancellationToken;
use taskgroup::server::DrainReport;
use taskgroup::server::axum::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// How long anything may take.
const PLENTY: Duration = Duration::from_secs(10);

/// The timeouts of the server. A client that waits for them is no use here.
const SHORT: Duration = Duration::from_millis(200);

/// So many clients have a server, then it is stopped, and has to be clean.
const CLIENTS: usize = 500;

/// The longest PROXY header of version 1.
const HEADER: usize = 107;

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Tls,
    Proxied,
}

struct Server {
    address: SocketAddr,
    token: CancellationToken,
    ended: mpsc::Receiver<DrainReport>,
}

impl Server {
    fn start(kind: Kind) -> Self {
        let (sender, started) = mpsc::channel();
        let token = CancellationToken::new();
        let stop = token.clone();
        let (over, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let app = Router::new().route("/", get(async || "well"));
                let serve = serve("http", listener, app)
                    .first_byte_timeout(SHORT)
                    .header_timeout(SHORT)
                    .linger(Duration::ZERO)
                    .on_report(move |report| over.send(report.clone()).unwrap());
                let result = match kind {
                    Kind::Plain => serve.run(&stop).await,
                    Kind::Tls => {
                        let tls = tls();
                        serve.tls(move |io| tls.accept(io)).run(&stop).await
                    }
                    Kind::Proxied => serve.tls(proxied).run(&stop).await,
                };
                result.unwrap();
            });
        });
        Self {
            address: started.recv().unwrap(),
            token,
            ended,
        }
    }

    fn stop(self) {
        self.token.cancel();
        let report = self
            .ended
            .recv_timeout(PLENTY)
            .expect("the server does not stop");
        assert_eq!(report.requests_cut(), 0, "{report}");
    }
}

fn tls() -> TlsAcceptor {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// Takes a PROXY header of version 1 off a connection, byte by byte.
async fn proxied<I: tokio::io::AsyncRead + Unpin>(mut io: I) -> io::Result<I> {
    let mut header = Vec::new();
    loop {
        header.push(io.read_u8().await?);
        let expected = b"PROXY ";
        let known = header.len().min(expected.len());
        if header[..known] != expected[..known] || header.len() > HEADER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if header.ends_with(b"\r\n") {
            return Ok(io);
        }
    }
}

/// Sends the pieces, and reads until the connection ends. A reset is an end.
async fn send(address: SocketAddr, pieces: &[&[u8]]) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        if client.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut Vec::new()).await;
}

async fn is_served(address: SocketAddr, header: &[u8]) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(header).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A panic of the server is a finding. Its thread would catch it otherwise.
fn panics_abort() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            std::process::abort();
        }));
    });
}

thread_local! {
    static CLIENT: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    static SERVERS: std::cell::RefCell<[Option<(Server, usize)>; 3]> = const { std::cell::RefCell::new([None, None, None]) };
}

fuzz_target!(|data: &[u8]| {
    panics_abort();
    let [kind, cuts, bytes @ ..] = data else {
        return;
    };
    let index = usize::from(kind % 3);
    let kind = [Kind::Plain, Kind::Tls, Kind::Proxied][index];
    let piece = usize::from(*cuts).max(1);
    let pieces: Vec<_> = bytes.chunks(piece).collect();
    let (server, clients) = SERVERS.with_borrow_mut(|servers| {
        servers[index]
            .take()
            .unwrap_or_else(|| (Server::start(kind), 0))
    });
    let is_last = clients + 1 == CLIENTS;
    CLIENT.with(|client| {
        client.block_on(async {
            let ended = timeout(PLENTY, send(server.address, &pieces)).await;
            assert!(ended.is_ok(), "the connection does not end");
            let header: &[u8] = match kind {
                Kind::Plain => b"",
                Kind::Proxied => b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
                Kind::Tls => return,
            };
            if is_last {
                let served = timeout(PLENTY, is_served(server.address, header)).await;
                assert!(served.is_ok(), "the next client is not served");
            }
        });
    });
    match is_last {
        true => server.stop(),
        false => SERVERS.with_borrow_mut(|servers| servers[index] = Some((server, clients + 1))),
    }
});
