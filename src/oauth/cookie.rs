//! The cookie that carries a flow, and binds it to a browser. Each flow has its own, so that two tabs
//! do not conflict.

use std::time::Duration;

use zeroize::Zeroizing;

use super::sealed::FlowKey;
use crate::store::StateId;

/// The value of one flow's cookie: the flow, sealed. The state is bound to the whole value.
pub(super) struct FlowCookie(Zeroizing<String>);

impl FlowCookie {
    /// Makes the cookie of this flow.
    pub(super) fn seal(key: &FlowKey, flow: &[u8]) -> Self {
        Self(Zeroizing::new(key.seal(flow)))
    }

    /// Returns the flow, if this app sealed it and nothing of it was changed.
    pub(super) fn open(&self, key: &FlowKey) -> Option<Zeroizing<Vec<u8>>> {
        key.open(&self.0)
    }

    /// Returns whether browsers keep the cookie.
    pub(super) fn fits(&self) -> bool {
        self.0.len() <= MAX_VALUE
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
        let mut found = pairs(cookies).filter(|(name, _)| *name == ours);
        match (found.next(), found.next()) {
            (Some((_, value)), None) if value.len() <= MAX_VALUE => {
                Some(Self(Zeroizing::new(value.to_owned())))
            }
            _ => None,
        }
    }

    /// Returns the `Set-Cookie` header that gives this cookie to a browser.
    ///
    /// `Lax`, not `Strict`, because the redirect back from Slack is a cross-site navigation.
    pub(super) fn set(&self, id: &StateId, lifetime: Duration, plain_loopback: bool) -> String {
        let name = name(id, plain_loopback);
        header(&name, self.expose(), lifetime, plain_loopback)
    }

    /// Returns the `Set-Cookie` headers that delete the cookies of the oldest flows, if together
    /// with this one there are too many for a server. Browsers send the oldest cookies first.
    pub(super) fn make_room(&self, cookies: &str, plain_loopback: bool) -> Vec<String> {
        let ours = pairs(cookies).filter(|(name, _)| is_name(name, plain_loopback));
        let size = |(name, value): &(&str, &str)| name.len() + "=; ".len() + value.len();
        let all: usize = ours.clone().map(|pair| size(&pair)).sum();
        let mut all = all + prefix(plain_loopback).len() + DIGITS + "=".len() + self.0.len();
        let delete = |(name, _)| header(name, "", Duration::ZERO, plain_loopback);
        ours.take_while(|pair| {
            let is_too_much = all > MAX_TOGETHER;
            all = all.saturating_sub(size(pair));
            is_too_much
        })
        .take(MAX_DELETED)
        .map(delete)
        .collect()
    }
}

redacted!(FlowCookie);

/// Returns the names and values of these cookies.
fn pairs(cookies: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    let pairs = cookies.split(';');
    pairs.filter_map(|pair| pair.trim().split_once('='))
}

fn header(name: &str, value: &str, lifetime: Duration, plain_loopback: bool) -> String {
    // Over plain http, even on localhost, browsers reject `__Host-` cookies, and some reject
    // `Secure` cookies.
    let secure = if plain_loopback { "" } else { "; Secure" };
    let max_age = lifetime.as_secs();
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

fn name(id: &StateId, plain_loopback: bool) -> String {
    let [a, b, c, d, ..] = id.0;
    let number = u32::from_be_bytes([a, b, c, d]);
    format!("{}{number:0DIGITS$x}", prefix(plain_loopback))
}

fn is_name(name: &str, plain_loopback: bool) -> bool {
    let number = name.strip_prefix(prefix(plain_loopback));
    number.is_some_and(|number| {
        number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn prefix(plain_loopback: bool) -> &'static str {
    if plain_loopback {
        "slack-oauth-"
    } else {
        "__Host-slack-oauth-"
    }
}

/// The digits in a cookie's name.
const DIGITS: usize = 8;

/// The length of the longest value. Browsers keep no cookie whose name and value are longer than
/// 4,096 bytes, and some count the attributes too.
pub(super) const MAX_VALUE: usize = 3900;

/// How long the cookies of all flows may be together. Proxies accept headers of 8 KiB, and your app
/// has cookies of its own.
const MAX_TOGETHER: usize = 7 * 1024;

/// The most cookies that one response deletes. Its headers must not become too long either.
const MAX_DELETED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ClientSecret;
    use crate::slack::ClientCredentials;
    use crate::tenant::ClientId;

    const ID: StateId = StateId([0xab; 32]);

    fn cookie() -> FlowCookie {
        let app = ClientCredentials {
            client_id: ClientId::new("1.2").expect("id"),
            client_secret: ClientSecret::new("secret").expect("secret"),
        };
        FlowCookie::seal(&FlowKey::derive(&app, None), b"a flow")
    }

    #[test]
    fn the_cookie_has_every_flag_that_protects_it() {
        let header = cookie().set(&ID, Duration::from_secs(600), false);
        let (pair, attributes) = header.split_once("; ").expect("attributes");
        assert!(pair.starts_with("__Host-slack-oauth-abababab="), "{pair}");
        assert_eq!(
            attributes,
            "Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn on_plain_loopback_the_cookie_is_one_that_browsers_accept_there() {
        let header = cookie().set(&ID, Duration::from_secs(600), true);
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
        assert!(found(MAX_VALUE).is_some_and(|found| found.fits()));
        assert!(found(MAX_VALUE + 1).is_none());
        let longest = FlowCookie(Zeroizing::new("a".repeat(MAX_VALUE)));
        let set = longest.set(&ID, Duration::from_secs(600), false);
        assert!(set.len() <= 4096, "{}", set.len());
        let longer = FlowCookie(Zeroizing::new("a".repeat(MAX_VALUE + 1)));
        assert!(!longer.fits());
    }

    #[test]
    fn a_cookie_that_comes_twice_is_not_taken() {
        let cookies = "__Host-slack-oauth-abababab=one; __Host-slack-oauth-abababab=two";
        assert!(FlowCookie::find(cookies, &ID, false).is_none());
    }

    /// Returns the names of the cookies that are deleted for a new one of this length.
    fn deleted(cookies: &str, new: usize, plain_loopback: bool) -> Vec<String> {
        let new = FlowCookie(Zeroizing::new("n".repeat(new)));
        let headers = new.make_room(cookies, plain_loopback).into_iter();
        let names = headers.map(|header| {
            let (name, rest) = header.split_once('=').expect("a pair");
            assert!(rest.starts_with("; Path=/; Max-Age=0; "), "{header}");
            assert_eq!(rest.ends_with("; Secure"), !plain_loopback, "{header}");
            name.to_owned()
        });
        names.collect()
    }

    #[test]
    fn the_oldest_flows_lose_their_cookies_when_all_are_too_long_together() {
        for plain_loopback in [false, true] {
            let name = |number: u8| name(&StateId([number; 32]), plain_loopback);
            let flow = |number: u8, length| format!("{}={}", name(number), "v".repeat(length));
            let own = format!("session={}", "s".repeat(7000));
            let at = |numbers: &[u8], length| {
                let flows = numbers.iter().map(|number| flow(*number, length));
                let all: Vec<_> = flows.chain([own.clone()]).collect();
                all.join("; ")
            };
            let deleted = |cookies: &str, new| deleted(cookies, new, plain_loopback);
            // Two flows with as much metadata as possible remain, and many without.
            assert_eq!(deleted(&at(&[1], 2950), 2950), [""; 0]);
            assert_eq!(deleted(&at(&[1, 2], 2950), 2950), [name(1)]);
            assert_eq!(deleted(&at(&[2, 1, 3], 2950), 2950), [name(2), name(1)]);
            assert_eq!(deleted(&at(&[1], MAX_VALUE), MAX_VALUE), [name(1)]);
            let many: Vec<u8> = (0..13).collect();
            assert_eq!(deleted(&at(&many, 300), 300), [""; 0]);
            let many: Vec<u8> = (0..100).collect();
            let oldest: Vec<_> = (0..8).map(name).collect();
            assert_eq!(deleted(&at(&many, 300), 300), oldest);
            assert_eq!(deleted("", MAX_VALUE), [""; 0]);
        }
    }

    #[test]
    fn no_cookie_of_the_app_and_none_of_another_scheme_is_deleted() {
        let value = "v".repeat(7000);
        for name in [
            "session",
            "slack-oauth-",
            "slack-oauth-0123456",
            "slack-oauth-012345678",
            "slack-oauth-0123456g",
            "__Host-slack-oauth-01234567",
            "x-slack-oauth-01234567",
        ] {
            let cookies = format!("{name}={value}");
            assert_eq!(deleted(&cookies, MAX_VALUE, true), [""; 0], "{name}");
        }
        let cookies = format!("slack-oauth-01234567={value}");
        assert_eq!(deleted(&cookies, MAX_VALUE, false), [""; 0]);
    }
}
