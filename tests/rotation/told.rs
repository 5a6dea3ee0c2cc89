//! The app is told of a chain that died, so that it can ask the customer to install it again.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use slack_installs::rotation::Error;
use slack_installs::store::{Credential, LifecycleStore as _, Notice, Subject};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{Departure, InstallationStore as _, Lifecycle, LifecycleHooks, UserId};

use super::support::hooked_chains::Way;
use super::support::rotation::{ADMIN, ALPHA, BotToken as _, Stage, admin, alpha, secs};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone, Debug, Default)]
struct Mailer(Arc<Mutex<Vec<(Credential, Notice)>>>);

#[async_trait]
impl LifecycleHooks for Mailer {
    async fn uninstalled(&self, _: &Departure, _: bool) -> Outcome {
        Ok(())
    }

    async fn reinstall_needed(&self, whose: &Credential, notice: &Notice) -> Outcome {
        let mut mails = self.0.lock().expect("no test panics with it");
        mails.push((whose.clone(), notice.clone()));
        Ok(())
    }
}

impl Mailer {
    /// Returns the mails of another process that starts now.
    async fn of(stage: &Stage) -> Vec<(Credential, Notice)> {
        let mailer = Self::default();
        // The store has the system's clock, as this lifecycle does.
        let lifecycle =
            Lifecycle::new(stage.store.clone(), stage.slack()).with_hooks(mailer.clone());
        let resumed = lifecycle.resume_pending().await.expect("responds");
        let mails = mailer.0.lock().expect("no test panics with it").clone();
        assert_eq!(mails.len(), resumed);
        mails
    }
}

fn admin_id() -> UserId {
    UserId::new(ADMIN).expect("an id")
}

async fn notices(stage: &Stage, credential: Credential) -> usize {
    let subject = Subject::Chain(credential);
    let notices = stage.store.notices(&alpha(), &[subject]).await;
    notices.expect("the store is up").len()
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_slack_refuses_for_good_is_told_once_with_what_the_flow_carried() {
    let stage = Stage::new(Rotation::default()).await;
    stage.install(ALPHA, "chat:write", "search:read").await;
    let mut installation = stage.fetched().await.installation;
    installation.installed_by = Some(admin_id());
    installation.metadata = Some("customer-42".to_owned());
    stage.store.store(&installation).await.expect("stored");
    stage.expire();
    let rotator = stage.rotator();
    for credential in [Credential::Bot, admin()] {
        stage.inject(Fault::error("invalid_refresh_token"));
        let refused = rotator.token_for(&alpha(), credential.clone()).await;
        assert_matches!(refused, Err(Error::ReinstallNeeded { .. }));
        // A caller that meets the dead chain again causes no second notice.
        let refused = rotator.token_for(&alpha(), credential.clone()).await;
        assert_matches!(refused, Err(Error::ReinstallNeeded { .. }));
        let mails = Mailer::of(&stage).await;
        let [(whose, notice)] = &mails[..] else {
            panic!("{mails:?}")
        };
        assert_eq!(*whose, credential);
        assert_eq!(notice.subject, Subject::Chain(credential));
        assert_eq!(notice.key, alpha());
        assert_eq!(notice.reason, "invalid_refresh_token");
        assert_eq!(notice.installed_by, Some(admin_id()));
        assert_eq!(notice.metadata.as_deref(), Some("customer-42"));
        assert!(Mailer::of(&stage).await.is_empty(), "it is told once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_around_the_death_of_a_chain_leaves_both_the_mark_and_the_notice_or_neither() {
    let (mut told, mut untold) = (0, 0);
    for lost in [false, true] {
        for nth in 0..6 {
            let stage = Stage::installed().await;
            stage.expire();
            stage.inject(Fault::error("invalid_refresh_token").always());
            let rotator = stage.rotator_with_updates(move |number| match lost {
                _ if number != nth => Way::Done,
                true => Way::Lost,
                false => Way::Dies,
            });
            drop(rotator.bot_token().await);
            // The process ends here.
            let is_dead = stage.bot_chain().await.chain.is_dead;
            let case = format!("update {nth}, lost: {lost}");
            let count = notices(&stage, Credential::Bot).await;
            assert_eq!(count, usize::from(is_dead), "{case}");
            assert_eq!(Mailer::of(&stage).await.len(), count, "{case}");
            told += count;
            untold += usize::from(!is_dead);
        }
    }
    assert!(told > 0 && untold > 0, "{told} told, {untold} not");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_to_install_again_for_a_chain_that_lives_or_was_revived() {
    // Slack's trouble is not a death.
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::unavailable().times(2));
    stage.rotator().bot_token().await.expect_err("unavailable");
    assert_eq!(notices(&stage, Credential::Bot).await, 0);
    // An operator revives the chain before the app is told.
    tokio::time::sleep(secs(120)).await;
    stage.inject(Fault::error("invalid_refresh_token"));
    let rotator = stage.rotator();
    rotator.bot_token().await.expect_err("refused");
    assert_eq!(notices(&stage, Credential::Bot).await, 1);
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(revived.expect("available"));
    assert_eq!(notices(&stage, Credential::Bot).await, 0);
    // The customer installs the app again before the app is told.
    stage.inject(Fault::error("invalid_refresh_token"));
    rotator.bot_token().await.expect_err("refused");
    assert_eq!(notices(&stage, Credential::Bot).await, 1);
    stage.fake.advance(secs(60));
    stage.install(ALPHA, "chat:write", "").await;
    assert_eq!(notices(&stage, Credential::Bot).await, 0);
    assert!(Mailer::of(&stage).await.is_empty());
    rotator.bot_token().await.expect("installed again");
}
