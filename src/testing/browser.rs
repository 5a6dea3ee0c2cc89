//! A browser that keeps cookies, and opens the pages of the app under test.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use thiserror::Error;
use url::{Position, Url, form_urlencoded};

use super::cookies::{Cookies, Site};
use super::{ConsentError, FakeSlack, Who};

impl FakeSlack {
    /// Installs the app as this person, and returns the response to the callback.
    ///
    /// Does the same as [`Browser::install`] with a new browser.
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
        let who = who.into();
        self.browser().install(install_page, who).await
    }

    /// Opens a browser without cookies.
    #[must_use]
    pub fn browser(&self) -> Browser {
        Browser {
            cookies: Cookies::default(),
            fake: self.clone(),
        }
    }
}

/// A browser, for the pages of the app under test. It keeps the app's cookies.
///
/// It follows no redirect, so that a test sees each response. All its cookies belong to the app
/// under test, on whichever host. A cookie has its path, its expiry by the fake's clock, and
/// `SameSite=Strict`. `Secure` is ignored, because browsers treat loopback as secure.
///
/// ```no_run
/// # async fn example(address: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::testing::FakeSlack;
///
/// let fake = FakeSlack::start().await?;
/// let mut browser = fake.browser();
/// // Ada signs in to your app, and then installs it.
/// let app = format!("http://{address}/");
/// browser.post(&format!("{app}login").parse()?, &[("name", "ada")]).await?;
/// let install_page = format!("{app}slack/install").parse()?;
/// let authorize = browser.begin(&install_page).await?;
/// let callback = fake.allow(&authorize, "U0ADMIN0001")?;
/// let response = browser.finish(&install_page, &callback).await?;
/// assert!(response.status().is_success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Browser {
    cookies: Cookies,
    fake: FakeSlack,
}

impl Browser {
    /// Opens a page of the app, as a person who types its URL.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`FakeSlack::deliver`]. The other methods do the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the app may have received the request. The browser then keeps none
    /// of the response's cookies. The same holds for the other methods.
    pub async fn get(&mut self, page: &Url) -> std::io::Result<Response<Bytes>> {
        self.send(request(page, None), Site::Same).await
    }

    /// Submits a form of the app.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`get`](Self::get).
    pub async fn post(
        &mut self,
        page: &Url,
        form: &[(&str, &str)],
    ) -> std::io::Result<Response<Bytes>> {
        let mut request = request(page, None);
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = encode(form).into();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        self.send(request, Site::Same).await
    }

    /// Opens the install page, and returns the authorize URL to which it redirects.
    ///
    /// # Errors
    ///
    /// Returns [`InstallError`] if the page does not redirect the browser.
    pub async fn begin(&mut self, install_page: &Url) -> Result<Url, InstallError> {
        let opened = self.get(install_page).await?;
        let location = opened.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let authorize = location.and_then(|location| Url::parse(location).ok());
        authorize.ok_or_else(|| InstallError::NotRedirected(opened.status()))
    }

    /// Follows Slack's redirect to this callback URL.
    ///
    /// Sends the request to the address of `install_page`, as a proxy in front of your app does.
    /// The header `Host` has the callback URL's host. So a test can use the redirect URL of
    /// production.
    ///
    /// The redirect comes from another site, so cookies with `SameSite=Strict` are not sent.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`get`](Self::get).
    pub async fn finish(
        &mut self,
        install_page: &Url,
        callback: &Url,
    ) -> std::io::Result<Response<Bytes>> {
        let mut served_at = install_page.clone();
        served_at.set_path(callback.path());
        served_at.set_query(callback.query());
        self.send(request(&served_at, Some(callback)), Site::Other)
            .await
    }

    /// Installs the app as this person, and returns the response to the callback.
    ///
    /// Opens the install page, clicks *Allow*, and follows the redirect to the callback, as
    /// [`begin`](Self::begin), [`FakeSlack::allow`] and [`finish`](Self::finish) do.
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
        &mut self,
        install_page: &Url,
        who: impl Into<Who>,
    ) -> Result<Response<Bytes>, InstallError> {
        // Converted here, so that the future is `Send` for every `who`.
        let who = who.into();
        let authorize = self.begin(install_page).await?;
        let callback = self.fake.allow(&authorize, who)?;
        Ok(self.finish(install_page, &callback).await?)
    }

    /// Returns the value of the cookie with this name.
    ///
    /// If there are several with different paths, returns the one that was set first.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.value(name, self.fake.core.clock.now())
    }

    /// Deletes all cookies.
    pub fn clear_cookies(&mut self) {
        self.cookies = Cookies::default();
    }

    async fn send(
        &mut self,
        mut request: Request<Bytes>,
        from: Site,
    ) -> std::io::Result<Response<Bytes>> {
        let clock = &self.fake.core.clock;
        let path = request.uri().path().to_owned();
        let cookies = self.cookies.header(&path, from, clock.now());
        if let Some(cookies) = cookies {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let response = self.fake.send(request).await?;
        self.cookies.keep(response.headers(), &path, clock.now());
        Ok(response)
    }
}

impl std::fmt::Debug for Browser {
    /// Omits the cookies, which are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Browser")
    }
}

/// Returns the body of a form. A function of its own, because the serializer is not `Send`.
fn encode(form: &[(&str, &str)]) -> String {
    let mut fields = form_urlencoded::Serializer::new(String::new());
    fields.extend_pairs(form).finish()
}

/// Returns a `GET` request to `url`. If `seen` is set, the header `Host` has its host instead.
fn request(url: &Url, seen: Option<&Url>) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.as_str().parse().expect("a URL is a valid URI");
    let host = &seen.unwrap_or(url)[Position::BeforeHost..Position::AfterPort];
    let host = HeaderValue::from_str(host).expect("a URL's host is visible ASCII");
    request.headers_mut().insert(header::HOST, host);
    request
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
