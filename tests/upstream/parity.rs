//! Nothing of HTTP is lost: what stock `axum::serve` and tonic's `Server` answer, and what the engine answers.
//!
//! Each row is sent to both, byte for byte, and the answers have to be the same but for the date.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, Version, header};
use axum::routing::{any, get, post};
use taskgroup::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::service::Routes;

use crate::listen;

/// What a client sends, each part after the answer to the one before has begun, and whether it then closes its
/// sending half.
struct Row {
    name: &'static str,
    parts: &'static [&'static str],
    half_close: bool,
}

const fn row(name: &'static str, parts: &'static [&'static str]) -> Row {
    Row {
        name,
        parts,
        half_close: false,
    }
}

const fn half_closed(name: &'static str, parts: &'static [&'static str]) -> Row {
    Row {
        name,
        parts,
        half_close: true,
    }
}

/// Each ends with a connection that the server closes.
const HTTP1: &[Row] = &[
    row(
        "a GET",
        &["GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a GET of a path that is not there",
        &["GET /no HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a method that is not allowed",
        &["DELETE / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a custom method",
        &["BREW /any HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a target in absolute form",
        &["GET http://t/any?q=1 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "OPTIONS of all",
        &["OPTIONS * HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a HEAD",
        &["HEAD / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a HEAD of a stream",
        &["HEAD /stream HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row("no host", &["GET / HTTP/1.1\r\nconnection: close\r\n\r\n"]),
    row("HTTP/1.0", &["GET / HTTP/1.0\r\n\r\n"]),
    row(
        "HTTP/1.0 that keeps alive",
        &["GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n"],
    ),
    row("HTTP/1.0 of a stream", &["GET /stream HTTP/1.0\r\n\r\n"]),
    row(
        "a stream in chunks",
        &["GET /stream HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "trailers",
        &["GET /trailers HTTP/1.1\r\nhost: t\r\nte: trailers\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "no content",
        &["GET /none HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a body",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"],
    ),
    row(
        "an empty body",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "a body in chunks",
        &[
            "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ],
    ),
    row(
        "a body with trailers",
        &[
            "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        ],
    ),
    row(
        "an invalid chunk",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"],
    ),
    row(
        "a body that is not read",
        &["POST /none HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"],
    ),
    row(
        "100-continue, and the body",
        &[
            "POST /echo HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
            "hello",
        ],
    ),
    row(
        "100-continue that is not read",
        &[
            "POST /none HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
        ],
    ),
    row(
        "an expectation that is unknown",
        &[
            "POST /echo HTTP/1.1\r\nhost: t\r\nexpect: tea\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        ],
    ),
    row(
        "two in a row",
        &[
            "GET / HTTP/1.1\r\nhost: t\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
        ],
    ),
    row(
        "three at once",
        &[
            "GET / HTTP/1.1\r\nhost: t\r\n\r\nPOST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhiHEAD / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
        ],
    ),
    row(
        "what follows a close",
        &[
            "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n",
        ],
    ),
    half_closed(
        "a half-close after a request",
        &["GET / HTTP/1.1\r\nhost: t\r\n\r\n"],
    ),
    half_closed(
        "a half-close within a body",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhe"],
    ),
    half_closed("a half-close within a head", &["GET / HTTP/1.1\r\nho"]),
    half_closed("nothing at all", &[""]),
    row(
        "an empty line first",
        &["\r\nGET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "lines that end in LF",
        &["GET / HTTP/1.1\nhost: t\nconnection: close\n\n"],
    ),
    row("no version", &["GET /\r\n\r\n"]),
    row(
        "a version that is unknown",
        &["GET / HTTP/3.0\r\nhost: t\r\n\r\n"],
    ),
    row(
        "a space in a header",
        &["GET / HTTP/1.1\r\nho st: t\r\n\r\n"],
    ),
    row(
        "a header without a colon",
        &["GET / HTTP/1.1\r\nhost\r\n\r\n"],
    ),
    row(
        "two lengths",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"],
    ),
    row(
        "a length and chunks",
        &[
            "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
        ],
    ),
    row(
        "an invalid length",
        &["POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n"],
    ),
    row(
        "bytes of TLS",
        &["\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03 and more"],
    ),
    row(
        "an upgrade that is ignored",
        &["GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade, close\r\nupgrade: echo\r\n\r\n"],
    ),
    row(
        "an upgrade",
        &[
            "GET /up HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            "hello",
        ],
    ),
    row(
        "CONNECT",
        &["CONNECT t:443 HTTP/1.1\r\nhost: t:443\r\nconnection: close\r\n\r\n"],
    ),
    row(
        "an upgrade to h2c, which is ignored",
        &[
            "GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        ],
    ),
];

fn app() -> Router {
    let stream = || Body::from_stream(tokio_stream::iter(["a", "bc"].map(Ok::<_, std::io::Error>)));
    let up = any(async |request: Request<Body>| {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let mut io = hyper_util::rt::TokioIo::new(upgraded);
            let mut hello = [0; 5];
            io.read_exact(&mut hello).await.unwrap();
            io.write_all(&hello).await.unwrap();
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, headers)
    });
    Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/any",
            any(async |request: Request<Body>| format!("{} {}", request.method(), request.uri())),
        )
        .route("/stream", get(async move || stream()))
        .route("/trailers", get(async || ([(header::TRAILER, "x")], "t")))
        .route("/none", any(async || StatusCode::NO_CONTENT))
        .route("/echo", post(async |body: String| body))
        .route("/up", up)
}

/// A stock server, and one of this crate.
async fn both() -> [SocketAddr; 2] {
    let (listener, stock) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app()).await });
    let (listener, ours) = listen().await;
    let serve = taskgroup::server::axum::serve("http", listener, app());
    tokio::spawn(serve.run(&CancellationToken::new()));
    [stock, ours]
}

/// Returns all that the server says, without the date.
async fn exchange(address: SocketAddr, row: &Row) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    for part in row.parts {
        client.write_all(part.as_bytes()).await.unwrap();
        if row.parts.len() > 1 {
            let mut byte = [0; 4096];
            let read = client.read(&mut byte).await.unwrap_or_default();
            answer.extend(&byte[..read]);
        }
    }
    if row.half_close {
        client.shutdown().await.unwrap();
    }
    let end = client.read_to_end(&mut answer).await;
    let mut said = String::from_utf8_lossy(&answer).into_owned();
    while let Some(date) = said.find("date: ") {
        let end = said[date..]
            .find("\r\n")
            .map_or(said.len(), |end| date + end + 2);
        said.replace_range(date..end, "");
    }
    if end.is_err() {
        said + " (reset)"
    } else {
        said
    }
}

#[tokio::test]
async fn s11_over_http1_the_engine_answers_as_stock_axum_does() {
    let [stock, ours] = both().await;
    for row in HTTP1 {
        let exchanges = async { (exchange(stock, row).await, exchange(ours, row).await) };
        let Ok((expected, answer)) =
            tokio::time::timeout(std::time::Duration::from_secs(60), exchanges).await
        else {
            panic!("{}: it hangs", row.name);
        };
        // A reset that overtakes an answer is a matter of luck. The engine lingers.
        let expected = expected.trim_end_matches(" (reset)");
        assert_eq!(
            answer.trim_end_matches(" (reset)"),
            expected,
            "{}",
            row.name
        );
    }
}

/// Returns version, status, headers and body of the answer, or the error.
async fn over_http2(address: SocketAddr, request: Request<()>, body: &'static str) -> String {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    while request.extensions().get::<h2::ext::Protocol>().is_some()
        && !sender.is_extended_connect_protocol_enabled()
    {
        tokio::task::yield_now().await;
    }
    let (answer, mut stream) = sender.send_request(request, false).unwrap();
    let _ = stream.send_data(body.into(), true);
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return error.to_string(),
    };
    let (mut head, mut input) = answer.into_parts();
    head.headers.remove("date");
    let mut said = format!("{:?} {:?} ", head.status, head.headers);
    while let Some(data) = input.data().await {
        match data {
            Ok(data) => said += &String::from_utf8_lossy(&data),
            Err(error) => return said + &error.to_string(),
        }
    }
    let trailers = input.trailers().await.ok().flatten();
    format!("{said} {trailers:?}")
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .version(Version::HTTP_2)
        .uri(format!("http://t{path}"))
        .body(())
        .unwrap()
}

#[tokio::test]
async fn s11_over_http2_the_engine_answers_as_stock_axum_does() {
    let [stock, ours] = both().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/no"),
        ("HEAD", "/"),
        ("HEAD", "/stream"),
        ("GET", "/stream"),
        ("POST", "/echo"),
        ("DELETE", "/"),
        ("BREW", "/any"),
        ("POST", "/none"),
    ] {
        let expected = over_http2(stock, request(method, path), "hello").await;
        let answer = over_http2(ours, request(method, path), "hello").await;
        assert_eq!(answer, expected, "{method} {path}");
    }
    let connect = || {
        let mut connect = request("CONNECT", "/any");
        let websocket = h2::ext::Protocol::from_static("websocket");
        connect.extensions_mut().insert(websocket);
        connect
    };
    let expected = over_http2(stock, connect(), "").await;
    assert_eq!(
        over_http2(ours, connect(), "").await,
        expected,
        "extended CONNECT"
    );
    assert!(expected.starts_with("200"), "{expected}");
}

/// More than hyper allows by default.
const STREAMS: usize = 300;

#[tokio::test]
async fn s11_tonic_has_any_number_of_streams_here_too() {
    let routes = || {
        let (_, health) = tonic_health::server::health_reporter();
        Routes::new(health)
    };
    let (listener, stock) = listen().await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes())
            .serve_with_incoming(incoming),
    );
    let (listener, ours) = listen().await;
    let serve = taskgroup::server::tonic::serve("grpc", listener, routes());
    tokio::spawn(serve.run(&CancellationToken::new()));
    let mut said = Vec::new();
    for address in [stock, ours] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let mut watches = Vec::new();
        for _ in 0..STREAMS {
            sender = sender.ready().await.unwrap();
            let watch = Request::post("http://t/grpc.health.v1.Health/Watch")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let (answer, mut stream) = sender.send_request(watch, false).unwrap();
            stream.send_data(vec![0; 5].into(), true).unwrap();
            watches.push(answer);
        }
        let mut open = Vec::new();
        for watch in watches {
            let answer = watch.await.unwrap();
            said.push(format!("{:?}", answer.headers().get("content-type")));
            // None of them ends before all have begun.
            open.push(answer.into_body());
        }
        assert_eq!(open.len(), STREAMS);
    }
    let (stock, ours) = said.split_at(STREAMS);
    assert_eq!(stock, ours);
}
