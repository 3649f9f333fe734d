//! One connection of one client, which counts what becomes of its requests.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::demo::tally::Tally;

pub(crate) struct Connection {
    service: SocketAddr,
    requests: SendRequest<Full<Bytes>>,
    tally: Arc<Tally>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// The service wants this client to go elsewhere.
    pub(crate) goodbye: bool,
}

impl Connection {
    /// `None` if the connection is refused.
    pub(crate) async fn open(service: SocketAddr, tally: &Arc<Tally>) -> Option<Self> {
        let stream = TcpStream::connect(service).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // Ends with the connection, or when `requests` is dropped.
        tokio::spawn(connection);
        Some(Self {
            service,
            requests,
            tally: Arc::clone(tally),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Option<Answer> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: String) -> Option<Answer> {
        self.send(Method::POST, path, body.into()).await
    }

    /// `None` if the connection is gone, whether or not the request had been sent.
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Option<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.service.to_string())
            .body(Full::new(body))
            .ok()?;
        self.requests.ready().await.ok()?;
        self.tally.begin();
        match self.requests.try_send_request(request).await {
            // hyper gives back what it has not begun to send.
            Err(error) if error.message().is_some() => {
                self.tally.never_sent();
                None
            }
            Err(_) => {
                self.tally.lost();
                None
            }
            Ok(response) => self.receive(response).await,
        }
    }

    async fn receive(
        &mut self,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Option<Answer> {
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else {
            self.tally.lost();
            return None;
        };
        self.tally.answered(head.status);
        let goodbye = head
            .headers
            .get(header::CONNECTION)
            .is_some_and(|it| it == "close");
        Some(Answer {
            status: head.status,
            body: body.to_bytes(),
            goodbye,
        })
    }
}
