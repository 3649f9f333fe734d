//! Servers over TLS, as tonic speaks it.

use std::sync::{Arc, Mutex};

use taskgroup::server::Serve;
use taskgroup::server::tonic::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{advance, pause, resume};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as TlsIdentity};
use tonic::{Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;

use crate::calls::{Calls, call};
use crate::pki::Identity;
use crate::support::server::{NO_TIME, SHORT, Server, patient, read_to_end};
use crate::support::wait::{PLENTY, soon, turns};

/// Both sides have to prove who they are.
struct Pair {
    server: Identity,
    client: Identity,
}

impl Pair {
    fn new() -> Self {
        Self {
            server: Identity::new("localhost"),
            client: Identity::new("client"),
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let pem = |identity: &Identity| {
            CertificateDer::from_pem_slice(identity.certificate().as_bytes()).unwrap()
        };
        let mut clients = RootCertStore::empty();
        clients.add(pem(&self.client)).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(clients)).build();
        let key = PrivateKeyDer::from_pem_slice(self.server.key().as_bytes()).unwrap();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(vec![pem(&self.server)], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config).into()
    }

    /// Serves `routes` over TLS.
    async fn start(
        &self,
        routes: Routes,
        options: impl FnOnce(Serve<App<Routes>>) -> Serve<App<Routes>>,
    ) -> Server {
        let acceptor = self.acceptor();
        Server::run(|listener| {
            let serve = taskgroup::server::tonic::serve("grpc", listener, routes);
            options(patient(serve.tls(move |io| acceptor.accept(io))))
        })
        .await
    }

    async fn connect(&self, server: &Server) -> HealthClient<Channel> {
        let identity = TlsIdentity::from_pem(self.client.certificate(), self.client.key());
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(self.server.certificate()))
            .identity(identity);
        let endpoint = Channel::from_shared(format!("https://{}", server.address)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap();
        HealthClient::new(soon(endpoint.connect()).await.unwrap())
    }
}

#[tokio::test]
async fn r28_the_address_and_the_certificates_of_the_peer_are_known_over_tls() {
    let pair = Pair::new();
    let seen = Arc::new(Mutex::new(None));
    let calls = HealthServer::with_interceptor(Calls::default(), {
        let seen = Arc::clone(&seen);
        move |request: Request<()>| -> Result<Request<()>, Status> {
            let certificates = request.peer_certs().map(|certificates| certificates.len());
            *seen.lock().unwrap() = Some((request.remote_addr(), certificates));
            Ok(request)
        }
    });
    let server = pair.start(Routes::new(calls), |serve| serve).await;
    let mut client = pair.connect(&server).await;

    soon(client.check(call(""))).await.unwrap();

    let (peer, certificates) = seen.lock().unwrap().take().unwrap();
    assert!(peer.unwrap().ip().is_loopback());
    assert_eq!(certificates, Some(1));
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn r8_r11_half_a_handshake_is_not_a_loss_and_a_call_over_tls_is_cut_in_words() {
    let pair = Pair::new();
    let calls = Calls::default();
    let routes = Routes::new(HealthServer::new(calls.clone()));
    let server = pair
        .start(routes, |serve| serve.grace(SHORT).idle_grace(NO_TIME))
        .await;
    let mut client = pair.connect(&server).await;
    let stuck = tokio::spawn(async move { client.check(call("hangs")).await });
    calls.alive.reaches(1).await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    turns().await;

    let (outcome, report) = server.stop().await;

    assert!(outcome.unwrap_err().is_timed_out());
    assert_eq!(report.connections_at_stop(), 2);
    assert_eq!(report.requests_cut(), 1);
    assert_eq!(report.connections_cut(), 1);
    assert_eq!(report.stuck(), 0);
    let status = soon(stuck).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.message(), "the server is shutting down");
    assert!(read_to_end(half).await.is_empty());
}

#[tokio::test]
async fn r18_half_a_handshake_is_cut() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let server = pair
        .start(Routes::default(), |serve| serve.header_timeout(limit))
        .await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
    turns().await;

    pause();
    for _ in 0..8 {
        advance(limit / 4).await;
        turns().await;
    }
    resume();

    assert!(read_to_end(half).await.is_empty());
    server.stop().await.0.unwrap();
}

/// What a client begins with.
fn hello() -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn r18_a_client_that_only_pretends_to_have_answered_the_handshake_is_cut() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let server = pair
        .start(Routes::default(), |serve| serve.header_timeout(limit))
        .await;
    let change_of_keys = b"\x14\x03\x03\0\x01\x01";
    let half_a_record = b"\x17\x03\x03\x40\0encrypted?";
    let mut fakes = Vec::new();
    for fake in [&change_of_keys[..], half_a_record] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(&hello()).await.unwrap();
        // The server has answered, and waits for this side.
        soon(client.read_u8()).await.unwrap();
        client.write_all(fake).await.unwrap();
        fakes.push(client);
    }
    turns().await;

    pause();
    for _ in 0..8 {
        advance(limit / 4).await;
        turns().await;
    }
    resume();

    for fake in fakes {
        read_to_end(fake).await;
    }
    server.stop().await.0.unwrap();
}

#[tokio::test]
async fn r18_a_channel_over_tls_may_be_silent() {
    let pair = Pair::new();
    let limit = PLENTY / 2;
    let calls = HealthServer::new(Calls::default());
    let server = pair
        .start(Routes::new(calls), |serve| serve.header_timeout(limit))
        .await;
    let mut client = pair.connect(&server).await;

    // In steps that give every timer its chance to go off, and the client its PINGs to answer.
    for _ in 0..20 {
        pause();
        advance(limit / 4).await;
        resume();
        turns().await;
    }

    soon(client.check(call(""))).await.unwrap();
    let (outcome, report) = server.stop().await;
    outcome.unwrap();
    assert_eq!(report.connections_at_stop(), 1);
}
