//! Requests to Vault.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::VaultOptions;
use crate::https::{Failed, Https, mozilla_roots};
use crate::keys::error::{KeySetupError, invalid, unreadable};
use crate::seal::KeyError;

/// A token as a header. It is wiped when it is dropped, unless the HTTP client still has it.
pub(super) type Token = Zeroizing<String>;

/// Sends requests to one server.
pub(super) struct Wire {
    /// Ends with `/v1/`.
    server: Url,
    namespace: Option<HeaderValue>,
    https: Https,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("server", &self.server.as_str())
            .finish_non_exhaustive()
    }
}

/// A response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Wiped when it is dropped.
    pub(super) body: Bytes,
}

impl Answer {
    /// Returns the texts of the errors.
    pub(super) fn errors(&self) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        let errors = serde_json::from_slice::<Errors>(&self.body);
        errors
            .map(|errors| errors.errors.join("; "))
            .unwrap_or_default()
    }
}

impl Wire {
    pub(super) fn new(server: &Url, options: &VaultOptions) -> Result<Self, KeySetupError> {
        let roots = match &options.ca_file {
            Some(path) => authorities(path)?,
            None => mozilla_roots(),
        };
        let namespace = options.namespace.as_deref().map(HeaderValue::from_str);
        let namespace = namespace
            .transpose()
            .map_err(|_| invalid("the namespace of Vault must be a path of visible characters"))?;
        let mut https = Https::new(roots, Matcher::from_env());
        if options.allow_plain_http {
            https = https.with_plain_http();
        }
        Ok(Self {
            server: server.clone(),
            namespace,
            https,
        })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
        body: Bytes,
    ) -> Result<Answer, KeyError> {
        let url = format!("{}{path}", self.server);
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(REQUEST, HeaderValue::from_static("true"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token).map_err(|_| KeyError::Refused {
                reason: "the token for Vault has characters that no token has: check its source"
                    .into(),
            })?;
            token.set_sensitive(true);
            request = request.header(TOKEN, token);
        }
        let request = request.body(body).map_err(|_| KeyError::Refused {
            reason: "the path of the transit key or of the login is no path".into(),
        })?;
        let response = self
            .https
            .send(request)
            .await
            .map_err(|failed| match failed {
                Failed::Lost(cause) | Failed::NotSent(cause) => KeyError::Unavailable(cause),
            })?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            body,
        })
    }
}

fn authorities(path: &std::path::Path) -> Result<RootCertStore, KeySetupError> {
    let pem = std::fs::read(path).map_err(|source| {
        unreadable("the file with Vault's certificate authorities cannot be read: check its path")
            .with_source(source)
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.ok().map(|certificate| roots.add(certificate));
        if !matches!(added, Some(Ok(()))) {
            return Err(invalid(
                "the file with Vault's certificate authorities is not PEM",
            ));
        }
    }
    if roots.is_empty() {
        return Err(invalid(
            "the file with Vault's certificate authorities has no certificate",
        ));
    }
    Ok(roots)
}

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// Vault refuses requests without this header, if its listener requires it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
