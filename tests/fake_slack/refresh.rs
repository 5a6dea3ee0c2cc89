//! The shapes of the response to a refresh.

use slack_installs::testing::Rotation;

use super::*;

#[test]
fn a_users_refresh_can_have_its_pair_inside_authed_user() {
    for is_minimal in [false, true] {
        let fake = FakeSlack::in_process(World::default());
        fake.rotate_tokens(Rotation {
            is_minimal,
            is_nested: true,
            ..Rotation::default()
        });
        let answer = install(&fake, "commands", "search:read", ADA);
        let bot = refresh(&fake, &answer["refresh_token"]);
        assert!(bot["access_token"].is_string(), "the bot's is not nested");
        assert_eq!(bot.get("authed_user"), None);

        let user = refresh(&fake, &answer["authed_user"]["refresh_token"]);
        let pair = &user["authed_user"];
        for moved in ["access_token", "refresh_token", "expires_in", "token_type"] {
            assert_eq!(user.get(moved), None, "{moved}");
            assert!(pair.get(moved).is_some(), "{moved}");
        }
        assert_eq!((&pair["id"], user.get("user_id")), (&json!(ADA), None));
        let token = pair["access_token"].as_str();
        assert_eq!(ask(&fake, "auth.test", token, "")["user_id"], ADA);
        assert_eq!(refresh(&fake, &pair["refresh_token"])["ok"], true);
    }
}

#[test]
fn by_default_a_users_refresh_has_its_pair_at_the_top() {
    let fake = FakeSlack::in_process(World::default());
    fake.rotate_tokens(Rotation::default());
    let answer = install(&fake, "", "search:read", ADA);
    let user = refresh(&fake, &answer["authed_user"]["refresh_token"]);
    assert_eq!(
        (&user["user_id"], user.get("authed_user")),
        (&json!(ADA), None)
    );
    assert!(user["access_token"].is_string());
}

fn refresh(fake: &FakeSlack, token: &Value) -> Value {
    let token = token.as_str().expect("a refresh token");
    let answer = ask_as_app(
        fake,
        &form([("grant_type", "refresh_token"), ("refresh_token", token)]),
    );
    assert_eq!(answer["ok"], true, "{:?}", answer["error"]);
    answer
}
