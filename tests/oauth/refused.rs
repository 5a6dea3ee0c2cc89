//! The tokens of a refused installation are revoked, unless that could end a stored installation.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::oauth::{Candidate, Decision, InstallPolicy};
use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::testing::{Fault, Rotation, Who};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{AppId, InstallOptions, InstallProvider, TeamId};

use super::support::app::{
    ADA, ALPHA, App, BEN, BRAVO, Browser, OLGA, ORG, installed, user_only, user_scopes, world,
};
use super::support::hooked_transport::Rewritten;
use super::{Nobody, options};

/// Runs a user through this provider's flow. The installation must be refused.
async fn refuse(app: &App, provider: &InstallProvider, options: InstallOptions, who: &str) {
    let browser = Browser::default();
    let callback = app.allowed(&browser, options, who).await;
    let page = browser.open(provider, &callback).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN, "{}", page.body());
}

/// Does the same with a policy that refuses everything.
async fn refused(app: &App, options: InstallOptions, who: &str) {
    refuse(app, &app.provider.clone().with_policy(Nobody), options, who).await;
}

fn revocations(app: &App) -> usize {
    app.fake.calls("auth.revoke")
}

async fn stored_bot(app: &App) -> (AccessToken, Option<RefreshToken>) {
    let installation = app.stored(ALPHA, None).await;
    let grant = installation.installation.bot.expect("a bot").grant;
    (grant.access_token, grant.refresh_token)
}

#[tokio::test]
async fn whatever_a_flow_is_refused_for_its_tokens_are_revoked() {
    let other = AppId::new("A0OTHER0001").expect("an id");
    let app = App::configured(|config| config.app_id = Some(other)).await;
    app.install(ADA).await;
    assert_eq!(revocations(&app), 1, "the token belongs to another app");
    assert!(!app.fake.is_installed(ALPHA));

    let app = App::new().await;
    let mut elsewhere = options();
    elsewhere.team = Some(TeamId::new(BRAVO).expect("an id"));
    app.install_with(elsewhere, ADA).await;
    assert_eq!(revocations(&app), 1, "the workspace is another one");
    assert!(!app.fake.is_installed(ALPHA));

    let app = App::new().await;
    app.install_with(user_only("identity.basic"), BEN).await;
    assert_eq!(revocations(&app), 1, "only an identity was granted");
    assert!(app.fake.user_token(ALPHA, BEN).is_none());

    let app = App::new().await;
    refused(&app, user_scopes("search:read"), BEN).await;
    assert_eq!(
        revocations(&app),
        2,
        "the policy refuses, so the bot's and the user's tokens are revoked"
    );
    assert!(!app.fake.is_installed(ALPHA));

    let app = App::new().await;
    refused(&app, user_only("search:read"), BEN).await;
    assert_eq!(revocations(&app), 1, "no bot is installed");
    assert!(app.fake.user_token(ALPHA, BEN).is_none());
}

#[tokio::test]
async fn the_app_itself_and_the_workspace_that_was_meant_are_not_refused() {
    // Two worlds with the same seed have the same app.
    let same = || world().with_seed(7);
    let in_memory = || Arc::new(MemoryBackend::default());
    let ours = App::with(same(), in_memory(), |_| {}).await.fake.app_id();
    let app = App::with(same(), in_memory(), |config| config.app_id = Some(ours)).await;
    let mut here = options();
    here.team = Some(TeamId::new(ALPHA).expect("an id"));
    let page = app.install_with(here, ADA).await;
    assert!(installed(&page), "{}", page.body());
    assert_eq!(revocations(&app), 0);
}

#[tokio::test]
async fn an_org_wide_install_is_not_the_one_that_was_meant_for_a_workspace() {
    let app = App::new().await;
    let mut meant = options();
    meant.team = Some(TeamId::new(ALPHA).expect("an id"));
    let page = app.install_with(meant, Who::user(OLGA).at(ORG)).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(page.body().contains("another workspace"), "{}", page.body());
    assert!(app.fetch(ORG, None).await.is_none());
    assert_eq!(revocations(&app), 1);
}

/// Takes the database down and refuses the installation.
#[derive(Debug)]
struct Blind(Arc<Flaky<MemoryBackend>>);

#[async_trait]
impl InstallPolicy for Blind {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        self.0.set_faults(Faults {
            lost_reads: 1,
            ..Faults::none()
        });
        Decision::Refuse {
            reason: "no".into(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_is_unknown_who_is_installed_nothing_is_revoked() {
    for is_rotating in [false, true] {
        let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let app = App::with(world(), Arc::clone(&backend) as Arc<dyn Backend>, |_| {}).await;
        if is_rotating {
            app.fake.rotate_tokens(Rotation::default());
        }
        let blind = app.provider.clone().with_policy(Blind(backend));
        refuse(&app, &blind, user_scopes("search:read"), ADA).await;
        assert_eq!(revocations(&app), 0);
        assert!(app.fake.is_installed(ALPHA));
        assert!(app.fake.user_token(ALPHA, ADA).is_some());
    }
}

#[tokio::test]
async fn where_a_bot_is_installed_no_token_that_does_not_rotate_is_revoked() {
    let app = App::new().await;
    assert!(installed(&app.install(ADA).await));
    refused(&app, options(), BEN).await;
    assert_eq!(revocations(&app), 0, "Slack returned the same token again");
    // After an uninstallation Slack issues another token. Revoking it would uninstall the app
    // again.
    app.fake.uninstall(ALPHA);
    refused(&app, options(), BEN).await;
    let (stored, _) = stored_bot(&app).await;
    let issued = app.fake.bot_token(ALPHA).expect("it was installed again");
    assert_ne!(stored.expose(), issued.expose());
    assert_eq!(revocations(&app), 0);
    assert!(app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn of_a_refused_reinstall_that_rotates_the_new_pair_ends_and_the_stored_one_lives() {
    let app = App::new().await;
    app.fake.rotate_tokens(Rotation::default());
    assert!(installed(&app.install(ADA).await));
    let before = app.fake.secrets();
    refused(&app, options(), BEN).await;
    let (access, refresh) = stored_bot(&app).await;
    assert!(app.fake.is_live(access.expose()));
    assert!(
        app.fake
            .is_refreshable(refresh.expect("it rotates").expose())
    );
    let after = app.fake.secrets();
    let new: Vec<_> = after.iter().filter(|it| !before.contains(it)).collect();
    let tokens = |prefix: &str| {
        let with = new.iter().filter(|it| it.starts_with(prefix));
        with.map(|it| it.as_str()).collect::<Vec<_>>()
    };
    let (accesses, refreshes) = (tokens("xoxe.xoxb-1-"), tokens("xoxe-1-"));
    assert_eq!((accesses.len(), refreshes.len()), (1, 1), "one pair is new");
    assert!(!app.fake.is_live(accesses[0]));
    assert!(!app.fake.is_refreshable(refreshes[0]));
    assert_eq!(revocations(&app), 2);
}

#[tokio::test]
async fn a_token_that_is_stored_stays_also_where_it_came_again_with_a_refresh_token() {
    let app = App::new().await;
    app.fake.rotate_tokens(Rotation::default());
    assert!(installed(&app.install(ADA).await));
    let (access, _) = stored_bot(&app).await;
    let token = access.expose().to_owned();
    let again = Rewritten::over(app.fake.transport(), move |path: &str, body: Bytes| {
        if !path.ends_with("oauth.v2.access") {
            return body;
        }
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        answer["access_token"] = json!(token);
        answer.to_string().into()
    });
    let provider = app.provider_over(app.store.clone(), again);
    refuse(&app, &provider.with_policy(Nobody), options(), BEN).await;
    assert_eq!(revocations(&app), 0);
    assert!(app.fake.is_live(access.expose()));
}

#[tokio::test]
async fn a_users_token_is_in_use_if_it_is_the_same_users() {
    let app = App::new().await;
    assert!(installed(
        &app.install_with(user_scopes("search:read"), ADA).await
    ));
    refused(&app, user_scopes("search:read"), ADA).await;
    assert_eq!(revocations(&app), 0, "Ada's own token is stored");
    // For Ben only the bot is stored, so his user token is revoked.
    refused(&app, user_scopes("search:read"), BEN).await;
    assert_eq!(revocations(&app), 1);
    assert!(app.fake.user_token(ALPHA, BEN).is_none());
    assert!(app.fake.user_token(ALPHA, ADA).is_some());
    assert!(app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn a_bot_is_not_in_use_because_a_user_is() {
    let app = App::new().await;
    let mine = app.install_with(user_only("search:read"), ADA).await;
    assert!(installed(&mine));
    refused(&app, options(), ADA).await;
    assert_eq!(revocations(&app), 1, "no bot is stored");
    assert!(app.fake.bot_token(ALPHA).is_none());
    assert!(app.fake.user_token(ALPHA, ADA).is_some());
}

#[tokio::test]
async fn a_revocation_that_fails_stops_none_of_the_others() {
    let app = App::new().await;
    app.fake.rotate_tokens(Rotation::default());
    let before = app.fake.secrets();
    // The first revocation fails: the bot's refresh token. The other three tokens are revoked all
    // the same.
    app.fake.inject("auth.revoke", Fault::unavailable());
    refused(&app, user_scopes("search:read"), BEN).await;
    assert_eq!(revocations(&app), 4);
    let secrets = app.fake.secrets();
    let new = secrets.iter().filter(|it| !before.contains(it));
    let accesses: Vec<_> = new.filter(|it| it.starts_with("xoxe.xox")).collect();
    assert_eq!(accesses.len(), 2);
    assert!(accesses.iter().all(|it| !app.fake.is_live(it)));

    let app = App::new().await;
    app.fake.inject("auth.revoke", Fault::lost());
    refused(&app, user_scopes("search:read"), BEN).await;
    assert_eq!(revocations(&app), 2);
    assert!(app.fake.user_token(ALPHA, BEN).is_none());
}
