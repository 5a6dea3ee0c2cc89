//! Fuzz targets: what a browser sends back in an install flow.

use std::time::Duration;

use super::cookie::{FlowCookie, MAX_VALUE};
use super::sealed::FlowKey;
use super::state::{State, StateKey};
use crate::clock::from_epoch;
use crate::edit::edit;
use crate::secret::ClientSecret;
use crate::slack::ClientCredentials;
use crate::store::StateId;
use crate::tenant::ClientId;

const NOW: u64 = 1_790_000_000;
const FLOW: &[u8] = b"a flow";
const URI: &str = "https://bot.example.com/slack/oauth_redirect";

fn app(secret: &str) -> ClientCredentials {
    ClientCredentials {
        client_id: ClientId::new("1.2").expect("an id"),
        client_secret: ClientSecret::new(secret).expect("a secret"),
    }
}

fn flow_key() -> FlowKey {
    FlowKey::derive(&app("new"), Some(&app("old")))
}

fn flow_cookie() -> FlowCookie {
    FlowCookie::seal(&flow_key(), FLOW)
}

/// With the first byte `t`, the rest is the parameter. Otherwise the rest edits a good one. No
/// parameter names a flow that was not signed.
pub(crate) fn state(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let (now, old) = (from_epoch(NOW), app("old"));
    let key = match first {
        b'2' => StateKey::derive(&app("new"), Some(&old)),
        _ => StateKey::derive(&app("new"), None),
    };
    if *first == b't' {
        let text = String::from_utf8_lossy(rest);
        assert!(State::verify(&key, &text, URI).is_none(), "a forged state");
        return;
    }
    let cookie = flow_cookie();
    let state = State::new(&cookie, now);
    let good = state.sign(&key, URI);
    let mut text = good.clone().into_bytes();
    edit(&mut text, rest);
    let text = String::from_utf8_lossy(&text);
    match State::verify(&key, &text, URI) {
        // With two signatures, one of them may be changed.
        Some(found) => {
            assert!(text == good || *first == b'2', "a changed state");
            assert_eq!(found.id().0, state.id().0);
            assert!(found.is_bound_to(&cookie));
            assert!(found.check_age(now, Duration::from_secs(1)).is_ok());
        }
        None => assert_ne!(text, good),
    }
    assert!(State::verify(&key, &text, "https://eu.example.com/").is_none());
}

/// The input is what other sites put next to our cookie, and edits our cookie. No other cookie opens.
pub(crate) fn cookie(input: &[u8]) {
    let others = String::from_utf8_lossy(input);
    let id = StateId([0xab; 32]);
    let key = flow_key();
    for is_plain in [true, false] {
        if let Some(found) = FlowCookie::find(&others, &id, is_plain) {
            assert!(found.expose().len() <= MAX_VALUE && others.contains(found.expose()));
            assert!(found.open(&key).is_none(), "a forged flow");
        }
        let ours = flow_cookie();
        let set = ours.set(&id, Duration::from_secs(60), is_plain);
        let (pair, _) = set.split_once(';').expect("attributes");
        let (name, value) = pair.split_once('=').expect("a pair");
        let sent = format!("{others}; {pair}");
        match FlowCookie::find(&sent, &id, is_plain) {
            Some(found) => assert_eq!(found.expose(), ours.expose(), "another cookie is taken"),
            None => assert!(others.contains(name), "our cookie is not found"),
        }
        for header in ours.make_room(&others, is_plain) {
            let (deleted, rest) = header.split_once('=').expect("a pair");
            assert!(
                others.contains(deleted) && rest.starts_with(';'),
                "{header}"
            );
        }
        let mut changed = value.as_bytes().to_vec();
        edit(&mut changed, input);
        let changed = String::from_utf8_lossy(&changed);
        let sent = format!("{name}={changed}");
        let found = FlowCookie::find(&sent, &id, is_plain);
        let opened = found.and_then(|found| found.open(&key));
        assert_eq!(opened.is_some(), changed.trim() == value, "{changed}");
        assert!(opened.is_none_or(|flow| flow.as_slice() == FLOW));
    }
}
