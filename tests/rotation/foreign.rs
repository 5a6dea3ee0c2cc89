//! Pairs that belong to another app, tenant, user or kind of token than the chain.

use bytes::Bytes;
use serde_json::{Value, json};
use slack_installs::store::{ChainKey, Credential, RotationStore as _, StoredChain};
use slack_installs::testing::{Fault, Org, Person, Rotation, Workspace, World};
use slack_installs::{EnterpriseId, InstallationKey, TokenRotator};

use super::support::hooked_transport::Rewritten;
use super::support::rotation::{ADMIN, REFRESH, Stage, admin, alpha, secs};

const EXCHANGE: &str = "oauth.v2.exchange";
const GRID: &str = "E0GRID00001";

fn grid() -> InstallationKey {
    InstallationKey::org(EnterpriseId::new(GRID).expect("an id"))
}

/// Returns a stage where Ada has installed the app in a workspace or for an organisation, without
/// rotation.
async fn unrotated(tenant: &InstallationKey) -> Stage {
    let org = Org::new(GRID, "Grid")
        .with_workspace(Workspace::new("T0GRID00011", "Sales"))
        .with_person(Person::org_admin(ADMIN, "ada"));
    let world = if tenant.is_org() {
        World::empty().with_org(org)
    } else {
        World::default()
    };
    let stage = Stage::in_world(world).await;
    stage
        .install(tenant.id(), "chat:write", "search:read")
        .await;
    stage
}

async fn rotating(tenant: &InstallationKey, rotation: Rotation) -> Stage {
    let stage = unrotated(tenant).await;
    stage.fake.rotate_tokens(rotation);
    stage
        .install(tenant.id(), "chat:write", "search:read")
        .await;
    stage.expire();
    stage
}

async fn stored(stage: &Stage, key: &ChainKey) -> StoredChain {
    let stored = stage.store.chain(key).await.expect("available");
    stored.expect("installed")
}

/// Returns a rotator that reads this value in every pair that Slack issues.
fn rewriting(stage: &Stage, field: &'static str, value: &Value) -> TokenRotator {
    let value = value.clone();
    let rewrite = move |path: &str, body: Bytes| {
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        let is_pair = path.ends_with(REFRESH) || path.ends_with(EXCHANGE);
        if is_pair && answer["ok"] == true {
            answer[field] = value.clone();
        }
        Bytes::from(answer.to_string())
    };
    let transport = Rewritten::over(stage.fake.transport(), rewrite);
    stage.rotator_over(stage.config(), transport)
}

/// Returns each chain, the field that names another owner, and its value.
fn foreign() -> Vec<(ChainKey, &'static str, Value)> {
    let key = |tenant: InstallationKey, credential| ChainKey { credential, tenant };
    let other_team = json!({ "id": "T0BRAVO0002", "name": "Bravo" });
    let other_org = json!({ "id": "E0OTHER0002", "name": "Other" });
    vec![
        (
            key(alpha(), Credential::Bot),
            "app_id",
            json!("A0OTHER0001"),
        ),
        (key(alpha(), admin()), "app_id", json!("A0OTHER0001")),
        (key(alpha(), Credential::Bot), "team", other_team.clone()),
        (key(alpha(), admin()), "team", other_team),
        (
            key(grid(), Credential::Bot),
            "enterprise",
            other_org.clone(),
        ),
        (key(grid(), admin()), "enterprise", other_org),
        (key(alpha(), Credential::Bot), "token_type", json!("user")),
        (key(alpha(), admin()), "token_type", json!("bot")),
        (key(grid(), Credential::Bot), "token_type", json!("user")),
        (key(alpha(), admin()), "user_id", json!("U0OTHER0002")),
        (key(grid(), admin()), "user_id", json!("U0OTHER0002")),
    ]
}

/// Asserts that the chain still has its tokens and is not dead.
fn assert_untouched(before: &StoredChain, after: &StoredChain, case: &str) {
    let tokens = |it: &StoredChain| {
        let refresh = it.grant.refresh_token.as_ref();
        let access = it.grant.access_token.expose().to_owned();
        (access, refresh.map(|token| token.expose().to_owned()))
    };
    assert_eq!(tokens(before), tokens(after), "{case}");
    assert_eq!(after.chain.generation, 0, "{case}");
    assert!(after.alternates.is_empty(), "{case}");
    assert!(!after.chain.is_dead, "{case}");
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_app_place_person_or_kind_is_not_stored_by_a_refresh() {
    for (key, field, value) in foreign() {
        let case = format!("{field} of {key}");
        let stage = rotating(&key.tenant, Rotation::default()).await;
        let before = stored(&stage, &key).await;
        let rotator = rewriting(&stage, field, &value);
        let asked = rotator.token_for(&key.tenant, key.credential.clone()).await;
        asked.expect_err(&case);
        let after = stored(&stage, &key).await;
        assert_untouched(&before, &after, &case);
        // The call may have bought a pair, so it is repeated within the grace.
        assert_eq!(after.chain.attempts, 1, "{case}");
        let error = after.chain.last_error.expect("a reason");
        let expected = match field {
            "app_id" => "other_app",
            "team" | "enterprise" => "other_team",
            _ => "other_token_type",
        };
        assert_eq!(&*error, expected, "{case}");
        let wait = after.chain.retry_at.expect("it waits");
        assert!(wait > stage.fake.clock().now(), "{case}");
        tokio::time::sleep(secs(3)).await;
        let token = stage.rotator().token_for(&key.tenant, key.credential).await;
        assert!(
            stage
                .fake
                .is_live(token.expect("recovered").access_token.expose())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_app_place_person_or_kind_that_comes_late_is_not_stored() {
    for (key, field, value) in foreign() {
        let case = format!("{field} of {key}");
        let stage = rotating(&key.tenant, Rotation::default()).await;
        let before = stored(&stage, &key).await;
        let late = Fault::delay(secs(10)).after_effect();
        stage.inject(late.times(2));
        let rotator = rewriting(&stage, field, &value);
        let asked = rotator.token_for(&key.tenant, key.credential.clone()).await;
        asked.expect_err(&case);
        assert!(rotator.shutdown(secs(30)).await, "{case}");
        assert_eq!(stage.refreshes(), 2, "{case}");
        assert_untouched(&before, &stored(&stage, &key).await, &case);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_app_place_person_or_kind_is_not_stored_by_an_exchange() {
    for (key, field, value) in foreign() {
        let case = format!("{field} of {key}");
        let stage = unrotated(&key.tenant).await;
        stage.fake.rotate_tokens(Rotation::default());
        let before = stored(&stage, &key).await;
        let page = rewriting(&stage, field, &value).migrate(None, 10).await;
        let kept = page.expect("a page").kept;
        assert!(kept.iter().any(|(kept, _)| *kept == key), "{case}");
        let after = stored(&stage, &key).await;
        assert_untouched(&before, &after, &case);
        // Slack accepts a long-lived token once, so the exchange is not repeated.
        assert_eq!(after.chain.attempts, 1, "{case}");
        let calls = stage.fake.calls(EXCHANGE);
        let page = stage.rotator().migrate(None, 10).await.expect("a page");
        let kept = page.kept.into_iter().find(|(kept, _)| *kept == key);
        kept.expect("the token is unchanged");
        assert_eq!(stage.fake.calls(EXCHANGE), calls, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_app_place_person_or_kind_is_not_stored_by_a_late_exchange() {
    for (key, field, value) in foreign() {
        let case = format!("{field} of {key}");
        let stage = unrotated(&key.tenant).await;
        stage.fake.rotate_tokens(Rotation::default());
        let before = stored(&stage, &key).await;
        let late = Fault::delay(secs(10)).after_effect();
        stage.fake.inject(EXCHANGE, late.times(2));
        let rotator = rewriting(&stage, field, &value);
        rotator.migrate(None, 10).await.expect("a page");
        assert!(rotator.shutdown(secs(30)).await, "{case}");
        assert_untouched(&before, &stored(&stage, &key).await, &case);
    }
}

#[tokio::test(start_paused = true)]
async fn what_slack_does_not_say_of_a_pair_and_where_it_says_it_is_not_held_against_it() {
    let form = |is_minimal, is_nested| Rotation {
        is_minimal,
        is_nested,
        ..Rotation::default()
    };
    let forms = [form(true, false), form(false, true), form(true, true)];
    for (tenant, form) in [alpha(), grid()]
        .iter()
        .flat_map(|tenant| forms.iter().map(move |form| (tenant, form)))
    {
        for credential in [Credential::Bot, admin()] {
            let stage = rotating(tenant, form.clone()).await;
            let key = ChainKey {
                credential,
                tenant: tenant.clone(),
            };
            let rotator = stage.rotator();
            let token = rotator.token_for(tenant, key.credential.clone()).await;
            let scopes = token.expect("stored").scopes;
            let stored = stored(&stage, &key).await;
            assert_eq!(stored.chain.generation, 1, "{key}");
            // The known scopes stay.
            let known = if key.credential == Credential::Bot {
                "chat:write"
            } else {
                "search:read"
            };
            assert!(
                scopes.contains(known) && stored.grant.scopes.contains(known),
                "{key}"
            );
        }
    }
}
