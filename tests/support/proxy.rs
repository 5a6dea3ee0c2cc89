//! A TCP proxy that cuts a connection at a moment that the test chooses.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a connection is cut. The text is something that the client sends.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Before the server gets to see it.
    Before(&'static str),
    /// After the server has answered it, and before the client gets the answer.
    After(&'static str),
    /// Not at all: from here on it hangs.
    Hang(&'static str),
}

/// Passes bytes on, until told to cut.
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

    /// Leads to another server from now on, and cuts all connections.
    pub fn lead_to(&self, upstream: u16) {
        self.upstream.send_replace(upstream);
    }

    /// The connections that there are carry nothing from now on, and stay open.
    pub fn hang_all(&self) {
        self.hung.send_replace(());
    }

    /// Cuts the next connection that comes to this point, and no other.
    pub fn cut(&self, cut: Cut) {
        *self.cut.lock().expect("nobody panics with it") = Some(cut);
    }

    /// Whether it has come to that.
    pub fn has_cut(&self) -> bool {
        self.cut.lock().expect("nobody panics with it").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dropping the sockets, on any way out, cuts the connection.
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
    // A text may come in two pieces.
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

/// Keeps both sockets open, as a machine does that has stopped.
async fn hang(_client: TcpStream, _server: TcpStream) {
    std::future::pending().await
}

/// The cut that is due, if the client has just sent its text. It happens once. Leaves of `seen`
/// what may be the beginning of the text, and never all of it: it belongs to an earlier call then.
fn take(cut: &Mutex<Option<Cut>>, seen: &mut Vec<u8>) -> Option<Cut> {
    let mut cut = cut.lock().expect("nobody panics with it");
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
