//! The bytes of one ciphertext. `docs/envelope.md` describes the same for other implementers.
//!
//! ```text
//!  0   4  magic      "SLI1"
//!  4  16  key id     which data key
//! 20  32  salt       random; one key per ciphertext is derived from it
//! 52  32  commitment HMAC-SHA256(commitment key, header hash)
//! 84   n  AES-256-GCM ciphertext, then its 16-byte tag
//! ```
//!
//! The derived AES key is used once, so the nonce can be derived too, and no limit on the number
//! of messages applies. The commitment is checked before decryption, so that no ciphertext opens
//! under two keys or in two contexts.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{self, SHA256, digest};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use super::keyring::{DataKey, KeyId};
use super::{Sealed, Undecryptable};
use crate::random;

/// A data key's length in bytes.
pub(crate) const DATA_KEY_LEN: usize = 32;

/// What a ciphertext is used for; keeps records and wrapped keys from standing in for each other.
pub(crate) const RECORD: &[u8] = b"slack-installs record v1";

/// Everything that a record's ciphertext is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) app: &'a str,
    pub(crate) partition: &'a str,
    pub(crate) slot: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) version: &'a [u8; 16],
    /// The name of what the row waits for, and the time, in seconds since 1970.
    pub(crate) due: Option<(&'a str, u64)>,
    pub(crate) metadata: &'a str,
}

impl Context<'_> {
    /// The context as bytes. Every field carries its length, so no two contexts are alike.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let due_at = self.due.map(|(_, at)| at.to_be_bytes());
        let lane = self.due.map_or("", |(lane, _)| lane);
        let metadata = digest(&SHA256, self.metadata.as_bytes());
        let fields: [&[u8]; 8] = [
            self.app.as_bytes(),
            self.partition.as_bytes(),
            self.slot.as_bytes(),
            self.kind.as_bytes(),
            self.version,
            due_at.as_ref().map_or(&[], |due_at| due_at.as_slice()),
            lane.as_bytes(),
            metadata.as_ref(),
        ];
        let mut bytes = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
        for field in fields {
            bytes.extend_from_slice(&length(field));
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

/// Encrypts `plaintext` for this purpose and context.
pub(crate) fn seal(
    purpose: &[u8],
    key_id: KeyId,
    key: &DataKey,
    context: &[u8],
    plaintext: &[u8],
) -> Sealed {
    seal_with_salt(purpose, key_id, key, context, plaintext, &random::bytes())
}

/// Decrypts what [`seal`] made, for the same purpose and context.
pub(crate) fn open(
    purpose: &[u8],
    key: &DataKey,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
    let (prefix, rest) = sealed.split_at_checked(SALT_END).ok_or(Undecryptable)?;
    let (commitment, ciphertext) = rest.split_at_checked(COMMITMENT_LEN).ok_or(Undecryptable)?;
    let derived = Derived::new(purpose, key, context, prefix);
    hmac::verify(&derived.commitment_key, &derived.header_hash, commitment)
        .map_err(|_| Undecryptable)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let len = derived
        .aead
        .open_in_place(derived.nonce(), Aad::from(derived.header_hash), &mut buffer)
        .map_err(|_| Undecryptable)?
        .len();
    buffer.truncate(len);
    Ok(buffer)
}

/// The id of the data key that a ciphertext names.
pub(super) fn key_id(sealed: &[u8]) -> Option<KeyId> {
    let id = sealed.get(MAGIC.len()..KEY_ID_END)?;
    Some(KeyId::from_bytes(id.try_into().ok()?))
}

/// Whether these bytes have the form of an envelope, wrapped keys included.
pub(super) fn is_envelope(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_LEN && (bytes.starts_with(MAGIC) || bytes.starts_with(WRAPPED_KEY_MAGIC))
}

/// Wraps a key provider's answer, so that it can stand where a record stands.
pub(super) fn wrapped_key(wrapped: &[u8]) -> Sealed {
    let mut bytes = [WRAPPED_KEY_MAGIC, &length(wrapped)[..], wrapped].concat();
    // A provider's answer may be short; `is_envelope` asks for a minimum.
    bytes.resize(bytes.len().max(MIN_LEN), 0);
    Sealed(bytes)
}

/// The key provider's answer that [`wrapped_key`] took.
pub(super) fn unwrapped(sealed: &[u8]) -> Option<&[u8]> {
    let (len, rest) = sealed
        .strip_prefix(WRAPPED_KEY_MAGIC)?
        .split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

const MAGIC: &[u8; 4] = b"SLI1";
const WRAPPED_KEY_MAGIC: &[u8; 4] = b"SLK1";
const KEY_ID_END: usize = MAGIC.len() + 16;
const SALT_LEN: usize = 32;
const SALT_END: usize = KEY_ID_END + SALT_LEN;
const COMMITMENT_LEN: usize = 32;
const TAG_LEN: usize = 16;
const MIN_LEN: usize = SALT_END + COMMITMENT_LEN + TAG_LEN;

pub(super) fn seal_with_salt(
    purpose: &[u8],
    key_id: KeyId,
    key: &DataKey,
    context: &[u8],
    plaintext: &[u8],
    salt: &[u8; SALT_LEN],
) -> Sealed {
    let mut bytes = Vec::with_capacity(MIN_LEN + plaintext.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key_id.as_bytes());
    bytes.extend_from_slice(salt);
    let derived = Derived::new(purpose, key, context, &bytes);
    let commitment = hmac::sign(&derived.commitment_key, &derived.header_hash);
    let mut buffer = Zeroizing::new(plaintext.to_vec());
    let tag = derived
        .aead
        .seal_in_place_separate_tag(derived.nonce(), Aad::from(derived.header_hash), &mut buffer)
        .expect("a record is far below the length limit of AES-GCM, 64 GiB");
    bytes.extend_from_slice(commitment.as_ref());
    bytes.extend_from_slice(&buffer);
    bytes.extend_from_slice(tag.as_ref());
    Sealed(bytes)
}

/// What one ciphertext is encrypted with.
struct Derived {
    aead: LessSafeKey,
    nonce: [u8; NONCE_LEN],
    commitment_key: hmac::Key,
    header_hash: [u8; 32],
}

impl Derived {
    /// `prefix` is the envelope up to and including the salt.
    fn new(purpose: &[u8], key: &DataKey, context: &[u8], prefix: &[u8]) -> Self {
        let mut bound = digest::Context::new(&SHA256);
        for part in [purpose, prefix, context] {
            bound.update(&length(part));
            bound.update(part);
        }
        let header_hash: [u8; 32] = bound
            .finish()
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes");
        let salt = prefix
            .get(KEY_ID_END..)
            .expect("the caller passes the salt");
        let info: [&[u8]; 2] = [purpose, &header_hash];
        let mut okm = Zeroizing::new([0; OKM_LEN]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(key.expose())
            .expand(&info, Okm)
            .and_then(|okm_source| okm_source.fill(&mut *okm))
            .expect("76 bytes are within HKDF-SHA256's limit of 8160");
        let (aead_key, rest) = okm.split_at(DATA_KEY_LEN);
        let (nonce, commitment_key) = rest.split_at(NONCE_LEN);
        Self {
            aead: LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, aead_key).expect("AES-256 takes 32 bytes"),
            ),
            nonce: nonce.try_into().expect("split at the nonce's length"),
            commitment_key: hmac::Key::new(hmac::HMAC_SHA256, commitment_key),
            header_hash,
        }
    }

    fn nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce)
    }
}

/// AES key, nonce, commitment key.
const OKM_LEN: usize = DATA_KEY_LEN + NONCE_LEN + 32;

/// Tells ring how many bytes to expand.
struct Okm;

impl hkdf::KeyType for Okm {
    fn len(&self) -> usize {
        OKM_LEN
    }
}

/// The field's length as four big-endian bytes, which stand before it.
fn length(field: &[u8]) -> [u8; 4] {
    let length = u32::try_from(field.len()).expect("fields are far below 4 GiB");
    length.to_be_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const VERSION: [u8; 16] = [7; 16];

    fn context() -> Context<'static> {
        Context {
            app: "1111.2222",
            partition: "1111.2222/T0001",
            slot: "bot",
            kind: "bot",
            version: &VERSION,
            due: Some(("refresh", 1_790_000_000)),
            metadata: r#"{"v":1}"#,
        }
    }

    fn key() -> DataKey {
        DataKey::from_bytes(std::array::from_fn(|i| i as u8))
    }

    fn key_id() -> KeyId {
        KeyId::from_bytes(std::array::from_fn(|i| 0xa0 + i as u8))
    }

    fn sealed(context: &Context<'_>, plaintext: &[u8]) -> Sealed {
        seal_with_salt(
            RECORD,
            key_id(),
            &key(),
            &context.bytes(),
            plaintext,
            &[0x42; 32],
        )
    }

    #[test]
    fn golden_vectors_stay_as_they_were_committed() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("golden.json")).expect("golden.json is JSON");
        for vector in golden["vectors"].as_array().expect("vectors") {
            let text = |name: &str| vector[name].as_str().expect("text").to_owned();
            let bytes = |name: &str| hex(&text(name));
            let version: [u8; 16] = bytes("version").try_into().expect("16 bytes");
            let (app, partition, slot, kind, metadata, lane) = (
                text("app"),
                text("partition"),
                text("slot"),
                text("kind"),
                text("metadata"),
                vector["lane"].as_str().unwrap_or_default(),
            );
            let context = Context {
                app: &app,
                partition: &partition,
                slot: &slot,
                kind: &kind,
                version: &version,
                due: vector["due_at"].as_u64().map(|at| (lane, at)),
                metadata: &metadata,
            };
            let key = DataKey::from_bytes(bytes("data_key").try_into().expect("32 bytes"));
            let key_id = KeyId::from_bytes(bytes("key_id").try_into().expect("16 bytes"));
            let salt = bytes("salt").try_into().expect("32 bytes");
            let plaintext = bytes("plaintext");
            let sealed = seal_with_salt(RECORD, key_id, &key, &context.bytes(), &plaintext, &salt);
            assert_eq!(sealed.as_bytes(), bytes("sealed"), "{}", text("name"));
            let opened = open(RECORD, &key, &context.bytes(), sealed.as_bytes());
            assert_eq!(*opened.expect("opens"), plaintext);
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let sealed = sealed(&context(), b"xoxb-canary");
        let bytes = sealed.as_bytes();
        let refused = |bytes: &[u8]| {
            assert_eq!(
                open(RECORD, &key(), &context().bytes(), bytes),
                Err(Undecryptable)
            );
        };
        for bit in 0..bytes.len() * 8 {
            // The magic is checked by `Sealed::from_stored`, and is hashed like the rest.
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&changed);
        }
        for len in 0..bytes.len() {
            refused(&bytes[..len]);
        }
        refused(&[bytes, &[0]].concat());
    }

    #[test]
    fn a_ciphertext_opens_in_its_own_context_only() {
        let base = context();
        let contexts = [
            base,
            Context {
                app: "1111.2223",
                ..base
            },
            Context {
                partition: "1111.2222/T0002",
                ..base
            },
            Context {
                slot: "user/U1",
                ..base
            },
            Context {
                kind: "user",
                ..base
            },
            Context {
                version: &[8; 16],
                ..base
            },
            Context { due: None, ..base },
            Context {
                due: Some(("refresh", 1_790_000_001)),
                ..base
            },
            Context {
                due: Some(("state", 1_790_000_000)),
                ..base
            },
            Context {
                metadata: r#"{"v":2}"#,
                ..base
            },
        ];
        for (i, one) in contexts.iter().enumerate() {
            let sealed = sealed(one, b"token");
            for (j, other) in contexts.iter().enumerate() {
                let opened = open(RECORD, &key(), &other.bytes(), sealed.as_bytes());
                assert_eq!(
                    opened.is_ok(),
                    i == j,
                    "sealed for {one:?}, opened for {other:?}"
                );
            }
        }
    }

    #[test]
    fn a_ciphertext_opens_under_its_own_key_and_purpose_only() {
        let sealed = sealed(&context(), b"token");
        let other = DataKey::from_bytes([9; 32]);
        assert!(open(RECORD, &other, &context().bytes(), sealed.as_bytes()).is_err());
        assert!(open(b"other", &key(), &context().bytes(), sealed.as_bytes()).is_err());
    }

    #[test]
    fn equal_plaintexts_give_unlike_ciphertexts() {
        let context = context().bytes();
        let ciphertexts: HashSet<_> = (0..100)
            .map(|_| seal(RECORD, key_id(), &key(), &context, b"token").as_bytes()[20..].to_vec())
            .collect();
        assert_eq!(ciphertexts.len(), 100);
    }

    proptest! {
        #[test]
        fn no_two_contexts_have_the_same_bytes(
            one in proptest::array::uniform4("[a/|:\\x00-\\x02]{0,6}"),
            other in proptest::array::uniform4("[a/|:\\x00-\\x02]{0,6}"),
        ) {
            fn of(fields: &[String; 4]) -> Vec<u8> {
                let [app, partition, slot, kind] = fields;
                Context { app, partition, slot, kind, ..context() }.bytes()
            }
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }

        #[test]
        fn no_bytes_make_open_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(RECORD, &key(), b"", &bytes).is_err());
            let _ = super::key_id(&bytes);
            let _ = Sealed::from_stored(bytes);
        }
    }

    pub(in crate::seal) fn hex(text: &str) -> Vec<u8> {
        let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }
}
