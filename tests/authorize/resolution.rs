//! Which installation serves a request. While the store fails, no request is served.

use serde_json::Value;
use slack_installs::backend::{Change, Expect, Row, Version};
use slack_installs::rotation::Error;
use slack_installs::store::Access;
use slack_installs::testing::{Delivery, Who};
use slack_installs::{Delete, Hold, InstallationStore as _, LifecycleStore as _, store};

use super::support::app::{OLGA, SALES, SUPPORT, key};
use super::support::installs::{enterprise, team};
use super::support::serving::{Token, hold, interrupted, keep, rotator};
use super::*;

const GIL: &str = "U0GRIDUSR02";

/// Returns a mention in this workspace of the organisation. It names the organisation's
/// installation or the workspace's.
fn mention_in(life: &Life, team: &str, is_org_wide: bool) -> Delivery {
    let event = json!({"type": "app_mention", "user": OLGA});
    life.app.fake.event(team, event).edit(|event| {
        event["authorizations"][0]["team_id"] = json!(team);
        event["authorizations"][0]["is_enterprise_install"] = json!(is_org_wide);
    })
}

async fn install(life: &Life, tenants: &[&str]) {
    for tenant in tenants {
        match *tenant {
            ORG => life.install(Who::user(OLGA).at(ORG)).await,
            _ => life.install(GIL).await,
        }
    }
}

#[tokio::test]
async fn whichever_read_of_a_request_fails_nobody_is_served() {
    use ResolvedVia::{Named, OrgToWorkspace, WorkspaceToOrg};
    // Each case has five parts: the installed tenants, whether the request names the organisation's
    // installation, and how it was resolved. Then the tenant that serves it and the number of
    // reads. The reads are of each candidate, of the workspace's hold, and of its access.
    let cases: [(&[&str], bool, ResolvedVia, &str, u64); 6] = [
        (&[SALES], false, Named, SALES, 1),
        (&[SALES, ORG], false, Named, SALES, 1),
        (&[ORG], false, WorkspaceToOrg, ORG, 4),
        (&[ORG], true, Named, ORG, 3),
        (&[SALES, ORG], true, Named, ORG, 3),
        (&[SALES], true, OrgToWorkspace, SALES, 2),
    ];
    for (installed, is_org_wide, via, by, reads) in cases {
        let (life, backend) = interrupted().await;
        install(&life, installed).await;
        let request = life.request(&mention_in(&life, SALES, is_org_wide));
        let case = format!("{installed:?} {is_org_wide}");
        for nth in 1..=reads {
            backend.fail_read(nth);
            let outcome = life.authorizer.authorize(&request).await;
            let Err(AuthorizeError::Store(error)) = outcome else {
                panic!("read {nth} of {case}: {outcome:?}");
            };
            assert!(error.is_transient(), "{case}");
        }
        let (before, commits) = (backend.reads(), backend.counts().commits);
        let served = life.authorizer.authorize(&request).await;
        let served = served.expect("the store responds");
        assert_eq!(backend.reads() - before, reads, "{case}");
        assert_eq!(backend.counts().commits, commits, "{case}");
        assert_eq!(served.resolved_via, via, "{case}");
        assert_eq!(served.installation.key(), key(by), "{case}");
        assert_eq!(served.team_id().map(|id| id.as_str()), Some(SALES));
        assert_eq!(served.enterprise_id().map(|id| id.as_str()), Some(ORG));
    }
}

#[tokio::test]
async fn a_hold_binds_its_tenant_and_no_other() {
    // Each case: the tenant on hold, the workspace of the request, whether the request names the
    // organisation's installation, and the tenant that may serve it. Sales has its own
    // installation.
    let cases = [
        (SALES, SALES, false, None),
        (SALES, SALES, true, None),
        (SALES, SUPPORT, true, Some(ORG)),
        (SALES, SUPPORT, false, Some(ORG)),
        (ORG, SALES, false, Some(SALES)),
        (ORG, SALES, true, None),
        (ORG, SUPPORT, true, None),
        (ORG, SUPPORT, false, None),
    ];
    for (held, team, is_org_wide, by) in cases {
        let life = Life::new().await;
        install(&life, &[SALES, ORG]).await;
        hold(&life.app, held, true).await;
        let case = format!("{held} on hold, {team}, {is_org_wide}");
        let event = mention_in(&life, team, is_org_wide);
        match life.authorize(&event).await {
            Ok(served) => assert_eq!(
                Some(served.installation.key().id()),
                by,
                "served by another tenant, {case}"
            ),
            Err(AuthorizeError::OnHold) => assert_eq!(by, None, "{case}"),
            Err(error) => panic!("{error}, {case}"),
        }
        hold(&life.app, held, false).await;
        assert!(life.authorize(&event).await.is_ok(), "{case}");
    }
}

#[tokio::test]
async fn a_hold_is_told_before_a_grant_that_is_missing() {
    let life = Life::new().await;
    install(&life, &[ORG]).await;
    let access = Access {
        teams: vec![team(SALES)],
        is_granted: false,
        at_micros: 1,
    };
    let kept = life.app.store.set_access(&enterprise(ORG), &access).await;
    assert!(kept.expect("the store responds"));
    for is_org_wide in [true, false] {
        let event = mention_in(&life, SALES, is_org_wide);
        let outcome = life.authorize(&event).await;
        assert_matches!(outcome, Err(AuthorizeError::NotGranted));
        hold(&life.app, ORG, true).await;
        let outcome = life.authorize(&event).await;
        assert_matches!(outcome, Err(AuthorizeError::OnHold));
        hold(&life.app, ORG, false).await;
    }
}

#[tokio::test]
async fn a_workspace_that_the_organisation_lost_is_served_by_its_own_installation() {
    let life = Life::new().await;
    install(&life, &[SALES, ORG]).await;
    let access = Access {
        teams: vec![team(SALES)],
        is_granted: false,
        at_micros: 1,
    };
    let kept = life.app.store.set_access(&enterprise(ORG), &access).await;
    assert!(kept.expect("the store responds"));
    for (is_org_wide, via) in [
        (true, ResolvedVia::OrgToWorkspace),
        (false, ResolvedVia::Named),
    ] {
        let served = life.authorize(&mention_in(&life, SALES, is_org_wide)).await;
        let served = served.expect("its own install");
        assert_eq!(served.installation.key(), key(SALES));
        assert_eq!(served.resolved_via, via);
    }
}

#[tokio::test]
async fn a_request_that_is_refused_has_no_effect() {
    let (life, backend) = interrupted().await;
    keep(&life.app, Token::Over, Token::Missing).await;
    life.app.fake.join_org(ALPHA, ORG);
    let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
    let commits = backend.counts().commits;
    let other = life
        .mention(ALPHA)
        .edit(|event| event["api_app_id"] = json!("A0OTHERAPP1"));
    let outcome = authorizer.authorize(&life.request(&other)).await;
    assert_matches!(outcome, Err(AuthorizeError::OtherApp));
    assert_eq!(backend.counts().commits, commits);

    hold(&life.app, ALPHA, true).await;
    let commits = backend.counts().commits;
    let outcome = authorizer
        .authorize(&life.request(&life.mention(ALPHA)))
        .await;
    assert_matches!(outcome, Err(AuthorizeError::OnHold));
    assert_eq!(backend.counts().commits, commits);
    assert_eq!(life.app.fake.refresh_counts().calls, 0);
    assert_eq!(stored(&life).await, None);
}

#[tokio::test]
async fn what_happens_between_the_fetch_and_the_refresh_is_heeded() {
    let (life, backend) = interrupted().await;
    keep(&life.app, Token::Over, Token::Missing).await;
    let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
    let request = life.request(&life.mention(ALPHA));

    let store = life.app.store.clone();
    let at = life.app.fake.clock().now();
    backend.before_read(2, async move {
        let hold = Hold {
            is_on: true,
            reason: "ticket 1".to_owned(),
            at,
        };
        let held = store.hold(&key(ALPHA), &hold).await;
        assert!(held.expect("the store responds"));
    });
    let outcome = authorizer.authorize(&request).await;
    assert_matches!(outcome, Err(AuthorizeError::Refresh(Error::OnHold)));

    hold(&life.app, ALPHA, false).await;
    let store = life.app.store.clone();
    backend.before_read(2, async move {
        let deleted = store.delete(&key(ALPHA), &Delete::all()).await;
        assert!(deleted.expect("the store responds"));
    });
    let outcome = authorizer.authorize(&request).await;
    assert_matches!(
        outcome,
        Err(AuthorizeError::Refresh(Error::NotInstalled { .. }))
    );
}

#[tokio::test]
async fn a_request_that_names_an_organisation_and_no_workspace_is_the_organisations() {
    let life = Life::new().await;
    install(&life, &[ORG]).await;
    let event = mention_in(&life, SALES, true).edit(|event| {
        event["authorizations"][0]["team_id"] = Value::Null;
        for name in ["context_team_id", "context_enterprise_id", "team_id"] {
            event[name] = Value::Null;
        }
    });
    let served = life.authorize(&event).await.expect("org-wide");
    assert_eq!(served.installation.key(), key(ORG));
    assert_eq!(served.team_id(), None);
}

#[tokio::test]
async fn an_org_wide_request_is_not_served_by_a_workspace_of_nobody_or_of_another() {
    let life = Life::new().await;
    life.install(ADA).await;
    let event = life.mention(ALPHA).edit(|event| {
        event["authorizations"][0]["enterprise_id"] = json!(ORG);
        event["authorizations"][0]["is_enterprise_install"] = json!(true);
    });
    let outcome = life.authorize(&event).await;
    assert_matches!(outcome, Err(AuthorizeError::NotInstalled { .. }));
}

#[tokio::test]
async fn only_a_request_that_names_another_app_is_for_another_app() {
    let life = Life::new().await;
    life.install(ADA).await;
    let silent = life.mention(ALPHA).edit(|event| {
        let event = event.as_object_mut().expect("an object");
        event.remove("api_app_id").expect("it names its app");
    });
    assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
    assert!(life.authorize(&silent).await.is_ok());
    let other = life
        .mention(ALPHA)
        .edit(|event| event["api_app_id"] = json!("A0OTHERAPP1"));
    let outcome = life.authorize(&other).await;
    assert_matches!(outcome, Err(AuthorizeError::OtherApp));
}

#[tokio::test]
async fn a_request_that_names_nobody_has_no_tenant_whoever_is_installed() {
    let (life, backend) = interrupted().await;
    life.install(ADA).await;
    let unknown = life.app.fake.block_action(ADA, "x");
    let unknown = unknown.edit(|payload| {
        payload["type"] = json!("a_new_kind");
        payload["user"]["team_id"] = json!("T0XTERN0009");
    });
    let before = backend.reads();
    let outcome = life.authorize(&unknown).await;
    assert_matches!(outcome, Err(AuthorizeError::NoTenant));
    assert_eq!(backend.reads(), before, "no read is made");
}

#[tokio::test]
async fn what_does_not_open_is_not_taken_for_what_is_not_installed() {
    let (life, _) = interrupted().await;
    install(&life, &[SALES, ORG]).await;
    let rows = support::all_rows(&*life.backend).await.into_iter();
    let of_sales = rows.filter(|(key, _)| key.partition.as_str().ends_with(SALES));
    for (place, row) in of_sales {
        let broken = Row {
            version: Version::mint(),
            ..row
        };
        let put = Change::Put {
            slot: place.slot,
            row: broken,
            expect: Expect::Any,
        };
        let committed = life.backend.commit(&place.partition, &[put]).await;
        committed.expect("the database responds");
    }
    let outcome = life.authorize(&mention_in(&life, SALES, false)).await;
    assert_matches!(
        outcome,
        Err(AuthorizeError::Store(store::Error::Unreadable(_)))
    );
    // The organisation's installation needs only the workspace's hold.
    let served = life.authorize(&mention_in(&life, SALES, true)).await;
    assert_eq!(served.expect("org-wide").installation.key(), key(ORG));
}
