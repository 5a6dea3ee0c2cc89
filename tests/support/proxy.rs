//! A TCP proxy that cuts a connection at a moment that the test chooses.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a connection is cut. The text is part of what the client sends.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Before the text reaches the server.
    Before(&'static str),
    /// After the server has responded to the text, and before the client gets the response.
    After(&'static str),
    /// The connection is not cut: from this text on it hangs.
    Hang(&'static str),
}

/// Passes bytes on, until a test cuts the connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    upstream: watch::Sender<u16>,
    cut: Arc<Mutex<Option<Cut>>>,
    hung: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let cut = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&cut);
        let (sender, upstream) = watch::channel(upstream);
        let (hung, hangs) = watch::channel(());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let hangs = hangs.clone();
                tokio::spawn(pass(client, upstream.clone(), hangs, Arc::clone(&shared)));
            }
        });
        Self {
            port,
            upstream: sender,
            cut,
            hung,
            task,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects to another server from now on, and cuts all connections.
    pub fn lead_to(&self, upstream: u16) {
        self.upstream.send_replace(upstream);
    }

    /// Hangs the existing connections: they stay open and carry nothing.
    pub fn hang_all(&self) {
        self.hung.send_replace(());
    }

    /// Cuts the next connection that reaches this point, and only that one.
    pub fn cut(&self, cut: Cut) {
        *self.cut.lock().expect("the lock is not poisoned") = Some(cut);
    }

    /// Reports whether the cut has happened.
    pub fn has_cut(&self) -> bool {
        self.cut.lock().expect("the lock is not poisoned").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes between the sockets. Every return drops both sockets, and so cuts the connection.
async fn pass(
    mut client: TcpStream,
    mut upstream: watch::Receiver<u16>,
    mut hangs: watch::Receiver<()>,
    cut: Arc<Mutex<Option<Cut>>>,
) {
    hangs.mark_unchanged();
    let port = *upstream.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (mut asked, mut answered) = (vec![0; BUFFER], vec![0; BUFFER]);
    // A text may arrive in two pieces.
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            _ = upstream.changed() => return,
            Ok(()) = hangs.changed() => return hang(client, server).await,
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                seen.extend_from_slice(&asked[..length]);
                match take(&cut, &mut seen) {
                    Some(Cut::Before(_)) => return,
                    Some(Cut::After(_)) => {
                        let _ = server.write_all(&asked[..length]).await;
                        let _ = server.read(&mut answered).await;
                        return;
                    }
                    Some(Cut::Hang(_)) => return hang(client, server).await,
                    None => {}
                }
                if server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Keeps both sockets open, like a machine that has stopped.
async fn hang(_client: TcpStream, _server: TcpStream) {
    std::future::pending().await
}

/// Takes the cut if the client has just sent its text. A cut happens once. Keeps in `seen` only
/// what may be the beginning of the text, so that the text of an earlier call does not match again.
fn take(cut: &Mutex<Option<Cut>>, seen: &mut Vec<u8>) -> Option<Cut> {
    let mut cut = cut.lock().expect("the lock is not poisoned");
    let Some(Cut::Before(text) | Cut::After(text) | Cut::Hang(text)) = cut.as_ref() else {
        seen.clear();
        return None;
    };
    let found = seen
        .windows(text.len())
        .any(|window| window == text.as_bytes());
    seen.drain(..seen.len().saturating_sub(text.len() - 1));
    if found { cut.take() } else { None }
}

const BUFFER: usize = 64 * 1024;
