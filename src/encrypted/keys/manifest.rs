//! The manifest of a keyring: which data keys exist, and which of them seals.
//!
//! It is sealed under the primary key that it names. Who can write the database, but has no data
//! key, can only replay an earlier manifest. Who also knows a retired key can seal a manifest under
//! that key. Both have a lower [`Rank`] than the current manifest, because the key provider binds
//! the epoch of each key.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::{Metadata, Row, Slot, Version};
use crate::clock::{from_epoch, to_epoch};
use crate::encrypted::names::{App, slot};
use crate::encrypted::record;
use crate::seal::{self, Context, DataKey, KeyId, MANIFEST};

/// The data keys of an app. The first manifest has epoch 1, and each change increments the epoch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Manifest {
    epoch: u64,
    keys: Vec<ListedKey>,
}

/// A data key that a manifest lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::encrypted) struct ListedKey {
    pub(in crate::encrypted) id: KeyId,
    /// The key's place in the order of the app's keys. The provider binds it.
    pub(in crate::encrypted) epoch: u64,
    pub(in crate::encrypted) state: KeyState,
    /// When the key was added. Only of a distributed key.
    pub(in crate::encrypted) added_at: Option<SystemTime>,
    /// When the key became the primary. `None` of a key that an earlier version promoted.
    pub(in crate::encrypted) promoted_at: Option<SystemTime>,
    /// When the key stopped sealing.
    pub(in crate::encrypted) retired_at: Option<SystemTime>,
}

/// What a data key is used for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// Every process unwraps the key, but it seals and opens nothing yet.
    Distributed,
    /// The key seals and opens. Exactly one key is the primary.
    Primary,
    /// The key only opens.
    Retired,
}

/// The order of manifests: first by the epoch of the primary key, then by the manifest's own.
///
/// The provider binds the first epoch. So a retired key cannot seal a manifest of a high rank.
pub(super) type Rank = (u64, u64);

impl Manifest {
    /// Makes the manifest of an app's first data key.
    pub(super) fn first(id: KeyId, now: SystemTime) -> Self {
        Self {
            epoch: 0,
            ..Self::default().with_distributed(id, now).promoted(id, now)
        }
        .unchanged()
    }

    /// Returns the manifest after this new key was added.
    pub(super) fn with_distributed(&self, id: KeyId, now: SystemTime) -> Self {
        let mut keys = self.keys.clone();
        keys.push(ListedKey {
            id,
            epoch: self.next_key_epoch(),
            state: KeyState::Distributed,
            added_at: Some(whole_seconds(now)),
            promoted_at: None,
            retired_at: None,
        });
        self.next(keys)
    }

    /// Returns the manifest after this distributed key has become the primary. All keys of a lower
    /// epoch are retired then.
    pub(super) fn promoted(&self, id: KeyId, now: SystemTime) -> Self {
        let mut keys = self.keys.clone();
        let epoch = self.key(id).map(|key| key.epoch).unwrap_or_default();
        for key in &mut keys {
            if key.id == id {
                key.state = KeyState::Primary;
                key.added_at = None;
                key.promoted_at = Some(whole_seconds(now));
            } else if key.epoch < epoch && key.state != KeyState::Retired {
                key.state = KeyState::Retired;
                key.added_at = None;
                key.retired_at = Some(whole_seconds(now));
            }
        }
        self.next(keys)
    }

    /// Returns the next manifest without this key.
    pub(super) fn without(&self, id: KeyId) -> Self {
        let keys = self.keys.iter().filter(|key| key.id != id);
        self.next(keys.copied().collect())
    }

    /// Returns the next manifest with the same keys, for a change of their rows.
    pub(super) fn unchanged(&self) -> Self {
        self.next(self.keys.clone())
    }

    /// Returns the epoch of the next key: the epoch of the manifest that will list it first. So it
    /// is higher than that of every earlier key, also of one that was destroyed.
    pub(super) fn next_key_epoch(&self) -> u64 {
        let epochs = self.keys.iter().map(|key| key.epoch);
        epochs.fold(self.epoch, u64::max).saturating_add(1)
    }

    fn next(&self, keys: Vec<ListedKey>) -> Self {
        let epoch = self.epoch.saturating_add(1);
        Self { epoch, keys }
    }

    /// Returns the key that seals. Every manifest but the empty one has it.
    pub(super) fn primary(&self) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.state == KeyState::Primary)
    }

    /// Returns when the primary key became the primary. `None` for a first key that an earlier
    /// version made.
    pub(super) fn primary_since(&self) -> Option<SystemTime> {
        let promoted = self.primary().and_then(|key| key.promoted_at);
        let retired = self.keys.iter().filter_map(|key| key.retired_at);
        promoted.or_else(|| retired.max())
    }

    pub(super) fn keys(&self) -> &[ListedKey] {
        &self.keys
    }

    pub(super) fn key(&self, id: KeyId) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Returns the key of this id, if it may open rows. A key that was never the primary has sealed
    /// none.
    pub(super) fn opens(&self, id: KeyId) -> Option<&ListedKey> {
        self.key(id)
            .filter(|key| key.state != KeyState::Distributed)
    }

    pub(super) fn rank(&self) -> Rank {
        (self.primary().map_or(0, |key| key.epoch), self.epoch)
    }

    /// Seals the manifest under the primary key that it names.
    pub(super) fn seal(&self, app: &App, id: KeyId, key: &DataKey) -> Row {
        let stored = Stored {
            epoch: self.epoch,
            keys: self.keys.iter().map(StoredKey::of).collect(),
        };
        let plaintext = Zeroizing::new(
            serde_json::to_vec(&stored).expect("numbers and names always serialise"),
        );
        let version = Version::mint();
        let metadata = Metadata::new(record::metadata(KIND, &NoFacts {}));
        let partition = app.keyring();
        let context = context(app, partition.as_str(), &version, &metadata);
        Row {
            sealed: seal::seal(MANIFEST, id, key, &context, &plaintext),
            version,
            metadata,
            due: None,
        }
    }

    /// Opens the manifest in this row. `id` and `epoch` are those of the key. Returns `None` if
    /// the manifest was changed, or is not of the primary key that it names.
    pub(super) fn open(
        app: &App,
        row: &Row,
        (id, epoch): (KeyId, u64),
        key: &DataKey,
    ) -> Option<Self> {
        record::kind_of(row.metadata.as_str()).filter(|kind| *kind == KIND)?;
        let partition = app.keyring();
        let context = context(app, partition.as_str(), &row.version, &row.metadata);
        let plaintext = seal::open(MANIFEST, key, &context, row.sealed.as_bytes()).ok()?;
        let stored: Stored = serde_json::from_slice(&plaintext).ok()?;
        let keys: Option<Vec<_>> = stored.keys.into_iter().map(StoredKey::key).collect();
        let manifest = Self {
            epoch: stored.epoch,
            keys: keys?,
        };
        let is_due = row.due.is_some();
        (!is_due && manifest.is_sound(id, epoch)).then_some(manifest)
    }

    /// Returns whether this key is the only primary, every id is listed once, and only a key that
    /// was never the primary has a higher epoch.
    fn is_sound(&self, id: KeyId, epoch: u64) -> bool {
        let is_fit = |(at, key): (usize, &ListedKey)| {
            let is_first = self.keys.iter().position(|it| it.id == key.id) == Some(at);
            is_first
                && match key.state {
                    KeyState::Primary => (key.id, key.epoch) == (id, epoch),
                    KeyState::Distributed => key.epoch > epoch,
                    KeyState::Retired => key.epoch < epoch,
                }
        };
        self.primary().is_some() && self.keys.iter().enumerate().all(is_fit)
    }
}

/// The slot of the manifest.
pub(in crate::encrypted) fn manifest_slot() -> Slot {
    slot(KIND)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    from_epoch(to_epoch(time))
}

fn context<'a>(
    app: &'a App,
    partition: &'a str,
    version: &'a Version,
    metadata: &'a Metadata,
) -> Context<'a> {
    Context {
        app: app.as_str(),
        partition,
        slot: KIND,
        kind: KIND,
        version: version.as_bytes(),
        due: None,
        metadata: metadata.as_str(),
    }
}

#[derive(Serialize)]
struct NoFacts {}

#[derive(Deserialize, Serialize)]
struct Stored {
    epoch: u64,
    keys: Vec<StoredKey>,
}

#[derive(Deserialize, Serialize)]
struct StoredKey {
    id: String,
    epoch: u64,
    state: KeyState,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promoted_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<u64>,
}

impl StoredKey {
    fn of(key: &ListedKey) -> Self {
        Self {
            id: key.id.to_string(),
            epoch: key.epoch,
            state: key.state,
            added_at: key.added_at.map(to_epoch),
            promoted_at: key.promoted_at.map(to_epoch),
            retired_at: key.retired_at.map(to_epoch),
        }
    }

    fn key(self) -> Option<ListedKey> {
        Some(ListedKey {
            id: KeyId::parse(&self.id)?,
            epoch: self.epoch,
            state: self.state,
            added_at: self.added_at.map(from_epoch),
            promoted_at: self.promoted_at.map(from_epoch),
            retired_at: self.retired_at.map(from_epoch),
        })
    }
}

/// The slot and the kind of the manifest.
const KIND: &str = "manifest";
