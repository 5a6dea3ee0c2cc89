//! A page with buttons. It shows what each click changed in the database.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use slack_installs::backend::SqliteBackend;
use slack_installs::testing::FakeSlack;
use tokio::sync::Mutex;
use url::Url;

use super::Result;
use super::database::{Change, Stored, changes, rows};

/// The demo page. A real app does not need one.
#[derive(Clone)]
pub(crate) struct Demo {
    fake: FakeSlack,
    database: Arc<SqliteBackend>,
    story: Arc<Mutex<Story>>,
}

/// The last step, with the rows before and after it.
#[derive(Default)]
struct Story {
    last: String,
    before: Vec<Stored>,
    now: Vec<Stored>,
}

impl Story {
    fn tell(&mut self, what: impl Into<String>, now: Vec<Stored>) {
        self.last = what.into();
        self.before = std::mem::replace(&mut self.now, now);
    }

    /// Records a step that happened outside this page: a flow ended.
    fn look(&mut self, now: Vec<Stored>) {
        if now == self.now {
            return;
        }
        let is_first = self.now.is_empty();
        let installed = changes(&self.now, &now)
            .iter()
            .any(|(_, row)| row.place() == WORKSPACE);
        let what = match (is_first, installed) {
            (_, true) => {
                "Ada added the app. The app sealed and stored its tokens before it showed that it \
                 is installed."
            }
            (true, false) => "The app started. It created a data key and sealed it.",
            (false, false) => "An install flow ended without an installation.",
        };
        self.tell(what, now);
    }
}

impl Demo {
    pub(crate) fn new(fake: FakeSlack, database: Arc<SqliteBackend>) -> Self {
        Self {
            fake,
            database,
            story: Arc::default(),
        }
    }

    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/", get(home))
            .route("/fake/command", post(command))
            .route("/fake/uninstall", post(uninstall))
            .with_state(self)
    }

    /// Runs a step, and records what it changed.
    async fn step(&self, what: impl Future<Output = String> + Send) -> Result<()> {
        let mut story = self.story.lock().await;
        story.look(rows(&self.database).await?);
        let what = what.await;
        story.tell(what, rows(&self.database).await?);
        Ok(())
    }
}

async fn home(State(demo): State<Demo>) -> Response {
    let mut story = demo.story.lock().await;
    match rows(&demo.database).await {
        Ok(now) => {
            story.look(now);
            Html(page(&story)).into_response()
        }
        Err(error) => unreadable(&*error),
    }
}

/// Sends the slash command as Ada.
async fn command(State(demo): State<Demo>, headers: HeaderMap) -> Response {
    let url = app_url(&headers, "/slack/command");
    let typed = demo.fake.slash_command(ADA, "/hello", "");
    let step = demo.step(async {
        match demo.fake.deliver(&url, &typed).await {
            Ok(answer) => {
                let answer = String::from_utf8_lossy(answer.body()).into_owned();
                format!("Ada typed /hello. The app responded: {answer}")
            }
            Err(error) => format!("The app did not receive the command: {error}"),
        }
    });
    back(step.await)
}

/// Removes the app as Ada.
async fn uninstall(State(demo): State<Demo>, headers: HeaderMap) -> Response {
    let url = app_url(&headers, "/slack/events");
    let step = demo.step(async {
        demo.fake.uninstall(WORKSPACE);
        deliver_events(&demo.fake, &url).await;
        "Ada removed the app. Slack sent the event, and the app deleted every row of the workspace."
            .into()
    });
    back(step.await)
}

fn back(step: Result<()>) -> Response {
    match step {
        Ok(()) => Redirect::to("/").into_response(),
        Err(error) => unreadable(&*error),
    }
}

fn unreadable(error: &(dyn std::error::Error + Send + Sync)) -> Response {
    format!("cannot read the database: {error}").into_response()
}

/// Delivers the pending events of the fake Slack, as Slack does.
pub(crate) async fn deliver_events(fake: &FakeSlack, url: &Url) {
    for event in fake.take_events() {
        if let Err(error) = fake.deliver(url, &event).await {
            println!("the app did not receive an event: {error}");
        }
    }
}

/// The only person and the only workspace of the fake Slack's default world.
pub(crate) const ADA: &str = "U0ADMIN0001";
pub(crate) const WORKSPACE: &str = "T0ALPHA0001";

fn app_url(headers: &HeaderMap, path: &str) -> Url {
    let host = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    Url::parse(&format!("http://{host}{path}")).expect("a browser's Host header is a host")
}

/// Returns the page for the real Slack. It does not show the rows, because they are real data.
pub(crate) async fn add() -> Html<String> {
    Html(document(
        "<p><a class=button id=add href=/slack/install>Add to Slack</a></p>",
    ))
}

fn page(story: &Story) -> String {
    let is_installed = story.now.iter().any(|row| row.place() == WORKSPACE);
    let (done, off) = if is_installed {
        (" class=done", "")
    } else {
        ("", " disabled")
    };
    let add = if is_installed {
        "Add it again"
    } else {
        "Add to Slack"
    };
    let what = changes(&story.before, &story.now);
    let summary = if what.is_empty() {
        "<li>No row changed. The handler only read rows.</li>".into()
    } else {
        what.iter()
            .map(|(change, row)| line(*change, row))
            .collect::<String>()
    };
    let stored = story
        .now
        .iter()
        .map(|row| card(row, row.since(&story.before)));
    document(&format!(
        "<p>Slack is a fake on this machine. Follow the steps in order, and see what each click \
         changes in the database.</p>\
         <ol class=steps>\
         <li{done}><h2>Add the app</h2><p>Ada adds the app to her workspace, Alpha Robotics.</p>\
         <a class=button id=add href=/slack/install>{add}</a></li>\
         <li><h2>Use the app</h2><p>Slack signs a command. The handler gets the token of this \
         workspace only.</p><form method=post action=/fake/command>\
         <button class=button id=command{off}>Type /hello in Slack</button></form></li>\
         <li><h2>Remove the app</h2><p>Slack notifies the app, and the app deletes every row of \
         the workspace.</p>\
         <form method=post action=/fake/uninstall>\
         <button class=button id=uninstall{off}>Remove the app in Slack</button></form></li></ol>\
         <section id=changes><h2>What the last click changed</h2><p>{last}</p><ul>{summary}</ul>\
         </section>\
         <section id=rows><h2>What the database contains</h2>\
         <p>Ids, names and scopes are readable. Each token is in the sealed part.</p>{stored}\
         </section>",
        last = escape(&story.last),
        stored = stored.collect::<String>(),
    ))
}

fn line(change: Change, row: &Stored) -> String {
    format!(
        "<li>{} {}: <code>{}</code></li>",
        tag(Some(change)),
        row.purpose(),
        short(&format!("{} {}", row.place(), row.slot)),
    )
}

fn card(row: &Stored, change: Option<Change>) -> String {
    let bytes = row.sealed.len() / 2;
    // Shows the end. The start is the data key's id, which is the same in each row.
    let end = &row.sealed[row.sealed.len().saturating_sub(SHOWN)..];
    format!(
        "<article{class}><div><b>{purpose}</b> {tag}<br><code>{place} {slot}</code></div>\
         <div><small>readable</small><code>{metadata}</code></div>\
         <div><small>sealed, {bytes} bytes</small><code class=sealed>…{end}</code></div>\
         </article>",
        class = change.map_or_else(String::new, |change| format!(" class={}", change.word())),
        purpose = row.purpose(),
        tag = tag(change),
        place = short(row.place()),
        slot = short(&row.slot),
        metadata = escape(&row.metadata).replace(",&quot;", ",<wbr>&quot;"),
    )
}

fn tag(change: Option<Change>) -> String {
    change.map_or_else(String::new, |change| {
        format!("<mark class={0}>{0}</mark>", change.word())
    })
}

/// Shortens a long name.
fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        None => escape(text),
        Some((end, _)) => format!("{}…", escape(&text[..end])),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width,initial-scale=1'>\
         <title>slack-installs quickstart</title><style>{STYLE}</style>\
         <main><h1>slack-installs quickstart</h1>{body}</main></html>"
    )
}

/// The number of hex digits shown of a sealed part.
const SHOWN: usize = 96;

const STYLE: &str = ":root{color-scheme:light dark;--page:#f4f4f6;--card:#fff;--text:#1d1c1d;\
--soft:#666;--edge:#ddd;--button:#4a154b;--new:#0a7d3c;--changed:#9a5b00;--deleted:#b3261e}\
@media(prefers-color-scheme:dark){:root{--page:#131416;--card:#1e2023;--text:#e8e8e8;\
--soft:#a0a0a0;--edge:#3a3c40;--button:#7c3a7e;--new:#4cc38a;--changed:#e2a336;--deleted:#ff8a80}}\
*{box-sizing:border-box}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0;background:var(--page);color:var(--text)}\
main{max-width:66rem;margin:0 auto;padding:1rem}h1{font-size:1.5rem;margin:.5rem 0}\
h2{font-size:1.1rem;margin:0}p{margin:.4rem 0}code{font-size:.8rem;overflow-wrap:anywhere}\
.steps{list-style:none;margin:1rem 0;padding:0;display:grid;gap:1rem;\
grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));counter-reset:step}\
.steps li{counter-increment:step;display:flex;flex-direction:column;gap:.3rem}\
.steps li p{flex:1}.steps h2::before{content:counter(step) '. '}\
.steps .done h2::after{content:' ✓';color:var(--new)}\
.steps li,section{background:var(--card);border:1px solid var(--edge);border-radius:10px;\
padding:1rem}section{margin:1rem 0}\
.button{display:inline-block;align-self:start;padding:.5rem 1rem;border:0;border-radius:8px;\
background:var(--button);color:#fff;font:inherit;font-weight:600;text-decoration:none;\
cursor:pointer}.button:disabled{opacity:.4;cursor:default}\
ul{margin:.4rem 0 0;padding:0;list-style:none}\
mark{background:none;border:1px solid;border-radius:5px;padding:0 .4rem;font-size:.8rem}\
mark.new{color:var(--new)}mark.changed{color:var(--changed)}mark.deleted{color:var(--deleted)}\
article{display:grid;grid-template-columns:1fr 1.2fr 1.2fr;gap:.3rem 1rem;padding:.7rem;\
border-top:1px solid var(--edge);border-left:4px solid transparent}\
article.new{border-left-color:var(--new)}article.changed{border-left-color:var(--changed)}\
article div{min-width:0}article small{display:block;color:var(--soft)}.sealed{color:var(--soft)}\
@media(max-width:45rem){article{grid-template-columns:1fr}}";
