//! The scopes that Slack knows.

use super::*;

#[test]
fn a_scope_that_slack_does_not_have_is_refused() {
    let fake = FakeSlack::in_process(World::default());
    let allow = |scope, user_scope| fake.allow(&authorize(&fake, scope, user_scope), ADA);
    let refused = Err(ConsentError::Refused("invalid_scope"));
    for (scope, user_scope) in [
        ("chat:wrtie", ""),
        ("commands,chat:wrtie", ""),
        ("commands", "files:raed"),
        ("chat:write:bot", ""),
        ("Commands", ""),
    ] {
        assert_eq!(allow(scope, user_scope), refused, "{scope} {user_scope}");
    }
    let page = fake.handle(&get(&authorize(&fake, "chat:wrtie", "")));
    let page = page.expect("a response");
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(text(&page).contains("invalid_scope"));
    assert!(allow("commands,chat:write,lists:write", "files:read").is_ok());
}

#[test]
fn a_scope_of_the_other_kind_of_token_is_refused() {
    let fake = FakeSlack::in_process(World::default());
    let allow = |scope, user_scope| fake.allow(&authorize(&fake, scope, user_scope), ADA);
    let refused = Err(ConsentError::Refused("invalid_scope"));
    assert_eq!(allow("search:read", ""), refused);
    assert!(allow("", "search:read").is_ok());
    assert_eq!(allow("commands", "app_mentions:read"), refused);
    assert!(allow("app_mentions:read", "").is_ok());
}

#[test]
fn a_test_can_add_a_scope_that_the_fake_does_not_know_yet() {
    let world = World::default().with_scopes("tomorrow:read,later:write");
    let fake = FakeSlack::in_process(world.with_scopes("never:read"));
    let scopes = "later:write,never:read,tomorrow:read";
    let answer = install(&fake, scopes, "tomorrow:read", ADA);
    assert_eq!(answer["scope"], scopes);
    assert_eq!(answer["authed_user"]["scope"], "tomorrow:read");
}
