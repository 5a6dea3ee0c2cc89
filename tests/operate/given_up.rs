//! A sweep over tenants whose tokens rotate, and whose chains were given up.

use slack_installs::operate::Reconciled;
use slack_installs::slack::SlackClient;
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore as _, StoredChain};
use slack_installs::testing::Rotation;
use slack_installs::{RotationConfig, TokenRotator};

use super::*;
use crate::support::app::user_id;
use crate::support::script::{error, scripted};

const CAT: &str = "U0MEMBER003";

async fn rotating() -> Life {
    let alpha = Workspace::new(ALPHA, "Alpha")
        .with_person(Person::admin(ADA, "ada"))
        .with_person(Person::member(BEN, "ben"))
        .with_person(Person::member(CAT, "cat"));
    let world = World::empty().with_workspace(alpha);
    let life = Life::with(world, Arc::new(MemoryBackend::default())).await;
    life.app.fake.rotate_tokens(Rotation::default());
    life
}

fn rotator(life: &Life) -> TokenRotator {
    let (slack, store) = (life.app.slack.clone(), life.app.store.clone());
    TokenRotator::new(
        RotationConfig::new(credentials(&life.app.fake)),
        slack,
        store,
    )
    .with_clock(life.app.fake.clock())
}

fn chain_key(credential: Credential) -> ChainKey {
    let tenant = key(ALPHA);
    ChainKey { credential, tenant }
}

async fn chain(life: &Life, credential: Credential) -> Option<StoredChain> {
    let chain = life.app.store.chain(&chain_key(credential)).await;
    chain.expect("responds")
}

async fn swept(life: &Life, slack: &SlackClient) -> Reconciled {
    let report = operator_over(life, slack).reconcile(&sweep(true)).await;
    report.expect("responds")
}

fn verdicts(report: &Reconciled) -> Vec<Verdict> {
    let findings = report.findings.iter();
    findings.map(|found| found.verdict.clone()).collect()
}

/// Marks a chain as given up, or as idle for long.
async fn change(life: &Life, credential: Credential, change: impl Fn(&mut Chain) + Send + Sync) {
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        change(&mut next);
        Some(next)
    };
    let key = chain_key(credential);
    let changed = life.app.store.update(&key, None, &mut decide).await;
    changed.expect("responds").expect("it exists");
}

#[tokio::test(start_paused = true)]
async fn a_rotating_tenant_whose_events_were_lost_ends_when_its_chains_were_given_up() {
    let life = rotating().await;
    life.install(ADA).await;
    life.app.fake.uninstall(ALPHA);
    drop(life.app.fake.take_events());
    life.advance(13 * 3600);
    let rotator = rotator(&life);
    for credential in [Credential::Bot, Credential::User(user_id(ADA))] {
        let token = rotator.token_for(&key(ALPHA), credential.clone()).await;
        assert!(token.is_err());
        let stored = chain(&life, credential).await.expect("stored");
        assert!(stored.chain.is_dead);
    }
    let report = swept(&life, &life.app.slack).await;
    assert_eq!((verdicts(&report), report.purged), (vec![Verdict::Gone], 1));
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_that_nobody_uses_is_refreshed_so_that_the_next_sweep_knows() {
    let life = rotating().await;
    life.install(BEN).await;
    life.install(CAT).await;
    life.install(ADA).await;
    for user in [ADA, BEN, CAT] {
        change(&life, Credential::User(user_id(user)), |chain| {
            chain.idle = 5;
            chain.due_at = None;
        })
        .await;
    }
    life.app.fake.uninstall(ALPHA);
    let unclear = Verdict::Unclear(Some(slack_installs::slack::ErrorCode::new("token_revoked")));
    // The first sweep schedules Ada's refresh, and the second one those of all other users.
    for (users, found) in [(&[ADA][..], unclear), (&[BEN, CAT], Verdict::Gone)] {
        for user in users {
            let before = chain(&life, Credential::User(user_id(user))).await;
            assert_eq!(before.expect("stored").chain.due_at, None, "{user} is idle");
        }
        let report = swept(&life, &life.app.slack).await;
        assert_eq!((verdicts(&report), report.purged), (vec![found], 0));
        let now = life.app.fake.clock().now();
        let due = life.app.store.due(now, None, 10).await.expect("responds").0;
        let mut due: Vec<_> = due.iter().map(ToString::to_string).collect();
        due.sort();
        let chains = users
            .iter()
            .map(|user| chain_key(Credential::User(user_id(user))));
        let chains: Vec<_> = chains.map(|chain| chain.to_string()).collect();
        assert_eq!(due, chains);
        for user in users {
            let token = rotator(&life)
                .token_for(&key(ALPHA), Credential::User(user_id(user)))
                .await;
            assert!(token.is_err());
        }
    }
    let report = swept(&life, &life.app.slack).await;
    assert_eq!(report.purged, 1);
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test(start_paused = true)]
async fn no_tenant_is_purged_while_a_token_of_it_may_live() {
    let (dead, revoked, expired) = ("account_inactive", "token_revoked", "token_expired");
    let codes = ["", dead, revoked, expired, "invalid_auth"];
    let dies = |code: &str, is_given_up: bool| match code {
        _ if code == dead => true,
        _ if code == revoked || code == expired => is_given_up,
        _ => false,
    };
    for bot_says in codes {
        for user_says in codes {
            for given_up in 0..4 {
                let (of_bot, of_user) = (given_up & 1 == 1, given_up & 2 == 2);
                let life = rotating().await;
                life.install(ADA).await;
                let user = Credential::User(user_id(ADA));
                change(&life, Credential::Bot, |chain| chain.is_dead = of_bot).await;
                change(&life, user, |chain| chain.is_dead = of_user).await;
                let bot = life.bot_token(ALPHA).await;
                let slack = scripted(&life.app.fake, move |method, token| {
                    let is_bots = bot.as_ref() == Some(&token);
                    let code = if is_bots { bot_says } else { user_says };
                    let is_meant = method == "auth.test" && !code.is_empty();
                    async move { is_meant.then(|| error(code)) }
                });
                let report = swept(&life, &slack).await;
                let case = format!("{bot_says} {of_bot}, {user_says} {of_user}");
                let all_end = dies(bot_says, of_bot) && dies(user_says, of_user);
                // An expired token proves nothing about the app.
                let one_is_dead = [bot_says, user_says] != [expired; 2];
                let expected = usize::from(all_end && one_is_dead);
                assert_eq!(report.purged, expected, "{case}");
                if all_end && !one_is_dead {
                    assert_eq!(verdicts(&report), [Verdict::ReinstallNeeded], "{case}");
                }
                assert_eq!(life.slots(ALPHA).await.is_empty(), expected == 1, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_of_a_chain_that_was_given_up_is_deleted_beside_one_that_lives() {
    let life = rotating().await;
    life.install(ADA).await;
    let user = Credential::User(user_id(ADA));
    change(&life, user, |chain| chain.is_dead = true).await;
    let token = life.user_token(ALPHA, ADA).await;
    let slack = scripted(&life.app.fake, move |method, asked| {
        let is_meant = method == "auth.test" && token.as_ref() == Some(&asked);
        async move { is_meant.then(|| error("token_revoked")) }
    });
    let report = swept(&life, &slack).await;
    assert_eq!(verdicts(&report), [Verdict::PartlyGone]);
    assert_eq!(report.repaired, 1);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_only_reports_schedules_no_refresh() {
    let life = rotating().await;
    life.install(ADA).await;
    life.app.fake.uninstall(ALPHA);
    let before = all_rows(&*life.backend).await;
    let report = operator(&life).reconcile(&sweep(false)).await;
    assert_eq!(verdicts(&report.expect("responds")).len(), 1);
    assert_eq!(all_rows(&*life.backend).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_replaces_a_revoked_token_while_it_is_judged_stays_in_use() {
    let life = Arc::new(rotating().await);
    life.install(ADA).await;
    let (refreshed, old) = (Arc::clone(&life), life.bot_token(ALPHA).await);
    let slack = scripted(&life.app.fake, move |method, token| {
        let is_meant = method == "auth.test" && old.as_ref() == Some(&token);
        let life = Arc::clone(&refreshed);
        async move {
            if !is_meant {
                return None;
            }
            life.advance(13 * 3600);
            let token = rotator(&life).token_for(&key(ALPHA), Credential::Bot).await;
            token.expect("Slack refreshes");
            Some(error("token_revoked"))
        }
    });
    swept(&life, &slack).await;
    let chain = chain(&life, Credential::Bot).await.expect("stored").chain;
    assert_eq!((chain.generation, chain.last_error), (1, None));
}
