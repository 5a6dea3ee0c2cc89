//! Signed heads: a process signs the hash of its last record, and hands it to sinks outside the
//! database.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::hash::{hex, message, unhex};
use crate::clock::to_millis;
use crate::seal::{KeyContext, KeyError, KeyId, KeyProvider};
use crate::store::RunId;
use crate::tenant::ClientId;

/// A head of a run, with a signature. As JSON, it is one line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SignedHead {
    /// The app's client id.
    pub app: String,
    /// The run's id, as hex digits.
    pub run: String,
    /// The number of records so far.
    pub records: u64,
    /// The hash of the last of them, as hex digits.
    pub hash: String,
    /// When it was signed, in milliseconds since 1970.
    pub time: u64,
    /// The epoch of the key.
    pub epoch: u64,
    /// The signature, as hex digits.
    pub signature: String,
}

impl SignedHead {
    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        RunId::parse(&self.run)
    }

    /// Parses one line of an anchor.
    ///
    /// # Errors
    ///
    /// [`HeadError::Form`], if the line is not a signed head.
    pub fn parse(line: &str) -> Result<Self, HeadError> {
        serde_json::from_str(line).map_err(|_| HeadError::Form)
    }

    /// Returns the head as one line of JSON.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("plain fields always serialise")
    }

    /// Checks the signature, and that the key was valid at the time of the head.
    ///
    /// A key of a later epoch signs no earlier head: who gets hold of today's key must not be able
    /// to rewrite the log of last year.
    ///
    /// # Errors
    ///
    /// [`HeadError`], which says what is wrong.
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<(), HeadError> {
        let key = keys.iter().find(|key| key.epoch == self.epoch);
        let key = key.ok_or(HeadError::UnknownKey)?;
        if !key.covers(self.time) {
            return Err(HeadError::Period);
        }
        let signature = unhex(&self.signature).ok_or(HeadError::Form)?;
        let public = UnparsedPublicKey::new(&ED25519, key.key);
        public
            .verify(&self.message(), &signature)
            .map_err(|_| HeadError::Signature)
    }

    /// Returns the bytes that are signed.
    fn message(&self) -> Vec<u8> {
        let fields: [&[u8]; 6] = [
            self.app.as_bytes(),
            self.run.as_bytes(),
            &self.records.to_be_bytes(),
            self.hash.as_bytes(),
            &self.time.to_be_bytes(),
            &self.epoch.to_be_bytes(),
        ];
        message(HEAD, &fields)
    }
}

/// Why a signed head is not valid.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HeadError {
    /// The text is not a signed head.
    #[error("the text is not a signed head")]
    Form,
    /// The key was not valid at the time of the head.
    #[error("the head is outside the period of the key that signed it")]
    Period,
    /// The signature is not the key's.
    #[error("the signature of the head is wrong")]
    Signature,
    /// No key of this epoch is trusted.
    #[error("no trusted key has the epoch of the head")]
    UnknownKey,
}

/// The key that signs heads. It is not in the database: whoever can write the database must not be
/// able to sign.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    epoch: u64,
}

impl SigningKey {
    /// Makes a key from its 32 secret bytes. `epoch` counts your keys: a new key has a higher one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32], epoch: u64) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(bytes).expect("a seed has 32 bytes");
        Self { pair, epoch }
    }

    /// Reads a key from a file: 32 random bytes in base64, as `openssl rand -base64 32` writes them.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`], if the file cannot be read, or has another form.
    pub fn from_file(path: impl AsRef<Path>, epoch: u64) -> Result<Self, SigningKeyError> {
        let text = std::fs::read_to_string(path).map_err(SigningKeyError::File)?;
        let text = Zeroizing::new(text);
        let bytes = BASE64.decode(text.trim()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| SigningKeyError::Form)?;
        let bytes = bytes[..].try_into().map_err(|_| SigningKeyError::Form)?;
        Ok(Self::from_bytes(bytes, epoch))
    }

    /// Makes a new key, and returns it with its wrapped form. Store that form where you like, also in
    /// your configuration: only `provider` opens it, for this app and epoch.
    ///
    /// Use another key of your KMS than that of the data keys, and allow its use only to your app.
    /// Someone who may unwrap data keys can otherwise sign heads too.
    ///
    /// Cancel safety: nothing is stored, so you can drop the future at any point.
    ///
    /// # Errors
    ///
    /// [`KeyError`] of the provider.
    pub async fn generate_wrapped(
        provider: &dyn KeyProvider,
        app: &ClientId,
        epoch: u64,
    ) -> Result<(Self, Vec<u8>), KeyError> {
        let (seed, wrapped) = provider.generate(&context(app, epoch)).await?;
        Ok((Self::from_bytes(seed.expose(), epoch), wrapped))
    }

    /// Unwraps a key that [`generate_wrapped`](Self::generate_wrapped) made.
    ///
    /// Cancel safety: as `generate_wrapped`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Changed`], if the bytes were changed, or made for another app or epoch. Otherwise
    /// that of the provider.
    pub async fn unwrap(
        provider: &dyn KeyProvider,
        app: &ClientId,
        epoch: u64,
        wrapped: &[u8],
    ) -> Result<Self, KeyError> {
        let seed = provider.unwrap(wrapped, &context(app, epoch)).await?;
        Ok(Self::from_bytes(seed.expose(), epoch))
    }

    /// Returns the public key, which verifies heads of this period. Keep it where the anchor is.
    #[must_use]
    pub fn verifying_key(&self, from: SystemTime, until: Option<SystemTime>) -> VerifyingKey {
        let key = self.pair.public_key().as_ref();
        VerifyingKey {
            key: key.try_into().expect("an Ed25519 key has 32 bytes"),
            epoch: self.epoch,
            from: to_millis(from),
            until: until.map(to_millis),
        }
    }

    pub(super) fn sign(&self, mut head: SignedHead) -> SignedHead {
        head.epoch = self.epoch;
        head.signature = hex(self.pair.sign(&head.message()).as_ref());
        head
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn public(&self) -> String {
        hex(self.pair.public_key().as_ref())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Returns what a wrapped signing key is bound to. No data key has this id, because those are random.
fn context(app: &ClientId, epoch: u64) -> KeyContext<'_> {
    KeyContext {
        app: app.as_str(),
        key_id: KeyId::from_bytes(*b"audit log signer"),
        epoch,
    }
}

/// Why a signing key cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The file cannot be read.
    #[error("the file of the key that signs the audit log cannot be read: {0}")]
    File(#[source] std::io::Error),
    /// The text is not a key.
    #[error(
        "the key that signs the audit log must be 32 bytes in base64: make one with `openssl rand \
         -base64 32`"
    )]
    Form,
}

/// The public part of a [`SigningKey`], and the period in which it may sign.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyingKey {
    key: [u8; 32],
    epoch: u64,
    from: u64,
    until: Option<u64>,
}

impl VerifyingKey {
    /// Makes a key from its public bytes.
    #[must_use]
    pub fn from_bytes(
        key: [u8; 32],
        epoch: u64,
        from: SystemTime,
        until: Option<SystemTime>,
    ) -> Self {
        let (from, until) = (to_millis(from), until.map(to_millis));
        Self {
            key,
            epoch,
            from,
            until,
        }
    }

    /// Returns the public bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    pub(super) fn covers(&self, time: u64) -> bool {
        self.from <= time && self.until.is_none_or(|until| time < until)
    }
}

const HEAD: &[u8] = b"slack-installs audit head v1";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::from_millis;
    use crate::seal::{LocalKeyProvider, MasterKey};

    const NOON: u64 = 1_790_000_000_000;

    fn at(millis: u64) -> SystemTime {
        from_millis(millis)
    }

    fn signed(key: &SigningKey) -> SignedHead {
        key.sign(SignedHead {
            app: "1.2".into(),
            run: "01".repeat(16),
            records: 7,
            hash: "ab".repeat(32),
            time: NOON,
            epoch: 0,
            signature: String::new(),
        })
    }

    #[test]
    fn a_head_verifies_until_any_field_is_changed() {
        let key = SigningKey::from_bytes(&[7; 32], 3);
        let keys = [key.verifying_key(at(NOON), None)];
        let head = signed(&key);
        assert_eq!(head.verify(&keys), Ok(()));
        assert_eq!(SignedHead::parse(&head.to_line()), Ok(head.clone()));
        let edits: [fn(&mut SignedHead); 6] = [
            |it| it.app.push('3'),
            |it| it.run = "02".repeat(16),
            |it| it.records -= 1,
            |it| it.hash = "ac".repeat(32),
            |it| it.time += 1,
            |it| it.signature = format!("00{}", &it.signature[2..]),
        ];
        for edit in edits {
            let mut edited = head.clone();
            edit(&mut edited);
            assert_eq!(edited.verify(&keys), Err(HeadError::Signature));
        }
    }

    #[test]
    fn a_newer_key_signs_no_head_of_an_earlier_period() {
        let hour = Duration::from_secs(3600);
        let (old, new) = (
            SigningKey::from_bytes(&[7; 32], 1),
            SigningKey::from_bytes(&[8; 32], 2),
        );
        let begin = at(NOON);
        let keys = [
            old.verifying_key(begin - hour, Some(begin + hour)),
            new.verifying_key(begin + hour, None),
        ];
        assert_eq!(signed(&old).verify(&keys), Ok(()));
        assert_eq!(signed(&new).verify(&keys), Err(HeadError::Period));
        // Nor does it pass for the old one.
        let mut forged = signed(&new);
        forged.epoch = 1;
        assert_eq!(forged.verify(&keys), Err(HeadError::Signature));
        let third = SigningKey::from_bytes(&[7; 32], 3);
        assert_eq!(signed(&third).verify(&keys), Err(HeadError::UnknownKey));
    }

    #[test]
    fn a_signing_key_is_read_from_a_file_and_never_printed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        std::fs::write(&path, format!("{}\n", BASE64.encode([7; 32]))).expect("written");
        let key = SigningKey::from_file(&path, 3).expect("a key");
        let same = SigningKey::from_bytes(&[7; 32], 3);
        assert_eq!(signed(&key), signed(&same));
        assert_eq!(format!("{key:?}"), "SigningKey { epoch: 3, .. }");
        std::fs::write(&path, BASE64.encode([7; 31])).expect("written");
        let refused = SigningKey::from_file(&path, 3);
        assert!(matches!(refused, Err(SigningKeyError::Form)));
        let missing = SigningKey::from_file(path.join("none"), 3);
        assert!(matches!(missing, Err(SigningKeyError::File(_))));
    }

    #[tokio::test]
    async fn a_wrapped_signing_key_opens_only_for_its_app_and_epoch() {
        let provider = LocalKeyProvider::new(MasterKey::generate());
        let app = |id: &str| ClientId::new(id).expect("a client id");
        let (ours, other) = (app("1.2"), app("1.3"));
        let made = SigningKey::generate_wrapped(&provider, &ours, 3).await;
        let (key, wrapped) = made.expect("a key");
        let again = SigningKey::unwrap(&provider, &ours, 3, &wrapped).await;
        assert_eq!(signed(&again.expect("the same key")), signed(&key));
        let (another, _) = SigningKey::generate_wrapped(&provider, &ours, 3)
            .await
            .expect("a key");
        assert_ne!(signed(&another), signed(&key));
        for (app, epoch) in [(&other, 3), (&ours, 4)] {
            let refused = SigningKey::unwrap(&provider, app, epoch, &wrapped).await;
            assert!(matches!(refused, Err(KeyError::Changed)), "{refused:?}");
        }
        // A data key from the database is no signing key.
        let data = KeyContext {
            app: ours.as_str(),
            key_id: KeyId::generate(),
            epoch: 3,
        };
        let (_, wrapped) = provider.generate(&data).await.expect("a key");
        let refused = SigningKey::unwrap(&provider, &ours, 3, &wrapped).await;
        assert!(matches!(refused, Err(KeyError::Changed)), "{refused:?}");
    }
}
