//! The `state` parameter: a signed, dated, random name for one flow in one browser.
//!
//! ```text
//!  0   1  version, 1
//!  1   8  creation time, seconds since 1970
//!  9  32  random
//! 41  16  the first half of SHA-256 of the cookie's value: identifies the browser
//! 57  32  HMAC-SHA256 of all of the above, the client id and the redirect URL
//! ```
//!
//! It is encoded as base64url without padding, in 119 characters. It contains nothing else: the
//! flow itself is sealed in the cookie.
//!
//! While the client secret is replaced, a second HMAC follows, under the old secret. So a process
//! that has only one of the two secrets accepts the state.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::hmac;

use super::config::MAX_STATE_LIFETIME;
use super::cookie::FlowCookie;
use super::error::Error;
use crate::clock::{from_epoch, to_epoch};
use crate::random;
use crate::slack::ClientCredentials;
use crate::store::StateId;

/// The keys that sign states. They are derived from the client secret and the old one, so every
/// process of an app has a key in common without further configuration.
pub(super) struct StateKey {
    /// The key of the current secret, and during a rotation of the secret also that of the old one.
    keys: Vec<hmac::Key>,
    client_id: String,
}

impl StateKey {
    pub(super) fn derive(app: &ClientCredentials, old: Option<&ClientCredentials>) -> Self {
        let key = |credentials: &ClientCredentials| {
            let secret = credentials.client_secret.expose().as_bytes();
            let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), KEY_LABEL);
            hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
        };
        Self {
            keys: std::iter::once(app).chain(old).map(key).collect(),
            client_id: app.client_id.as_str().into(),
        }
    }

    fn bound(&self, signed: &[u8], redirect_uri: &str) -> Vec<u8> {
        // The signed part has a fixed length, and a client id has no zero byte, so two different
        // inputs cannot produce the same bytes.
        let parts = [
            signed,
            self.client_id.as_bytes(),
            &[0],
            redirect_uri.as_bytes(),
        ];
        parts.concat()
    }
}

redacted!(StateKey);

/// The name of one flow.
pub(super) struct State([u8; SIGNED_LEN]);

impl State {
    /// Creates a new flow for the browser that gets this cookie.
    pub(super) fn new(cookie: &FlowCookie, now: SystemTime) -> Self {
        let mut bytes = [0; SIGNED_LEN];
        bytes[0] = VERSION;
        bytes[MADE_AT].copy_from_slice(&to_epoch(now).to_be_bytes());
        bytes[RANDOM].copy_from_slice(&random::bytes::<32>());
        bytes[BROWSER].copy_from_slice(&browser(cookie));
        Self(bytes)
    }

    /// Returns the value of the parameter, for a flow with this redirect URL.
    pub(super) fn sign(&self, key: &StateKey, redirect_uri: &str) -> String {
        let bound = key.bound(&self.0, redirect_uri);
        let mut bytes = self.0.to_vec();
        for key in &key.keys {
            bytes.extend_from_slice(hmac::sign(key, &bound).as_ref());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the flow that a parameter names, if this app signed it for this redirect URL.
    pub(super) fn verify(key: &StateKey, text: &str, redirect_uri: &str) -> Option<Self> {
        // The length is checked first, so that a very long text costs nothing.
        let bytes = TEXT_LENS
            .contains(&text.len())
            .then(|| URL_SAFE_NO_PAD.decode(text).ok())
            .flatten()?;
        let (signed, signatures) = bytes.split_at_checked(SIGNED_LEN)?;
        let signed: [u8; SIGNED_LEN] = signed.try_into().ok()?;
        let bound = key.bound(&signed, redirect_uri);
        let is_signed = signatures.chunks(SIGNATURE_LEN).any(|signature| {
            let mut keys = key.keys.iter();
            keys.any(|key| hmac::verify(key, &bound, signature).is_ok())
        });
        (is_signed && signed[0] == VERSION).then_some(Self(signed))
    }

    /// Returns the id under which the state is marked as used.
    pub(super) fn id(&self) -> StateId {
        let hash = digest(&SHA256, &[ID_LABEL, &self.0[RANDOM]].concat());
        StateId(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Returns the time at which the flow started.
    pub(super) fn made_at(&self) -> SystemTime {
        let made_at = self.0[MADE_AT].try_into().expect("eight bytes");
        from_epoch(u64::from_be_bytes(made_at))
    }

    /// Returns the time until which the state must stay marked as used. Then no process accepts it
    /// any longer, whatever lifetime it is configured with.
    pub(super) fn used_until(&self) -> SystemTime {
        self.made_at() + MAX_STATE_LIFETIME + CLOCK_SKEW
    }

    /// Returns an error if the state is too old, or from the future.
    pub(super) fn check_age(&self, now: SystemTime, lifetime: Duration) -> Result<(), Error> {
        match now.duration_since(self.made_at()) {
            Ok(age) if age < lifetime => Ok(()),
            Err(ahead) if ahead.duration() <= CLOCK_SKEW => Ok(()),
            _ => Err(Error::StateExpired),
        }
    }

    /// Returns whether the flow started with this cookie.
    pub(super) fn is_bound_to(&self, cookie: &FlowCookie) -> bool {
        // Both values are hashed again, so that the time of the comparison reveals nothing.
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        hash(&self.0[BROWSER]).as_ref() == hash(&browser(cookie)).as_ref()
    }
}

fn browser(cookie: &FlowCookie) -> [u8; 16] {
    let hash = digest(
        &SHA256,
        &[BROWSER_LABEL, cookie.expose().as_bytes()].concat(),
    );
    *hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

const VERSION: u8 = 1;
const MADE_AT: std::ops::Range<usize> = 1..9;
const RANDOM: std::ops::Range<usize> = 9..41;
const BROWSER: std::ops::Range<usize> = 41..57;
const SIGNED_LEN: usize = 57;
const SIGNATURE_LEN: usize = 32;
/// The lengths of a state with one signature, and with two.
const TEXT_LENS: [usize; 2] = [119, 162];
const KEY_LABEL: &[u8] = b"slack-installs oauth state key v1";
const ID_LABEL: &[u8] = b"slack-installs oauth state id v1";
const BROWSER_LABEL: &[u8] = b"slack-installs oauth browser v1";

/// The largest accepted difference between the clocks of two processes of one app.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::oauth::sealed::FlowKey;
    use crate::secret::ClientSecret;
    use crate::tenant::ClientId;

    const URI: &str = "https://bot.example.com/slack/oauth_redirect";

    fn key(client_id: &str, secret: &str) -> StateKey {
        StateKey::derive(&app(client_id, secret), None)
    }

    fn app(client_id: &str, secret: &str) -> ClientCredentials {
        ClientCredentials {
            client_id: ClientId::new(client_id).expect("id"),
            client_secret: ClientSecret::new(secret).expect("secret"),
        }
    }

    fn cookie() -> FlowCookie {
        FlowCookie::seal(&FlowKey::derive(&app("1.2", "secret"), None), b"a flow")
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn verify(key: &StateKey, text: &str, uri: &str) -> Option<State> {
        State::verify(key, text, uri)
    }

    #[test]
    fn a_state_verifies_for_its_own_app_and_redirect_url_only() {
        let ours = key("1.2", "secret");
        let text = State::new(&cookie(), now()).sign(&ours, URI);
        assert_eq!(text.len(), TEXT_LENS[0]);
        assert!(verify(&ours, &text, URI).is_some());
        assert!(verify(&ours, &text, "https://bot.example.com/other").is_none());
        assert!(verify(&key("1.3", "secret"), &text, URI).is_none());
        assert!(verify(&key("1.2", "other"), &text, URI).is_none());
    }

    #[test]
    fn a_state_of_another_version_or_length_is_refused_although_it_is_signed() {
        let ours = key("1.2", "secret");
        let mut state = State::new(&cookie(), now());
        state.0[0] = VERSION + 1;
        assert!(verify(&ours, &state.sign(&ours, URI), URI).is_none());
        state.0[0] = VERSION;
        let text = state.sign(&ours, URI);
        assert!(verify(&ours, &text, URI).is_some());
        for other in [&text[..118], &format!("{text}A"), &format!("{text}="), ""] {
            assert!(verify(&ours, other, URI).is_none(), "{other}");
        }
    }

    #[test]
    fn processes_with_one_secret_in_common_accept_each_others_states() {
        let both = StateKey::derive(&app("1.2", "new"), Some(&app("1.2", "old")));
        let (new, old) = (key("1.2", "new"), key("1.2", "old"));
        let signed = |key: &StateKey| State::new(&cookie(), now()).sign(key, URI);
        assert_eq!(signed(&both).len(), TEXT_LENS[1]);
        for (by, at, is_accepted) in [
            (&old, &both, true),
            (&both, &old, true),
            (&both, &both, true),
            (&both, &new, true),
            (&new, &both, true),
            (&old, &new, false),
            (&new, &old, false),
            (&both, &key("1.2", "other"), false),
            (&both, &key("1.3", "new"), false),
        ] {
            assert_eq!(verify(at, &signed(by), URI).is_some(), is_accepted);
        }
        assert!(verify(&new, &signed(&both), "https://bot.example.com/other").is_none());
        // A changed part is refused, although one of two signatures is unchanged.
        let mut text = signed(&both);
        text.replace_range(20..21, if &text[20..21] == "A" { "B" } else { "A" });
        assert!(verify(&new, &text, URI).is_none() && verify(&old, &text, URI).is_none());
    }

    #[test]
    fn every_changed_character_is_refused() {
        let ours = key("1.2", "secret");
        let text = State::new(&cookie(), now()).sign(&ours, URI);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(verify(&ours, &changed, URI).is_none(), "character {at}");
        }
    }

    #[test]
    fn a_state_lives_for_its_lifetime_and_not_from_the_future() {
        let state = State::new(&cookie(), now());
        let lifetime = Duration::from_secs(600);
        let at = |seconds: i64| match u64::try_from(seconds) {
            Ok(after) => now() + Duration::from_secs(after),
            Err(_) => now() - Duration::from_secs(seconds.unsigned_abs()),
        };
        for good in [-60, 0, 599] {
            assert!(state.check_age(at(good), lifetime).is_ok(), "{good} s");
        }
        for bad in [-61, 600, 601, 1_000_000] {
            assert!(state.check_age(at(bad), lifetime).is_err(), "{bad} s");
        }
    }

    #[test]
    fn a_state_stays_marked_until_no_process_takes_it() {
        let state = State::new(&cookie(), now());
        let slowest = state.used_until() - CLOCK_SKEW;
        assert!(state.check_age(slowest, MAX_STATE_LIFETIME).is_err());
        let before = slowest - Duration::from_secs(1);
        assert!(state.check_age(before, MAX_STATE_LIFETIME).is_ok());
    }

    #[test]
    fn a_state_is_bound_to_its_cookie() {
        let (ours, other) = (cookie(), cookie());
        let state = State::new(&ours, now());
        assert!(state.is_bound_to(&ours));
        assert!(!state.is_bound_to(&other));
    }

    proptest! {
        #[test]
        fn no_text_makes_verify_panic(text in "\\PC{0,200}") {
            prop_assert!(verify(&key("1.2", "secret"), &text, URI).is_none());
        }
    }
}
