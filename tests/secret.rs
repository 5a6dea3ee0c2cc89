//! Secrets have no way out by mistake: what must not compile does not.
//!
//! Each assertion here holds at compile time, at no cost; `trybuild` would build the whole graph
//! again. Mistakes that are not a missing trait are `compile_fail` examples at `Sealed` and
//! `EncryptedStore`.

use std::fmt::Display;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use slack_installs::backend::{MemoryBackend, Row, Sealed};
use slack_installs::oauth::SetCookie;
use slack_installs::secret::{
    AccessToken, ClientSecret, Code, RefreshToken, SecretError, SigningSecret, WebhookUrl,
};
use slack_installs::{
    Bot, DataKey, Grant, IncomingWebhook, Installation, InstallationStore, KeyProvider, MasterKey,
    StateStore, User,
};

/// Compiles only if the type has none of these traits: with one, it is ambiguous which `check` is
/// meant.
macro_rules! assert_has_none_of {
    ($type:ty: $($trait:path),+) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            $({
                #[allow(dead_code, reason = "it is there to be ambiguous")]
                struct Has;
                impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
            })+
            let _ = <$type as Ambiguous<_>>::check;
        };
    };
}

macro_rules! assert_keeps_its_secret {
    ($($type:ty),+) => {
        $(assert_has_none_of!(
            $type: Copy, Default, Deref, Deserialize<'static>, Display, Eq, PartialEq, Serialize,
            AsRef<str>, AsRef<[u8]>, Into<String>, Into<Vec<u8>>
        );)+
    };
}

assert_keeps_its_secret!(
    AccessToken,
    ClientSecret,
    Code,
    RefreshToken,
    SigningSecret,
    WebhookUrl
);
assert_keeps_its_secret!(DataKey, MasterKey, SetCookie);

/// Copies of these would be wiped one by one. A clone of a secret above shares its text.
macro_rules! assert_is_not_copied {
    ($($type:ty),+) => {
        $(assert_has_none_of!($type: Clone);)+
    };
}

assert_is_not_copied!(DataKey, MasterKey, SetCookie);
assert_is_not_copied!(Bot, Grant, IncomingWebhook, Installation, User);
assert_keeps_its_secret!(Bot, Grant, IncomingWebhook, Installation, User);

// Ciphertext is made by sealing, or read back; there is no conversion from anything readable.
assert_has_none_of!(
    Sealed: Default, Deserialize<'static>, From<&'static [u8]>, From<&'static str>,
    From<AccessToken>, From<String>, From<Vec<u8>>
);
assert_has_none_of!(Row: Default, Deserialize<'static>, From<Installation>);

// A database alone keeps no installation, and nothing stands in for a key provider.
assert_has_none_of!(MemoryBackend: InstallationStore, KeyProvider, StateStore);
assert_has_none_of!((): KeyProvider);
assert_has_none_of!(Option<MasterKey>: KeyProvider);

#[test]
fn the_debug_form_of_every_secret_is_redacted() {
    let canary = "xoxb-canary";
    let shown = [
        format!("{:?}", AccessToken::new(canary).expect("a token")),
        format!("{:?}", ClientSecret::new(canary).expect("a secret")),
        format!("{:?}", Code::new(canary).expect("a code")),
        format!("{:?}", RefreshToken::new(canary).expect("a token")),
        format!("{:?}", SigningSecret::new(canary).expect("a secret")),
        format!("{:?}", WebhookUrl::new(canary).expect("a URL")),
        format!("{:?}", DataKey::from_bytes([0x41; 32])),
        format!("{:?}", MasterKey::generate()),
    ];
    for shown in shown {
        assert!(shown.ends_with("([redacted])"), "{shown}");
    }
}

/// Takes a text as each kind of secret, and gives it back.
type Take = fn(&str) -> Result<String, SecretError>;

const TAKES: [(&str, Take); 6] = [
    ("access token", |text| {
        AccessToken::new(text).map(|it| it.expose().to_owned())
    }),
    ("client secret", |text| {
        ClientSecret::new(text).map(|it| it.expose().to_owned())
    }),
    ("code", |text| {
        Code::new(text).map(|it| it.expose().to_owned())
    }),
    ("refresh token", |text| {
        RefreshToken::new(text).map(|it| it.expose().to_owned())
    }),
    ("signing secret", |text| {
        SigningSecret::new(text).map(|it| it.expose().to_owned())
    }),
    ("webhook URL", |text| {
        WebhookUrl::new(text).map(|it| it.expose().to_owned())
    }),
];

#[test]
fn every_kind_of_secret_is_one_to_8192_visible_ascii_characters() {
    for (what, take) in TAKES {
        for good in ["x", "!~", &"x".repeat(8192)] {
            assert_eq!(take(good).as_deref(), Ok(good), "{what}");
        }
        let bad = [
            "",
            "canary canary",
            " canary",
            "canary\n",
            "canary\0",
            "canary\u{7f}",
            "canar\u{fd}",
            "\u{1f511}",
        ];
        let long = "canary".repeat(8193 / 6 + 1);
        for bad in bad.into_iter().chain([&long[..8193], &long]) {
            let error = take(bad).expect_err(what);
            let expected = "expected 1 to 8192 visible ASCII characters without spaces";
            assert_eq!(error.to_string(), format!("not a {what}: {expected}"));
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(what), "{shown}");
            assert!(!shown.contains("canar"), "{shown}");
        }
    }
}

#[test]
fn only_the_beginning_of_an_access_token_says_that_it_must_not_be_stored() {
    for kind in ["xoxc-", "xoxd-", "xoxs-", "xwfp-"] {
        for bad in [format!("{kind}1"), format!("xoxe.{kind}1-1")] {
            let error = AccessToken::new(bad.as_str()).expect_err("not storable");
            let expected = "not a token of an installation: it is a session or workflow token";
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error} {error:?}").contains(kind));
        }
        for good in [
            format!("xoxb-1-{kind}1"),
            format!("xoxe.xoxb-1-{kind}1"),
            kind.trim_end_matches('-').to_owned(),
        ] {
            assert!(AccessToken::new(good.as_str()).is_ok(), "{good}");
        }
        // What is no token for the Web API may begin like one.
        assert!(Code::new(format!("{kind}1")).is_ok());
    }
}
