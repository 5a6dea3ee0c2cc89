//! Every entry that a request waits for ends within its stated time while the database hangs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{HeaderMap, StatusCode, Uri};
use slack_installs::backend::{self, Change};
use slack_installs::replay::{Entry, ReplayGuard};
use slack_installs::slack::SlackClient;
use slack_installs::testing::{Delivery, Who};
use slack_installs::{InstallOptions, SlackApp};
use tokio::time::Instant;

use super::support::app::{self, BEN, Browser, OLGA, REDIRECT, SALES, key};
use super::support::hooked::{Call, Hooked, Hooks};
use super::*;

/// More calls than any of these entries makes, so that each one is the first that hangs.
const CALLS: u64 = 12;

type Hanging = Arc<Flaky<MemoryBackend>>;

/// Returns an app in a workspace and in an organisation, and its database.
async fn installed() -> (Life, Hanging) {
    let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let life = Life::with(world(), Arc::clone(&backend) as Arc<dyn Backend>).await;
    life.app.fake.rotate_tokens(Rotation::default());
    life.install(ADA).await;
    life.install(Who::user(OLGA).at(ORG)).await;
    (life, backend)
}

fn with_rotator(life: &Life) -> (Authorizer, TokenRotator) {
    let app = &life.app;
    let config = RotationConfig::new(credentials(&app.fake));
    let rotator = TokenRotator::new(config, app.slack.clone(), app.store.clone());
    let rotator = rotator.with_clock(app.fake.clock());
    let authorizer = Authorizer::new(app.store.clone()).with_clock(app.fake.clock());
    (authorizer.with_rotator(&rotator), rotator)
}

/// Returns the result of this call and the time that it took. A call that hangs takes an hour.
async fn timed<T>(call: impl Future<Output = T>) -> (Option<T>, Duration) {
    let begun = Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(3600), call).await;
    (outcome.ok(), begun.elapsed())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns requests that read an installation, that of an organisation, and two users' tokens.
fn requests(life: &Life) -> Vec<Delivery> {
    let fake = &life.app.fake;
    let of_another = life.mention(ALPHA).edit(|event| {
        event["authorizations"][0]["user_id"] = json!(BEN);
        event["authorizations"][0]["is_bot"] = json!(false);
    });
    vec![
        life.mention(ALPHA),
        life.mention(SALES),
        of_another,
        fake.slash_command(ADA, "/x", ""),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_request_is_authorized_or_refused_within_two_seconds_whichever_call_hangs() {
    for age in [1, 11, 13] {
        for calls in 0..CALLS {
            let (life, backend) = installed().await;
            life.app.fake.join_org(ALPHA, ORG);
            life.app.fake.advance(secs(age * 3600));
            for delivery in requests(&life) {
                let request = life.request(&delivery);
                for authorizer in [&life.authorizer, &with_rotator(&life).0] {
                    backend.hang_after(calls);
                    let (outcome, took) = timed(authorizer.authorize(&request)).await;
                    assert!(took <= secs(2), "{took:?}, {calls} calls, {delivery:?}");
                    match outcome.expect("it ends") {
                        Err(AuthorizeError::Expired) | Ok(_) => {}
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                    backend.set_faults(Faults::none());
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_installation_that_serves_is_found_within_two_seconds_or_not() {
    for calls in 0..CALLS {
        let (life, backend) = installed().await;
        backend.hang_after(calls);
        let tenant = key(ALPHA);
        let (outcome, took) = timed(life.authorizer.serving(&tenant)).await;
        assert!(took <= secs(2), "{took:?}, {calls} calls");
        let outcome = outcome.expect("it ends");
        assert!(outcome.is_ok_and(|it| it == tenant) || calls < 3, "{calls}");
    }
}

/// Commits of an installation's own row never return, while this is set.
#[derive(Default)]
struct Stuck(AtomicBool);

#[async_trait]
impl Hooks for Stuck {
    async fn before(&self, call: Call<'_>) -> Result<(), backend::Error> {
        let is_stuck = self.0.load(Ordering::SeqCst);
        if let Call::Commit(changes) = call
            && is_stuck
            && changes.iter().any(writes_installation)
        {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn writes_installation(change: &Change) -> bool {
    change.slot().is_some_and(|slot| slot.as_str() == "install")
}

/// Returns an app, and the backend whose commits can be stuck.
async fn stuck() -> (Life, Hooked<Stuck>) {
    let backend = Hooked::<Stuck>::new(Arc::new(MemoryBackend::default()));
    let life = Life::with(world(), Arc::new(backend.clone()) as Arc<dyn Backend>).await;
    (life, backend)
}

#[tokio::test(start_paused = true)]
async fn an_organisation_whose_update_hangs_costs_a_request_half_a_second_and_not_its_token() {
    let (life, backend) = stuck().await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    backend.0.store(true, Ordering::SeqCst);
    let request = life.request(&life.mention(ALPHA));
    let (outcome, took) = timed(life.authorizer.authorize(&request)).await;
    outcome.expect("it ends").expect("it is served");
    assert_eq!(took, Duration::from_millis(500));
    assert_eq!(stored(&life).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_job_gets_its_token_or_an_error_within_twenty_seconds() {
    for age in [1, 13] {
        for calls in 0..CALLS {
            let (life, backend) = installed().await;
            life.app.fake.advance(secs(age * 3600));
            let fake = &life.app.fake;
            let slack = SlackClient::with_transport(fake.environment(), fake.transport());
            let app = SlackApp::builder()
                .credentials(credentials(fake))
                .signing_secret(fake.signing_secret())
                .redirect_uri(REDIRECT)
                .scopes("commands")
                .slack(slack)
                .clock(fake.clock())
                .store(life.app.store.clone());
            let app = app.build().await.expect("nothing is missing");
            backend.hang_after(calls);
            let (outcome, took) = timed(app.token_for(&key(ALPHA))).await;
            assert!(took <= secs(20), "{took:?}, {calls} calls");
            if let Err(error) = outcome.expect("it ends") {
                assert!(error.is_transient(), "{error:?}");
            }
            let admitted = app.serve(life.request(&life.mention(ALPHA)));
            let (_, took) = timed(admitted).await;
            assert!(took <= Duration::from_millis(2500), "{took:?}, {calls}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_claimed_within_two_seconds_and_its_result_written_within_ten() {
    for calls in 0..CALLS {
        for is_handled in [true, false] {
            let (life, backend) = installed().await;
            let guard = ReplayGuard::new(life.app.store.clone());
            let guard = guard.with_clock(life.app.fake.clock());
            let request = life.request(&life.mention(ALPHA));
            backend.hang_after(calls);
            let (entered, took) = timed(guard.enter(&request)).await;
            assert!(took <= secs(2), "{took:?}, {calls} calls");
            let Ok(Entry::New(pass)) = entered.expect("it ends") else {
                continue;
            };
            let (_, took) = if is_handled {
                timed(pass.done()).await
            } else {
                timed(pass.failed()).await
            };
            assert!(took <= secs(10), "{took:?}, {calls} calls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifecycle_event_ends_within_two_minutes_so_that_slack_repeats_it() {
    for calls in 0..CALLS {
        let (life, backend) = installed().await;
        life.advance(600);
        for kind in ["app_uninstalled", "team_access_granted", "tokens_revoked"] {
            let event = json!({"type": kind, "team_ids": [SALES], "tokens": {"bot": ["U1"]}});
            let delivery = life.app.fake.event(ALPHA, event);
            backend.hang_after(calls);
            let (outcome, took) = timed(life.deliver(&delivery)).await;
            assert!(took <= secs(120), "{kind}: {took:?}, {calls} calls");
            if let Err(error) = outcome.expect("it ends") {
                assert!(error.is_transient(), "{error:?}");
            }
            backend.set_faults(Faults::none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_installs_gets_a_page_although_the_database_hangs() {
    for calls in 0..CALLS {
        let (life, backend) = installed().await;
        let provider = &life.app.provider;
        backend.hang_after(calls);
        let start = Uri::from_static("/slack/install");
        let headers = HeaderMap::new();
        let (page, took) = timed(provider.install_response(&start, &headers)).await;
        assert!(took <= secs(10), "{took:?}, {calls} calls");
        let status = page.expect("it ends").status();
        assert_eq!(status == StatusCode::FOUND, took < secs(10), "{status}");
        backend.set_faults(Faults::none());
        let browser = Browser::default();
        let options = InstallOptions::default();
        let callback = life.app.allowed(&browser, options, ADA).await;
        backend.hang_after(calls);
        let (page, took) = timed(browser.open(provider, &callback)).await;
        // The steps are: the state is used, the tokens are stored, and facts are added to them.
        assert!(took <= secs(10), "{took:?}, {calls} calls");
        assert!(page.is_some(), "{calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_could_not_be_stored_within_ten_seconds_are_stored_when_the_database_returns() {
    let (life, backend) = stuck().await;
    let browser = Browser::default();
    let callback = life.app.allowed(&browser, InstallOptions::default(), ADA);
    let callback = callback.await;
    backend.0.store(true, Ordering::SeqCst);
    let (page, took) = timed(browser.open(&life.app.provider, &callback)).await;
    assert_eq!(took, secs(10));
    assert!(!app::installed(&page.expect("it ends")));
    tokio::time::sleep(secs(60)).await;
    assert!(life.bot_token(ALPHA).await.is_none());
    backend.0.store(false, Ordering::SeqCst);
    tokio::time::sleep(secs(60)).await;
    assert!(life.bot_token(ALPHA).await.is_some());
}
