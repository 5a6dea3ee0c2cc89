//! A proxy between a client and an HTTP server that fails on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

/// The fate of one request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The proxy responds with this status and body. The request does not reach the server.
    Answer(u16, String),
    /// The connection is cut before the request reaches the server.
    Cut,
    /// The server responds, and then the connection is cut: the client gets no response.
    CutAfterwards,
    /// The server responds, and the client gets the response.
    Pass,
    /// The request does not reach the server, and the client gets no response.
    Silence,
    /// The server responds, and the client gets no response.
    SilenceAfterwards,
    /// Same as [`Fate::Pass`], as soon as this semaphore has a permit.
    Wait(Arc<Semaphore>),
}

/// One request of an AWS client.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of the request, counted from 1 since the last [`Proxy::decide`].
    pub nth: usize,
    pub operation: String,
    pub body: Vec<u8>,
}

type Decide = Arc<dyn Fn(&Request) -> Fate + Send + Sync>;

/// A proxy. Dropping this value ends it.
pub struct Proxy {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// Locked for reading by each request that waits for the server.
    asking: Arc<RwLock<()>>,
    listening: JoinHandle<()>,
}

struct State {
    decide: Decide,
    operations: Vec<String>,
}

impl Proxy {
    /// Starts a proxy that passes every request on.
    pub async fn start(server: &str) -> Self {
        let server: SocketAddr = server
            .trim_start_matches("http://")
            .parse()
            .expect("the server's address is valid");
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
                // A broken connection is not an error: tests break connections on purpose.
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

    /// Sets the function that decides the fate of each request from now on.
    pub fn decide(&self, decide: impl Fn(&Request) -> Fate + Send + Sync + 'static) {
        let decide: Decide = Arc::new(decide);
        *self.state.lock().expect("the lock is not poisoned") = State {
            decide,
            operations: Vec::new(),
        };
    }

    /// Waits until the server has responded to all requests that it received.
    pub async fn quiet(&self) {
        drop(self.asking.write().await);
    }

    /// Returns the operations that were requested since the last [`Proxy::decide`].
    pub fn operations(&self) -> Vec<String> {
        self.state
            .lock()
            .expect("the lock is not poisoned")
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
            let mut state = state.lock().expect("the lock is not poisoned");
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
                    until
                        .acquire()
                        .await
                        .expect("the semaphore is never closed")
                        .forget();
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

/// Reads the head and the body of the next message. Returns `None` at the end of the stream.
async fn message(from: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let len = header(&head, "content-length").and_then(|len| len.parse().ok());
    let mut body = vec![0; len.expect("each message has a `content-length`")];
    from.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}

fn header(head: &str, wanted: &str) -> Option<String> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim().to_owned())
}
