//! Checks of a neighbour that uses Redis over TLS. The Redis driver uses rustls's default provider.
#![allow(dead_code, reason = "each neighbour uses one of the two checks")]

use slack_installs::backend::{ConnectError, ConnectErrorKind, RedisBackend, RedisOptions};

/// Checks that the driver gets as far as TLS. Without a provider it would panic.
pub async fn is_called_by_tls() {
    let error = open().await;
    assert_ne!(error.kind(), ConnectErrorKind::Tls, "{error}");
}

pub async fn names_the_remedy() {
    let error = open().await;
    assert_eq!(error.kind(), ConnectErrorKind::Tls, "{error}");
    let remedy = "rustls::crypto::ring::default_provider().install_default()";
    assert!(error.to_string().contains(remedy), "{error}");
}

/// Opens a Redis server that closes each connection.
async fn open() -> ConnectError {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let url = format!("rediss://127.0.0.1:{port}");
    let opened = RedisBackend::open(&url, RedisOptions::default()).await;
    opened.map(drop).expect_err("no Redis is there")
}
