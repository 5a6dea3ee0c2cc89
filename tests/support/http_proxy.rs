//! Stands between a client and an HTTP server, and misbehaves as it is told.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of one request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The proxy answers, with this status and body; the server hears nothing.
    Answer(u16, String),
    /// The connection is cut before the server hears of it.
    Cut,
    /// The server answers, and then the connection is cut.
    CutAfterwards,
    /// The server answers, and the client is told.
    Pass,
    /// The server hears nothing, and neither does the client.
    Silence,
    /// The server answers, and the client hears nothing.
    SilenceAfterwards,
    /// As [`Fate::Pass`], once this has a permit.
    Wait(Arc<Semaphore>),
}

/// One request of an AWS client.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the requests it is, counted from 1 since the last [`Proxy::decide`].
    pub nth: usize,
    pub operation: String,
    pub body: Vec<u8>,
}

type Decide = Arc<dyn Fn(&Request) -> Fate + Send + Sync>;

/// A proxy that ends with this value.
pub struct Proxy {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// Shared by those who wait for the server.
    asking: Arc<RwLock<()>>,
    listening: JoinHandle<()>,
}

struct State {
    decide: Decide,
    operations: Vec<String>,
}

impl Proxy {
    /// Lets everything pass at first.
    pub async fn start(server: &str) -> Self {
        let server: SocketAddr = server
            .trim_start_matches("http://")
            .parse()
            .expect("the server is at an address");
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = State {
            decide: Arc::new(|_| Fate::Pass),
            operations: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let asking = Arc::new(RwLock::new(()));
        let asked = Arc::clone(&asking);
        let listening = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (state, asking) = (Arc::clone(&shared), Arc::clone(&asked));
                // A connection that breaks is what clients are tested with.
                connections.spawn(async move { serve(client, server, &state, &asking).await });
            }
        });
        Self {
            url,
            state,
            asking,
            listening,
        }
    }

    /// Decides what becomes of each request from now on.
    pub fn decide(&self, decide: impl Fn(&Request) -> Fate + Send + Sync + 'static) {
        let decide: Decide = Arc::new(decide);
        *self.state.lock().expect("no holder panics") = State {
            decide,
            operations: Vec::new(),
        };
    }

    /// Waits until the server has answered all that it was asked.
    pub async fn quiet(&self) {
        drop(self.asking.write().await);
    }

    /// What was asked for since the last [`Proxy::decide`].
    pub fn operations(&self) -> Vec<String> {
        self.state
            .lock()
            .expect("no holder panics")
            .operations
            .clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(
    client: TcpStream,
    server: SocketAddr,
    state: &Mutex<State>,
    asking: &RwLock<()>,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some((head, body)) = message(&mut client).await? {
        let fate = {
            let operation = header(&head, "x-amz-target").unwrap_or_default();
            let operation = operation.rsplit('.').next().unwrap_or_default().to_owned();
            let mut state = state.lock().expect("no holder panics");
            state.operations.push(operation.clone());
            let nth = state.operations.len();
            (state.decide)(&Request {
                nth,
                operation,
                body: body.clone(),
            })
        };
        match fate {
            Fate::Answer(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Made up\r\ncontent-type: application/x-amz-json-1.0\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                client.write_all(head.as_bytes()).await?;
                client.write_all(body.as_bytes()).await?;
            }
            Fate::Cut => return Ok(()),
            Fate::CutAfterwards => {
                ask(server, asking, &head, &body).await?;
                return Ok(());
            }
            Fate::Pass | Fate::Wait(_) => {
                if let Fate::Wait(until) = fate {
                    until.acquire().await.expect("nobody closes it").forget();
                }
                let (head, body) = ask(server, asking, &head, &body).await?;
                client.write_all(head.as_bytes()).await?;
                client.write_all(&body).await?;
            }
            Fate::Silence => std::future::pending().await,
            Fate::SilenceAfterwards => {
                ask(server, asking, &head, &body).await?;
                std::future::pending::<()>().await;
            }
        }
    }
    Ok(())
}

async fn ask(
    server: SocketAddr,
    asking: &RwLock<()>,
    head: &str,
    body: &[u8],
) -> io::Result<(String, Vec<u8>)> {
    let _asking = asking.read().await;
    let mut server = BufReader::new(TcpStream::connect(server).await?);
    server.write_all(head.as_bytes()).await?;
    server.write_all(body).await?;
    message(&mut server)
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The head of the next message, and its body. `None` at the end.
async fn message(from: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let len = header(&head, "content-length").and_then(|len| len.parse().ok());
    let mut body = vec![0; len.expect("each message says how long it is")];
    from.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}

fn header(head: &str, wanted: &str) -> Option<String> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim().to_owned())
}
