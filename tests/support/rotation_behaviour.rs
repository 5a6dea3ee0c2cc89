//! What `TokenRotator` does with other processes and a failing database, over any backend.
//!
//! Each check is a plain function over one database, which it may share with all other checks.
//! `tests/suite` runs them. Tokio's clock runs, because real databases take real time. Events that
//! must coincide are held and released, and Slack's clock moves only when a check moves it.

use std::time::Duration;

use slack_installs::rotation::{Error, RefusedToken, Token, WorkerConfig};
use slack_installs::store::{Credential, StoredChain};
use slack_installs::testing::Faults;
use slack_installs::testing::{Fault, GracePolicy, Rotation};
use slack_installs::{Clock, Delete, InstallationStore as _, TokenRotator, UserId};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::checks::{Check, Database, until};
use crate::support::rotation::{
    ADMIN, ALPHA, HOUR, Held, REFRESH, Stage, admin, alpha, refresh_token,
};

/// All checks.
pub(crate) const ROTATION: &[Check<Database>] = &checks! {
    a_dead_chain_is_answered_without_a_call_until_it_is_reinstalled
    a_failing_user_refresh_costs_the_bot_nothing
    a_lease_whose_process_died_is_taken_over
    a_pair_is_saved_when_the_database_comes_back
    a_refresh_of_the_bot_leaves_users_as_they_were
    a_refresh_that_meets_a_reinstall_leaves_the_new_installation_as_it_is
    a_refresh_that_meets_an_uninstallation_revives_nothing_and_revokes_its_pair
    a_save_whose_answer_was_lost_is_not_taken_for_a_race
    an_alternate_rescues_a_chain_whose_primary_is_dead
    callers_that_meet_token_expired_together_cost_one_refresh
    four_processes_cost_one_refresh
    of_two_workers_one_replaces_a_token_ahead
    retry_after_is_kept_by_every_process
    the_worker_repeats_a_refresh_whose_process_died_within_the_grace
};

async fn installed(database: Database) -> Stage {
    installed_with(database, Rotation::default()).await
}

async fn installed_with(database: Database, rotation: Rotation) -> Stage {
    let stage = Stage::on(database, rotation).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage
}

// One refresh for any number of callers.

pub(crate) async fn four_processes_cost_one_refresh(database: Database) {
    // Each caller reads once, unless a cache has the chain. Then the process reads again several
    // times, and finds that the lease is taken.
    let looks = match database.cache {
        Some(_) => 3,
        None => CALLERS + 3,
    };
    let stage = installed(database).await;
    stage.expire();
    let (first, held) = stage.held();
    let mut herd = JoinSet::new();
    ask(&mut herd, &first);
    held.answered().await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let process = stage.another().await;
        let reads = process.reads();
        ask(&mut herd, &process.rotator());
        waiting.push((process, reads + looks));
    }
    for (process, reads) in &waiting {
        until("each process waits for the lease", async || {
            process.reads() >= *reads
        })
        .await;
    }
    held.release();
    let tokens = herd.join_all().await;
    assert_eq!(tokens.len(), 4 * 16);
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    assert!(chain.chain.lease.is_none(), "the lease is released");
    let stored = chain.grant.access_token.expose();
    assert!(stage.fake.is_live(stored));
    for token in tokens {
        assert_eq!(token.expect("no caller fails"), stored);
    }
}

/// The application's own error.
#[derive(Debug)]
struct Expired;

impl RefusedToken for Expired {
    fn is_token_expired(&self) -> bool {
        true
    }
}

pub(crate) async fn callers_that_meet_token_expired_together_cost_one_refresh(database: Database) {
    let stage = installed(database).await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    let mut herd = JoinSet::new();
    for _ in 0..4 {
        let rotator = stage.another().await.rotator();
        for _ in 0..CALLERS {
            let (rotator, old) = (rotator.clone(), old.expose().to_owned());
            herd.spawn(async move {
                let operation = |token: Token| {
                    let is_old = token.access_token.expose() == old;
                    async move { if is_old { Err(Expired) } else { Ok(()) } }
                };
                rotator.call(&alpha(), Credential::Bot, operation).await
            });
        }
    }
    assert!(herd.join_all().await.iter().all(Result::is_ok));
    assert_eq!(stage.refreshes(), 1);
}

pub(crate) async fn retry_after_is_kept_by_every_process(database: Database) {
    let stage = installed(database).await;
    stage.expire();
    let calls = stage.fake.calls(REFRESH);
    let half_a_minute = Duration::from_secs(30);
    stage
        .fake
        .inject(REFRESH, Fault::rate_limited(half_a_minute));
    for _ in 0..4 {
        let error = bot(&stage.another().await.rotator()).await;
        let Err(Error::TryAgain { at, code }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(code.as_str(), "ratelimited");
        assert_eq!(at, stage.fake.clock().now() + half_a_minute);
    }
    assert_eq!(stage.fake.calls(REFRESH), calls + 1);
    stage.fake.advance(half_a_minute);
    bot(&stage.another().await.rotator())
        .await
        .expect("a token");
}

pub(crate) async fn a_dead_chain_is_answered_without_a_call_until_it_is_reinstalled(
    database: Database,
) {
    let stage = installed(database).await;
    let old = stage.bot_chain().await;
    revoke(&stage, &old).await;
    stage.expire();
    let rotators = [stage.rotator(), stage.another().await.rotator()];
    for rotator in rotators.iter().cycle().take(10) {
        let error = bot(rotator).await.expect_err("dead");
        let Error::ReinstallNeeded { code } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(code.as_str(), "invalid_refresh_token");
        assert!(!error.is_transient());
    }
    assert_eq!(stage.refreshes(), 1);
    stage.install(ALPHA, "chat:write", "").await;
    bot(&stage.rotator()).await.expect("a new installation");
    let later = stage.another().await.rotator();
    bot(&later).await.expect("a new installation");
}

// Chains of one installation.

pub(crate) async fn a_failing_user_refresh_costs_the_bot_nothing(database: Database) {
    let stage = Stage::on(database, Rotation::default()).await;
    stage.install(ALPHA, "chat:write", "search:read").await;
    let user = stage.chain(admin()).await.expect("a user token");
    revoke(&stage, &user).await;
    stage.expire();
    let user_id = UserId::new(ADMIN).expect("an id");
    let installation = stage.store.fetch(&alpha(), Some(&user_id)).await;
    let installation = installation.expect("the store is up").expect("installed");
    let refreshed = stage.rotator().refreshed(installation).await;
    let bot = refreshed.installation.bot.expect("the bot");
    assert!(stage.fake.is_live(bot.grant.access_token.expose()));
    assert!(
        refreshed.installation.user.is_none(),
        "no expired token is handed out"
    );
    let error = refreshed.user_error.expect("a reason");
    assert_matches!(error, Error::ReinstallNeeded { .. });
    let after = stage.another().await;
    assert_eq!(after.bot_chain().await.chain.generation, 1);
    assert!(after.chain(admin()).await.expect("kept").chain.is_dead);
}

pub(crate) async fn a_refresh_of_the_bot_leaves_users_as_they_were(database: Database) {
    let stage = Stage::on(database, Rotation::default()).await;
    stage.install(ALPHA, "chat:write", "search:read").await;
    let before = stage.chain(admin()).await.expect("a user token");
    stage.expire();
    bot(&stage.rotator()).await.expect("a token");
    let after = stage.another().await.chain(admin()).await;
    let after = after.expect("a user token");
    assert_eq!(after.chain, before.chain);
    let tokens = [&before, &after].map(|chain| refresh_token(chain).expose());
    assert_eq!(tokens[0], tokens[1]);
    let users = stage.rotator().token_for(&alpha(), admin()).await;
    users.expect("the user's own refresh");
    let after = stage.another().await.chain(admin()).await;
    assert_eq!(after.expect("exists").chain.generation, 1);
}

// What happens between Slack's response and the save.

pub(crate) async fn a_refresh_that_meets_an_uninstallation_revives_nothing_and_revokes_its_pair(
    database: Database,
) {
    let stage = installed(database).await;
    stage.expire();
    let (caller, held) = refreshing(&stage.another().await).await;
    let purged = stage.store.delete(&alpha(), &Delete::all()).await;
    assert!(purged.expect("purged"));
    held.release();
    let error = caller.await.expect("no panic").expect_err("deleted");
    assert_matches!(error, Error::NotInstalled { .. });
    let after = stage.another().await;
    assert!(
        after.chain(Credential::Bot).await.is_none(),
        "no row was restored"
    );
    assert_eq!(
        stage.fake.calls("auth.revoke"),
        2,
        "the access token and the refresh token are revoked"
    );
    assert_eq!(stage.fake.live_tokens(ALPHA, None), 0);
}

pub(crate) async fn a_refresh_that_meets_a_reinstall_leaves_the_new_installation_as_it_is(
    database: Database,
) {
    let stage = installed(database).await;
    stage.expire();
    let (caller, held) = refreshing(&stage.another().await).await;
    stage.install(ALPHA, "chat:write", "").await;
    let new = stage.bot_chain().await;
    held.release();
    let token = caller.await.expect("no panic");
    let token = token.expect("the new installation's token");
    assert_eq!(token, new.grant.access_token.expose());
    let after = stage.another().await.bot_chain().await;
    assert_eq!(after.chain.install, new.chain.install);
    assert_eq!(refresh_token(&after).expose(), refresh_token(&new).expose());
    assert!(after.alternates.is_empty());
    assert_eq!(stage.fake.calls("auth.revoke"), 2);
    assert!(stage.fake.is_live(&token));
}

/// The first process stalls between Slack's response and the save. Its lease has lapsed on the
/// clock of the second process, which refreshes and saves meanwhile. Only the pair that was issued
/// first is alive.
pub(crate) async fn an_alternate_rescues_a_chain_whose_primary_is_dead(database: Database) {
    let rotation = Rotation {
        grace: Duration::from_secs(120),
        policy: GracePolicy::FirstOnly,
        ..Rotation::default()
    };
    let stage = installed_with(database, rotation).await;
    stage.expire();
    let (caller, held) = refreshing(&stage.another().await).await;
    let clock = stage.fake.clock();
    let ahead = Clock::from_fn(move || clock.now() + Duration::from_secs(60));
    let second = stage.another().await.rotator().with_clock(ahead);
    let second = bot(&second).await;
    assert_matches!(
        second,
        Err(Error::TryAgain { .. }),
        "the pair that Slack does not keep alive is not handed out"
    );
    held.release();
    // The process that lost the race asks Slack which pair is alive, before any caller finds out.
    let token = caller.await.expect("no panic").expect("some token");
    assert!(stage.fake.is_live(&token));
    // The second pair, the one that its spent token buys once more, and the one that the first pair
    // buys.
    let chain = stage.another().await.bot_chain().await;
    assert_eq!((chain.chain.generation, chain.alternates.len()), (3, 0));
}

// A database that fails.

pub(crate) async fn a_pair_is_saved_when_the_database_comes_back(database: Database) {
    let stage = installed(database).await;
    stage.expire();
    let process = stage.another().await;
    let (caller, held) = refreshing(&process).await;
    let backend = process.store.backend();
    backend.set_faults(Faults {
        lost_commits: 1,
        lost_reads: 1,
        ..Faults::none()
    });
    let lost = || backend.counts().lost_reads + backend.counts().lost_commits;
    let before = lost();
    held.release();
    until("the save has failed twice", async || lost() >= before + 2).await;
    assert!(
        !caller.is_finished(),
        "no token is handed out before it is saved"
    );
    assert_eq!(stage.another().await.bot_chain().await.chain.generation, 0);
    backend.set_faults(Faults::none());
    let token = caller.await.expect("no panic").expect("it is saved");
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.another().await.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    assert_eq!(chain.grant.access_token.expose(), token);
    assert!(stage.fake.is_live(&token));
}

pub(crate) async fn a_save_whose_answer_was_lost_is_not_taken_for_a_race(database: Database) {
    // Every second commit loses its response: the lease's response arrives, the save's does not. In
    // the second case the fourth read fails too. The store uses it to check whether the save was
    // applied.
    for lost_reads in [0, 4] {
        let stage = installed(database.clone()).await;
        stage.expire();
        let backend = stage.store.backend();
        backend.set_faults(Faults {
            lost_answers: 2,
            lost_reads,
            ..Faults::none()
        });
        bot(&stage.rotator()).await.expect("a token");
        backend.set_faults(Faults::none());
        let chain = stage.another().await.bot_chain().await;
        assert_eq!((chain.chain.generation, chain.alternates.len()), (1, 0));
        assert_eq!(stage.refreshes(), 1);
    }
}

// A process that dies, and workers.

pub(crate) async fn a_lease_whose_process_died_is_taken_over(database: Database) {
    let stage = died_in_a_refresh(database).await;
    stage.fake.advance(LEASE);
    let token = bot(&stage.another().await.rotator())
        .await
        .expect("recovered");
    assert!(stage.fake.is_live(&token));
    let chain = stage.another().await.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    assert!(chain.chain.lease.is_none());
    assert_eq!(stage.refreshes(), 2);
}

pub(crate) async fn the_worker_repeats_a_refresh_whose_process_died_within_the_grace(
    database: Database,
) {
    let stage = died_in_a_refresh(database).await;
    let (rotator, worker) = working(&stage.another().await);
    stage.fake.advance(LEASE);
    let watching = stage.another().await;
    until("the worker repeats the refresh", async || {
        watching.bot_chain().await.chain.generation == 1
    })
    .await;
    assert!(rotator.shutdown(PATIENCE).await);
    worker.await.expect("the worker ends with the rotator");
    let chain = stage.another().await.bot_chain().await;
    assert!(stage.fake.is_live(chain.grant.access_token.expose()));
    assert!(chain.chain.lease.is_none());
    assert_eq!(stage.refreshes(), 2);
}

pub(crate) async fn of_two_workers_one_replaces_a_token_ahead(database: Database) {
    let stage = installed(database).await;
    let (watching, old) = (stage.another().await, stage.bot_chain().await);
    let workers = [
        working(&stage.another().await),
        working(&stage.another().await),
    ];
    stage.soften();
    until("the worker replaces the token", async || {
        watching.bot_chain().await.chain.generation == 1
    })
    .await;
    for (rotator, worker) in workers {
        assert!(rotator.shutdown(PATIENCE).await);
        worker.await.expect("the worker ends with the rotator");
    }
    assert_eq!(stage.refreshes(), 1);
    assert!(
        stage.fake.is_live(old.grant.access_token.expose()),
        "the token is valid until it expires"
    );
    let chain = stage.another().await.bot_chain().await;
    assert!(stage.fake.is_live(chain.grant.access_token.expose()));
}

/// Starts a process that takes the lease, spends the refresh token, and dies before it saves the
/// pair.
async fn died_in_a_refresh(database: Database) -> Stage {
    let stage = installed(database).await;
    stage.expire();
    let error = bot(&stage.another().await.dying(1)).await;
    assert_matches!(error, Err(Error::Interrupted));
    assert_eq!(stage.refreshes(), 1);
    assert!(stage.bot_chain().await.chain.lease.is_some());
    stage
}

/// Starts a refresh that Slack has carried out, and whose response is held.
async fn refreshing(process: &Stage) -> (JoinHandle<Result<String, Error>>, Held) {
    let (rotator, held) = process.held();
    let caller = tokio::spawn(async move { bot(&rotator).await });
    held.answered().await;
    (caller, held)
}

/// Starts a worker that looks as often as it can.
fn working(process: &Stage) -> (TokenRotator, JoinHandle<()>) {
    let rotator = process.rotator();
    let worker = rotator.clone();
    let config = WorkerConfig {
        every: Duration::from_millis(10),
        rate: 1000,
    };
    (
        rotator,
        tokio::spawn(async move { worker.work(config).await }),
    )
}

async fn revoke(stage: &Stage, chain: &StoredChain) {
    let slack = stage.slack();
    let revoked = slack.auth_revoke_refresh_token(refresh_token(chain));
    revoked.await.expect("revoked");
}

async fn bot(rotator: &TokenRotator) -> Result<String, Error> {
    let token = rotator.token_for(&alpha(), Credential::Bot).await?;
    Ok(token.access_token.expose().to_owned())
}

fn ask(herd: &mut JoinSet<Result<String, Error>>, rotator: &TokenRotator) {
    for _ in 0..CALLERS {
        let rotator = rotator.clone();
        herd.spawn(async move { bot(&rotator).await });
    }
}

/// Callers of one process.
const CALLERS: u64 = 16;

/// A lease has lapsed after this time.
const LEASE: Duration = Duration::from_secs(16);

/// Far longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
