//! How the store keeps a chain of tokens, and which pair is current after an installation replaces
//! another one.

use std::time::{Duration, SystemTime};

use slack_installs::store::{
    Chain, ChainKey, Credential, Error, Facts, Lease, LifecycleStore as _, ListCursor, Mark,
    RotationStore as _, StateId, StoredChain,
};
use slack_installs::{
    Departure, Grant, Hold, Installation, InstallationStore as _, Scopes, StateStore as _,
};

use super::{fetch, put};
use crate::support::checks::until;
use crate::support::installs::{
    With, bot_id, grant, in_org, in_workspace, noon, org_key, rotating, user_id, with_both,
    workspace_key,
};
use crate::support::{Db, Store};

fn after(seconds: u64) -> SystemTime {
    noon() + Duration::from_secs(seconds)
}

/// Returns an installation of T1 with this pair of the bot, installed at this second.
fn installed(grant: Grant, second: u64) -> Installation {
    let mut installation = in_workspace("T1").with_bot("xoxb-1");
    installation.bot.as_mut().expect("a bot").grant = grant;
    installation.installed_at = after(second);
    installation
}

/// Returns the nth pair of an installation.
fn pair(of: &str, nth: usize) -> Grant {
    rotating(
        &format!("xoxe.xoxb-{of}-{nth}"),
        &format!("xoxe-{of}-{nth}"),
    )
}

fn mark(grant: &Grant) -> Mark {
    Mark::of(grant.refresh_token.as_ref().expect("it rotates"))
}

fn bot() -> ChainKey {
    of(Credential::Bot)
}

fn of(credential: Credential) -> ChainKey {
    ChainKey {
        credential,
        tenant: workspace_key("T1"),
    }
}

async fn chain(store: &Store, key: &ChainKey) -> StoredChain {
    let chain = store.chain(key).await.expect("the store is up");
    chain.expect("it was installed")
}

/// Returns the chain that an installation at this second begins, as a row stores it.
fn begun(grant: &Grant, second: u64) -> Chain {
    let chain = Chain::new(grant, after(second));
    let whole = |at: SystemTime| {
        let since = at.duration_since(noon()).expect("after noon");
        after(since.as_secs())
    };
    Chain {
        due_at: chain.due_at.map(whole),
        ..chain
    }
}

/// Applies a step to a chain.
async fn update(
    store: &Store,
    key: &ChainKey,
    offered: Option<&Grant>,
    change: impl Fn(&mut Chain) + Send + Sync,
) -> StoredChain {
    let mut decide = |standing: Option<&Chain>| {
        let mut next = standing.cloned()?;
        change(&mut next);
        Some(next)
    };
    let updated = store.update(key, offered, &mut decide).await;
    updated.expect("the store is up").expect("the chain exists")
}

/// Replaces the current pair with this one.
async fn refreshed(store: &Store, next: &Grant) {
    let moved = update(store, &bot(), Some(next), |chain| {
        chain.generation += 1;
        chain.refresh = Some(mark(next));
    })
    .await;
    let token = moved.grant.access_token;
    assert_eq!(token.expose(), next.access_token.expose());
}

/// Formats the whole chain with its tokens, to compare two chains.
fn shown(stored: &StoredChain) -> String {
    let grant = &stored.grant;
    let alternates = stored.alternates.iter().map(|token| token.expose());
    format!(
        "{:?} {} {:?} {:?} {:?} {:?}",
        stored.chain,
        grant.access_token.expose(),
        grant.refresh_token.as_ref().map(|token| token.expose()),
        grant.expires_at,
        grant.scopes,
        alternates.collect::<Vec<_>>(),
    )
}

async fn standing(store: &Store) -> String {
    shown(&chain(store, &bot()).await)
}

pub(crate) async fn the_first_pair_stored_after_many_refreshes_brings_nothing_back(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("a", 0), 0)).await;
    for nth in 1..=8 {
        refreshed(&store, &pair("a", nth)).await;
    }
    // An update that is not a refresh removes no mark of an earlier pair.
    for attempts in [1, 2, 1, 2, 1, 2, 0] {
        update(&store, &bot(), None, |chain| chain.attempts = attempts).await;
    }
    let before = standing(&store).await;
    for nth in [0, 3, 4, 5, 6, 7, 8] {
        put(&store, installed(pair("a", nth), 0)).await;
        assert_eq!(standing(&store).await, before, "pair {nth}");
    }
    // The number of marks is limited, however often the chain is refreshed.
    let mut lengths = Vec::new();
    for nth in 10..40 {
        refreshed(&store, &pair("a", nth)).await;
        lengths.push(db.row("T1", "bot").await.1.metadata.as_str().len());
    }
    assert_eq!(lengths[10], lengths[29]);
}

pub(crate) async fn another_installations_marks_are_not_ours(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("a", 0), 0)).await;
    for nth in 1..=3 {
        refreshed(&store, &pair("a", nth)).await;
    }
    update(&store, &bot(), None, |chain| {
        chain.attempts = 2;
        chain.failures = 3;
        chain.idle = 4;
        chain.last_error = Some("fatal_error".into());
        chain.retry_at = Some(after(5));
        chain.lease = Some(Lease {
            owner: 6,
            until: after(7),
        });
    })
    .await;
    put(&store, installed(pair("b", 0), 10)).await;
    let anew = chain(&store, &bot()).await;
    assert_eq!(anew.chain, begun(&pair("b", 0), 10));

    // Each pair of the earlier installation is stored as an alternate, because Slack may have kept
    // it. If the new chain had taken over the old marks, these pairs would be ignored.
    for nth in 0..=3 {
        put(&store, installed(pair("a", nth), 0)).await;
    }
    let kept = chain(&store, &bot()).await;
    let marks: Vec<_> = (0..=3).map(|nth| mark(&pair("a", nth))).collect();
    assert_eq!(kept.chain.alternates, marks);
    assert_eq!(kept.grant.access_token.expose(), "xoxe.xoxb-b-0");
    assert_eq!(kept.chain.refresh, anew.chain.refresh);

    // A pair that is stored again is not added twice. A reinstall begins without alternates.
    put(&store, installed(pair("a", 2), 0)).await;
    assert_eq!(standing(&store).await, shown(&kept));
    put(&store, installed(pair("c", 0), 20)).await;
    let anew = chain(&store, &bot()).await;
    assert_eq!(anew.chain, begun(&pair("c", 0), 20));
    assert!(anew.alternates.is_empty());
}

pub(crate) async fn the_pair_that_stands_stored_again_changes_nothing_of_its_chain(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("a", 0), 10)).await;
    // The pair of an earlier installation is stored as an alternate.
    put(&store, installed(pair("late", 0), 0)).await;
    refreshed(&store, &pair("a", 1)).await;
    update(&store, &bot(), None, |chain| {
        chain.attempts = 1;
        chain.idle = 2;
        chain.due_at = Some(after(77));
    })
    .await;
    let before = standing(&store).await;
    assert!(before.contains("xoxe-late-0"), "{before}");
    for second in [0, 10, 100] {
        put(&store, installed(pair("a", 1), second)).await;
        assert_eq!(standing(&store).await, before, "at {second}");
    }
    // The pair belongs to its latest installation, whatever the order in which they were stored.
    put(&store, installed(pair("a", 1), 50)).await;
    put(&store, installed(pair("b", 0), 99)).await;
    let kept = chain(&store, &bot()).await;
    assert_eq!(kept.chain.refresh, Some(mark(&pair("a", 1))));
    assert_eq!(kept.alternates.len(), 2);
    put(&store, installed(pair("b", 0), 101)).await;
    assert_eq!(
        standing(&store).await,
        shown(&kept),
        "the alternate is stored already"
    );
    put(&store, installed(pair("c", 0), 100)).await;
    let anew = chain(&store, &bot()).await;
    assert_eq!(anew.chain.refresh, Some(mark(&pair("c", 0))));
}

pub(crate) async fn a_pair_is_known_by_its_refresh_token(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("a", 0), 0)).await;
    let other = rotating("xoxe.xoxb-other", "xoxe-a-0");
    put(&store, installed(other, 0)).await;
    let stored = chain(&store, &bot()).await;
    assert_eq!(stored.grant.access_token.expose(), "xoxe.xoxb-other");
    assert_eq!(stored.chain.refresh, Some(mark(&pair("a", 0))));
}

pub(crate) async fn tokens_that_do_not_rotate_take_no_late_pair_along(db: Db) {
    let store = db.store().await;
    put(&store, installed(grant("xoxb-later"), 10)).await;
    let before = standing(&store).await;
    put(&store, installed(pair("early", 0), 0)).await;
    assert_eq!(standing(&store).await, before);

    put(&store, installed(pair("latest", 0), 20)).await;
    let before = standing(&store).await;
    put(&store, installed(grant("xoxb-later"), 10)).await;
    assert_eq!(standing(&store).await, before);
}

pub(crate) async fn a_dead_chain_gives_way_to_an_earlier_installations_pair(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("later", 0), 10)).await;
    update(&store, &bot(), None, |chain| chain.is_dead = true).await;
    // Storing its own pair again does not clear its dead mark.
    put(&store, installed(pair("later", 0), 10)).await;
    assert!(chain(&store, &bot()).await.chain.is_dead);
    put(&store, installed(pair("early", 0), 0)).await;
    let anew = chain(&store, &bot()).await;
    assert_eq!(anew.chain, begun(&pair("early", 0), 0));
}

pub(crate) async fn every_member_of_a_chain_is_kept(db: Db) {
    let store = db.store().await;
    let user = Credential::User(user_id("U1"));
    let mut installation = installed(pair("a", 0), 0).with_user("U1", "xoxp-1");
    let grant = &mut installation.user.as_mut().expect("a user").grant;
    *grant = rotating("xoxe.xoxp-a-0", "xoxe-u-0");
    let revision = put(&store, installation).await;
    for credential in [Credential::Bot, user] {
        let key = of(credential);
        let kept = pair("kept", 0);
        let first = pair("kept", 1);
        let with_first = |chain: &mut Chain| chain.alternates = vec![mark(&first)];
        update(&store, &key, Some(&first), with_first).await;
        let millis = |millis| after(100) + Duration::from_millis(millis);
        let change = |chain: &mut Chain| {
            chain.generation = 7;
            chain.alternates = vec![mark(&first), mark(&kept)];
            chain.issued_at = millis(1);
            chain.expires_at = Some(after(43_000));
            chain.lease = Some(Lease {
                owner: u128::MAX - 5,
                until: millis(2),
            });
            chain.attempts = 3;
            chain.attempted_at = Some(millis(3));
            chain.retry_at = Some(millis(4));
            chain.failures = 5;
            chain.last_error = Some("ratelimited".into());
            chain.is_dead = true;
            chain.idle = 6;
            chain.due_at = Some(after(9_000));
        };
        let updated = update(&store, &key, Some(&kept), change).await;
        let stands = chain(&store, &key).await;
        assert_eq!(shown(&stands), shown(&updated));
        let mut wanted = stands.chain.clone();
        change(&mut wanted);
        assert_eq!(stands.chain, wanted);
        assert_eq!(stands.grant.expires_at, wanted.expires_at);
        let alternates = stands.alternates.iter().map(Mark::of);
        assert_eq!(alternates.collect::<Vec<_>>(), wanted.alternates);

        // Scopes change with a pair if Slack's response names them.
        let mut next = rotating("xoxe.xoxb-next", &format!("xoxe-next-{key}"));
        next.scopes = Scopes::from("files:read");
        let moved = update(&store, &key, Some(&next), |chain| {
            chain.refresh = Some(mark(&next));
            chain.lease = None;
        });
        moved.await;
        let stands = chain(&store, &key).await;
        assert_eq!(stands.grant.scopes, next.scopes);
        assert_eq!(stands.chain.lease, None);
    }
    // Noting facts and holding a tenant change no chain.
    let before = standing(&store).await;
    let facts = Facts {
        bot_id: Some(bot_id("B1")),
        url: None,
    };
    let noted = store.note(&workspace_key("T1"), revision, &facts).await;
    assert!(noted.expect("noted"));
    assert_eq!(standing(&store).await, before);
}

pub(crate) async fn a_token_under_suspicion_is_fetched_as_such_unless_its_chain_is_dead(db: Db) {
    let store = db.store().await;
    let user = of(Credential::User(user_id("U1")));
    let mut installation = installed(pair("a", 0), 0).with_user("U1", "xoxp-1");
    let grant = &mut installation.user.as_mut().expect("a user").grant;
    *grant = rotating("xoxe.xoxp-a-0", "xoxe-u-0");
    put(&store, installation).await;
    for (attempts, is_dead, is_suspect) in [
        (1, false, false),
        (2, false, true),
        (3, false, true),
        (3, true, false),
    ] {
        for (key, of_bot) in [(&bot(), true), (&user, false)] {
            let change = |chain: &mut Chain| {
                chain.attempts = attempts;
                chain.is_dead = is_dead;
            };
            update(&store, key, None, change).await;
            let fetched = fetch(&store, &workspace_key("T1"), Some("U1")).await;
            let (of_bot, of_user) = (is_suspect && of_bot, is_suspect && !of_bot);
            let suspects = format!("Suspects {{ bot: {of_bot}, user: {of_user} }}");
            assert!(format!("{fetched:?}").contains(&suspects), "{fetched:?}");
            update(&store, key, None, |chain| chain.attempts = 0).await;
        }
    }
}

pub(crate) async fn a_chain_on_hold_says_so_until_the_hold_ends(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, installed(pair("a", 0), 0)).await;
    let is_on_hold = async || chain(&store, &bot()).await.is_on_hold;
    assert!(!is_on_hold().await);
    for is_on in [true, false] {
        let hold = Hold {
            is_on,
            reason: "ticket 1".to_owned(),
            at: noon(),
        };
        assert!(store.hold(&key, &hold).await.expect("available"));
        assert_eq!(is_on_hold().await, is_on);
    }
}

pub(crate) async fn a_decision_is_shown_the_chain_that_stands_and_nothing_is_made_of_none(db: Db) {
    let store = db.store().await;
    let mut shown_ones = Vec::new();
    let mut decide = |chain: Option<&Chain>| {
        shown_ones.push(chain.cloned());
        Some(Chain::new(&pair("a", 0), noon()))
    };
    let none = store.update(&bot(), Some(&pair("a", 0)), &mut decide).await;
    assert!(none.expect("the store is up").is_none());
    assert_eq!(shown_ones, [None]);
    assert!(db.rows_of("T1").await.is_empty());

    put(&store, installed(pair("a", 0), 0)).await;
    let before = (standing(&store).await, db.rows_of("T1").await);
    let left = store.update(&bot(), None, &mut |_| None).await;
    let left = left.expect("the store is up").expect("it exists");
    assert_eq!(shown(&left), before.0);
    // This token is neither stored nor in the update. Writing its mark would lose the pair.
    let mut strange = |chain: Option<&Chain>| {
        let mut next = chain.cloned()?;
        next.refresh = Some(mark(&pair("strange", 0)));
        Some(next)
    };
    for offered in [None, Some(pair("b", 0))] {
        let refused = store.update(&bot(), offered.as_ref(), &mut strange).await;
        assert_matches!(refused, Err(Error::Unreadable(_)));
    }
    assert_eq!((standing(&store).await, db.rows_of("T1").await), before);
}

pub(crate) async fn chains_of_this_app_are_listed_and_nothing_else(db: Db) {
    let store = db.store().await;
    let rotates = |mut installation: Installation| {
        let tenant = installation.key().to_string();
        let bot = installation.bot.as_mut().expect("a bot");
        bot.grant = pair(&tenant, 0);
        if let Some(user) = &mut installation.user {
            user.grant = rotating(&format!("xoxe.xoxp-{tenant}"), &format!("xoxe-u-{tenant}"));
        }
        installation
    };
    let t1 = || rotates(with_both("T1", "xoxb", "W1", "xoxp"));
    put(&store, t1()).await;
    put(&store, rotates(in_org("E1", None).with_bot("xoxb"))).await;
    let other = db.look_alike().store().await;
    put(&other, rotates(in_workspace("T9").with_bot("xoxb"))).await;
    noise(&store).await;

    let wanted = ["E1/bot", "T1/W1", "T1/bot"];
    let mut listed = Vec::new();
    let mut from: Option<ListCursor> = None;
    loop {
        let (keys, next) = store.chains(from, 2).await.expect("the store is up");
        listed.extend(keys);
        from = next;
        if from.is_none() {
            break;
        }
    }
    let in_order = |keys: &[ChainKey]| {
        let mut names: Vec<_> = keys.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(in_order(&listed), wanted);
    assert!(listed.iter().any(|key| key.tenant == org_key("E1")));

    // An index that lags may report a hint late.
    let due = async |limit| {
        let due = store.due(after(50_000), None, limit).await;
        in_order(&due.expect("the store is up").0)
    };
    until("all three are due", async || due(100).await == wanted).await;
    for limit in 1..=3 {
        assert_eq!(due(limit).await.len(), limit, "no more than the limit");
    }
}

/// Stores rows of other kinds that are due before any chain.
async fn noise(store: &Store) {
    for number in 0..4 {
        let id = StateId([number; 32]);
        let is_first = store.consume(&id, after(1)).await;
        assert!(is_first.expect("available"));
    }
    let revision = put(store, in_workspace("T8").with_bot("xoxb-8")).await;
    let departure = Departure::new(workspace_key("T8"), "app_uninstalled", noon());
    let purged = store.purge(&departure, revision, Some(after(2))).await;
    assert!(purged.expect("purged").is_some());
}

pub(crate) async fn a_row_is_due_in_whole_seconds(db: Db) {
    let store = db.store().await;
    put(&store, installed(pair("a", 0), 0)).await;
    let due_at = after(100) + Duration::from_millis(900);
    update(&store, &bot(), None, |chain| chain.due_at = Some(due_at)).await;
    let row = db.row("T1", "bot").await.1;
    assert_eq!(row.due.map(|due| due.at), Some(after(100)));
}
