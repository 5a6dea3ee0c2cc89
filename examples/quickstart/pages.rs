//! A page to click on, which also shows what the database has.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use slack_installs::backend::{Backend as _, Scope};
use slack_installs::testing::FakeSlack;
use url::Url;

use super::{Bot, Store};

/// *Add to Slack*; and with the fake Slack, where nobody else can look, the stored rows.
pub(crate) async fn home(State(bot): State<Bot>) -> Response {
    let rows = match &bot.fake {
        Some(_) => rows(&bot.store).await,
        None => Ok(Vec::new()),
    };
    match rows {
        Ok(rows) => Html(page(&bot, &rows)).into_response(),
        Err(error) => format!("the database cannot be read: {error}").into_response(),
    }
}

/// The fake Slack's person types the slash command.
pub(crate) async fn fake_command(State(bot): State<Bot>, headers: HeaderMap) -> String {
    let Some(fake) = &bot.fake else {
        return "Only with the fake Slack.".into();
    };
    let url = app_url(&headers, "/slack/command");
    match fake
        .deliver(&url, &fake.slash_command(ADA, "/hello", ""))
        .await
    {
        Ok(answer) => String::from_utf8_lossy(answer.body()).into_owned(),
        Err(error) => format!("the command did not arrive: {error}"),
    }
}

/// The fake Slack's admin removes the app.
pub(crate) async fn fake_uninstall(State(bot): State<Bot>, headers: HeaderMap) -> Redirect {
    if let Some(fake) = &bot.fake {
        fake.uninstall(WORKSPACE);
        deliver_events(fake, &app_url(&headers, "/slack/events")).await;
    }
    Redirect::to("/")
}

/// Delivers what the fake Slack has to tell, as Slack does.
pub(crate) async fn deliver_events(fake: &FakeSlack, url: &Url) {
    for event in fake.take_events() {
        if let Err(error) = fake.deliver(url, &event).await {
            println!("an event did not arrive: {error}");
        }
    }
}

/// Each stored row, as the database has it.
pub(crate) async fn rows(store: &Store) -> super::Result<Vec<[String; 4]>> {
    let page = store.backend().scan(&Scope::Everything, None, 100).await?;
    let shown = page.rows.iter().map(|(key, row)| {
        let sealed = row
            .sealed
            .as_bytes()
            .iter()
            .fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        [
            key.partition.to_string(),
            key.slot.to_string(),
            row.metadata.as_str().into(),
            sealed,
        ]
    });
    Ok(shown.collect())
}

/// The one person and workspace of the fake Slack's default world.
pub(crate) const ADA: &str = "U0ADMIN0001";
pub(crate) const WORKSPACE: &str = "T0ALPHA0001";

fn app_url(headers: &HeaderMap, path: &str) -> Url {
    let host = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    Url::parse(&format!("http://{host}{path}")).expect("a browser's Host header is a host")
}

fn page(bot: &Bot, rows: &[[String; 4]]) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
    };
    let rows: String = rows
        .iter()
        .map(|row| {
            let cells = row
                .iter()
                .map(|cell| format!("<td><code>{}</code></td>", escape(cell)));
            format!("<tr>{}</tr>", cells.collect::<String>())
        })
        .collect();
    let buttons = match bot.fake {
        Some(_) => {
            "<form method=post action=/fake/command><button id=command>Type /hello in Slack</button></form>\
             <form method=post action=/fake/uninstall><button id=uninstall>Remove the app in Slack</button></form>"
        }
        None => "",
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>slack-installs quickstart</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}\
         td,th{{border:1px solid #ccc;padding:.3rem .5rem;text-align:left;vertical-align:top}}\
         td:last-child code{{display:block;max-width:22rem;overflow-wrap:anywhere;max-height:6rem;overflow:auto}}\
         form{{display:inline-block;margin-right:.5rem}}</style>\
         <h1>slack-installs quickstart</h1>\
         <p><a id=add href=/slack/install>Add to Slack</a></p>{buttons}\
         <h2>What the database has</h2>\
         <p>Ids, names and scopes are readable; every token is in the sealed column.</p>\
         <table><tr><th>partition<th>slot<th>metadata<th>sealed</tr>{rows}</table></html>"
    )
}
