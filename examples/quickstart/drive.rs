//! `--once`: runs the main flow automatically, with the requests of a person and of Slack.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use slack_installs::Bot;
use slack_installs::backend::SqliteBackend;
use slack_installs::prelude::*;
use slack_installs::store::Store;
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
    let drive = Drive {
        fake,
        store: app.store(),
        database,
        app: Url::parse(&format!("http://localhost:{port}/"))?,
        alpha: InstallationKey::workspace(TeamId::new(WORKSPACE)?),
    };
    let callback = drive.installs().await?;
    drive.refuses_the_callback_again(&callback).await?;
    drive.serves_a_command().await?;
    drive.refuses_a_forged_command().await?;
    drive.installs_again().await?;
    drive.uninstalls().await?;
    println!("\nEvery check passed.");
    Ok(())
}

struct Drive<'a> {
    fake: &'a FakeSlack,
    store: &'a Arc<dyn Store>,
    database: &'a SqliteBackend,
    app: Url,
    alpha: InstallationKey,
}

impl Drive<'_> {
    /// Returns the URL of the callback.
    async fn installs(&self) -> Result<Url> {
        step("Ada clicks Add to Slack, and allows the app on Slack's page");
        let (page, callback) = install(self.fake, &self.app).await?;
        check(
            page.status() == StatusCode::OK,
            "the page says that the app is installed",
        )?;

        step("The installation is stored, and its tokens are sealed");
        let bot = self.bot().await?;
        let stored = format!("{:?}", rows(self.database).await?);
        check(
            stored.contains(WORKSPACE),
            "the database shows the workspace's id",
        )?;
        let token = bot.grant.access_token.expose();
        check(
            !stored.contains(token),
            "the database does not show the token",
        )?;
        check(
            !stored.contains(&hex(token)),
            "the sealed bytes do not contain the token",
        )?;
        Ok(callback)
    }

    async fn refuses_the_callback_again(&self, callback: &Url) -> Result<()> {
        step("A second request to the same callback URL is refused");
        let page = self.fake.browser().get(callback).await?;
        check(
            page.status() == StatusCode::BAD_REQUEST,
            "the page says what to do instead",
        )
    }

    async fn serves_a_command(&self) -> Result<()> {
        step("Ada types a slash command, Slack signs it, and the handler uses the stored token");
        let response = self.command().await?;
        let text = String::from_utf8_lossy(response.body()).into_owned();
        println!("   the app responds: {text}");
        let bot = self.bot().await?;
        check(
            text.contains(bot.user_id.as_str()),
            "Slack accepts the token and returns the bot's id",
        )?;
        let token = bot.grant.access_token.expose();
        check(
            self.fake.calls_with("auth.test", token) > 0,
            "the handler used the stored token",
        )
    }

    async fn refuses_a_forged_command(&self) -> Result<()> {
        step("A forged command is refused");
        let command = self.fake.slash_command(ADA, "/hello", "");
        let forged = command.with_body(FORM, "command=%2Fhello&team_id=T0ALPHA0001");
        let mut forged = forged.request(&self.app.join("slack/command")?);
        let signature = format!("v0={}", "0".repeat(64)).parse()?;
        forged.headers_mut().insert("x-slack-signature", signature);
        check(
            self.fake.send(forged).await?.status() == StatusCode::UNAUTHORIZED,
            "the response is 401",
        )
    }

    /// Returns the number of rows, without those of install flows whose state was used.
    async fn rows_of_tenants(&self) -> Result<usize> {
        let rows = rows(self.database).await?;
        let of_flows = rows.iter().filter(|row| row.place().starts_with("state/"));
        Ok(rows.len() - of_flows.count())
    }

    async fn installs_again(&self) -> Result<()> {
        step("Ada installs the app again, and the new installation replaces the old one");
        let before = self.rows_of_tenants().await?;
        let (page, _) = install(self.fake, &self.app).await?;
        check(
            page.status() == StatusCode::OK,
            "the page says that the app is installed",
        )?;
        check(
            self.rows_of_tenants().await? == before,
            "the tenant has as many rows as before",
        )?;
        let response = self.command().await?;
        check(
            response.status() == StatusCode::OK,
            "the app serves commands",
        )
    }

    async fn uninstalls(&self) -> Result<()> {
        step("Ada removes the app in Slack, and Slack notifies the app");
        check(self.fake.uninstall(WORKSPACE), "the app was installed")?;
        deliver_events(self.fake, &self.app.join("slack/events")?).await;
        check(
            self.store.fetch(&self.alpha, None).await?.is_none(),
            "the installation is deleted",
        )?;
        let left = format!("{:?}", rows(self.database).await?);
        check(
            !left.contains(WORKSPACE),
            "the database has no row of that workspace",
        )?;
        let response = self.command().await?;
        let text = String::from_utf8_lossy(response.body()).into_owned();
        check(
            text.contains("not installed"),
            "the response to a late command says that the app is not installed",
        )
    }

    /// Returns the stored bot of the workspace.
    async fn bot(&self) -> Result<Bot> {
        let stored = self.store.fetch(&self.alpha, None).await?;
        let stored = stored.ok_or("no installation is stored")?;
        Ok(stored.installation.bot.ok_or("no bot is stored")?)
    }

    /// Sends Ada's slash command, and returns the app's response.
    async fn command(&self) -> Result<Response<Bytes>> {
        let command = self.fake.slash_command(ADA, "/hello", "");
        let url = self.app.join("slack/command")?;
        Ok(self.fake.deliver(&url, &command).await?)
    }
}

/// Runs the install flow in a new browser. Returns the last page and its URL.
async fn install(fake: &FakeSlack, app: &Url) -> Result<(Response<Bytes>, Url)> {
    let mut browser = fake.browser();
    let install_page = app.join("slack/install")?;
    let slack = browser.begin(&install_page).await?;
    println!("   ok: the app sends the browser to Slack");
    let callback = fake.allow(&slack, ADA)?;
    let page = browser.finish(&install_page, &callback).await?;
    Ok((page, callback))
}

fn step(what: &str) {
    println!("\n{what}.");
}

fn check(holds: bool, what: &str) -> Result<()> {
    println!("   {} {what}", if holds { "ok:" } else { "FAILED:" });
    if holds {
        Ok(())
    } else {
        Err(format!("a check failed: {what}").into())
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

const FORM: &str = "application/x-www-form-urlencoded";
