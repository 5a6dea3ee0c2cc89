//! What a person can do who writes the database and knows one data key.
//!
//! Implements `docs/envelope.md` again, so that the attacker needs nothing of the crate.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use slack_installs::backend::{Metadata, Row, Sealed, Version};
use slack_installs::{KeyContext, KeyId, KeyProvider as _, LocalKeyProvider};

use super::Db;
use super::providers::master_key;

/// A data key that the attacker has learned.
pub(crate) struct KnownKey {
    pub(crate) id: KeyId,
    bytes: [u8; 32],
}

impl KnownKey {
    /// Takes the data key in this row of the keyring.
    pub(crate) async fn learned(db: &Db, row: &Row) -> Self {
        let facts: serde_json::Value =
            serde_json::from_str(row.metadata.as_str()).expect("it is JSON");
        let context = KeyContext {
            app: db.app.as_str(),
            key_id: key_id(facts["key"].as_str().expect("an id")),
            epoch: facts["epoch"].as_u64().expect("an epoch"),
        };
        let wrapped = &row.sealed.as_bytes()[4..];
        let provider = LocalKeyProvider::new(master_key());
        let key = provider.unwrap(wrapped, &context).await.expect("unwraps");
        Self {
            id: context.key_id,
            bytes: *key.expose(),
        }
    }

    /// Makes the row of a manifest with this content.
    pub(crate) fn manifest(&self, db: &Db, content: &serde_json::Value) -> Row {
        let version = Version::mint();
        let metadata = r#"{"v":1,"kind":"manifest"}"#;
        let app = db.app.as_str();
        let partition = format!("{app}/keyring");
        let info = fields(&[
            b"slack-installs manifest v1",
            self.id.as_bytes(),
            app.as_bytes(),
            partition.as_bytes(),
        ]);
        let mut okm = [0; 96];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"slack-installs envelope v1")
            .extract(&self.bytes)
            .expand(&[&info], Length)
            .and_then(|derived| derived.fill(&mut okm))
            .expect("96 bytes");
        let header = [b"SLE1", self.id.as_bytes().as_slice(), &okm[32..64]].concat();
        let context = fields(&[
            app.as_bytes(),
            partition.as_bytes(),
            b"manifest",
            b"manifest",
            version.as_bytes(),
            b"",
            b"",
            metadata.as_bytes(),
        ]);
        let aad = [header.as_slice(), &context].concat();
        let mut ciphertext = content.to_string().into_bytes();
        let nonce = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &okm[64..]), &aad);
        let nonce: [u8; 12] = nonce.as_ref()[..12].try_into().expect("12 bytes");
        let key = UnboundKey::new(&AES_256_GCM, &okm[..32]).expect("32 bytes");
        LessSafeKey::new(key)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut ciphertext,
            )
            .expect("it is short");
        Row {
            version,
            metadata: Metadata::new(metadata),
            sealed: Sealed::from_stored([header.as_slice(), &nonce, &ciphertext].concat()),
            due: None,
        }
    }
}

/// Parses an id from 32 hex digits.
pub(crate) fn key_id(hex: &str) -> KeyId {
    let id = u128::from_str_radix(hex, 16).expect("hex digits");
    KeyId::from_bytes(id.to_be_bytes())
}

fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let length = |field: &[u8]| u32::try_from(field.len()).expect("short").to_be_bytes();
    let fields = fields.iter().map(|field| [&length(field), *field].concat());
    fields.collect::<Vec<_>>().concat()
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        96
    }
}
