//! What is recorded: an entry, before it has its place in a run.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hash::hex;
use super::head::SignedHead;
use crate::random;
use crate::store::{Act, AuditContext, Plain};
use crate::tenant::InstallationKey;

/// An entry that waits for its place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// In milliseconds since 1970.
    pub(super) time: u64,
    pub(super) event: &'static str,
    pub(super) is_done: bool,
    pub(super) count: u64,
    pub(super) content: Content,
}

/// What an entry says besides its public part.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// What the log says about itself.
    Note(String),
    /// What a store did, and on whose behalf.
    Act(Act, AuditContext),
}

impl Entry {
    /// Makes an entry that says something of the log itself.
    pub(super) fn note(time: u64, event: &'static str, note: &impl Serialize) -> Self {
        let note = serde_json::to_string(note).expect("plain fields always serialise");
        Self {
            time,
            event,
            is_done: true,
            count: 1,
            content: Content::Note(note),
        }
    }

    pub(super) fn act(time: u64, act: Act, who: AuditContext) -> Self {
        Self {
            time,
            event: act.kind.as_str(),
            is_done: act.is_done,
            count: 1,
            content: Content::Act(act, who),
        }
    }

    pub(super) fn outcome(&self) -> &'static str {
        if self.is_done { DONE } else { FAILED }
    }
}

/// The sealed part of a record: who did what, on which row. It never has a token or a token's hash.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[derive(Default)]
#[non_exhaustive]
pub struct Detail {
    /// Random, so that the hash of the part does not give its content away.
    pub blind: String,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<InstallationKey>,
    /// The row, or the id of a key.
    pub row: String,
    /// The version of the row, as hex digits: after a write, the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version that was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// The part of the app that acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why it acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The user who acted in Slack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Detail {
    pub(super) fn of(act: &Act, who: &AuditContext) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            blind: hex(&random::bytes::<32>()),
            tenant: act.tenant.clone(),
            row: act.row.clone(),
            version: act.version.map(|version| format!("{version:?}")),
            replaced: act.replaced.map(|version| format!("{version:?}")),
            actor: text(&who.actor),
            purpose: text(&who.purpose),
            user: who.user.as_ref().map(|user| user.as_str().to_owned()),
            request: text(&who.request),
        }
    }

    pub(super) fn plain(&self) -> Plain {
        let text = serde_json::to_vec(self).expect("plain fields always serialise");
        Plain {
            tenant: self.tenant.clone(),
            text: Zeroizing::new(text),
        }
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// The note of the first record of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct StartNote {
    pub(super) mode: String,
    /// The public key that signs the heads, as hex digits; empty if heads are not signed.
    pub(super) key: String,
    pub(super) epoch: u64,
}

/// The note that names the head of another run, which has not ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RunNote {
    pub(super) run: String,
    pub(super) records: u64,
    pub(super) hash: String,
}

/// The note that another run is removed, because its retention has ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct ExpiredNote {
    #[serde(flatten)]
    pub(super) run: RunNote,
    /// Runs whose last record is this old, in milliseconds since 1970, have no retention left.
    pub(super) before: u64,
}

/// The note that a tenant's key was destroyed. The key's id is random, and names no tenant.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct ErasedNote {
    pub(super) key: String,
}

/// The note of the last record of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct EndNote {
    pub(super) successor: String,
}

/// The note of entries that were lost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct GapNote {
    /// When the first of them happened, in milliseconds since 1970.
    pub(super) since: u64,
}

/// The note that the versions of all rows were recorded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct BaselineNote {
    /// When the first of them was read, in milliseconds since 1970.
    pub(super) since: u64,
    pub(super) rows: u64,
}

/// The note of a signed head is the head.
pub(super) fn head_in(note: &str) -> Option<SignedHead> {
    SignedHead::parse(note).ok()
}

pub(super) const DONE: &str = "done";
pub(super) const FAILED: &str = "failed";

/// The events that the log records about itself. The names never change.
pub(super) const START: &str = "start";
pub(super) const SAW: &str = "saw";
pub(super) const HEAD: &str = "head";
pub(super) const GAP: &str = "gap";
pub(super) const END: &str = "end";
pub(super) const EXPIRED: &str = "expired";
pub(super) const ERASED: &str = "erased";
pub(super) const BASELINE: &str = "baseline";
