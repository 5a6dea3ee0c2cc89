//! Makes nodes from URLs.

use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError,
    TlsCertificates, TlsMode,
};
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::node::{Home, Node, Timeouts, plaintext_host};
use super::router::Router;
use crate::backend::connect::{ConnectError, ConnectErrorKind as Kind, invalid};
use crate::backend::redis::RedisOptions;
use crate::tls;

pub(in crate::backend::redis) fn server(
    url: &str,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Router, ConnectError> {
    let info = parse(url)?;
    refuse_plaintext(&info, options)?;
    let address = info.addr().to_string();
    let home = Home::Server(client(info, options)?);
    Ok(alone(Node::new(address, home, timeouts)))
}

/// The host of `url` is the master's name, as the sentinels know it.
pub(in crate::backend::redis) fn sentinel(
    sentinels: &[&str],
    url: &str,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Router, ConnectError> {
    let info = parse(url)?;
    let (name, tls) = match info.addr() {
        ConnectionAddr::Tcp(name, _) => (name, None),
        ConnectionAddr::TcpTls { host, .. } => (host, Some(TlsMode::Secure)),
        _ => {
            return Err(invalid(
                "the URL of the master behind Sentinel must begin with redis:// or rediss://",
            ));
        }
    };
    let sentinels = alike(sentinels, "sentinels")?;
    for sentinel in &sentinels {
        refuse_plaintext(sentinel, options)?;
    }
    let (master, sentinel) = (info.redis_settings(), sentinels[0].redis_settings());
    // The driver logs in to a master before it reports the master's address.
    if tls.is_none() && !options.allow_plaintext && master.password().is_some() {
        return Err(plaintext(name));
    }
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)
        .map_err(unusable)?
        .set_client_to_redis_db(master.db())
        .set_client_to_redis_protocol(ProtocolVersion::RESP2)
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if let Some(tls) = tls {
        builder = builder.set_client_to_redis_tls_mode(tls);
    }
    if let Some(username) = master.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = master.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(username) = sentinel.username() {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = sentinel.password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(certificates) = certificates(options) {
        if tls.is_some() {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
        }
        if is_tls(&sentinels[0]) {
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
    }
    let home = Home::Sentinel {
        client: Mutex::new(builder.build().map_err(unusable)?),
        allow_plaintext: options.allow_plaintext,
    };
    let name = format!("{name} (by Sentinel)");
    Ok(alone(Node::new(name, home, timeouts)))
}

/// All nodes use the credentials and the TLS setting of the first URL.
pub(in crate::backend::redis) fn cluster(
    urls: &[&str],
    slots: Vec<u16>,
    options: &RedisOptions,
    timeouts: Timeouts,
) -> Result<Router, ConnectError> {
    let seeds = alike(urls, "nodes of the cluster")?;
    let first = seeds[0].clone();
    if first.redis_settings().db() != 0 {
        return Err(invalid(
            "a Redis cluster has only database 0; remove the number from the URLs",
        ));
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
        _ => Err(invalid(
            "a Unix socket cannot reach a Redis cluster; use `redis://` URLs of its nodes",
        )),
    });
    let made = made.collect::<Result<_, _>>()?;
    let cluster = Cluster::new(slots, made, Box::new(maker));
    Ok(Router::Cluster(Box::new(cluster)))
}

fn alone(node: Node) -> Router {
    Router::Alone(Arc::new(node))
}

fn parse(url: &str) -> Result<ConnectionInfo, ConnectError> {
    let info = url.into_connection_info().map_err(unusable)?;
    let insecure = matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. });
    if insecure {
        return Err(invalid(
            "TLS without verification (#insecure) gives no protection; remove `#insecure`, and set \
             RedisOptions::root_certificate to trust the server's CA",
        ));
    }
    // Without a provider, the driver's call of `rustls::ClientConfig::builder()` panics.
    if is_tls(&info) && !tls::rustls_finds_a_provider() {
        return Err(ConnectError::new(Kind::Tls, NO_CRYPTO_PROVIDER));
    }
    // The responses differ between the protocols.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
}

/// Sends small commands at once, without waiting for more data to fill a packet.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Refuses to send the password and the rows over a network unencrypted, unless this is allowed.
fn refuse_plaintext(info: &ConnectionInfo, options: &RedisOptions) -> Result<(), ConnectError> {
    match plaintext_host(info) {
        Some(host) if !options.allow_plaintext => Err(plaintext(host)),
        _ => Ok(()),
    }
}

/// Parses URLs, of which there must be at least one. All must have the same credentials.
fn alike(urls: &[&str], what: &str) -> Result<Vec<ConnectionInfo>, ConnectError> {
    let infos: Vec<_> = urls
        .iter()
        .map(|url| parse(url))
        .collect::<Result<_, _>>()?;
    let Some(first) = infos.first() else {
        return Err(invalid(format!(
            "no URL of {what} is given; pass at least one"
        )));
    };
    let way = |info: &ConnectionInfo| {
        let settings = info.redis_settings();
        let text = |text: Option<&str>| text.map(str::to_owned);
        (
            is_tls(info),
            text(settings.username()),
            text(settings.password()),
        )
    };
    if infos.iter().any(|info| way(info) != way(first)) {
        return Err(invalid(format!(
            "the URLs of all {what} must have the same credentials, and either all use TLS or none"
        )));
    }
    Ok(infos)
}

fn client(info: ConnectionInfo, options: &RedisOptions) -> Result<Client, ConnectError> {
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

fn unusable(error: RedisError) -> ConnectError {
    invalid("the Redis URL or a Redis option is not valid").with_source(error)
}

/// Returns the error for an unencrypted connection. `host` is another machine or, behind Sentinel,
/// the name of its master.
pub(in crate::backend::redis) fn plaintext(host: &str) -> ConnectError {
    let text = format!(
        "{host} is another machine, and the connection to it would not be encrypted; use \
         `rediss://`, or set RedisOptions::allow_plaintext if the network is safe"
    );
    ConnectError::new(Kind::Tls, text)
}

/// The driver uses the process's default crypto provider.
const NO_CRYPTO_PROVIDER: &str = "rustls cannot choose a crypto provider for `rediss://`: if it \
     was built with both `ring` and `aws-lc-rs`, call \
     `rustls::crypto::ring::default_provider().install_default()` at the start of `main`; if with \
     neither, enable the feature `ring` or `aws-lc-rs` of slack-installs";
