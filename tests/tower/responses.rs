//! The responses to refused requests: their reasons, their install links, and your app's own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use slack_installs::layer::SlackLayer;
use slack_installs::testing::{Delivery, Fault, Who};
use slack_installs::{Refusal, RefusalReason, Refusals, Reply, store};
use tower_layer::Layer as _;

use super::front::{Front, layer, text};
use super::support::app::{ADA, ALPHA, BEN, OLGA, ORG, SALES};
use super::support::serving::{Token, hold, keep};
use super::*;
use crate::support::log::Log;
use crate::support::serving::{interrupted, rotator};

const INSTALL: &str = "https://bot.example.com/slack/install";

impl Front {
    /// Changes the layer in front of the service.
    fn behind(mut self, change: impl FnOnce(SlackLayer) -> SlackLayer) -> Self {
        self.service = change(layer(&self.life)).layer(self.handler.clone());
        self
    }

    fn with_link(self) -> Self {
        self.behind(linked)
    }

    async fn reply(&self, delivery: &Delivery) -> (StatusCode, Value) {
        let response = self.respond(self.request(delivery)).await;
        let status = response.status();
        let content_type = response.headers()["content-type"].clone();
        let is_json = content_type == "application/json";
        assert!(is_json || content_type == "text/plain; charset=utf-8");
        let body = text(response).await;
        let body = if is_json {
            serde_json::from_str(&body).expect("JSON")
        } else {
            json!(body)
        };
        (status, body)
    }

    fn command(&self, who: impl Into<Who>) -> Delivery {
        self.life.app.fake.slash_command(who, "/x", "")
    }
}

fn linked(layer: SlackLayer) -> SlackLayer {
    layer.with_install_url(Url::parse(INSTALL).expect("a URL"))
}

/// Returns Alpha in a state in which Ben's command is refused for this reason.
async fn refusing(reason: RefusalReason) -> (Front, Who) {
    let front = Front::new(false).await;
    let ben = Who::user(BEN);
    match reason {
        RefusalReason::NotConnected => front.life.install_without_bot(ADA).await,
        RefusalReason::NotInstalled => {}
        RefusalReason::OnHold => {
            front.life.install(ADA).await;
            hold(&front.life.app, ALPHA, true).await;
        }
        RefusalReason::ReinstallNeeded => keep(&front.life.app, Token::Over, Token::Over).await,
        RefusalReason::NotGranted => {
            front.life.install(Who::user(OLGA).at(ORG)).await;
            let access = store::Access {
                teams: vec![slack_installs::TeamId::new(SALES).expect("an id")],
                is_granted: false,
                at_micros: 1,
            };
            let org = slack_installs::EnterpriseId::new(ORG).expect("an id");
            let kept = slack_installs::LifecycleStore::set_access;
            let kept = kept(&front.life.app.store, &org, &access).await;
            assert!(kept.expect("the store responds"));
            return (front, Who::user(OLGA).at(SALES));
        }
        RefusalReason::TemporarilyUnavailable => {
            front.life.install(ADA).await;
            front.backend.set_faults(Faults {
                lost_reads: 1,
                ..Faults::none()
            });
        }
        RefusalReason::Misconfigured => {
            let (mut life, backend) = interrupted().await;
            keep(&life.app, Token::Over, Token::Missing).await;
            life.authorizer = life.authorizer.with_rotator(&rotator(&life.app));
            let fault = Fault::error("bad_client_secret").always();
            life.app.fake.inject("oauth.v2.access", fault);
            return (Front::of(life, backend, false), ben);
        }
        other => panic!("{other:?}"),
    }
    (front, ben)
}

/// The reasons for which a command is refused, with the texts.
const TEXTS: &[(RefusalReason, &str, &str)] = &[
    (
        RefusalReason::Misconfigured,
        "This app does not work at the moment. Please contact the people who provide it.",
        "",
    ),
    (
        RefusalReason::NotConnected,
        "This app is installed here, but you have not connected your account. ",
        "Connect it: LINK",
    ),
    (
        RefusalReason::NotGranted,
        "Your organisation has not added this app to this workspace. Please ask an admin.",
        "",
    ),
    (
        RefusalReason::NotInstalled,
        "This app is not installed here. ",
        "Install it: LINK",
    ),
    (
        RefusalReason::OnHold,
        "This app is on hold here. Please contact the people who provide it.",
        "",
    ),
    (
        RefusalReason::ReinstallNeeded,
        "This app's access has ended. ",
        "Install it again: LINK",
    ),
    (
        RefusalReason::TemporarilyUnavailable,
        "This app is busy. Please try again in a moment.",
        "",
    ),
];

#[tokio::test]
async fn each_reason_has_its_own_text_and_the_link_of_the_workspace_where_it_helps() {
    let mut texts = BTreeSet::new();
    for (reason, what, remedy) in TEXTS {
        let (front, who) = refusing(*reason).await;
        let front = front.with_link();
        let remedy = remedy.replace("LINK", &format!("{INSTALL}?team={ALPHA}"));
        let expected = json!(format!("{what}{remedy}"));
        let reply = front.reply(&front.command(who)).await;
        assert_eq!(reply, (StatusCode::OK, expected), "{reason:?}");
        assert_eq!(reason.is_solved_by_installing(), !remedy.is_empty());
        assert!(texts.insert(*what), "{reason:?} has its own text");
        assert_eq!(front.handler.calls(), 0);
    }
}

#[tokio::test]
async fn who_has_not_connected_their_account_is_not_told_that_the_app_is_not_installed() {
    let front = Front::new(false).await;
    front.life.install_without_bot(ADA).await;
    // The workspace has the app. Ada is served, and Ben can connect his account.
    assert_eq!(front.deliver(&front.command(ADA)).await, StatusCode::OK);
    assert_eq!(front.handler.calls(), 1);
    let (_, told) = front.send(front.request(&front.command(BEN))).await;
    assert!(told.contains("have not connected your account"), "{told}");
    assert!(!told.contains("not installed"), "{told}");
    assert_eq!(front.handler.calls(), 1);
}

/// Records why each request is refused, and responds with the number of the call.
#[derive(Clone, Debug, Default)]
struct Own(Arc<Mutex<Vec<String>>>);

impl Refusals for Own {
    fn respond(&self, refusal: &Refusal<'_>) -> Reply {
        let mut told = self.0.lock().expect("no panic");
        let link = refusal.install_url.as_ref().map(Url::as_str);
        let tenant = refusal.request.tenant();
        let tenant = tenant.and_then(|tenant| tenant.team());
        told.push(format!(
            "{} {} {:?} {} {}",
            refusal.reason.name(),
            refusal.request.kind().name(),
            tenant,
            link.unwrap_or("no link"),
            refusal.error.is_some(),
        ));
        Reply::json(&json!({ "response_type": "ephemeral", "number": told.len() }))
    }
}

#[tokio::test]
async fn the_app_chooses_each_response_with_the_reason_the_request_and_the_link_in_hand() {
    let own = Own::default();
    let front = Front::new(false).await;
    let front = front.behind(|layer| linked(layer).with_refusals(own.clone()));
    let fake = &front.life.app.fake;
    let foreign = fake.block_action(ADA, "x").edit(|click| {
        click["message"]["app_id"] = json!("A0OTHER0001");
        click["message"]["team"] = json!("T0XTERN0009");
    });
    let link = format!("Some({ALPHA}) {INSTALL}?team={ALPHA}");
    for (number, (delivery, expected)) in [
        (
            front.command(ADA),
            format!("not_installed slash_command {link} true"),
        ),
        (front.mention(), format!("not_installed event {link} true")),
        (
            fake.block_action(ADA, "x"),
            format!("not_installed block_actions {link} true"),
        ),
        (
            fake.view_submission(ADA, "x"),
            format!("not_installed view_submission {link} true"),
        ),
        (
            foreign,
            "no_tenant block_actions None no link true".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = front.reply(&delivery).await;
        let json = json!({ "response_type": "ephemeral", "number": number + 1 });
        assert_eq!(reply, (StatusCode::OK, json), "{expected}");
        let told = own.0.lock().expect("no panic").last().cloned();
        assert_eq!(told, Some(expected));
    }
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn a_served_request_and_slacks_own_questions_are_no_refusals() {
    let own = Own::default();
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let front = front.behind(|layer| linked(layer).with_refusals(own.clone()));
    let fake = &front.life.app.fake;
    for delivery in [fake.url_verification("x"), fake.ssl_check()] {
        assert_eq!(front.deliver(&delivery).await, StatusCode::OK);
    }
    let mut forged = front.request(&front.command(ADA));
    forged.headers_mut().remove("x-slack-signature");
    assert_eq!(front.send(forged).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(front.deliver(&front.command(ADA)).await, StatusCode::OK);
    assert_eq!(*own.0.lock().expect("no panic"), [""; 0]);
    assert_eq!(front.handler.calls(), 1);
}

/// Panics for each refusal.
#[derive(Debug)]
struct Broken;

impl Refusals for Broken {
    fn respond(&self, _: &Refusal<'_>) -> Reply {
        panic!("a bug of the app");
    }
}

#[tokio::test]
async fn the_crates_response_replaces_one_that_panics() {
    let front = Front::new(false).await;
    let front = front.behind(|layer| layer.with_refusals(Broken));
    let (log, logging) = Log::of_this_thread();
    let reply = front.reply(&front.command(ADA)).await;
    drop(logging);
    let text = "This app is not installed here. Please install it first.";
    assert_eq!(reply, (StatusCode::OK, json!(text)));
    assert!(log.text().contains("ERROR"), "{}", log.text());
}

#[tokio::test]
async fn a_submitted_modal_gets_the_link_on_top_and_keeps_its_input() {
    let front = Front::new(false).await.with_link();
    let modal = front.life.app.fake.view_submission(ADA, "settings");
    let (status, body) = front.reply(&modal).await;
    assert_eq!(status, StatusCode::OK);
    // `push` leaves the submitted modal open, and `update` would replace it.
    assert_eq!(body["response_action"], "push", "{body}");
    assert_eq!(body["view"]["type"], "modal");
    assert_eq!(body["view"]["title"]["text"], "Fake", "the app's own title");
    let text = &body["view"]["blocks"][0]["text"]["text"];
    let link = format!("This app is not installed here. Install it: {INSTALL}?team={ALPHA}");
    assert_eq!(*text, link);
    // Without a title of its own, it has the crate's.
    let nameless = modal.edit(|payload| payload["view"]["title"] = json!(null));
    let (_, body) = front.reply(&nameless).await;
    assert_eq!(body["view"]["title"]["text"], "This app");
    assert_eq!(front.handler.calls(), 0);
}

#[tokio::test]
async fn what_slack_does_not_show_keeps_its_status() {
    for (reason, event, click, modal) in [
        (RefusalReason::NotInstalled, 200, 403, 200),
        (RefusalReason::OnHold, 200, 403, 403),
        (RefusalReason::TemporarilyUnavailable, 503, 503, 503),
        (RefusalReason::Misconfigured, 503, 503, 503),
    ] {
        let front = refusing(reason).await.0.with_link();
        let fake = &front.life.app.fake;
        assert_eq!(front.deliver(&front.mention()).await, event, "{reason:?}");
        for delivery in [
            fake.block_action(ADA, "x"),
            fake.shortcut(ADA, "x"),
            fake.message_shortcut(ADA, "x"),
        ] {
            assert_eq!(front.deliver(&delivery).await, click, "{reason:?}");
        }
        let submission = fake.view_submission(ADA, "x");
        assert_eq!(front.deliver(&submission).await, modal, "{reason:?}");
    }
}

#[tokio::test]
async fn a_legacy_message_and_a_legacy_dialog_show_the_text() {
    let front = Front::new(false).await.with_link();
    let click = front.life.app.fake.block_action(ADA, "x").edit(|payload| {
        payload["type"] = json!("interactive_message");
        payload["original_message"] = payload["message"].take();
    });
    let (status, body) = front.reply(&click).await;
    assert_eq!(
        (status, &body["response_type"]),
        (StatusCode::OK, &json!("ephemeral"))
    );
    assert_eq!(body["replace_original"], false);
    assert!(
        body["text"].as_str().expect("a text").contains(INSTALL),
        "{body}"
    );
    let dialog = front.life.app.fake.shortcut(ADA, "x").edit(|payload| {
        payload["type"] = json!("dialog_submission");
        payload["submission"] = json!({ "note": "x" });
    });
    let (status, body) = front.reply(&dialog).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["errors"][0]["name"], "note");
    let error = body["errors"][0]["error"].as_str().expect("a text");
    assert!(error.contains(INSTALL), "{error}");
    let empty = dialog.edit(|payload| payload["submission"] = json!({}));
    assert_eq!(front.deliver(&empty).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_link_of_an_organisations_installation_that_ended_is_the_organisations() {
    let own = Own::default();
    let front = Front::new(false).await;
    let front = front.behind(|layer| linked(layer).with_refusals(own.clone()));
    let person = || Who::user("U0GRIDUSR02").at(SALES);
    front.deliver(&front.command(person())).await;
    front.life.install(Who::user(OLGA).at(ORG)).await;
    let mut org = front.life.app.stored(ORG, None).await.installation;
    let bot = org.bot.as_mut().expect("a bot");
    bot.grant.expires_at = Some(std::time::UNIX_EPOCH);
    org.installed_at += std::time::Duration::from_secs(1);
    let stored = slack_installs::InstallationStore::store(&front.life.app.store, &org).await;
    stored.expect("the store responds");
    front.deliver(&front.command(person())).await;
    let told = own.0.lock().expect("no panic");
    assert!(told[0].starts_with("not_installed") && told[0].contains(&format!("?team={SALES} ")));
    assert!(told[1].starts_with("reinstall_needed"), "{told:?}");
    assert!(told[1].contains(&format!("?team={ORG} ")), "{told:?}");
}

/// Responds with the person's language.
#[derive(Debug)]
struct Language;

impl Refusals for Language {
    fn respond(&self, refusal: &Refusal<'_>) -> Reply {
        Reply::text(refusal.locale().unwrap_or_else(|| "none".to_owned()))
    }
}

#[tokio::test]
async fn the_language_is_that_of_the_payload_if_slack_has_it() {
    let front = Front::new(false).await;
    let front = front.behind(|layer| layer.with_refusals(Language));
    let click = |locale: Value| {
        let click = front.life.app.fake.block_action(ADA, "x");
        click.edit(|payload| payload["user"]["locale"] = locale)
    };
    for (delivery, expected) in [
        (click(json!("de-DE")), "de-DE"),
        (click(json!("zh_Hant")), "zh_Hant"),
        (click(json!("<b>")), "none"),
        (click(json!("x".repeat(36))), "none"),
        (click(json!("")), "none"),
        (click(json!(7)), "none"),
        (front.command(ADA), "none"),
        (front.mention(), "none"),
    ] {
        assert_eq!(front.reply(&delivery).await.1, expected);
    }
}

#[test]
fn over_socket_mode_a_reply_is_the_payload_of_the_acknowledgement() {
    let message = json!({ "response_action": "clear" });
    assert_eq!(Reply::json(&message).payload(), Some(message));
    let text = Reply::text("hello").payload();
    assert_eq!(text, Some(json!({ "text": "hello" })));
    let refused = Reply::new(StatusCode::FORBIDDEN, "refused");
    for nothing in [Reply::empty(), refused] {
        assert_eq!(nothing.payload(), None);
    }
}
