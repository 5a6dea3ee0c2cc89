//! The fake Slack behaves as Slack's documentation says, over HTTP and in process.

use std::io;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use slack_installs::Clock;
use slack_installs::slack::{Transport as _, TransportError};
use slack_installs::testing::{
    ConsentError, Delivery, FakeSlack, Fault, Org, Outcome, Person, Who, Workspace, World,
};
use url::{Url, form_urlencoded};

mod authorize;
mod browser;
mod deliveries;
mod faults;
mod installs;
mod lifecycle;
mod methods;
mod posts;
mod refresh;
mod respond;
mod scopes;
mod server;
mod socket;

type Checked = Result<(), Box<dyn std::error::Error>>;

/// A world with the workspace Alpha Robotics, which has people of every kind, and an organisation
/// of two workspaces.
fn grid() -> World {
    let alpha = Workspace::new("T0ALPHA0001", "Alpha Robotics")
        .with_person(Person::admin(ADA, "ada"))
        .with_person(Person::member("U0MEMBER002", "mia"))
        .with_person(Person::owner("U0OWNER0001", "oz"))
        .with_person(Person::guest("U0GUEST0001", "gus"))
        .with_person(Person::deactivated("U0GONE00001", "gone"))
        .with_person(Person::stranger("U0STRANGER1", "xavier", "T0XTERN0009"));
    let org = Org::new("E0GRID00001", "Gridline Org")
        .with_workspace(
            Workspace::new("T0GRID00011", "Gridline Sales")
                .with_person(Person::member("U0MEMBER001", "max")),
        )
        .with_workspace(Workspace::new("T0GRID00012", "Gridline Support"))
        .with_person(Person::org_admin("W0ORGADM001", "olga"));
    World::empty().with_workspace(alpha).with_org(org)
}

fn olga() -> Who {
    Who::user("W0ORGADM001").at("E0GRID00001")
}

fn authorize(fake: &FakeSlack, scope: &str, user_scope: &str) -> Url {
    let mut url = fake.environment().authorize_url();
    url.query_pairs_mut()
        .append_pair("client_id", fake.client_id().as_str())
        .append_pair("scope", scope)
        .append_pair("user_scope", user_scope)
        .append_pair("redirect_uri", REDIRECT)
        .append_pair("state", "state-1");
    url
}

fn install(fake: &FakeSlack, scope: &str, user_scope: &str, who: impl Into<Who>) -> Value {
    let callback = fake
        .allow(&authorize(fake, scope, user_scope), who)
        .expect("allowed");
    let answer = exchanged(fake, &callback);
    assert_eq!(answer["ok"], true, "{:?}", answer["error"]);
    answer
}

fn exchanged(fake: &FakeSlack, callback: &Url) -> Value {
    let code = param(callback, "code").expect("a code");
    in_process(fake, &exchange(fake, &code))
}

fn exchange(fake: &FakeSlack, code: &str) -> Request<Bytes> {
    as_app(fake, &form([("code", code), ("redirect_uri", REDIRECT)]))
}

fn ask_as_app(fake: &FakeSlack, form: &str) -> Value {
    in_process(fake, &as_app(fake, form))
}

/// Returns a request of `oauth.v2.access` with HTTP Basic.
fn as_app(fake: &FakeSlack, form: &str) -> Request<Bytes> {
    let secret = fake.client_secret();
    let basic = STANDARD.encode(format!("{}:{}", fake.client_id(), secret.expose()));
    let mut request = post(fake, "api/oauth.v2.access", form);
    let value = format!("Basic {basic}").parse().expect("a header");
    request.headers_mut().insert("authorization", value);
    request
}

fn api(fake: &FakeSlack, method: &str, token: Option<&str>, form: &str) -> Request<Bytes> {
    let mut request = post(fake, &format!("api/{method}"), form);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    request
}

fn ask(fake: &FakeSlack, method: &str, token: Option<&str>, form: &str) -> Value {
    in_process(fake, &api(fake, method, token, form))
}

fn get(url: &Url) -> Request<Bytes> {
    Request::get(url.as_str())
        .body(Bytes::new())
        .expect("a request")
}

fn post(fake: &FakeSlack, path: &str, form: &str) -> Request<Bytes> {
    let url = fake.environment().base().join(path).expect("a URL");
    Request::post(url.as_str())
        .header("content-type", FORM)
        .body(Bytes::copy_from_slice(form.as_bytes()))
        .expect("a request")
}

async fn over_http(fake: &FakeSlack, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    fake.send(request).await
}

fn in_process(fake: &FakeSlack, request: &Request<Bytes>) -> Value {
    json_of(&fake.handle(request).expect("a response")).expect("JSON")
}

fn json_of(response: &Response<Bytes>) -> serde_json::Result<Value> {
    serde_json::from_slice(response.body())
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

fn location(response: &Response<Bytes>) -> Result<Url, Box<dyn std::error::Error>> {
    Ok(response
        .headers()
        .get("location")
        .ok_or("no redirect")?
        .to_str()?
        .parse()?)
}

fn param(url: &Url, name: &str) -> Option<String> {
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

fn field(delivery: &Delivery, name: &str) -> Option<String> {
    let body = delivery.body();
    let mut fields = form_urlencoded::parse(&body);
    fields
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn bot_token(answer: &Value) -> String {
    answer["access_token"]
        .as_str()
        .expect("a bot token")
        .to_owned()
}

fn inner(delivery: &Delivery) -> &Value {
    &delivery.json().expect("an event")["event"]
}

fn kinds(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .filter_map(|delivery| inner(delivery)["type"].as_str())
        .collect()
}

fn assert_secret_free(fake: &FakeSlack, seen: &str) {
    for secret in fake.secrets() {
        assert!(!seen.contains(&secret), "a secret is shown");
    }
}

/// Returns the form that a browser sends when the user presses this button and changes nothing
/// else.
fn press(page: &str, answer: &str) -> String {
    press_as(page, answer, "")
}

/// Does the same as [`press`], with this choice in the list of people and places.
fn press_as(page: &str, answer: &str, who: &str) -> String {
    let inputs = page.split("<input type=\"hidden\" name=\"").skip(1);
    let mut fields: Vec<_> = inputs
        .filter_map(|input| {
            let (name, rest) = input.split_once("\" value=\"")?;
            let (value, _) = rest.split_once('"')?;
            Some((name, value))
        })
        .collect();
    fields.push(("answer", answer));
    fields.extend((!who.is_empty()).then_some(("who", who)));
    form(fields)
}

const ADA: &str = "U0ADMIN0001";
const FORM: &str = "application/x-www-form-urlencoded";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
