//! The flow as HTTP: a request's head in, a response out, for any framework.

use std::sync::atomic::Ordering;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use url::form_urlencoded;

use super::{Callback, Error, InstallOptions, InstallProvider, PageResponse};
use crate::error_chain::error_chain;
use crate::slack::ErrorCode;
use crate::tenant::TeamId;

impl InstallProvider {
    /// Answers a `GET` of the install path: a 302 to Slack's page, with the flow's cookie.
    ///
    /// Slack's Marketplace asks for just that of a direct install URL. `?team=T…` in the query is
    /// passed on as the workspace that it is meant for. Of several redirect URLs the one of this
    /// request's host is taken, since its cookie must come back there.
    pub async fn install_response(&self, uri: &Uri, headers: &HeaderMap) -> Response<String> {
        let mut options = self.options_at(host(uri, headers));
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let team = query
            .into_iter()
            .find(|(name, _)| name == "team")
            .map(|(_, value)| value);
        options.team = team.and_then(|team| TeamId::new(team).ok());
        self.start_response(options).await
    }

    /// Options for a flow that begins at this host: its cookie must come back there.
    fn options_at(&self, host: Option<&str>) -> InstallOptions {
        let mut options = InstallOptions::default();
        let mut uris = self.redirect_uris().iter();
        options.redirect_uri = uris.find(|uri| Some(uri.authority()) == host).cloned();
        if options.redirect_uri.is_none() {
            self.warn_of_other_loopback(host);
            // Behind a proxy that changes the header this is as it should be; otherwise the
            // callback will miss its cookie.
            tracing::debug!("no redirect URL has the host of this request; the first one is taken");
        }
        options
    }

    /// Says once that a flow at `127.0.0.1` cannot end at `localhost`, nor the reverse.
    fn warn_of_other_loopback(&self, host: Option<&str>) {
        let Some((host, first)) = host.zip(self.redirect_uris().first()) else {
            return;
        };
        if first.is_other_loopback(host) && !self.0.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host,
                redirect_uri = first.as_str(),
                "an install flow began at another host than its redirect URL's, so its cookie will \
                 not come back: open the install path at the redirect URL's host, or change the \
                 redirect URL"
            );
        }
    }

    /// Begins a flow with these options and answers the 302 to Slack's page.
    pub async fn start_response(&self, options: InstallOptions) -> Response<String> {
        match self.start(options).await {
            Ok(started) => {
                let mut response = redirect(started.authorize_url.as_str());
                set_cookie(&mut response, started.set_cookie.expose());
                response
            }
            Err(error) => {
                let error_chain = error_chain(&error);
                tracing::error!(error = error_chain, "an install flow could not begin");
                self.failed(&error)
            }
        }
    }

    /// Answers Slack's callback: the page that tells how it went. A callback without a state is
    /// sent through a flow of our own.
    pub async fn callback_response(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Response<String> {
        if *method != Method::GET {
            // A `HEAD`, as link previews send it, must not use the state up.
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let cookies = cookies(headers);
        let Some(query) = Query::parse(uri.query().unwrap_or_default()) else {
            return self.failed(&Error::InvalidState);
        };
        let callback = Callback {
            state: query.state.as_deref(),
            code: query.code.as_deref(),
            error: query.error.as_deref(),
            cookies: &cookies,
            path: Some(uri.path()),
            host: host(uri, headers),
        };
        match self.finish(&callback).await {
            // The cookie stays until it expires: it opens nothing any more, and without it a page
            // that is loaded again would look like one from another browser.
            Ok(installed) => self.page(self.0.pages.installed(&installed), StatusCode::OK),
            // Begun at Slack (Marketplace, an admin's page): the code is not exchanged, since
            // nobody knows whose browser this is.
            Err(Error::NoState) => match callback.error {
                Some(code) => self.failed(&Error::Denied(ErrorCode::new(code))),
                None => self.start_response(self.options_at(callback.host)).await,
            },
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &Error) -> Response<String> {
        self.page(self.0.pages.failed(error), error.status())
    }

    fn page(&self, page: PageResponse, status: StatusCode) -> Response<String> {
        match page {
            PageResponse::Html(html) => {
                let mut response = plain(status);
                *response.body_mut() = html;
                response
            }
            PageResponse::Redirect(url) => redirect(url.as_str()),
        }
    }
}

/// The parameters of a callback that are read. Secrets; no `Debug`.
struct Query {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

impl Query {
    /// `None` if a parameter comes twice, or the query is longer than any of Slack's: whoever
    /// made it did not come from there.
    fn parse(query: &str) -> Option<Self> {
        if query.len() > MAX_QUERY {
            return None;
        }
        let mut parsed = Self {
            state: None,
            code: None,
            error: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "state" => &mut parsed.state,
                "code" => &mut parsed.code,
                "error" => &mut parsed.error,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(parsed)
    }
}

fn cookies(headers: &HeaderMap) -> String {
    let values = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join("; ")
}

/// HTTP/2 has it in the request's target, and often no such header.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match headers.get(HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(Authority::as_str),
    }
}

fn redirect(to: &str) -> Response<String> {
    let mut response = plain(StatusCode::FOUND);
    let to = HeaderValue::from_str(to).expect("a parsed URL is visible ASCII");
    response.headers_mut().insert(LOCATION, to);
    response
}

/// A response that no cache keeps, that tells nobody its URL, and that loads and runs nothing.
fn plain(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn set_cookie(response: &mut Response<String>, value: &str) {
    let mut value = HeaderValue::from_str(value).expect("cookies are visible ASCII");
    value.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, value);
}

/// Slack's own callbacks have about 250 characters.
const MAX_QUERY: usize = 8 * 1024;

const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];
