//! A key provider with a 32-byte master key in this process.

use std::path::Path;

use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hkdf;
use thiserror::Error;
use zeroize::Zeroizing;

use super::envelope::{self, Context};
use super::key::{DATA_KEY_LEN, DataKey, KeyId};
use super::{KeyContext, KeyError, KeyProvider, wrapped};

/// A 32-byte master key. A person who has it and the database can read every token.
///
/// Make one with `openssl rand -base64 32`. Store it apart from the database and its backups, and
/// pass it to the process in an environment variable or a file.
pub struct MasterKey(DataKey);

impl MasterKey {
    /// Generates a random key, for tests, or to store it for production.
    #[must_use]
    pub fn generate() -> Self {
        Self(DataKey::generate())
    }

    /// Parses a key from 64 hex digits or from base64 (either alphabet, with or without padding).
    /// White space around it is ignored.
    ///
    /// # Errors
    ///
    /// [`MasterKeyError::Form`], if the text is not exactly 32 bytes in hex or base64.
    /// [`MasterKeyError::Zero`], if all bytes are zero.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim();
        let bytes = Zeroizing::new(if text.len() == 2 * DATA_KEY_LEN {
            from_hex(text)
        } else {
            [&STANDARD_ANY, &URL_SAFE_ANY]
                .iter()
                .find_map(|alphabet| alphabet.decode(text).ok())
        });
        let bytes = bytes
            .as_deref()
            .and_then(|bytes| <&[u8; DATA_KEY_LEN]>::try_from(bytes).ok());
        match bytes {
            Some([0, rest @ ..]) if rest.iter().all(|byte| *byte == 0) => Err(MasterKeyError::Zero),
            Some(bytes) => Ok(Self(DataKey::from_bytes(*bytes))),
            None => Err(MasterKeyError::Form),
        }
    }

    /// Reads the key from an environment variable.
    ///
    /// # Errors
    ///
    /// [`MasterKeyError::NotSet`], if the variable is not set, or an error of [`MasterKey::parse`].
    pub fn from_env(variable: &'static str) -> Result<Self, MasterKeyError> {
        match std::env::var(variable).map(Zeroizing::new) {
            Ok(text) => Self::parse(&text),
            Err(std::env::VarError::NotPresent) => Err(MasterKeyError::NotSet { variable }),
            Err(std::env::VarError::NotUnicode(_)) => Err(MasterKeyError::Form),
        }
    }

    /// Reads the key from a file that contains only the key.
    ///
    /// # Errors
    ///
    /// [`MasterKeyError::File`], if the file cannot be read, or an error of [`MasterKey::parse`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, MasterKeyError> {
        let bytes = Zeroizing::new(std::fs::read(path).map_err(MasterKeyError::File)?);
        Self::parse(std::str::from_utf8(&bytes).map_err(|_| MasterKeyError::Form)?)
    }

    /// Returns the key as base64. Keep it secret.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.expose()))
    }

    /// Returns an id that identifies the key and does not reveal it. Error messages may show it.
    #[must_use]
    pub fn fingerprint(&self) -> KeyId {
        let mut id = [0; 16];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"slack-installs master key fingerprint")
            .extract(self.0.expose())
            .expand(&[], Fingerprint)
            .and_then(|okm| okm.fill(&mut id))
            .expect("16 bytes are within HKDF-SHA256's limit");
        KeyId::from_bytes(id)
    }
}

redacted!(MasterKey);

struct Fingerprint;

impl hkdf::KeyType for Fingerprint {
    fn len(&self) -> usize {
        16
    }
}

/// Why a text is not a master key. The error does not contain the text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// The file cannot be read.
    #[error("the master key's file cannot be read: check its path and permissions")]
    File(#[source] std::io::Error),
    /// The text is not 32 bytes in hex or base64.
    #[error(
        "the master key must be 32 random bytes, as base64 or as 64 hex digits: make one with \
         `openssl rand -base64 32`"
    )]
    Form,
    /// The environment variable is not set.
    #[error(
        "the environment variable {variable} is not set: make a master key with \
         `openssl rand -base64 32`, store it, and set the variable to it"
    )]
    NotSet {
        /// The variable's name.
        variable: &'static str,
    },
    /// The key is 32 zero bytes: a placeholder that was never replaced.
    #[error("the master key is all zeros: make one with `openssl rand -base64 32`")]
    Zero,
}

/// Wraps data keys under a master key in this process.
///
/// To change the master key, make the new one the primary and add the old one as retired. A
/// retired key still unwraps the data keys that it wrapped.
///
/// ```
/// use slack_installs::{LocalKeyProvider, MasterKey};
///
/// let provider = LocalKeyProvider::new(MasterKey::generate()).with_retired(MasterKey::generate());
/// ```
#[derive(Debug)]
pub struct LocalKeyProvider {
    primary: (KeyId, MasterKey),
    retired: Vec<(KeyId, MasterKey)>,
}

impl LocalKeyProvider {
    /// Makes a provider that wraps under this key.
    #[must_use]
    pub fn new(key: MasterKey) -> Self {
        Self {
            primary: (key.fingerprint(), key),
            retired: Vec::new(),
        }
    }

    /// Adds a retired key, which only unwraps.
    #[must_use]
    pub fn with_retired(mut self, key: MasterKey) -> Self {
        self.retired.push((key.fingerprint(), key));
        self
    }

    fn master_key(&self, id: KeyId) -> Option<&MasterKey> {
        let keys = std::iter::once(&self.primary).chain(&self.retired);
        keys.into_iter()
            .find(|(other, _)| *other == id)
            .map(|(_, key)| key)
    }
}

impl From<MasterKey> for LocalKeyProvider {
    fn from(key: MasterKey) -> Self {
        Self::new(key)
    }
}

#[async_trait]
impl KeyProvider for LocalKeyProvider {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        let (id, master) = &self.primary;
        let (key_id, epoch) = (context.key_id.to_string(), context.epoch.to_be_bytes());
        let sealed = envelope::seal(
            DATA_KEY,
            *id,
            &master.0,
            &bound_to(context, &key_id, &epoch),
            key.expose(),
        );
        Ok(sealed.as_bytes().to_vec())
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let id = envelope::key_id(wrapped).ok_or_else(|| foreign(wrapped))?;
        let master = self.master_key(id).ok_or_else(|| KeyError::UnknownKey {
            reason: format!(
                "the database's data keys are wrapped under the master key with fingerprint {id}, \
                 but this process has {}: add the key {id} as the primary or as a retired key",
                self.primary.0
            ),
        })?;
        let (key_id, epoch) = (context.key_id.to_string(), context.epoch.to_be_bytes());
        let bound = bound_to(context, &key_id, &epoch);
        let key = envelope::open(DATA_KEY, &master.0, &bound, wrapped);
        let key = key.map_err(|_| KeyError::Changed)?;
        let key = <&[u8; DATA_KEY_LEN]>::try_from(key.as_slice());
        let key = key.map_err(|_| KeyError::Changed)?;
        Ok(DataKey::from_bytes(*key))
    }
}

/// Returns the error for bytes that no master key wrapped.
fn foreign(bytes: &[u8]) -> KeyError {
    wrapped::parse(bytes).map_or(KeyError::Changed, |(name, _)| KeyError::UnknownKey {
        reason: format!(
            "the database's data keys are wrapped by {}, but this process has only master keys: \
             add that key's provider",
            wrapped::shown(name)
        ),
    })
}

/// The purpose of a wrapped data key's ciphertext.
const DATA_KEY: &[u8] = b"slack-installs data key v1";

/// Returns the context that a data key is bound to. Its id replaces the partition, so each wrapped
/// key is sealed under its own derived keys. Its epoch replaces the version.
fn bound_to<'a>(context: &KeyContext<'a>, key_id: &'a str, epoch: &'a [u8]) -> Context<'a> {
    Context {
        app: context.app,
        partition: key_id,
        slot: "",
        kind: "",
        version: epoch,
        due: None,
        metadata: "",
    }
}

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Sealed;
    use super::super::envelope::tests::hex;
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn context(app: &str) -> KeyContext<'_> {
        KeyContext {
            app,
            key_id: KeyId::from_bytes([1; 16]),
            epoch: 1,
        }
    }

    #[test]
    fn hex_and_base64_of_32_bytes_are_the_same_key() {
        let fingerprint = MasterKey::parse(HEX).expect("hex").fingerprint();
        for text in [
            BASE64,
            BASE64.trim_end_matches('='),
            &format!(" {BASE64}\n"),
            &HEX.to_uppercase(),
        ] {
            assert_eq!(
                MasterKey::parse(text).expect(text).fingerprint(),
                fingerprint
            );
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_remedy_and_without_the_text() {
        let short = &HEX[2..];
        let not_hex = HEX.replace('a', "g");
        for text in [
            "",
            "canary",
            short,
            &not_hex,
            &BASE64[4..],
            &BASE64.repeat(2),
            "ä",
        ] {
            let error = MasterKey::parse(text).expect_err(text);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("openssl rand -base64 32"), "{shown}");
            assert!(text.is_empty() || !shown.contains(text), "{shown}");
        }
        assert!(matches!(
            MasterKey::parse(&"0".repeat(64)),
            Err(MasterKeyError::Zero)
        ));
    }

    #[test]
    fn a_key_is_read_in_either_alphabet_of_base64() {
        let bytes = [0xfb; DATA_KEY_LEN];
        let url_safe = STANDARD.encode(bytes).replace('+', "-").replace('/', "_");
        for text in [STANDARD.encode(bytes), url_safe] {
            assert!(text.contains(['+', '-']), "{text}");
            assert_eq!(MasterKey::parse(&text).expect(&text).0.expose(), &bytes);
        }
    }

    #[test]
    fn only_a_key_of_nothing_but_zeros_is_a_placeholder() {
        for (first, last) in [(0, 1), (1, 0)] {
            let mut bytes = [0; DATA_KEY_LEN];
            (bytes[0], bytes[DATA_KEY_LEN - 1]) = (first, last);
            let parsed = MasterKey::parse(&STANDARD.encode(bytes)).expect("not zero");
            assert_eq!(parsed.0.expose(), &bytes);
        }
    }

    #[test]
    fn a_key_is_read_from_the_file_that_holds_it_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let missing = MasterKey::from_file(&path).expect_err("there is no file");
        assert!(matches!(missing, MasterKeyError::File(_)), "{missing:?}");
        for text in [HEX.to_owned(), format!("{BASE64}\n")] {
            std::fs::write(&path, &text).expect("it can be written");
            let key = MasterKey::from_file(&path).expect("a key");
            assert_eq!(key.to_base64().as_str(), BASE64);
        }
        for bytes in [[0xff; DATA_KEY_LEN].as_slice(), b"", &HEX.as_bytes()[1..]] {
            std::fs::write(&path, bytes).expect("it can be written");
            let refused = MasterKey::from_file(&path).expect_err("no text of a key");
            assert!(matches!(refused, MasterKeyError::Form), "{refused:?}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_named_and_one_that_is_no_key_is_not_shown() {
        let variable = "SLACK_INSTALLS_TEST_OF_A_VARIABLE_THAT_IS_NOT_SET";
        let missing = MasterKey::from_env(variable).expect_err("not set");
        assert!(missing.to_string().contains(variable), "{missing}");
        assert!(matches!(missing, MasterKeyError::NotSet { .. }));
        // The variable `PATH` is set in every process.
        let refused = MasterKey::from_env("PATH").expect_err("a list of paths");
        assert!(matches!(refused, MasterKeyError::Form), "{refused:?}");
    }

    #[tokio::test]
    async fn every_retired_key_unwraps_and_none_wraps() {
        let retired = || [HEX.to_owned(), "22".repeat(32)].map(|text| MasterKey::parse(&text));
        let provider = || {
            let new = LocalKeyProvider::new(MasterKey::parse(&"33".repeat(32)).expect("a key"));
            retired().into_iter().fold(new, |provider, key| {
                provider.with_retired(key.expect("a key"))
            })
        };
        for old in retired() {
            let (key, old) = (DataKey::generate(), old.expect("a key"));
            let wrapped = LocalKeyProvider::new(old).wrap(&key, &context("app")).await;
            let wrapped = wrapped.expect("wraps");
            let unwrapped = provider().unwrap(&wrapped, &context("app")).await;
            assert_eq!(unwrapped.expect("unwraps").expose(), key.expose());
        }
        let wrapped = provider().wrap(&DataKey::generate(), &context("app")).await;
        let new = LocalKeyProvider::new(MasterKey::parse(&"33".repeat(32)).expect("a key"));
        let unwrapped = new.unwrap(&wrapped.expect("wraps"), &context("app")).await;
        unwrapped.expect("under the new one");
    }

    #[tokio::test]
    async fn a_wrapped_key_unwraps_for_its_own_app_and_id_only() {
        let provider = LocalKeyProvider::new(MasterKey::generate());
        let key = DataKey::generate();
        let wrapped = provider.wrap(&key, &context("app")).await.expect("wraps");
        let unwrapped = provider
            .unwrap(&wrapped, &context("app"))
            .await
            .expect("unwraps");
        assert_eq!(unwrapped.expose(), key.expose());
        assert!(provider.unwrap(&wrapped, &context("other")).await.is_err());
        let elsewhere = KeyContext {
            key_id: KeyId::from_bytes([2; 16]),
            ..context("app")
        };
        assert!(provider.unwrap(&wrapped, &elsewhere).await.is_err());
        for epoch in [0, 2] {
            let moved = KeyContext {
                epoch,
                ..context("app")
            };
            assert!(provider.unwrap(&wrapped, &moved).await.is_err(), "{epoch}");
        }
        for byte in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[byte] ^= 1;
            assert!(
                provider.unwrap(&changed, &context("app")).await.is_err(),
                "byte {byte}"
            );
        }
    }

    #[tokio::test]
    async fn another_master_key_is_refused_by_fingerprint_and_a_retired_one_still_unwraps() {
        let old = MasterKey::parse(HEX).expect("key");
        let fingerprint = old.fingerprint().to_string();
        let key = DataKey::generate();
        let wrapped = LocalKeyProvider::new(old)
            .wrap(&key, &context("app"))
            .await
            .expect("wraps");
        let new = LocalKeyProvider::new(MasterKey::generate());
        let error = new
            .unwrap(&wrapped, &context("app"))
            .await
            .expect_err("other key");
        assert!(error.to_string().contains(&fingerprint), "{error}");
        let new = new.with_retired(MasterKey::parse(HEX).expect("key"));
        let unwrapped = new
            .unwrap(&wrapped, &context("app"))
            .await
            .expect("retired key");
        assert_eq!(unwrapped.expose(), key.expose());
    }

    #[test]
    fn golden_wrapped_keys_stay_as_they_were_committed() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("golden.json")).expect("golden.json is JSON");
        for entry in golden["wrapped_keys"].as_array().expect("wrapped keys") {
            let text = |name: &str| entry[name].as_str().expect("text");
            let bytes = |name: &str| hex(text(name));
            let key = |name: &str| DataKey::from_bytes(bytes(name).try_into().expect("32 bytes"));
            let master = MasterKey(key("master_key"));
            assert_eq!(master.fingerprint().to_string(), text("fingerprint"));
            let context = KeyContext {
                app: text("app"),
                key_id: KeyId::parse(text("key_id")).expect("an id"),
                epoch: entry["epoch"].as_u64().expect("an epoch"),
            };
            let wrapped = envelope::seal_with_random(
                DATA_KEY,
                master.fingerprint(),
                &master.0,
                &bound_to(&context, text("key_id"), &context.epoch.to_be_bytes()),
                key("data_key").expose(),
                &bytes("random").try_into().expect("32 bytes"),
            );
            assert_eq!(wrapped.as_bytes(), bytes("wrapped"), "{}", text("name"));
            let row = Sealed::from_wrapped_key(wrapped.as_bytes());
            assert_eq!(row.as_bytes(), bytes("row"), "{}", text("name"));
        }
    }
}
