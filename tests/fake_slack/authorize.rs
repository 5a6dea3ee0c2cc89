//! The authorize page: what it shows, and what it refuses.

use super::*;

#[tokio::test]
async fn cancel_over_http_sends_the_browser_back_with_access_denied() -> Checked {
    let fake = FakeSlack::start().await?;
    let url = authorize(&fake, "commands", "");
    let page = text(&over_http(&fake, get(&url)).await?);
    let answer = post(&fake, "oauth/v2/authorize", &press(&page, "cancel"));
    let callback = location(&over_http(&fake, answer).await?)?;
    assert_eq!(callback, fake.cancel(&url)?);
    assert_eq!(callback.query(), Some("error=access_denied&state=state-1"));
    Ok(())
}

#[test]
fn the_page_escapes_what_others_wrote() {
    let evil = "<script>alert('\"1\"')</script>";
    let world = World::empty().with_app_name(evil).with_workspace(
        Workspace::new("T1", evil)
            .with_person(Person::admin("U1", evil))
            .with_person(Person::member("U2", evil)),
    );
    let fake = FakeSlack::in_process(world);
    let mut url = authorize(&fake, "commands", "");
    url.query_pairs_mut().append_pair("team", evil);
    let mut with_state = url.clone();
    let pairs = url.query_pairs().filter(|(name, _)| name != "state");
    with_state
        .query_pairs_mut()
        .clear()
        .extend_pairs(pairs)
        .append_pair("state", evil);
    let page = text(&fake.handle(&get(&with_state)).expect("a response"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&quot;1&quot;&#39;)&lt;/script&gt;"));
    assert!(!page.contains("<script") && !page.contains("\"1\""));
}

#[test]
fn the_page_offers_every_place_and_preselects_the_hinted_one() {
    let fake = FakeSlack::in_process(grid());
    let mut url = authorize(&fake, "commands", "");
    url.query_pairs_mut().append_pair("team", "T0GRID00012");
    let page = text(&fake.handle(&get(&url)).expect("a response"));
    assert!(page.contains("value=\"W0ORGADM001@T0GRID00012\" selected"));
    assert!(page.contains("value=\"W0ORGADM001@E0GRID00001\">olga in all of Gridline Org"));
    assert!(page.contains("value=\"U0ADMIN0001@T0ALPHA0001\">"));
    assert!(
        !page.contains("U0MEMBER001@E0GRID00001"),
        "a member cannot install org-wide"
    );
    assert!(
        !page.contains("U0GONE00001"),
        "a deactivated user cannot install"
    );

    let callback = fake.handle(&post(
        &fake,
        "oauth/v2/authorize",
        &press_as(&page, "allow", "W0ORGADM001@T0GRID00012"),
    ));
    let callback = location(&callback.expect("a response")).expect("a callback");
    let answer = exchanged(&fake, &callback);
    assert_eq!(answer["team"]["id"], "T0GRID00012");
    assert_eq!(answer["enterprise"]["id"], "E0GRID00001");
    assert_eq!(answer["is_enterprise_install"], false);
}

#[test]
fn a_request_that_slack_refuses_never_reaches_the_redirect_url() {
    let fake = FakeSlack::in_process(World::default().with_redirect_url(REDIRECT));
    let url = |pairs: &[(&str, &str)]| {
        let mut url = fake.environment().authorize_url();
        url.query_pairs_mut().extend_pairs(pairs);
        url
    };
    let client_id = fake.client_id();
    let id = ("client_id", client_id.as_str());
    let scope = ("scope", "commands");
    let (fragment, sibling) = (format!("{REDIRECT}#x"), format!("{REDIRECT}_evil"));
    let refused = [
        (vec![scope], "invalid_client_id"),
        (vec![("client_id", "1.2"), scope], "invalid_client_id"),
        (vec![id], "invalid_scope"),
        (vec![id, ("scope", "Commands!")], "invalid_scope"),
        (
            vec![id, scope, ("redirect_uri", "http://localhost:9/elsewhere")],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", &fragment)],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", &sibling)],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", "not a url")],
            "bad_redirect_uri",
        ),
    ];
    for (pairs, code) in refused {
        let url = url(&pairs);
        assert_eq!(
            fake.allow(&url, ADA),
            Err(ConsentError::Refused(code)),
            "{pairs:?}"
        );
        assert_eq!(
            fake.cancel(&url),
            Err(ConsentError::Refused(code)),
            "{pairs:?}"
        );
        let page = fake.handle(&get(&url)).expect("a response");
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        assert!(text(&page).contains(code));
    }
    for allowed in [REDIRECT.to_owned(), format!("{REDIRECT}/sub")] {
        let url = url(&[id, scope, ("redirect_uri", &allowed)]);
        assert!(fake.allow(&url, ADA).is_ok(), "{allowed}");
    }
    let implied = fake
        .allow(&url(&[id, scope]), ADA)
        .expect("the first configured URL");
    assert!(implied.as_str().starts_with(REDIRECT));
}

#[test]
fn without_configured_redirect_urls_plain_http_is_for_loopback_only() {
    let fake = FakeSlack::in_process(World::default());
    let allow = |redirect_uri: &str| {
        let redirect_uri = Url::parse(redirect_uri).expect("a URL");
        fake.unsolicited(&redirect_uri, "commands", ADA)
    };
    assert!(allow("https://app.example.com/x").is_ok());
    assert!(allow("http://127.0.0.1:1/x").is_ok());
    assert_eq!(
        allow("http://app.example.com/x"),
        Err(ConsentError::Refused("bad_redirect_uri"))
    );
}

#[test]
fn only_who_belongs_there_can_install() {
    let fake = FakeSlack::in_process(grid());
    let url = authorize(&fake, "commands", "");
    let refused = [
        Who::user("U0NOBODY001"),
        Who::user("U0GONE00001"),
        Who::user("U0STRANGER1"),
        Who::user(ADA).at("T0GRID00011"),
        Who::user("U0MEMBER001").at("E0GRID00001"),
    ];
    for who in refused {
        let why = fake.allow(&url, who.clone());
        assert_eq!(why, Err(ConsentError::NotAllowed), "{who:?}");
    }
    assert!(fake.allow(&url, "U0MEMBER001").is_ok());
}

#[test]
fn an_install_started_at_slack_has_a_code_and_no_state() -> Checked {
    let fake = FakeSlack::in_process(World::default());
    let callback = fake.unsolicited(&REDIRECT.parse()?, "commands", ADA)?;
    assert_eq!(param(&callback, "state").as_deref(), Some(""));
    assert_eq!(exchanged(&fake, &callback)["ok"], true);
    let mut url = authorize(&fake, "commands", "");
    let kept: Vec<_> = url
        .query_pairs()
        .into_owned()
        .filter(|(name, _)| name != "state")
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept);
    assert_eq!(param(&fake.allow(&url, ADA)?, "state"), None);
    Ok(())
}
