//! The cookie that binds a flow to a browser. Each flow has its own, so that two tabs do not
//! conflict.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::random;
use crate::secret::same;
use crate::store::StateId;

/// The value of one flow's cookie: 32 random bytes. If the flow belongs to a session of your app, a
/// dot and the session's mark follow. The state is bound to the whole value.
pub(super) struct FlowCookie(Zeroizing<String>);

impl FlowCookie {
    pub(super) fn generate(session: Option<&str>) -> Self {
        let mut value = Zeroizing::new(URL_SAFE_NO_PAD.encode(random::bytes::<32>()));
        if let Some(session) = session {
            let mark = mark(&value, session);
            value.push('.');
            value.push_str(&mark);
        }
        Self(value)
    }

    /// Returns whether the flow belongs to this session, or to none.
    pub(super) fn is_of_session(&self, session: Option<&str>) -> bool {
        match (self.0.split_once('.'), session) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((random, marked)), Some(session)) => same(marked, &mark(random, session)),
        }
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Finds this flow's cookie among those that a browser sent.
    ///
    /// If the name occurs twice, returns `None`, because it is unknown which cookie is ours. An
    /// attacker can cause this by setting a cookie for a parent domain or path.
    pub(super) fn find(cookies: &str, id: &StateId, plain_loopback: bool) -> Option<Self> {
        let ours = name(id, plain_loopback);
        let mut found = cookies.split(';').filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == ours).then_some(value)
        });
        match (found.next(), found.next()) {
            (Some(value), None) if value.len() <= MAX_VALUE => {
                Some(Self(Zeroizing::new(value.to_owned())))
            }
            _ => None,
        }
    }

    /// Returns the `Set-Cookie` header that gives this cookie to a browser.
    ///
    /// `Lax`, not `Strict`, because the redirect back from Slack is a cross-site navigation.
    pub(super) fn set(&self, id: &StateId, lifetime: Duration, plain_loopback: bool) -> String {
        // Over plain http, even on localhost, browsers reject `__Host-` cookies, and some reject
        // `Secure` cookies.
        let secure = if plain_loopback { "" } else { "; Secure" };
        let (name, value, max_age) = (name(id, plain_loopback), self.expose(), lifetime.as_secs());
        format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
    }
}

redacted!(FlowCookie);

/// Returns what binds a cookie to a session. It reveals nothing about the session.
fn mark(random: &str, session: &str) -> String {
    let parts = [SESSION_LABEL, random.as_bytes(), session.as_bytes()];
    let hash = digest(&SHA256, &parts.concat());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..15])
}

fn name(id: &StateId, plain_loopback: bool) -> String {
    let prefix = if plain_loopback { "" } else { "__Host-" };
    let [a, b, c, d, ..] = id.0;
    format!(
        "{prefix}slack-oauth-{:08x}",
        u32::from_be_bytes([a, b, c, d])
    )
}

/// The length of the longest accepted value. Our values have 43 characters, and 64 with the mark of
/// a session.
const MAX_VALUE: usize = 64;

const SESSION_LABEL: &[u8] = b"slack-installs oauth session v1";

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StateId = StateId([0xab; 32]);

    #[test]
    fn the_cookie_has_every_flag_that_protects_it() {
        let header = FlowCookie::generate(None).set(&ID, Duration::from_secs(600), false);
        let (pair, attributes) = header.split_once("; ").expect("attributes");
        assert!(pair.starts_with("__Host-slack-oauth-abababab="), "{pair}");
        assert_eq!(
            attributes,
            "Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn on_plain_loopback_the_cookie_is_one_that_browsers_accept_there() {
        let header = FlowCookie::generate(None).set(&ID, Duration::from_secs(600), true);
        assert!(header.starts_with("slack-oauth-abababab="), "{header}");
        assert!(!header.contains("Secure"), "{header}");
    }

    #[test]
    fn a_flow_finds_its_own_cookie_among_others() {
        let other = StateId([1; 32]);
        let cookies = "a=b; __Host-slack-oauth-abababab=mine; slack-oauth-01010101=theirs; c";
        let found = |id, plain| FlowCookie::find(cookies, id, plain);
        assert_eq!(found(&ID, false).expect("found").expose(), "mine");
        assert_eq!(found(&other, true).expect("found").expose(), "theirs");
        assert!(FlowCookie::find("a=b; c", &ID, false).is_none());
        assert!(FlowCookie::find("", &ID, true).is_none());
    }

    #[test]
    fn on_https_a_cookie_that_a_sibling_domain_could_set_is_not_taken() {
        assert!(FlowCookie::find("slack-oauth-abababab=tossed", &ID, false).is_none());
    }

    #[test]
    fn a_cookie_that_is_longer_than_any_of_ours_is_not_taken() {
        let found = |length: usize| {
            let value = "a".repeat(length);
            FlowCookie::find(&format!("slack-oauth-abababab={value}"), &ID, true)
        };
        assert!(found(64).is_some());
        assert!(found(65).is_none());
    }

    #[test]
    fn a_flow_of_a_session_ends_in_that_session_only() {
        let unbound = FlowCookie::generate(None);
        let bound = FlowCookie::generate(Some("ada"));
        assert_eq!(
            (unbound.expose().len(), bound.expose().len()),
            (43, MAX_VALUE)
        );
        for (session, is_of_session) in [
            (Some("ada"), true),
            (Some("bob"), false),
            (Some(""), false),
            (Some("ada "), false),
            (None, false),
        ] {
            assert_eq!(bound.is_of_session(session), is_of_session, "{session:?}");
            assert!(unbound.is_of_session(session), "{session:?}");
        }
        assert!(FlowCookie::generate(Some("")).is_of_session(Some("")));
        assert!(!FlowCookie::generate(Some("")).is_of_session(None));
    }

    #[test]
    fn a_cookie_that_comes_twice_is_not_taken() {
        let cookies = "__Host-slack-oauth-abababab=one; __Host-slack-oauth-abababab=two";
        assert!(FlowCookie::find(cookies, &ID, false).is_none());
    }
}
