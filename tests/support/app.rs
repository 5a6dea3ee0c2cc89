//! An app and a fake Slack in this process, and browsers that install the app.

use std::sync::{Arc, Mutex};

use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::slack::{ClientCredentials, SlackClient, Transport};
use slack_installs::testing::{FakeSlack, Org, Person, Who, Workspace, World};
use slack_installs::{
    EncryptedStore, EnterpriseId, InstallConfig, InstallOptions, InstallProvider, InstallationKey,
    InstallationStore, LocalKeyProvider, MasterKey, RedirectUri, Scopes, StoredInstallation,
    TeamId, UserId,
};
use url::Url;

use super::checks::Database;

pub type Store = EncryptedStore<Arc<dyn Backend>>;

pub const ADA: &str = "U0ADMIN0001";
pub const BEN: &str = "U0MEMBER002";
pub const OLGA: &str = "W0ORGADM001";
pub const ALPHA: &str = "T0ALPHA0001";
pub const BRAVO: &str = "T0BRAVO0002";
pub const ORG: &str = "E0GRID00001";
pub const SALES: &str = "T0GRID00011";
pub const SUPPORT: &str = "T0GRID00012";
pub const REDIRECT: &str = "https://bot.example.com/slack/oauth_redirect";
pub const OTHER_REDIRECT: &str = "https://eu.example.com/slack/eu/oauth_redirect";

/// A fake Slack, and an app that keeps its installations in memory.
pub struct App {
    pub fake: FakeSlack,
    pub slack: SlackClient,
    pub store: Store,
    pub provider: InstallProvider,
}

impl App {
    pub async fn new() -> Self {
        Self::with(world(), Arc::new(MemoryBackend::default()), |_| {}).await
    }

    pub async fn configured(configure: impl FnOnce(&mut InstallConfig)) -> Self {
        Self::with(world(), Arc::new(MemoryBackend::default()), configure).await
    }

    pub async fn with(
        world: World,
        database: impl Into<Database>,
        configure: impl FnOnce(&mut InstallConfig),
    ) -> Self {
        let fake = FakeSlack::in_process(world);
        let slack = SlackClient::with_transport(fake.environment(), fake.transport())
            .with_clock(fake.clock());
        let keys = LocalKeyProvider::new(MasterKey::generate());
        let database = database.into();
        let backend = Arc::clone(&database.backend);
        let store = EncryptedStore::open(backend, keys, fake.client_id()).await;
        let store = database.process(store.expect("opens"));
        let store = store.with_clock(fake.clock());
        let mut config = config(&fake);
        configure(&mut config);
        let provider = InstallProvider::new(config, slack.clone(), store.clone(), store.clone())
            .expect("the configuration is valid")
            .with_clock(fake.clock());
        Self {
            fake,
            slack,
            store,
            provider,
        }
    }

    /// Returns a provider of this app that uses this store and this transport to Slack.
    pub fn provider_over(
        &self,
        store: impl InstallationStore,
        transport: impl Transport,
    ) -> InstallProvider {
        let slack = SlackClient::with_transport(self.fake.environment(), transport)
            .with_clock(self.fake.clock());
        InstallProvider::new(config(&self.fake), slack, store, self.store.clone())
            .expect("the configuration is valid")
            .with_clock(self.fake.clock())
    }

    /// Runs the install flow for this user, who allows the installation.
    pub async fn install(&self, who: impl Into<Who>) -> Response<String> {
        self.install_with(InstallOptions::default(), who).await
    }

    pub async fn install_with(
        &self,
        options: InstallOptions,
        who: impl Into<Who>,
    ) -> Response<String> {
        let browser = Browser::default();
        let callback = self.allowed(&browser, options, who).await;
        browser.open(&self.provider, &callback).await
    }

    /// Returns the callback URL of a flow that this browser began and this user allowed.
    pub async fn allowed(
        &self,
        browser: &Browser,
        options: InstallOptions,
        who: impl Into<Who>,
    ) -> Url {
        let authorize = self.begin(browser, options).await;
        self.fake
            .allow(&authorize, who)
            .expect("the user may install the app")
    }

    /// Begins a flow in this browser, and returns the URL of Slack's page.
    pub async fn begin(&self, browser: &Browser, options: InstallOptions) -> Url {
        let response = self.provider.start_response(options).await;
        assert_eq!(response.status(), StatusCode::FOUND, "{}", response.body());
        browser.keep_cookies(&response);
        location(&response)
    }

    pub async fn fetch(&self, tenant: &str, user: Option<&str>) -> Option<StoredInstallation> {
        let user = user.map(user_id);
        self.store
            .fetch(&key(tenant), user.as_ref())
            .await
            .expect("the store is up")
    }

    /// Returns the stored installation of a tenant. Panics if the tenant has not installed the app.
    pub async fn stored(&self, tenant: &str, user: Option<&str>) -> StoredInstallation {
        let stored = self.fetch(tenant, user).await;
        stored.expect("the app is installed")
    }

    pub fn exchanges(&self) -> usize {
        self.fake.calls("oauth.v2.access")
    }
}

/// Returns the client credentials of the fake's app.
pub fn credentials(fake: &FakeSlack) -> ClientCredentials {
    ClientCredentials {
        client_id: fake.client_id(),
        client_secret: fake.client_secret(),
    }
}

/// Returns options that request user scopes in addition to the default bot scopes.
pub fn user_scopes(scopes: &str) -> InstallOptions {
    InstallOptions {
        user_scopes: Some(Scopes::from(scopes)),
        ..InstallOptions::default()
    }
}

/// Returns options that request user scopes only.
pub fn user_only(scopes: &str) -> InstallOptions {
    InstallOptions {
        scopes: Some(Scopes::default()),
        ..user_scopes(scopes)
    }
}

/// Reports whether this response is the page of a successful installation.
pub fn installed(response: &Response<String>) -> bool {
    response.status() == StatusCode::OK && response.body().contains("is installed")
}

fn config(fake: &FakeSlack) -> InstallConfig {
    InstallConfig::new(
        credentials(fake),
        RedirectUri::new(REDIRECT).expect("a redirect URL"),
        Scopes::from("commands,chat:write,users:read"),
    )
}

/// A browser that keeps cookies.
#[derive(Default)]
pub struct Browser(Mutex<Vec<String>>);

impl Browser {
    /// Opens a callback URL.
    pub async fn open(&self, provider: &InstallProvider, url: &Url) -> Response<String> {
        let response = self.request(provider, &Method::GET, url).await;
        self.keep_cookies(&response);
        response
    }

    pub async fn request(
        &self,
        provider: &InstallProvider,
        method: &Method,
        url: &Url,
    ) -> Response<String> {
        let uri: Uri = url[url::Position::BeforePath..]
            .parse()
            .expect("a URL's path and query");
        provider
            .callback_response(method, &uri, &self.headers(url))
            .await
    }

    pub fn headers(&self, url: &Url) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let cookies = self.cookies().join("; ");
        if !cookies.is_empty() {
            headers.insert(COOKIE, cookies.parse().expect("cookies are visible ASCII"));
        }
        headers.insert(
            "host",
            HeaderValue::from_str(url.authority()).expect("a host"),
        );
        headers
    }

    pub fn cookies(&self) -> Vec<String> {
        self.0.lock().expect("the lock is not poisoned").clone()
    }

    pub fn keep_cookies(&self, response: &Response<String>) {
        let mut kept = self.0.lock().expect("the lock is not poisoned");
        for header in response.headers().get_all(SET_COOKIE) {
            let header = header.to_str().expect("visible ASCII");
            let pair = header.split(';').next().expect("a cookie has a name");
            let (name, value) = pair.split_once('=').expect("a cookie has a value");
            kept.retain(|other| !other.starts_with(&format!("{name}=")));
            if !value.is_empty() {
                kept.push(pair.to_owned());
            }
        }
    }
}

pub fn location(response: &Response<String>) -> Url {
    let to = response.headers().get(LOCATION).expect("a redirect");
    Url::parse(to.to_str().expect("visible ASCII")).expect("a URL")
}

pub fn key(tenant: &str) -> InstallationKey {
    if tenant.starts_with('E') {
        InstallationKey::org(EnterpriseId::new(tenant).expect("an id"))
    } else {
        InstallationKey::workspace(TeamId::new(tenant).expect("an id"))
    }
}

pub fn user_id(id: &str) -> UserId {
    UserId::new(id).expect("an id")
}

/// Returns the URL with one query parameter replaced or, for `None`, removed.
pub fn with_parameter(url: &Url, name: &str, value: Option<&str>) -> Url {
    let kept: Vec<_> = url
        .query_pairs()
        .filter(|(other, _)| other != name)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(kept);
    if let Some(value) = value {
        changed.query_pairs_mut().append_pair(name, value);
    }
    changed
}

pub fn parameter(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(other, _)| other == name)
        .expect("the URL has the parameter")
        .1
        .into_owned()
}

/// Returns a world of two workspaces outside any organisation, and an organisation with two.
pub fn world() -> World {
    World::empty()
        .with_workspace(
            Workspace::new(ALPHA, "Alpha <script>alert(1)</script>")
                .with_person(Person::admin(ADA, "ada"))
                .with_person(Person::member(BEN, "ben")),
        )
        .with_workspace(
            Workspace::new(BRAVO, "Bravo").with_person(Person::admin("U0BRAVO0001", "bob")),
        )
        .with_org(
            Org::new(ORG, "Gridline Org")
                .with_workspace(
                    Workspace::new(SALES, "Sales").with_person(Person::admin("U0GRIDUSR02", "gil")),
                )
                .with_workspace(Workspace::new(SUPPORT, "Support"))
                .with_person(Person::org_admin(OLGA, "olga")),
        )
}
