//! The options of one flow, from its start to its callback. The browser carries them, sealed.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::config::{InstallConfig, InstallOptions, Requested};
use super::error::Error;
use crate::installation::{Installation, Scopes};
use crate::secret::same;
use crate::slack::Issued;
use crate::tenant::{EnterpriseId, TeamId};

/// The options of a started flow. They never appear in a URL.
#[derive(Deserialize, Serialize)]
pub(super) struct Pending {
    /// Not sealed with the rest: the state is signed for it.
    #[serde(skip)]
    pub(super) redirect_uri: String,
    pub(super) scopes: String,
    pub(super) user_scopes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) team: Option<TeamId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enterprise: Option<EnterpriseId>,
    /// The mark of the session of your app in which the flow started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Sealed after the JSON form of the rest, because JSON would make some texts much longer.
    #[serde(skip)]
    pub(super) metadata: Option<String>,
}

/// Where a flow is to install the app, if its options say so.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) team: Option<TeamId>,
    pub(super) enterprise: Option<EnterpriseId>,
}

impl Pending {
    /// Combines the options of this flow with the configuration.
    pub(super) fn new(config: &InstallConfig, options: InstallOptions) -> Result<Self, Error> {
        let redirect_uri = match options.redirect_uri {
            Some(uri) if config.redirect_uris.contains(&uri) => uri,
            Some(_) => {
                return Err(Error::Options("the redirect URL is not configured"));
            }
            None => config.redirect_uris[0].clone(),
        };
        if options
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.len() > MAX_METADATA)
        {
            return Err(Error::Options(
                "the metadata is larger than 2 KiB: pass the id of a record of your app instead",
            ));
        }
        let scopes = options.scopes.unwrap_or_else(|| config.scopes.clone());
        let user_scopes = options
            .user_scopes
            .unwrap_or_else(|| config.user_scopes.clone());
        if scopes.is_empty() && user_scopes.is_empty() {
            return Err(Error::Options("it requests no scopes"));
        }
        Ok(Self {
            redirect_uri: redirect_uri.as_str().into(),
            scopes: scopes.to_string(),
            user_scopes: user_scopes.to_string(),
            team: options.team,
            enterprise: options.enterprise,
            session: options.session.as_deref().map(mark),
            metadata: options.metadata,
        })
    }

    /// Returns the form that is sealed: the length of the JSON form, that form, and the metadata,
    /// if there is any, after a 1.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let facts = serde_json::to_vec(self).expect("strings always serialise to JSON");
        let length = u32::try_from(facts.len()).expect("less than 4 GiB");
        let metadata = self.metadata.as_deref();
        // All of it at once: a vector that grows leaves its old bytes in freed memory.
        let capacity = 4 + facts.len() + metadata.map_or(0, |text| 1 + text.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&facts);
        if let Some(metadata) = metadata {
            bytes.push(1);
            bytes.extend_from_slice(metadata.as_bytes());
        }
        bytes
    }

    /// Returns a flow with this redirect URL from the form that [`to_bytes`](Self::to_bytes) writes.
    pub(super) fn from_bytes(redirect_uri: &str, bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (facts, metadata) = rest.split_at_checked(length)?;
        let metadata = match metadata {
            [] => None,
            [1, text @ ..] => Some(str::from_utf8(text).ok()?.to_owned()),
            _ => return None,
        };
        let facts: Self = serde_json::from_slice(facts).ok()?;
        Some(Self {
            redirect_uri: redirect_uri.to_owned(),
            metadata,
            ..facts
        })
    }

    /// Returns whether the flow belongs to this session, or to none.
    pub(super) fn is_of_session(&self, session: Option<&str>) -> bool {
        match (&self.session, session) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(marked), Some(session)) => same(marked, &mark(session)),
        }
    }

    pub(super) fn requested(&self) -> Requested {
        Requested {
            scopes: Scopes::from(self.scopes.as_str()),
            user_scopes: Scopes::from(self.user_scopes.as_str()),
        }
    }

    pub(super) fn expected(&self) -> Expected {
        Expected {
            team: self.team.clone(),
            enterprise: self.enterprise.clone(),
        }
    }

    pub(super) fn into_installation(self, issued: Issued) -> Installation {
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        installation.user = issued.user;
        installation.installed_by = issued.authed_user;
        installation.incoming_webhooks = issued.incoming_webhook.into_iter().collect();
        installation.set_metadata(self.metadata);
        installation
    }
}

/// Returns what binds a flow to a session: a part of its hash.
fn mark(session: &str) -> String {
    let hash = digest(&SHA256, &[SESSION_LABEL, session.as_bytes()].concat());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..15])
}

/// Enough for an id and a few words of your app. Browsers keep no cookie of more than 4,096 bytes.
const MAX_METADATA: usize = 2048;

const SESSION_LABEL: &[u8] = b"slack-installs oauth session v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(session: Option<&str>, metadata: Option<&str>) -> Pending {
        Pending {
            redirect_uri: "https://bot.example.com/".into(),
            scopes: "commands".into(),
            user_scopes: String::new(),
            team: None,
            enterprise: Some(EnterpriseId::new("E1").expect("an id")),
            session: session.map(mark),
            metadata: metadata.map(str::to_owned),
        }
    }

    #[test]
    fn a_flow_of_a_session_ends_in_that_session_only() {
        let (unbound, bound) = (pending(None, None), pending(Some("ada"), None));
        for (session, is_of_session) in [
            (Some("ada"), true),
            (Some("bob"), false),
            (Some(""), false),
            (Some("ada "), false),
            (None, false),
        ] {
            assert_eq!(bound.is_of_session(session), is_of_session, "{session:?}");
            assert!(unbound.is_of_session(session), "{session:?}");
        }
        assert!(pending(Some(""), None).is_of_session(Some("")));
        assert!(!pending(Some(""), None).is_of_session(None));
    }

    #[test]
    fn a_flow_is_read_as_it_was_written_and_takes_the_length_of_its_metadata() {
        let quotes = "\"\u{0}\\".repeat(600);
        for metadata in [None, Some(""), Some("plan \u{e9}"), Some(&*quotes)] {
            let written = pending(Some("ada"), metadata).to_bytes();
            let read = Pending::from_bytes("https://other/", &written).expect("it is whole");
            assert_eq!(read.redirect_uri, "https://other/");
            assert_eq!(read.metadata.as_deref(), metadata);
            assert_eq!(read.scopes, "commands");
            assert_eq!(
                read.enterprise.as_ref().map(EnterpriseId::as_str),
                Some("E1")
            );
            assert!(read.is_of_session(Some("ada")) && !read.is_of_session(None));
            let without = pending(Some("ada"), None).to_bytes().len();
            let length = metadata.map_or(0, |text| text.len() + 1);
            assert_eq!(written.len(), without + length);
        }
    }

    #[test]
    fn what_is_no_flow_is_not_read_as_one() {
        let written = pending(None, Some("m")).to_bytes();
        let read = |bytes: &[u8]| Pending::from_bytes("https://other/", bytes).is_some();
        assert!(read(&written));
        for length in 0..written.len() - 2 {
            assert!(!read(&written[..length]), "{length}");
        }
        let last = written.len() - 2;
        assert!(read(&written[..last]), "without the metadata");
        let changed = |at: usize, byte| {
            let mut changed = written.to_vec();
            changed[at] = byte;
            changed
        };
        for (at, byte) in [(0, 1), (3, 0), (last, 2), (last + 1, 0xff)] {
            assert!(!read(&changed(at, byte)), "{at}");
        }
    }
}
