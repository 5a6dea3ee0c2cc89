//! The bytes of one ciphertext. `docs/envelope.md` describes them for other implementers.
//!
//! ```text
//!  0   4  magic      "SLE1"
//!  4  16  key id     which data key
//! 20  32  commitment to the data key, the purpose, the app and the partition
//! 52  12  nonce      HMAC of random bytes, the context and the plaintext
//! 64   n  AES-256-GCM ciphertext, then its 16-byte tag
//! ```
//!
//! The keys are derived per partition, so opening a row hashes only a few blocks. The commitment
//! is compared before decryption, so no ciphertext opens under two data keys. The rest of the
//! context is associated data: AES-GCM authenticates it with the ciphertext.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::derived::{COMMITMENT_LEN, Opening};
use super::key::{DATA_KEY_LEN, DataKey, KeyId};
use super::{Sealed, Undecryptable};
use crate::random;

/// The purpose of a record's ciphertext. No record opens as a wrapped key, and no wrapped key opens
/// as a record.
pub(crate) const RECORD: &[u8] = b"slack-installs record v1";

/// The purpose of the ciphertext of a keyring's manifest.
pub(crate) const MANIFEST: &[u8] = b"slack-installs manifest v1";

/// The context that a ciphertext is bound to. A field that a purpose does not use is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) app: &'a str,
    pub(crate) partition: &'a str,
    pub(crate) slot: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) version: &'a [u8],
    /// The lane's name, and the due time in seconds since 1970.
    pub(crate) due: Option<(&'a str, u64)>,
    pub(crate) metadata: &'a str,
}

/// Encrypts `plaintext` for this purpose and context.
pub(crate) fn seal(
    purpose: &[u8],
    key_id: KeyId,
    key: &DataKey,
    context: &Context<'_>,
    plaintext: &[u8],
) -> Sealed {
    seal_with_random(purpose, key_id, key, context, plaintext, &random::bytes())
}

/// Decrypts a ciphertext of [`seal`] for the same purpose and context.
pub(crate) fn open(
    purpose: &[u8],
    key: &DataKey,
    context: &Context<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
    let parts = Parts::of(sealed).ok_or(Undecryptable)?;
    let info = info(purpose, parts.key_id, context);
    let opening = key.openings().get(&info, || opening(key, &info));
    if !bool::from(opening.commitment.ct_eq(parts.commitment)) {
        return Err(Undecryptable);
    }
    let aad = associated_data(parts.header, context);
    let mut buffer = Zeroizing::new(parts.ciphertext.to_vec());
    let len = opening
        .aead
        .open_in_place(nonce(parts.nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| Undecryptable)?
        .len();
    buffer.truncate(len);
    Ok(buffer)
}

/// Returns the id of the data key that a ciphertext names.
pub(super) fn key_id(sealed: &[u8]) -> Option<KeyId> {
    Some(Parts::of(sealed)?.key_id)
}

/// Returns whether the bytes have the form of an envelope or of a framed wrapped key.
pub(super) fn is_envelope(bytes: &[u8]) -> bool {
    Parts::of(bytes).is_some() || unwrapped(bytes).is_some()
}

/// Frames a key provider's wrapped key, so that it can be stored like a ciphertext.
pub(super) fn wrapped_key(wrapped: &[u8]) -> Sealed {
    Sealed([WRAPPED_KEY_MAGIC, wrapped].concat())
}

/// Returns the key provider's wrapped key that [`wrapped_key`] framed.
pub(super) fn unwrapped(sealed: &[u8]) -> Option<&[u8]> {
    sealed.strip_prefix(WRAPPED_KEY_MAGIC)
}

const MAGIC: &[u8; 4] = b"SLE1";
const WRAPPED_KEY_MAGIC: &[u8; 4] = b"SLK1";
const NONCE_KEY_LEN: usize = 32;
const RANDOM_LEN: usize = 32;

/// The length of the AES key and the commitment, which opening uses.
const OPENING_LEN: usize = DATA_KEY_LEN + COMMITMENT_LEN;
/// The length of those two and the nonce key, which sealing uses.
const SEALING_LEN: usize = OPENING_LEN + NONCE_KEY_LEN;

/// Encrypts like [`seal`], with the given random bytes.
///
/// With equal `random`, only equal input gives equal envelopes, and two different inputs never use
/// the same nonce. So a random source that is stuck reveals only which inputs are equal.
pub(super) fn seal_with_random(
    purpose: &[u8],
    key_id: KeyId,
    key: &DataKey,
    context: &Context<'_>,
    plaintext: &[u8],
    random: &[u8; RANDOM_LEN],
) -> Sealed {
    let mut keys = Zeroizing::new([0; SEALING_LEN]);
    derive(key, &info(purpose, key_id, context), &mut *keys);
    let (aes_key, rest) = keys.split_at(DATA_KEY_LEN);
    let (commitment, nonce_key) = rest.split_at(COMMITMENT_LEN);
    let header = [MAGIC, key_id.as_bytes().as_slice(), commitment].concat();
    let aad = associated_data(&header, context);
    let nonce = derived_nonce(nonce_key, random, &aad, plaintext);
    encrypt(aes_key, &header, &nonce, &aad, plaintext)
}

/// Makes the envelope of this header and nonce.
fn encrypt(
    aes_key: &[u8],
    header: &[u8],
    nonce_bytes: &[u8; NONCE_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> Sealed {
    let len = header.len() + NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len();
    // Allocate the whole length at once: a vector that grows leaves copies of the plaintext.
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(nonce_bytes);
    let begin = bytes.len();
    bytes.extend_from_slice(plaintext);
    let tag = aes_gcm(aes_key)
        .seal_in_place_separate_tag(nonce(nonce_bytes), Aad::from(aad), &mut bytes[begin..])
        .expect("a record is far below the length limit of AES-GCM, 64 GiB");
    bytes.extend_from_slice(tag.as_ref());
    Sealed(bytes)
}

/// An envelope's fields.
struct Parts<'a> {
    /// Everything before the nonce.
    header: &'a [u8],
    key_id: KeyId,
    commitment: &'a [u8],
    nonce: &'a [u8; NONCE_LEN],
    /// The ciphertext with its tag.
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Option<Self> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (key_id, rest) = rest.split_first_chunk()?;
        let (commitment, rest) = rest.split_at_checked(COMMITMENT_LEN)?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        (ciphertext.len() >= AES_256_GCM.tag_len()).then_some(Self {
            header: sealed.get(..sealed.len() - rest.len())?,
            key_id: KeyId::from_bytes(*key_id),
            commitment,
            nonce,
            ciphertext,
        })
    }
}

/// Returns HKDF's `info` for the keys of a purpose, data key, app and partition.
fn info(purpose: &[u8], key_id: KeyId, context: &Context<'_>) -> Vec<u8> {
    let (app, partition) = (context.app.as_bytes(), context.partition.as_bytes());
    with_lengths(&[], &[purpose, key_id.as_bytes(), app, partition])
}

fn opening(key: &DataKey, info: &[u8]) -> Opening {
    let mut keys = Zeroizing::new([0; OPENING_LEN]);
    derive(key, info, &mut *keys);
    let (aes_key, commitment) = keys.split_at(DATA_KEY_LEN);
    Opening {
        aead: aes_gcm(aes_key),
        commitment: commitment.try_into().expect("the rest is the commitment"),
    }
}

/// Fills `keys` with the AES key, the commitment and, if there is room for it, the nonce key.
fn derive(key: &DataKey, info: &[u8], keys: &mut [u8]) {
    key.pseudorandom_key()
        .expand(&[info], Length(keys.len()))
        .and_then(|okm| okm.fill(keys))
        .expect("96 bytes are within HKDF-SHA256's limit of 8160");
}

/// The number of bytes that ring expands.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Returns the header and the whole context, which AES-GCM authenticates.
fn associated_data(header: &[u8], context: &Context<'_>) -> Vec<u8> {
    let (lane, due_at) = context.due.unzip();
    let due_at = due_at.map(u64::to_be_bytes);
    let fields: [&[u8]; 8] = [
        context.app.as_bytes(),
        context.partition.as_bytes(),
        context.slot.as_bytes(),
        context.kind.as_bytes(),
        context.version,
        lane.unwrap_or_default().as_bytes(),
        due_at.as_ref().map_or(&[], |due_at| due_at.as_slice()),
        context.metadata.as_bytes(),
    ];
    with_lengths(header, &fields)
}

/// Derives a nonce from exactly this data. It is unpredictable if `random` is.
fn derived_nonce(
    nonce_key: &[u8],
    random: &[u8; RANDOM_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> [u8; NONCE_LEN] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, nonce_key);
    let mut mac = hmac::Context::with_key(&key);
    for field in [random, aad, plaintext] {
        mac.update(&length(field));
        mac.update(field);
    }
    let mac = mac.sign();
    *mac.as_ref()
        .first_chunk()
        .expect("SHA-256 has 32 bytes, a nonce 12")
}

fn aes_gcm(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

fn nonce(bytes: &[u8; NONCE_LEN]) -> Nonce {
    Nonce::assume_unique_for_key(*bytes)
}

/// Returns `head`, and then each field after its length. So two different lists of fields never
/// give the same bytes.
fn with_lengths(head: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let len: usize = fields.iter().map(|field| 4 + field.len()).sum();
    let mut bytes = Vec::with_capacity(head.len() + len);
    bytes.extend_from_slice(head);
    for field in fields {
        bytes.extend_from_slice(&length(field));
        bytes.extend_from_slice(field);
    }
    bytes
}

/// Returns the field's length as four big-endian bytes, which precede the field.
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
    const RANDOM: [u8; RANDOM_LEN] = [0x42; RANDOM_LEN];

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

    /// Returns the context above, and others that differ from it in one field each.
    fn contexts() -> Vec<Context<'static>> {
        let base = context();
        vec![
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
                due: Some(("departure", 1_790_000_000)),
                ..base
            },
            Context {
                metadata: r#"{"v":2}"#,
                ..base
            },
        ]
    }

    fn key() -> DataKey {
        DataKey::from_bytes(std::array::from_fn(|i| i as u8))
    }

    fn key_id() -> KeyId {
        KeyId::from_bytes(std::array::from_fn(|i| 0xa0 + i as u8))
    }

    fn sealed(context: &Context<'_>, plaintext: &[u8]) -> Sealed {
        seal_with_random(RECORD, key_id(), &key(), context, plaintext, &RANDOM)
    }

    #[test]
    fn golden_vectors_stay_as_they_were_committed() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("golden.json")).expect("golden.json is JSON");
        for vector in golden["vectors"].as_array().expect("vectors") {
            let text = |name: &str| vector[name].as_str().expect("text");
            let bytes = |name: &str| hex(text(name));
            let due = vector["due"].as_object().map(|due| {
                let lane = due["lane"].as_str().expect("text");
                (lane, due["at"].as_u64().expect("seconds"))
            });
            let context = Context {
                app: text("app"),
                partition: text("partition"),
                slot: text("slot"),
                kind: text("kind"),
                version: &bytes("version"),
                due,
                metadata: text("metadata"),
            };
            let key = DataKey::from_bytes(bytes("data_key").try_into().expect("32 bytes"));
            let key_id = KeyId::from_bytes(bytes("key_id").try_into().expect("16 bytes"));
            let random = bytes("random").try_into().expect("32 bytes");
            let plaintext = bytes("plaintext");
            let sealed = seal_with_random(RECORD, key_id, &key, &context, &plaintext, &random);
            assert_eq!(sealed.as_bytes(), bytes("sealed"), "{}", text("name"));
            let opened = open(RECORD, &key, &context, sealed.as_bytes());
            assert_eq!(*opened.expect("opens"), plaintext);
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let sealed = sealed(&context(), b"xoxb-canary");
        let bytes = sealed.as_bytes();
        let refused = |bytes: &[u8]| {
            assert_eq!(
                open(RECORD, &key(), &context(), bytes),
                Err(Undecryptable),
                "{bytes:02x?}"
            );
        };
        for bit in 0..bytes.len() * 8 {
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
    fn bytes_that_are_no_envelope_are_not_kept() {
        let whole = sealed(&context(), b"");
        assert_eq!(Sealed::from_stored(whole.as_bytes()), whole);
        for len in 0..whole.as_bytes().len() {
            let cut = Sealed::from_stored(&whole.as_bytes()[..len]);
            assert!(cut.as_bytes().is_empty(), "{len} bytes");
        }
        assert!(Sealed::from_stored([b'x'; 200]).as_bytes().is_empty());
    }

    #[test]
    fn a_ciphertext_opens_in_its_own_context_only() {
        for (i, one) in contexts().iter().enumerate() {
            let sealed = sealed(one, b"token");
            for (j, other) in contexts().iter().enumerate() {
                let opened = open(RECORD, &key(), other, sealed.as_bytes());
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
        assert!(open(RECORD, &key(), &context(), sealed.as_bytes()).is_ok());
        assert!(open(RECORD, &other, &context(), sealed.as_bytes()).is_err());
        assert!(open(b"other", &key(), &context(), sealed.as_bytes()).is_err());
    }

    #[test]
    fn each_purpose_key_id_app_and_partition_has_keys_of_its_own() {
        fn derived(purpose: &[u8], id: KeyId, context: &Context<'_>) -> [u8; SEALING_LEN] {
            let mut keys = [0; SEALING_LEN];
            derive(&key(), &info(purpose, id, context), &mut keys);
            keys
        }
        let [base, app, partition, same @ ..] = &contexts()[..] else {
            panic!("there are at least three contexts");
        };
        let own = derived(RECORD, key_id(), base);
        let others = [
            derived(b"other", key_id(), base),
            derived(RECORD, KeyId::from_bytes([1; 16]), base),
            derived(RECORD, key_id(), app),
            derived(RECORD, key_id(), partition),
        ];
        let parts = |keys: &[u8; SEALING_LEN]| keys.chunks(32).map(<[u8]>::to_vec).collect();
        let parts: Vec<Vec<Vec<u8>>> = others.iter().chain([&own]).map(parts).collect();
        let parts: HashSet<_> = parts.concat().into_iter().collect();
        assert_eq!(parts.len(), 5 * 3);
        for context in same {
            assert_eq!(derived(RECORD, key_id(), context), own, "{context:?}");
        }
    }

    /// AES-GCM alone lets a person who knows two keys make one ciphertext that opens under both.
    #[test]
    fn a_ciphertext_that_is_right_under_a_key_opens_only_behind_that_keys_commitment() {
        let keys = [key(), DataKey::from_bytes([9; 32])];
        let derived = keys.each_ref().map(|key| {
            let mut derived = [0; OPENING_LEN];
            let info = info(RECORD, key_id(), &context());
            derive(key, &info, &mut derived);
            derived
        });
        for (encrypted, committed, opener) in
            (0..8).map(|bits| (bits & 1, bits >> 1 & 1, bits >> 2))
        {
            let commitment = &derived[committed][DATA_KEY_LEN..];
            let header = [MAGIC, key_id().as_bytes().as_slice(), commitment].concat();
            let aad = associated_data(&header, &context());
            let aes_key = &derived[encrypted][..DATA_KEY_LEN];
            let planted = encrypt(aes_key, &header, &[3; NONCE_LEN], &aad, b"token");
            let opened = open(RECORD, &keys[opener], &context(), planted.as_bytes());
            assert_eq!(
                opened.is_ok(),
                encrypted == opener && committed == opener,
                "encrypted under {encrypted}, committed to {committed}, opened with {opener}"
            );
        }
    }

    #[test]
    fn equal_plaintexts_give_unlike_ciphertexts() {
        let bytes = || seal(RECORD, key_id(), &key(), &context(), b"token").0;
        let nonces: HashSet<_> = (0..100).map(|_| bytes()[NONCE].to_vec()).collect();
        assert_eq!(nonces.len(), 100);
    }

    #[test]
    fn a_stuck_random_source_never_reuses_a_key_and_nonce_for_different_data() {
        let mut used = HashSet::new();
        let mut sealed_as = Vec::new();
        for context in contexts() {
            for plaintext in [b"".as_slice(), b"token", b"tokem", b"token\0"] {
                let sealed = sealed(&context, plaintext);
                used.insert(sealed.as_bytes()[NONCE].to_vec());
                // The same data gives the same bytes. That reveals only that the data is the same.
                assert_eq!(sealed, self::sealed(&context, plaintext));
                sealed_as.push(sealed);
            }
        }
        assert_eq!(used.len(), sealed_as.len());
    }

    /// The position of the nonce in an envelope.
    const NONCE: std::ops::Range<usize> = 52..64;

    proptest! {
        #[test]
        fn no_two_contexts_have_the_same_bytes(
            one in proptest::array::uniform4("[a/|:\\x00-\\x02]{0,6}"),
            other in proptest::array::uniform4("[a/|:\\x00-\\x02]{0,6}"),
        ) {
            fn of(fields: &[String; 4]) -> Vec<u8> {
                let [slot, kind, lane, metadata] = fields;
                let due = Some((lane.as_str(), 0));
                associated_data(&[], &Context { slot, kind, due, metadata, ..context() })
            }
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }

        #[test]
        fn no_bytes_make_open_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for magic in [b"".as_slice(), MAGIC, WRAPPED_KEY_MAGIC] {
                let bytes = [magic, &bytes].concat();
                prop_assert!(open(RECORD, &key(), &context(), &bytes).is_err());
                let _ = super::key_id(&bytes);
                let _ = Sealed::from_stored(bytes);
            }
        }

        #[test]
        fn with_equal_random_bytes_nonces_are_equal_for_equal_data_only(
            one in ("[ab]{0,2}", "[ab]{0,2}"),
            other in ("[ab]{0,2}", "[ab]{0,2}"),
        ) {
            let nonce = |(metadata, plaintext): &(String, String)| {
                let context = Context { metadata, ..context() };
                sealed(&context, plaintext.as_bytes()).0[NONCE].to_vec()
            };
            prop_assert_eq!(nonce(&one) == nonce(&other), one == other);
        }

        #[test]
        fn what_is_sealed_opens_again(
            plaintext in proptest::collection::vec(any::<u8>(), 0..300),
            random in any::<[u8; 32]>(),
        ) {
            let (key, context) = (key(), context());
            let sealed = seal_with_random(RECORD, key_id(), &key, &context, &plaintext, &random);
            let opened = open(RECORD, &key, &context, sealed.as_bytes());
            prop_assert_eq!(&*opened.expect("opens"), &plaintext);
            prop_assert_eq!(sealed.as_bytes().len(), 80 + plaintext.len());
            prop_assert!(Sealed::from_stored(sealed.as_bytes()) == sealed);
        }
    }

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }
}
