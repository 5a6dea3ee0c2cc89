//! The flow over HTTP, for any framework: takes the head of a request and returns a response.

use std::sync::atomic::Ordering;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use url::form_urlencoded;

use super::failed::{FailedFlow, Flow};
use super::{
    Callback, Error, InstallOptions, InstallPage, InstallProvider, PageResponse, SetCookie,
};
use crate::error_chain::error_chain;
use crate::panics::catch_panic;
use crate::slack::ErrorCode;
use crate::tenant::{EnterpriseId, TeamId};

impl InstallProvider {
    /// Responds to a `GET` of the install path: a 302 to Slack's page, with the flow's cookie.
    ///
    /// Slack's Marketplace requires this response from a direct install URL. `?team=T…` in the
    /// query is passed on as the workspace in which to install, and `?team=E…` as the organisation.
    /// Your app can change the options in
    /// [`InstallHooks::starting`](super::InstallHooks::starting). If several redirect URLs are
    /// configured, the one with the host of this request is used, because the browser sends the
    /// cookie only to that host.
    ///
    /// If the app's [`Pages`](super::Pages) have a page for the install path, it is shown first.
    pub async fn install_response(&self, uri: &Uri, headers: &HeaderMap) -> Response<String> {
        if let Some(page) = self.install_page(uri) {
            return self.page(page, StatusCode::OK);
        }
        let mut options = self.options_at(host(uri, headers));
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let team = query
            .into_iter()
            .find(|(name, _)| name == "team")
            .map(|(_, value)| value);
        if let Some(team) = team {
            options.enterprise = EnterpriseId::new(&*team).ok();
            options.team = TeamId::new(team).ok();
        }
        self.start_for(options, uri, headers).await
    }

    /// Starts a flow with the options that your app adds to these.
    async fn start_for(
        &self,
        options: InstallOptions,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Response<String> {
        let options = InstallOptions {
            cookies: Some(cookies(headers)),
            ..options
        };
        let Some(hooks) = &self.0.hooks else {
            return self.start_response(options).await;
        };
        let flow = Flow::of_options(&self.0.config, &options);
        match catch_panic(hooks.starting(options, uri, headers)).await {
            Some(options) => self.start_response(options).await,
            None => {
                tracing::error!(
                    expected = flow.expected(),
                    "an install hook panicked, so an install flow did not start"
                );
                self.failed(&FailedFlow {
                    error: Error::Hook,
                    flow,
                })
            }
        }
    }

    /// Returns the page before the flow, if there is one, and the person has not seen it.
    fn install_page(&self, uri: &Uri) -> Option<PageResponse> {
        let query = uri.query().unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        if query.len() > MAX_QUERY || pairs.any(|(name, _)| name == START) {
            return None;
        }
        // What the link said, such as the workspace, is said again at the start.
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut start = form_urlencoded::Serializer::new(String::new());
        let start = start.extend_pairs(pairs).append_pair(START, "1").finish();
        let requested = self.0.config.requested();
        self.0.pages.install(&InstallPage {
            requested: &requested,
            start: &format!("{}?{start}", self.0.config.install_path),
        })
    }

    /// Returns the options for a flow that starts at this host. Its redirect URL should have the
    /// same host, because the browser sends the flow's cookie only there.
    fn options_at(&self, host: Option<&str>) -> InstallOptions {
        let mut options = InstallOptions::default();
        let mut uris = self.redirect_uris().iter();
        options.redirect_uri = uris.find(|uri| Some(uri.authority()) == host).cloned();
        if options.redirect_uri.is_none() {
            self.warn_of_other_loopback(host);
            // Behind a proxy that changes the header, this is normal. Otherwise the callback does
            // not receive the cookie.
            tracing::debug!("no redirect URL has the host of this request; the first one is used");
        }
        options
    }

    /// Warns once that a flow from `127.0.0.1` cannot finish at `localhost`, and the reverse.
    fn warn_of_other_loopback(&self, host: Option<&str>) {
        let Some((host, first)) = host.zip(self.redirect_uris().first()) else {
            return;
        };
        if first.is_other_loopback(host) && !self.0.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host,
                redirect_uri = first.as_str(),
                "an install flow started at another host than its redirect URL's, so the callback \
                 will not receive the flow's cookie: open the install path at the redirect URL's \
                 host, or change the redirect URL"
            );
        }
    }

    /// Starts a flow with these options, and returns the 302 to Slack's page.
    pub async fn start_response(&self, options: InstallOptions) -> Response<String> {
        let flow = Flow::of_options(&self.0.config, &options);
        match self.start(options).await {
            Ok(started) => {
                let mut response = redirect(started.authorize_url.as_str());
                set_cookie(&mut response, &started.set_cookie);
                for cookie in &started.delete_cookies {
                    set_cookie(&mut response, cookie);
                }
                response
            }
            Err(error) => {
                if let Some(left_out) = self.0.log_limit.admit("start") {
                    tracing::error!(
                        error = error_chain(&error),
                        expected = flow.expected(),
                        left_out,
                        "an install flow could not start"
                    );
                }
                self.failed(&FailedFlow { error, flow })
            }
        }
    }

    /// Responds to Slack's callback with a page that shows the result. A callback without a state
    /// is sent through the app's own flow.
    pub async fn callback_response(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Response<String> {
        if *method != Method::GET {
            // A `HEAD` request, which link previews send, must not consume the state.
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        if is_speculative(headers) {
            // The browser discards a response with this status, and sends the request again if the
            // person follows the link.
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        }
        let cookies = cookies(headers);
        let session = match &self.0.hooks {
            Some(hooks) => match catch_panic(hooks.session(headers)).await {
                Some(session) => session,
                None => {
                    tracing::error!("an install hook panicked, so a callback is refused");
                    return self.failed(&FailedFlow::new(Error::Hook));
                }
            },
            None => None,
        };
        let Some(query) = Query::parse(uri.query().unwrap_or_default()) else {
            let flow = Flow {
                session,
                ..Flow::default()
            };
            let error = Error::InvalidState;
            return self.not_begun(&FailedFlow { error, flow });
        };
        let callback = Callback {
            session: session.as_deref(),
            state: query.state.as_deref(),
            code: query.code.as_deref(),
            error: query.error.as_deref(),
            cookies: &cookies,
            path: Some(uri.path()),
            host: host(uri, headers),
        };
        match self.finish(&callback).await {
            // The cookie stays until it expires. It no longer grants anything. Without it, a page
            // that is loaded again would look like a page in another browser.
            Ok(installed) => self.page(self.0.pages.installed(&installed), StatusCode::OK),
            // The flow started at Slack (Marketplace, an admin's page). The code is not exchanged,
            // because nothing proves that this browser started the flow.
            Err(failed) if matches!(failed.error, Error::NoState) => match callback.error {
                Some(code) => {
                    let error = Error::Denied(ErrorCode::new(code));
                    let flow = failed.flow;
                    self.not_begun(&FailedFlow { error, flow })
                }
                None => {
                    let options = self.options_at(callback.host);
                    self.start_for(options, uri, headers).await
                }
            },
            Err(failed) => self.failed(&failed),
        }
    }

    /// Logs a callback of no flow that this app began, and returns its page.
    fn not_begun(&self, failed: &FailedFlow) -> Response<String> {
        self.0.log_failed(failed);
        self.failed(failed)
    }

    fn failed(&self, failed: &FailedFlow) -> Response<String> {
        self.page(self.0.pages.failed(failed), failed.error.status())
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

/// The parameters of a callback that are read. They are secrets, so there is no `Debug`.
struct Query {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

impl Query {
    /// Returns `None` if a parameter occurs twice, or the query is longer than any of Slack's. Such
    /// a query does not come from Slack.
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

/// Returns whether a browser or a scanner sent this request ahead, without a person who follows the
/// link.
fn is_speculative(headers: &HeaderMap) -> bool {
    let is_ahead = |value: &HeaderValue| {
        let value = value.as_bytes().to_ascii_lowercase();
        AHEAD
            .iter()
            .any(|word| value.windows(word.len()).any(|part| part == *word))
    };
    headers.contains_key("sec-speculation-tags")
        || PURPOSES
            .iter()
            .any(|name| headers.get_all(*name).iter().any(is_ahead))
}

fn cookies(headers: &HeaderMap) -> String {
    let values = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join("; ")
}

/// Returns the host. Over HTTP/2, it is in the request's target, and the header is often missing.
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

/// Returns a response that is not cached, does not send its URL to other sites, and loads and runs
/// nothing.
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

fn set_cookie(response: &mut Response<String>, cookie: &SetCookie) {
    let mut value = HeaderValue::from_str(cookie.expose()).expect("cookies are visible ASCII");
    value.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, value);
}

/// The parameter that starts the flow although there is a page before it.
const START: &str = "start";

/// The headers in which a request says that it is speculative: of the Fetch standard, of Chrome,
/// Safari and Firefox before it, and of libraries that prefetch links.
const PURPOSES: [&str; 6] = [
    "sec-purpose",
    "purpose",
    "x-purpose",
    "x-sec-purpose",
    "x-moz",
    "moz-purpose",
];

/// The words in these headers.
const AHEAD: [&[u8]; 4] = [b"prefetch", b"prerender", b"preview", b"preload"];

/// The longest accepted query, in bytes. Slack's own callbacks have about 250 characters.
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
