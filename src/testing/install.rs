//! Installs the app under test, as a browser does.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use thiserror::Error;
use url::{Position, Url};

use super::{ConsentError, FakeSlack, Who};

impl FakeSlack {
    /// Installs the app as this person, and returns the response to the callback.
    ///
    /// Behaves as a browser: opens the install page, clicks *Allow*, and follows the redirect to
    /// the callback with the cookies of the first response.
    ///
    /// Sends the callback to the address of `install_page`, as a proxy in front of your app does.
    /// The header `Host` has the redirect URL's host. So a test can use the redirect URL of
    /// production.
    ///
    /// ```no_run
    /// # async fn example(address: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    /// use slack_installs::testing::FakeSlack;
    ///
    /// let fake = FakeSlack::start().await?;
    /// // Your app listens at `address`.
    /// let install_page = format!("http://{address}/slack/install").parse()?;
    /// let response = fake.install(&install_page, "U0ADMIN0001").await?;
    /// assert!(response.status().is_success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InstallError`] if the callback gets no response. If the callback fails, returns
    /// its response with the status.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the app may be installed.
    pub async fn install(
        &self,
        install_page: &Url,
        who: impl Into<Who>,
    ) -> Result<Response<Bytes>, InstallError> {
        let opened = self.send(get(install_page, None, &[])).await?;
        let location = opened.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let authorize = location.and_then(|location| Url::parse(location).ok());
        let authorize = authorize.ok_or_else(|| InstallError::NotRedirected(opened.status()))?;
        let callback = self.allow(&authorize, who)?;
        let mut served_at = install_page.clone();
        served_at.set_path(callback.path());
        served_at.set_query(callback.query());
        let callback = get(&served_at, Some(&callback), &cookies(&opened));
        Ok(self.send(callback).await?)
    }
}

/// Returns a `GET` request to `url`. If `seen` is set, the header `Host` has its host instead.
fn get(url: &Url, seen: Option<&Url>, cookies: &[&str]) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.as_str().parse().expect("a URL is a valid URI");
    let host = &seen.unwrap_or(url)[Position::BeforeHost..Position::AfterPort];
    let host = HeaderValue::from_str(host).expect("a URL's host is visible ASCII");
    request.headers_mut().insert(header::HOST, host);
    if let Ok(cookies) = HeaderValue::from_str(&cookies.join("; "))
        && !cookies.is_empty()
    {
        request.headers_mut().insert(header::COOKIE, cookies);
    }
    request
}

/// Returns the cookies that a response sets, in the form of a request.
fn cookies(response: &Response<Bytes>) -> Vec<&str> {
    let set = response.headers().get_all(header::SET_COOKIE);
    let set = set.iter().filter_map(|cookie| cookie.to_str().ok());
    set.map(|cookie| cookie.split(';').next().unwrap_or(cookie))
        .collect()
}

/// Why the callback of the app under test got no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The authorize page shows an error, or this person may not install the app.
    #[error("Slack does not let this person install the app")]
    Consent(#[from] ConsentError),
    /// The app under test sent no response to the browser.
    #[error("the app under test sent no response to the browser")]
    Delivery(#[from] std::io::Error),
    /// The install page did not redirect the browser to Slack.
    #[error(
        "the install page responded with {0} and without a redirect to Slack: is this the install \
         path of your app (`/slack/install` by default)?"
    )]
    NotRedirected(StatusCode),
}
