//! Serves the fake over HTTP on loopback.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::core::Core;

/// A running server, which stops when it is dropped.
pub(super) struct Server(JoinHandle<()>);

impl Server {
    pub(super) fn start(listener: TcpListener, core: Arc<Core>) -> Self {
        Self(tokio::spawn(accept(listener, core)))
    }
}

impl Drop for Server {
    /// Stops the server and its connections, because the task owns the connections' tasks.
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, core: Arc<Core>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, Arc::clone(&core)));
                }
                // Probably out of file descriptors: wait until other connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Serves one connection. Ignores errors: the client closed the connection, or a fault did.
async fn serve_connection(stream: TcpStream, core: Arc<Core>) {
    let service = service_fn(move |request| answer(Arc::clone(&core), request));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    core: Arc<Core>,
    request: Request<Incoming>,
) -> io::Result<http::Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(io::Error::other)?;
    let answer = core
        .answer_in_time(Request::from_parts(parts, body.to_bytes()))
        .await;
    let answer = answer.ok_or_else(|| io::Error::other("an injected fault lost the response"))?;
    Ok(answer.map(Full::new))
}

/// The largest request body in bytes. Slack has the same limit for a form.
const MAX_BODY: usize = 1024 * 1024;
