//! Secrets cannot leave by mistake: such code does not compile.
//!
//! Each assertion here is checked at compile time and costs nothing; `trybuild` would build all
//! dependencies again. Mistakes other than a missing trait are `compile_fail` examples in the
//! documentation of `Sealed` and `EncryptedStore`.

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

/// Compiles only if the type has none of these traits. If it has one, `check` is ambiguous.
macro_rules! assert_has_none_of {
    ($type:ty: $($trait:path),+) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            $({
                #[allow(dead_code, reason = "its only purpose is ambiguity")]
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

/// Each copy of these types would have to be wiped separately. Clones of the secrets above share
/// one text.
macro_rules! assert_is_not_copied {
    ($($type:ty),+) => {
        $(assert_has_none_of!($type: Clone);)+
    };
}

assert_is_not_copied!(DataKey, MasterKey, SetCookie);
assert_is_not_copied!(Bot, Grant, IncomingWebhook, Installation, User);
assert_keeps_its_secret!(Bot, Grant, IncomingWebhook, Installation, User);

// Ciphertext comes from sealing or from a stored row. No conversion from readable data exists.
assert_has_none_of!(
    Sealed: Default, Deserialize<'static>, From<&'static [u8]>, From<&'static str>,
    From<AccessToken>, From<String>, From<Vec<u8>>
);
assert_has_none_of!(Row: Default, Deserialize<'static>, From<Installation>);

// A backend alone stores no installations, and no other type replaces a key provider.
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

/// Parses a text as one kind of secret, and returns the exposed text.
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
        // A secret that is not an access token may have such a prefix.
        assert!(Code::new(format!("{kind}1")).is_ok());
    }
}
