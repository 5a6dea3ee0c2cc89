//! Seals a flow, so that its browser can carry it and only this app can read or change it.
//!
//! ```text
//!  0   1      version, 1
//!  1   1      number of wrapped keys: 1, or 2 while the client secret is replaced
//!  2  16      random
//! 18  48 each wrapped keys: the content key, sealed under a key of each known client secret
//!  …          the flow and the tag, sealed under the content key
//! ```
//!
//! All keys are for AES-256-GCM. The wrapping keys come from HKDF-SHA256 over a client secret, with
//! the client id and the random part. So each key seals one message only, with an all-zero nonce.
//! The flow's tag also covers everything before it.
//!
//! It is encoded as base64url without padding.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use zeroize::Zeroizing;

use crate::random;
use crate::slack::ClientCredentials;

/// The keys that seal flows: one of the client secret, and while the secret is replaced, one of the
/// old secret too. So a process that has only one of the two secrets can open the flow.
pub(super) struct FlowKey {
    keys: Vec<hkdf::Prk>,
    client_id: String,
}

impl FlowKey {
    pub(super) fn derive(app: &ClientCredentials, old: Option<&ClientCredentials>) -> Self {
        let key = |credentials: &ClientCredentials| {
            let secret = credentials.client_secret.expose().as_bytes();
            hkdf::Salt::new(hkdf::HKDF_SHA256, KEY_LABEL).extract(secret)
        };
        Self {
            keys: std::iter::once(app).chain(old).map(key).collect(),
            client_id: app.client_id.as_str().into(),
        }
    }

    /// Seals a flow.
    pub(super) fn seal(&self, flow: &[u8]) -> String {
        let content_key = Zeroizing::new(random::bytes::<KEY_LEN>());
        let random = random::bytes::<RANDOM_LEN>();
        let count = u8::try_from(self.keys.len()).expect("one or two secrets");
        // All of it at once: a vector that grows leaves its old bytes in freed memory.
        let wrapped = self.keys.len() * WRAPPED_LEN;
        let mut sealed = Vec::with_capacity(HEADER_LEN + wrapped + flow.len() + TAG_LEN);
        sealed.extend_from_slice(&[VERSION, count]);
        sealed.extend_from_slice(&random);
        for key in &self.keys {
            let begin = sealed.len();
            sealed.extend_from_slice(&*content_key);
            seal_end(&self.wrapping_key(key, &random), &mut sealed, begin);
        }
        let begin = sealed.len();
        sealed.extend_from_slice(flow);
        seal_end(&aead(&content_key), &mut sealed, begin);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Returns the flow, if this app sealed it and nothing of it was changed.
    pub(super) fn open(&self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut sealed = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let (header, rest) = sealed.split_at_checked(HEADER_LEN)?;
        let [VERSION, count @ 1..=2, random @ ..] = header else {
            return None;
        };
        let flow = HEADER_LEN + usize::from(*count) * WRAPPED_LEN;
        let (wrapped, _) = rest.split_at_checked(flow - HEADER_LEN)?;
        let content_key = wrapped
            .chunks_exact(WRAPPED_LEN)
            .zip(1..)
            .find_map(|(it, nth)| {
                let before = &sealed[..HEADER_LEN + (nth - 1) * WRAPPED_LEN];
                let mut keys = self.keys.iter();
                keys.find_map(|key| unwrap(&self.wrapping_key(key, random), before, it))
            })?;
        let (before, flow) = sealed.split_at_mut(flow);
        let key = aead(&content_key);
        let flow = key.open_in_place(nonce(), Aad::from(&*before), flow).ok()?;
        Some(Zeroizing::new(flow.to_vec()))
    }

    fn wrapping_key(&self, key: &hkdf::Prk, random: &[u8]) -> LessSafeKey {
        // The random part has a fixed length, so two different inputs cannot produce the same bytes.
        let info = [random, self.client_id.as_bytes()];
        let key = key.expand(&info, &AES_256_GCM);
        LessSafeKey::new(UnboundKey::from(key.expect("32 bytes are not too many")))
    }
}

redacted!(FlowKey);

/// Seals what begins here, in place. Everything before it is authenticated too.
fn seal_end(key: &LessSafeKey, sealed: &mut Vec<u8>, begin: usize) {
    let (before, message) = sealed.split_at_mut(begin);
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&*before), message);
    let tag = tag.expect("a flow is not too long");
    sealed.extend_from_slice(tag.as_ref());
}

fn unwrap(key: &LessSafeKey, before: &[u8], wrapped: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let mut wrapped = Zeroizing::new(<[u8; WRAPPED_LEN]>::try_from(wrapped).ok()?);
    let opened = key.open_in_place(nonce(), Aad::from(before), &mut *wrapped);
    Some(Zeroizing::new((&*opened.ok()?).try_into().ok()?))
}

fn aead(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

/// Each key seals one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const VERSION: u8 = 1;
const RANDOM_LEN: usize = 16;
const HEADER_LEN: usize = 2 + RANDOM_LEN;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = KEY_LEN + TAG_LEN;
const KEY_LABEL: &[u8] = b"slack-installs oauth flow key v1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ClientSecret;
    use crate::tenant::ClientId;

    const FLOW: &[u8] = b"a flow with a canary";

    fn app(client_id: &str, secret: &str) -> ClientCredentials {
        ClientCredentials {
            client_id: ClientId::new(client_id).expect("id"),
            client_secret: ClientSecret::new(secret).expect("secret"),
        }
    }

    fn key(secret: &str) -> FlowKey {
        FlowKey::derive(&app("1.2", secret), None)
    }

    fn both(new: &str, old: &str) -> FlowKey {
        FlowKey::derive(&app("1.2", new), Some(&app("1.2", old)))
    }

    fn opens(key: &FlowKey, text: &str) -> bool {
        let opened = key.open(text);
        assert!(opened.as_ref().is_none_or(|flow| ***flow == *FLOW));
        opened.is_some()
    }

    #[test]
    fn processes_with_one_secret_in_common_open_each_others_flows_and_no_others() {
        let other_app = FlowKey::derive(&app("1.3", "new"), None);
        let processes = [
            (key("old"), vec!["old"]),
            (both("new", "old"), vec!["new", "old"]),
            (both("old", "new"), vec!["new", "old"]),
            (key("new"), vec!["new"]),
            (both("newer", "new"), vec!["newer", "new"]),
            (key("newer"), vec!["newer"]),
        ];
        for (sealing, ours) in &processes {
            let text = sealing.seal(FLOW);
            for (opening, theirs) in &processes {
                let common = ours.iter().any(|secret| theirs.contains(secret));
                assert_eq!(opens(opening, &text), common, "{ours:?} {theirs:?}");
            }
            assert!(!opens(&other_app, &text), "{ours:?}");
        }
        assert!(opens(&other_app, &other_app.seal(FLOW)));
    }

    #[test]
    fn no_flipped_bit_and_no_other_length_opens() {
        for ours in [key("new"), both("new", "old")] {
            let text = ours.seal(FLOW);
            let sealed = URL_SAFE_NO_PAD.decode(&text).expect("base64url");
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&ours, &URL_SAFE_NO_PAD.encode(changed)), "bit {bit}");
            }
            for length in 0..sealed.len() {
                let cut = &sealed[..length];
                assert!(!opens(&ours, &URL_SAFE_NO_PAD.encode(cut)), "{length}");
                assert!(!opens(&ours, &text[..length]), "{length}");
            }
            for more in ["A", "AAAA", "=", "==", " "] {
                assert!(!opens(&ours, &format!("{text}{more}")), "{more}");
            }
            assert!(opens(&ours, &text));
        }
    }

    #[test]
    fn two_seals_of_one_flow_have_nothing_in_common_and_show_nothing_of_it() {
        let ours = key("new");
        let sealed = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let (one, other) = (sealed(&ours.seal(FLOW)), sealed(&ours.seal(FLOW)));
        // The random part, the wrapped key, the flow, and its tag.
        for part in [
            2..18,
            18..66,
            66..66 + FLOW.len(),
            66 + FLOW.len()..one.len(),
        ] {
            assert_ne!(one[part.clone()], other[part]);
        }
        assert!(!one.windows(6).any(|part| part == b"canary"));
    }
}
