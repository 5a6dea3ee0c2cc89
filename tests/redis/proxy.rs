//! A TCP proxy between a client and a real server that loses requests and responses on purpose.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the next request that contains these bytes. Applies once.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The request reaches the server, and the connection is cut when the server responds.
    LoseAnswer(&'static [u8]),
    /// The connection is cut before the request reaches the server.
    LoseRequest(&'static [u8]),
}

/// A proxy that listens on its own port until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    fault: Mutex<Option<Fault>>,
    faults: AtomicUsize,
    connections: AtomicUsize,
    /// Connections up to this number stay open, but no bytes pass through them.
    stalled: watch::Sender<usize>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            fault: Mutex::default(),
            faults: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            stalled: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock().expect("no test panics with it") = Some(fault);
    }

    /// Stalls all current connections. Later connections work.
    pub(crate) fn stall(&self) {
        self.shared
            .stalled
            .send_replace(self.shared.connections.load(Ordering::SeqCst));
    }

    /// Stalls all current and later connections.
    pub(crate) fn stall_all(&self) {
        self.shared.stalled.send_replace(usize::MAX);
    }

    /// Returns the number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of faults so far.
    pub(crate) fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let losing = AtomicBool::new(false);
            // When one direction ends, both end.
            tokio::select! {
                () = requests(from_client, to_server, &shared, &losing, number) => {}
                () = answers(from_server, to_client, &shared, &losing, number) => {}
            }
        });
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
    number: usize,
) {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Some(bytes) = next(&mut from, &mut buffer, shared, number).await {
        // A request may arrive in several parts.
        seen.extend_from_slice(bytes);
        match shared.take_fault(&seen) {
            Some(Fault::LoseRequest(_)) => return,
            Some(Fault::LoseAnswer(_)) => losing.store(true, Ordering::SeqCst),
            None => {}
        }
        let keep = seen.len().min(LONGEST_NEEDLE);
        seen.drain(..seen.len() - keep);
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
    number: usize,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Some(bytes) = next(&mut from, &mut buffer, shared, number).await {
        if losing.load(Ordering::SeqCst) || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Reads the next bytes. If the connection is stalled, never returns.
async fn next<'a>(
    from: &mut OwnedReadHalf,
    buffer: &'a mut [u8],
    shared: &Shared,
    number: usize,
) -> Option<&'a [u8]> {
    let length = from.read(buffer).await.ok().filter(|length| *length > 0)?;
    if *shared.stalled.borrow() >= number {
        std::future::pending::<()>().await;
    }
    Some(&buffer[..length])
}

impl Shared {
    fn take_fault(&self, seen: &[u8]) -> Option<Fault> {
        let mut fault = self.fault.lock().expect("no test panics with it");
        let (Some(Fault::LoseAnswer(needle)) | Some(Fault::LoseRequest(needle))) = *fault else {
            return None;
        };
        assert!(needle.len() <= LONGEST_NEEDLE);
        seen.windows(needle.len())
            .any(|window| window == needle)
            .then_some(())?;
        self.faults.fetch_add(1, Ordering::SeqCst);
        fault.take()
    }
}

const LONGEST_NEEDLE: usize = 32;
