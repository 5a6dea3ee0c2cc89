//! What `store` keeps of the stored installation, member by member.

use std::time::Duration;

use slack_installs::store::{Facts, LifecycleStore as _};
use slack_installs::{Enterprise, Hold, Home, Installation, InstallationStore as _, Scopes, Team};

use super::{damage, fetch, of, put};
use crate::support::Db;
use crate::support::installs::{
    With, bot_id, bot_token, enterprise, in_workspace, in_workspace_of, noon, team, user_id,
    user_token, webhook_urls, whole, with_both, workspace_key,
};

/// Returns an installation of T1 at this second with every member set. Each value contains `name`.
fn everything(name: &str, second: u64) -> Installation {
    let home = Home::new(
        Some(Enterprise {
            id: enterprise(&format!("E{second}")),
            name: Some(format!("Organisation {name}")),
        }),
        Some(Team {
            id: team("T1"),
            name: Some(format!("Team {name}")),
        }),
        false,
    );
    let mut installation = at_second(in_workspace("T1"), second)
        .with_bot(&format!("xoxb-{name}"))
        .with_user("U1", &format!("xoxp-{name}"))
        .with_webhook("C1", &format!("https://hooks/1-{name}"));
    installation.home = home.expect("a tenant");
    installation.incoming_webhooks[0].channel = format!("#{name}");
    installation.url = Some(format!("https://{name}.slack.com/"));
    installation.metadata = Some(format!("plan={name}"));
    installation.installed_by = Some(user_id(&format!("U{second}{second}")));
    installation
}

fn at_second(mut installation: Installation, second: u64) -> Installation {
    installation.installed_at = noon() + Duration::from_secs(second);
    installation
}

pub(crate) async fn of_installations_of_one_time_or_a_later_one_the_last_ones_facts_stand(db: Db) {
    let store = db.store().await;
    put(&store, everything("first", 0)).await;
    let mut same_time = everything("second", 0);
    same_time.installed_by = None;
    for next in [same_time, everything("third", 3)] {
        store.store(&next).await.expect("stored");
        let standing = fetch(&store, &next.key(), Some("U1")).await;
        assert_eq!(whole(&standing), whole(&next));
    }
    // A member that the later installation leaves out is removed.
    let mut left = at_second(in_workspace("T1"), 4);
    left.installed_by = None;
    let team = left.home.team().cloned();
    let unnamed = team.map(|team| Team { name: None, ..team });
    left.home = Home::new(None, unnamed, false).expect("a tenant");
    store.store(&left).await.expect("stored");
    let standing = fetch(&store, &left.key(), None).await;
    assert_eq!(
        (&standing.home, &standing.installed_by),
        (&left.home, &None)
    );
}

pub(crate) async fn a_late_installation_adds_what_the_later_one_lacks_and_no_more(db: Db) {
    let store = db.store().await;
    let mut later = everything("later", 9);
    store.store(&later).await.expect("stored");
    let early = everything("early", 0)
        .with_user("U2", "xoxp-early")
        .with_webhook("C2", "https://hooks/2-early");
    store.store(&early).await.expect("stored");
    later = later.with_webhook("C2", "https://hooks/2-early");
    let standing = fetch(&store, &later.key(), Some("U1")).await;
    assert_eq!(whole(&standing), whole(&later));
    let standing = fetch(&store, &later.key(), Some("U2")).await;
    assert_eq!(user_token(&standing), Some(("U2", "xoxp-early")));

    // The same holds if the later installation has only its facts.
    let key = workspace_key("T2");
    put(&store, at_second(in_workspace("T2"), 9)).await;
    let mut early = at_second(of("T2"), 0);
    early.metadata = Some("plan=early".to_owned());
    put(&store, early).await;
    let standing = fetch(&store, &key, None).await;
    assert_eq!(standing.metadata.as_deref(), Some("plan=early"));
    assert_eq!(bot_token(&standing), Some("xoxb-T2"));
    assert_eq!(standing.installed_at, noon() + Duration::from_secs(9));
}

pub(crate) async fn a_channel_keeps_one_webhook_by_its_id_whatever_its_name(db: Db) {
    let store = db.store().await;
    let named = |id, name: &str, url| {
        let mut installation = of("T1").with_webhook(id, url);
        name.clone_into(&mut installation.incoming_webhooks[0].channel);
        installation
    };
    put(&store, named("C1", "#general", "https://hooks/1a")).await;
    put(&store, named("C1", "#renamed", "https://hooks/1b")).await;
    put(&store, named("C2", "#renamed", "https://hooks/2")).await;
    let standing = fetch(&store, &workspace_key("T1"), None).await;
    assert_eq!(
        webhook_urls(&standing),
        ["https://hooks/1b", "https://hooks/2"]
    );
}

pub(crate) async fn a_bots_id_is_kept_for_the_same_bot_only(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let with = |user: &str, id: Option<&str>| {
        let mut installation = of("T1");
        let bot = installation.bot.as_mut().expect("a bot");
        bot.user_id = user_id(user);
        bot.id = id.map(bot_id);
        installation
    };
    for (user, given, kept) in [
        ("U0BOT1", Some("B1"), Some("B1")),
        ("U0BOT1", None, Some("B1")),
        ("U0BOT1", Some("B2"), Some("B2")),
        ("U0BOT2", None, None),
    ] {
        put(&store, with(user, given)).await;
        let bot = fetch(&store, &key, None)
            .await
            .installation
            .bot
            .expect("a bot");
        assert_eq!((bot.user_id, bot.id), (user_id(user), kept.map(bot_id)));
    }
}

pub(crate) async fn a_note_says_what_it_says_and_leaves_the_rest(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let mut revision = put(&store, of("T1")).await;
    let urls = ["https://a.slack.com/", "https://b.slack.com/"];
    for (id, url) in [
        (Some("B1"), None),
        (None, Some(urls[0])),
        (Some("B2"), Some(urls[1])),
        (None, None),
    ] {
        let before = fetch(&store, &key, None).await;
        let facts = Facts {
            bot_id: id.map(bot_id),
            url: url.map(str::to_owned),
        };
        let noted = store.note(&key, revision, &facts).await;
        assert!(noted.expect("noted"));
        let after = fetch(&store, &key, None).await;
        let old_id = before.bot.as_ref().and_then(|bot| bot.id.clone());
        revision = after.revision;
        assert_eq!(after.url, facts.url.or(before.installation.url));
        let bot = after.installation.bot.expect("a bot");
        assert_eq!(bot.id, facts.bot_id.or(old_id));
    }
}

pub(crate) async fn a_long_lived_token_that_is_stored_again_has_its_new_scopes(db: Db) {
    let store = db.store().await;
    for (second, scopes) in [
        (0, "commands"),
        (0, "chat:write"),
        (1, "chat:write,files:read"),
    ] {
        let mut installation = at_second(of("T1"), second);
        let bot = installation.bot.as_mut().expect("a bot");
        bot.grant.scopes = Scopes::from(scopes);
        put(&store, installation).await;
        let standing = fetch(&store, &workspace_key("T1"), None).await;
        let scopes_now = standing.installation.bot.expect("a bot").grant.scopes;
        assert_eq!(scopes_now.to_string(), scopes);
    }
}

pub(crate) async fn a_hold_outlives_facts_that_do_not_open(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let hold = Hold {
        is_on: true,
        reason: "ticket 1".to_owned(),
        at: noon(),
    };
    put(&store, of("T1")).await;
    assert_eq!(fetch(&store, &key, None).await.hold, None);
    assert!(store.hold(&key, &hold).await.expect("available"));
    damage(&db, "T1", "install").await;
    put(&store, of("T1")).await;
    assert_eq!(fetch(&store, &key, None).await.hold, Some(hold.clone()));

    // A reinstall does not set a hold again that has ended.
    let ended = Hold {
        is_on: false,
        ..hold.clone()
    };
    assert!(store.hold(&key, &ended).await.expect("available"));
    put(&store, of("T1")).await;
    let standing = fetch(&store, &key, None).await;
    assert!(!standing.is_on_hold());
    assert_eq!(standing.hold, Some(ended));
}

pub(crate) async fn an_organisations_name_goes_with_its_id(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, in_workspace_of("E1", "T1").with_bot("xoxb-1")).await;
    let other = enterprise("E2");
    let moved = store.set_enterprise(&key, revision, Some(&other)).await;
    assert!(moved.expect("available"));
    let standing = fetch(&store, &key, None).await;
    let named = standing.home.enterprise().expect("an organisation");
    assert_eq!((&named.id, &named.name), (&other, &None));
}

pub(crate) async fn scopes_and_ends_of_a_token_are_kept_as_they_are(db: Db) {
    let store = db.store().await;
    let mut installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    let end = |second| Some(noon() + Duration::from_secs(second));
    let bot = &mut installation.bot.as_mut().expect("a bot").grant;
    (bot.expires_at, bot.scopes) = (end(100), Scopes::from("chat:write"));
    let user = &mut installation.user.as_mut().expect("a user").grant;
    (user.expires_at, user.scopes) = (end(200), Scopes::default());
    store.store(&installation).await.expect("stored");
    let standing = fetch(&store, &installation.key(), Some("U1")).await;
    assert_eq!(whole(&standing), whole(&installation));
}
