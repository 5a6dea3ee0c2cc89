//! Slack behind a socket. It can be held before it carries out a refresh, and before it responds.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slack_installs::testing::FakeSlack;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::child::{Event, Permit};

/// Serves a fake Slack that has no socket of its own, until the runtime ends.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) url: String,
    fake: FakeSlack,
    /// Receives each step, if set.
    watcher: Arc<Mutex<Option<mpsc::UnboundedSender<Event>>>>,
}

impl Front {
    pub(crate) async fn start(fake: FakeSlack) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("loopback has a free port");
        let place = listener.local_addr().expect("it is bound");
        let front = Self {
            url: format!("http://{place}/"),
            fake,
            watcher: Arc::default(),
        };
        let served = front.clone();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let front = served.clone();
                drop(tokio::spawn(async move {
                    let answer = service_fn(move |request| front.clone().answer(request));
                    // A broken connection is not an error: the tests break connections on purpose.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                }));
            }
        }));
        front
    }

    /// Holds refreshes at each step from now on, until the reader of these events gives a permit.
    pub(crate) fn hold(&self, events: mpsc::UnboundedSender<Event>) {
        *self.watcher() = Some(events);
    }

    /// Holds no new refreshes. Those that wait already continue to wait.
    pub(crate) fn free(&self) {
        *self.watcher() = None;
    }

    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let request = Request::from_parts(parts, body);
        let is_refresh = request.uri().path() == "/api/oauth.v2.access";
        let watcher = self.watcher().clone().filter(|_| is_refresh);
        pass(watcher.as_ref(), ASKED).await?;
        let answer = self.fake.handle(&request);
        pass(watcher.as_ref(), DONE).await?;
        let answer = answer.ok_or_else(|| io::Error::other("no response, on purpose"))?;
        Ok(answer.map(Full::new))
    }

    fn watcher(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Event>>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a permit. Fails if the permit is dropped, which cuts the connection.
async fn pass(watcher: Option<&mpsc::UnboundedSender<Event>>, step: &str) -> io::Result<()> {
    let Some(watcher) = watcher else {
        return Ok(());
    };
    let (go, leave) = oneshot::channel();
    let event = Event::Step(step.to_owned(), Permit::Slack(go));
    watcher.send(event).map_err(io::Error::other)?;
    leave.await.map_err(io::Error::other)
}

/// A request has arrived, and is not carried out yet.
pub(crate) const ASKED: &str = "Slack is asked";

/// The request is carried out, and there is no response yet.
pub(crate) const DONE: &str = "Slack has done it";
