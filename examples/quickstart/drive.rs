//! `--once`: runs the main flow automatically, with the requests of a person and of Slack.

use bytes::Bytes;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use slack_installs::backend::SqliteBackend;
use slack_installs::prelude::*;
use slack_installs::slack::{HttpTransport, Transport as _};
use slack_installs::testing::FakeSlack;
use url::Url;

use super::Result;
use super::database::rows;
use super::pages::{ADA, WORKSPACE, deliver_events};

/// Runs every step. Stops at the first one that fails.
pub(crate) async fn everything(
    fake: &FakeSlack,
    app: &SlackApp,
    database: &SqliteBackend,
    port: u16,
) -> Result<()> {
    let store = app.store();
    let app = Url::parse(&format!("http://localhost:{port}/"))?;
    let browser = HttpTransport::new();
    let alpha = InstallationKey::workspace(TeamId::new(WORKSPACE)?);

    step("Ada clicks Add to Slack, and allows the app on Slack's page");
    let (page, callback) = install(&browser, fake, &app).await?;
    check(
        page.status() == StatusCode::OK,
        "the page says that the app is installed",
    )?;

    step("The installation is stored, and its tokens are sealed");
    let installation = store
        .fetch(&alpha, None)
        .await?
        .ok_or("no installation is stored")?;
    let bot = installation.installation.bot.ok_or("no bot is stored")?;
    let stored = rows(database).await?;
    let all = format!("{stored:?}");
    check(
        all.contains(WORKSPACE),
        "the database shows the workspace's id",
    )?;
    check(
        !all.contains(bot.grant.access_token.expose()),
        "the database does not show the token",
    )?;
    let hex = hex(bot.grant.access_token.expose());
    check(
        !all.contains(&hex),
        "the sealed bytes do not contain the token",
    )?;

    step("A second request to the same callback URL is refused");
    let page = get(&browser, &callback, "").await?;
    check(
        page.status() == StatusCode::BAD_REQUEST,
        "the page says what to do instead",
    )?;

    step("Ada types a slash command, Slack signs it, and the handler uses the stored token");
    let url = app.join("slack/command")?;
    let command = fake.slash_command(ADA, "/hello", "");
    let answer = fake.deliver(&url, &command).await?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    println!("   the app responds: {text}");
    check(
        text.contains(bot.user_id.as_str()),
        "Slack accepts the token and returns the bot's id",
    )?;
    check(
        fake.calls_with("auth.test", bot.grant.access_token.expose()) > 0,
        "the handler used the stored token",
    )?;

    step("A forged command is refused");
    let forged = command
        .clone()
        .with_body(FORM, "command=%2Fhello&team_id=T0ALPHA0001");
    let mut forged = forged.request(&url);
    forged.headers_mut().insert(
        "x-slack-signature",
        format!("v0={}", "0".repeat(64)).parse()?,
    );
    check(
        fake.send(forged).await?.status() == StatusCode::UNAUTHORIZED,
        "the response is 401",
    )?;

    step("Ada installs the app again, and the new installation replaces the old one");
    let before = rows(database).await?.len();
    let (page, _) = install(&browser, fake, &app).await?;
    check(
        page.status() == StatusCode::OK,
        "the page says that the app is installed",
    )?;
    check(
        rows(database).await?.len() == before,
        "the number of rows is unchanged",
    )?;
    let answer = fake.deliver(&url, &command).await?;
    check(answer.status() == StatusCode::OK, "the app serves commands")?;

    step("Ada removes the app in Slack, and Slack notifies the app");
    check(fake.uninstall(WORKSPACE), "the app was installed")?;
    deliver_events(fake, &app.join("slack/events")?).await;
    check(
        store.fetch(&alpha, None).await?.is_none(),
        "the installation is deleted",
    )?;
    let left = format!("{:?}", rows(database).await?);
    check(
        !left.contains(WORKSPACE),
        "the database has no row of that workspace",
    )?;
    let answer = fake.deliver(&url, &command).await?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    check(
        text.contains("not installed"),
        "the response to a late command says that the app is not installed",
    )?;

    println!("\nEvery check passed.");
    Ok(())
}

/// Runs the install flow as a browser with one cookie. Returns the last page and its URL.
async fn install(
    browser: &HttpTransport,
    fake: &FakeSlack,
    app: &Url,
) -> Result<(Response<Bytes>, Url)> {
    let started = get(browser, &app.join("slack/install")?, "").await?;
    check(
        started.status() == StatusCode::FOUND,
        "the app sends the browser to Slack",
    )?;
    let header = |name| {
        started
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let slack = Url::parse(header(LOCATION).ok_or("there is no Location header")?)?;
    let cookie = header(SET_COOKIE).ok_or("there is no cookie")?;
    let cookie = cookie.split(';').next().unwrap_or_default();
    let callback = fake.allow(&slack, ADA)?;
    Ok((get(browser, &callback, cookie).await?, callback))
}

async fn get(browser: &HttpTransport, url: &Url, cookie: &str) -> Result<Response<Bytes>> {
    let request = Request::get(url.as_str())
        .header(COOKIE, cookie)
        .body(Bytes::new())?;
    Ok(browser.send(request).await?)
}

fn step(what: &str) {
    println!("\n{what}.");
}

fn check(holds: bool, what: &str) -> Result<()> {
    println!("   {} {what}", if holds { "ok:" } else { "FAILED:" });
    match holds {
        true => Ok(()),
        false => Err(format!("a check failed: {what}").into()),
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

const FORM: &str = "application/x-www-form-urlencoded";
