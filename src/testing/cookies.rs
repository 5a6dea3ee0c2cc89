//! The cookies of a browser.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

/// The cookies of one app, in the order in which they were first set.
#[derive(Clone, Default)]
pub(super) struct Cookies(Vec<Cookie>);

#[derive(Clone)]
struct Cookie {
    /// `None` for a cookie that lasts as long as the browser.
    expires_at: Option<SystemTime>,
    is_strict: bool,
    name: String,
    path: String,
    value: String,
}

/// The site whose page caused a request.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Site {
    Same,
    Other,
}

impl Cookies {
    /// Returns the header `Cookie` of a request for this path. Longer cookie paths come first.
    pub(super) fn header(&self, path: &str, from: Site, now: SystemTime) -> Option<HeaderValue> {
        let is_sent = |cookie: &&Cookie| {
            cookie.is_live(now)
                && is_below(path, &cookie.path)
                && (from == Site::Same || !cookie.is_strict)
        };
        let mut sent: Vec<_> = self.0.iter().filter(is_sent).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs = sent.iter().map(|cookie| cookie.pair());
        let header = pairs.collect::<Vec<_>>().join("; ");
        // A value came in a header, so it is valid in one.
        HeaderValue::try_from(header).ok().filter(|h| !h.is_empty())
    }

    /// Stores and deletes cookies as the response to a request for this path says.
    pub(super) fn keep(&mut self, response: &HeaderMap, path: &str, now: SystemTime) {
        for cookie in response.get_all(header::SET_COOKIE) {
            let Ok(Some(cookie)) = cookie.to_str().map(|text| Cookie::parse(text, path, now))
            else {
                continue;
            };
            let same = |old: &Cookie| old.name == cookie.name && old.path == cookie.path;
            let old = self.0.iter().position(same);
            match (old, cookie.is_live(now)) {
                (Some(old), true) => self.0[old] = cookie,
                (Some(old), false) => drop(self.0.remove(old)),
                (None, true) => self.0.push(cookie),
                (None, false) => {}
            }
        }
    }

    /// Returns the value of the first cookie with this name.
    pub(super) fn value(&self, name: &str, now: SystemTime) -> Option<&str> {
        let named = |cookie: &&Cookie| cookie.name == name && cookie.is_live(now);
        self.0.iter().find(named).map(|cookie| &*cookie.value)
    }
}

impl Cookie {
    /// Parses the header `Set-Cookie` of a response to a request for `path`.
    fn parse(text: &str, path: &str, now: SystemTime) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let (mut expires, mut max_age) = (None, None);
        let mut cookie = Self {
            expires_at: None,
            is_strict: false,
            name: name.trim().to_owned(),
            path: folder(path).to_owned(),
            value: value.trim().to_owned(),
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key.to_ascii_lowercase().as_str() {
                "expires" => expires = httpdate::parse_http_date(value).ok(),
                "max-age" => max_age = value.parse::<i64>().ok(),
                "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                "samesite" => cookie.is_strict = value.eq_ignore_ascii_case("strict"),
                _ => {}
            }
        }
        // `Max-Age` wins over `Expires`, and a negative one means the past.
        let lives = max_age.map(|age| Duration::from_secs(u64::try_from(age).unwrap_or(0)));
        // A date that is too late to be represented never comes.
        cookie.expires_at = lives.map_or(expires, |lives| now.checked_add(lives));
        (!cookie.name.is_empty()).then_some(cookie)
    }

    fn is_live(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    fn pair(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

/// Returns the default path of a cookie: the request's path up to its last slash.
fn folder(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

/// Returns whether a request's path is a cookie's path, or is below it.
fn is_below(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(set: &[&str], now: SystemTime) -> Cookies {
        let mut cookies = Cookies::default();
        let mut response = HeaderMap::new();
        for cookie in set {
            let cookie = HeaderValue::from_str(cookie).expect("visible ASCII");
            response.append(header::SET_COOKIE, cookie);
        }
        cookies.keep(&response, "/slack/install", now);
        cookies
    }

    fn sent(cookies: &Cookies, path: &str, from: Site, now: SystemTime) -> String {
        let header = cookies.header(path, from, now);
        header.map_or_else(String::new, |header| {
            header.to_str().expect("ASCII").to_owned()
        })
    }

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_cookie_is_sent_below_its_path_only() {
        let cookies = browser(&["a=1; Path=/", "b=2", "c=3; Path=/slack/install"], NOW);
        let at = |path| sent(&cookies, path, Site::Same, NOW);
        assert_eq!(at("/"), "a=1");
        assert_eq!(at("/slack/oauth_redirect"), "b=2; a=1");
        assert_eq!(at("/slack/install"), "c=3; b=2; a=1");
        assert_eq!(at("/slackers"), "a=1");
    }

    #[test]
    fn a_cookie_ends_when_its_time_is_over_or_the_app_deletes_it() {
        let minute = Duration::from_secs(60);
        let mut cookies = browser(
            &[
                "a=1; Path=/; Max-Age=60",
                "b=2; Path=/; Expires=Thu, 01 Jan 1970 00:01:00 GMT",
                "c=3; Path=/; Max-Age=61; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "d=4; Path=/",
                "e=5; Path=/; Max-Age=0",
            ],
            NOW,
        );
        let at = |cookies: &Cookies, now| sent(cookies, "/", Site::Same, now);
        assert_eq!(at(&cookies, NOW), "a=1; b=2; c=3; d=4");
        assert_eq!(at(&cookies, NOW + minute), "c=3; d=4");
        let mut response = HeaderMap::new();
        let deleted = HeaderValue::from_static("d=; Path=/; Max-Age=-1");
        response.append(header::SET_COOKIE, deleted);
        let replaced = HeaderValue::from_static("a=6; Path=/");
        response.append(header::SET_COOKIE, replaced);
        cookies.keep(&response, "/", NOW);
        assert_eq!(at(&cookies, NOW), "a=6; b=2; c=3");
        assert_eq!(cookies.value("a", NOW), Some("6"));
    }

    #[test]
    fn a_strict_cookie_is_not_sent_after_a_redirect_from_another_site() {
        let cookies = browser(
            &["a=1; Path=/; SameSite=Strict", "b=2; Path=/; SameSite=Lax"],
            NOW,
        );
        assert_eq!(sent(&cookies, "/", Site::Same, NOW), "a=1; b=2");
        assert_eq!(sent(&cookies, "/", Site::Other, NOW), "b=2");
    }
}
