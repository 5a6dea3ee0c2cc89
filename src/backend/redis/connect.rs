//! From URLs to nodes.

use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, TlsCertificates, TlsMode,
};
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::node::{Home, Node, Timeouts};
use super::{RedisOpenError, RedisOptions};
use crate::backend::host::leaves_the_machine;
use crate::tls;

pub(super) fn server(
    url: &str,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Node, RedisOpenError> {
    let info = parse(url)?;
    refuse_plaintext(&info, options)?;
    let address = info.addr().to_string();
    Ok(Node::new(
        address,
        Home::Server(client(info, options)?),
        timeouts,
    ))
}

/// The host of `url` is the name that the sentinels know the master by.
pub(super) fn sentinel(
    sentinels: &[&str],
    url: &str,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Node, RedisOpenError> {
    let info = parse(url)?;
    let (name, tls) = match info.addr() {
        ConnectionAddr::Tcp(name, _) => (name.clone(), None),
        ConnectionAddr::TcpTls {
            host,
            insecure: false,
            ..
        } => (host.clone(), Some(TlsMode::Secure)),
        _ => {
            return Err(misconfigured(
                "the master's URL must begin with redis:// or rediss://",
            ));
        }
    };
    let sentinels: Vec<_> = sentinels
        .iter()
        .map(|url| parse(url))
        .collect::<Result<_, _>>()?;
    let Some(first) = sentinels.first() else {
        return Err(misconfigured("at least one sentinel is needed"));
    };
    if !sentinels.iter().all(|sentinel| is_alike(sentinel, first)) {
        return Err(misconfigured(
            "the URLs of all sentinels must have the same credentials, and TLS or not",
        ));
    }
    for sentinel in &sentinels {
        refuse_plaintext(sentinel, options)?;
    }
    // The driver greets a master before it tells where it is.
    if tls.is_none() && !options.allow_plaintext && info.redis_settings().password().is_some() {
        let host = name;
        return Err(RedisOpenError::Plaintext { host });
    }
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, &name, SentinelServerType::Master)
        .map_err(unusable)?
        .set_client_to_redis_db(info.redis_settings().db())
        .set_client_to_redis_protocol(ProtocolVersion::RESP2)
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if let Some(tls) = tls {
        builder = builder.set_client_to_redis_tls_mode(tls);
    }
    if let Some(username) = info.redis_settings().username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = info.redis_settings().password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(username) = first.redis_settings().username() {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = first.redis_settings().password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(certificates) = certificates(options) {
        if tls.is_some() {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
        }
        if sentinels.iter().all(is_tls) {
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
    }
    let home = Home::Sentinel {
        client: Mutex::new(builder.build().map_err(unusable)?),
        allow_plaintext: options.allow_plaintext,
    };
    Ok(Node::new(format!("{name} (by Sentinel)"), home, timeouts))
}

/// All nodes are spoken to as the first URL says: the same credentials, with TLS or without.
pub(super) fn cluster(
    urls: &[&str],
    slots: Vec<u16>,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Cluster, RedisOpenError> {
    let seeds: Vec<_> = urls
        .iter()
        .map(|url| parse(url))
        .collect::<Result<_, _>>()?;
    let Some(first) = seeds.first().cloned() else {
        return Err(misconfigured("at least one node of the cluster is needed"));
    };
    if !seeds.iter().all(|seed| is_alike(seed, &first)) {
        return Err(misconfigured(
            "the URLs of all nodes must have the same credentials, and TLS or not",
        ));
    }
    if first.redis_settings().db() != 0 {
        return Err(misconfigured("a cluster has no database but 0"));
    }
    let options = options.clone();
    let maker = move |host: &str, port: u16| {
        let addr = match first.addr() {
            ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls {
                host: host.into(),
                port,
                insecure: false,
                tls_params: None,
            },
            _ => ConnectionAddr::Tcp(host.into(), port),
        };
        let info = first.clone().set_addr(addr);
        refuse_plaintext(&info, &options)?;
        let client = client(info, &options)?;
        Ok(Node::new(
            format!("{host}:{port}"),
            Home::Member(client),
            timeouts,
        ))
    };
    let made = seeds.iter().map(|seed| match seed.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            maker(host, *port)
        }
        _ => Err(misconfigured("a cluster is not reached by a Unix socket")),
    });
    let made = made.collect::<Result<_, _>>()?;
    Ok(Cluster::new(slots, made, Box::new(maker)))
}

fn parse(url: &str) -> Result<ConnectionInfo, RedisOpenError> {
    let info = url.into_connection_info().map_err(unusable)?;
    let insecure = matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. });
    if insecure {
        return Err(misconfigured(
            "TLS without verification protects nothing; see root_certificate",
        ));
    }
    // The driver calls `rustls::ClientConfig::builder()`, which panics.
    if is_tls(&info) && !tls::rustls_finds_a_provider() {
        return Err(RedisOpenError::NoCryptoProvider);
    }
    // The answers differ between the protocols.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
}

/// Small commands must not wait for more to fill a packet.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// A password and rows that anybody on the way can read are sent only on demand.
fn refuse_plaintext(info: &ConnectionInfo, options: &RedisOptions) -> Result<(), RedisOpenError> {
    match plaintext_host(info).filter(|_| !options.allow_plaintext) {
        Some(host) => Err(RedisOpenError::Plaintext { host: host.into() }),
        None => Ok(()),
    }
}

/// The other machine that this would speak to without TLS.
pub(super) fn plaintext_host(info: &ConnectionInfo) -> Option<&str> {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) if leaves_the_machine(host) => Some(host),
        _ => None,
    }
}

/// Whether both are spoken to in the same way: only the first one's way is used.
fn is_alike(one: &ConnectionInfo, other: &ConnectionInfo) -> bool {
    let (settings, others) = (one.redis_settings(), other.redis_settings());
    is_tls(one) == is_tls(other)
        && settings.username() == others.username()
        && settings.password() == others.password()
}

fn client(info: ConnectionInfo, options: &RedisOptions) -> Result<Client, RedisOpenError> {
    let client = match certificates(options).filter(|_| is_tls(&info)) {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    client.map_err(unusable)
}

fn certificates(options: &RedisOptions) -> Option<TlsCertificates> {
    let root_cert = Some(options.root_certificate.as_ref()?.clone().into_bytes());
    Some(TlsCertificates {
        client_tls: None,
        root_cert,
    })
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn misconfigured(reason: &'static str) -> RedisOpenError {
    unusable((ErrorKind::InvalidClientConfig, reason).into())
}

fn unusable(error: RedisError) -> RedisOpenError {
    RedisOpenError::Misconfigured(error.into())
}
