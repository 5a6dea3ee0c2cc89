//! The URL of a transit key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;
use zeroize::Zeroizing;

use super::{VaultAuth, VaultOptions, VaultTransit};
use crate::https::is_loopback;
use crate::keys::error::{KeySetupError, invalid};
use crate::keys::url::KeyUrl;
use crate::seal::KeyProvider;

/// Where a transit key is.
#[derive(Debug)]
pub(super) struct KeyPlace {
    /// Ends with `/v1/`.
    pub(super) server: Url,
    pub(super) mount: String,
    pub(super) key: String,
}

impl KeyPlace {
    /// Parses `https://HOST:8200/MOUNT/keys/NAME`. A mount may have several segments.
    pub(super) fn parse(text: &str, allow_plain_http: bool) -> Result<Self, KeySetupError> {
        let url = Url::parse(text).ok();
        let url = url.filter(|url| {
            matches!(url.scheme(), "https" | "http")
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        let mut server = url.ok_or_else(form)?;
        if server.scheme() == "http" && !allow_plain_http && !is_loopback(&server) {
            return Err(invalid(
                "plain http to Vault would show data keys to the network: use https, or add \
                 `allow-plain-http=true` if the network is encrypted otherwise",
            ));
        }
        let path = server.path().trim_matches('/').to_owned();
        let (mount, key) = path.rsplit_once("/keys/").ok_or_else(form)?;
        let mount = mount.strip_prefix("v1/").unwrap_or(mount);
        let is_plain = |text: &str| {
            let plain = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
            !text.is_empty() && text.chars().all(plain) && !text.contains("//")
        };
        if !is_plain(mount) || !is_plain(key) || key.contains('/') {
            return Err(form());
        }
        let (mount, key) = (mount.to_owned(), key.to_owned());
        server.set_path("/v1/");
        Ok(Self { server, mount, key })
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}/keys/{}`", self.mount, self.key)
    }
}

fn form() -> KeySetupError {
    invalid(
        "not the URL of a transit key; expected `https://HOST:8200/MOUNT/keys/NAME`, without \
         credentials; a token comes from VAULT_TOKEN or a file",
    )
}

/// Opens a provider by its key URL. Secrets come from the environment or from files, so that the
/// URL is not secret.
pub(in crate::keys) fn by_url(mut url: KeyUrl) -> Result<Arc<dyn KeyProvider>, KeySetupError> {
    let options = VaultOptions {
        allow_plain_http: url.take_flag("allow-plain-http")?,
        ca_file: path(&mut url, "ca-file")?,
        environment: text(&mut url, "environment")?,
        namespace: text(&mut url, "namespace")?,
    };
    let (role_id, mount) = (text(&mut url, "role-id")?, text(&mut url, "approle-mount")?);
    let (token_file, secret_file) = (
        path(&mut url, "token-file")?,
        path(&mut url, "secret-id-file")?,
    );
    url.finish(&[
        "allow-plain-http",
        "approle-mount",
        "ca-file",
        "environment",
        "namespace",
        "role-id",
        "secret-id-file",
        "token-file",
    ])?;
    let auth = match (role_id, token_file, secret_file) {
        (Some(role_id), None, Some(file)) => VaultAuth::app_role_file(role_id, file),
        (Some(role_id), None, None) => {
            let secret_id = variable("VAULT_SECRET_ID").ok_or_else(|| {
                invalid(
                    "the key URL of `vault:` has a role id and no secret id: add `secret-id-file=…`, \
                     or set VAULT_SECRET_ID",
                )
            })?;
            VaultAuth::app_role(role_id, &**secret_id)
        }
        (None, Some(file), None) => VaultAuth::token_file(file),
        (None, None, None) => {
            let token = variable("VAULT_TOKEN").or_else(|| variable("BAO_TOKEN"));
            let token = token.ok_or_else(|| {
                invalid(
                    "the key URL of `vault:` names no credentials: set VAULT_TOKEN, or add \
                     `token-file=…`, or `role-id=…` with `secret-id-file=…`",
                )
            })?;
            VaultAuth::token(&**token)
        }
        _ => {
            return Err(invalid(
                "the key URL of `vault:` names two kinds of credentials: keep `token-file`, or \
                 `role-id` with `secret-id-file`",
            ));
        }
    };
    let auth = match mount {
        Some(mount) => auth.with_mount(mount),
        None => auth,
    };
    Ok(Arc::new(VaultTransit::new(&url.place, auth, options)?))
}

fn text(url: &mut KeyUrl, name: &str) -> Result<Option<String>, KeySetupError> {
    Ok(url.take(name)?.map(|value| value.to_string()))
}

fn path(url: &mut KeyUrl, name: &str) -> Result<Option<PathBuf>, KeySetupError> {
    Ok(text(url, name)?.map(PathBuf::from))
}

fn variable(name: &str) -> Option<Zeroizing<String>> {
    let value = std::env::var(name).ok().map(Zeroizing::new);
    value.filter(|value| !value.trim().is_empty())
}
