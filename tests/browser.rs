//! The install flow of the quickstart in headless Chromium, driven by WebDriver.
//!
//! `cargo test` does not run these tests; `scripts/browser-test` does.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};
use slack_installs::slack::{HttpTransport, Transport as _};
use tempfile::TempDir;

#[tokio::test]
async fn a_person_installs_and_the_handler_has_a_live_token() {
    let stage = Stage::set().await;
    let browser = stage.browser().await;
    browser.open(&stage.home).await;
    browser.click("#add").await;
    browser.click("#allow").await;
    browser
        .sees("Quickstart is installed in Alpha Robotics")
        .await;
    browser.sees("Open in Slack").await;

    let callback = browser.url().await;
    browser.open(&callback).await;
    browser.sees("This link was used before").await;

    // The link back to the app's own site.
    browser.click("a:not(.button)").await;
    browser.sees("Ada added the app").await;
    let rows = browser.text_of("#rows").await;
    assert!(rows.contains("T0ALPHA0001 bot"), "{rows}");
    assert!(
        !browser.text().await.contains("xoxb-"),
        "the page shows the token"
    );
    browser.click("#command").await;
    browser
        .sees("Hello! Slack says that my token is live")
        .await;
    browser.sees("No row changed").await;

    browser.click("#uninstall").await;
    browser.sees("Ada removed the app").await;
    let changes = browser.text_of("#changes").await;
    assert!(
        changes.contains("deleted The bot's token in this workspace"),
        "{changes}"
    );
    let rows = browser.text_of("#rows").await;
    assert!(!rows.contains("T0ALPHA0001"), "{rows}");
    browser.quit().await;
}

#[tokio::test]
async fn a_person_cancels() {
    let stage = Stage::set().await;
    let browser = stage.browser().await;
    browser.open(&stage.home).await;
    browser.click("#add").await;
    browser.click("#cancel").await;
    browser.sees("You chose not to install the app").await;
    // The button leads to Slack's page again.
    browser.click("a.button").await;
    browser.click("#cancel").await;
    browser.sees("You chose not to install the app").await;
    browser.open(&stage.home).await;
    assert!(!browser.text().await.contains("T0ALPHA0001"));
    browser.quit().await;
}

#[tokio::test]
async fn a_flow_does_not_end_in_another_browser() {
    let stage = Stage::set().await;
    let (ours, theirs) = (stage.browser().await, stage.browser().await);
    ours.open(&stage.home).await;
    ours.click("#add").await;
    theirs.open(&ours.url().await).await;
    theirs.click("#allow").await;
    theirs.sees("started in another browser").await;
    // The other browser's attempt did not consume the state.
    ours.click("#allow").await;
    ours.sees("Quickstart is installed").await;
    ours.quit().await;
    theirs.quit().await;
}

#[tokio::test]
async fn two_tabs_of_one_browser_both_install() {
    let stage = Stage::set().await;
    let browser = stage.browser().await;
    let first = browser.tab().await;
    browser.open(&stage.home).await;
    browser.click("#add").await;
    let second = browser.new_tab().await;
    browser.open(&stage.home).await;
    browser.click("#add").await;
    browser.switch_to(&first).await;
    browser.click("#allow").await;
    browser.sees("Quickstart is installed").await;
    browser.switch_to(&second).await;
    browser.click("#allow").await;
    browser.sees("Quickstart is installed").await;
    browser.quit().await;
}

/// A quickstart process and a WebDriver for one test.
struct Stage {
    home: String,
    driver: String,
    http: HttpTransport,
    profiles: TempDir,
    _processes: [Process; 2],
}

impl Stage {
    async fn set() -> Self {
        let quickstart = std::env::var("QUICKSTART")
            .expect("QUICKSTART names the built example; run scripts/browser-test, which sets it");
        let mut app = Command::new(quickstart);
        app.env("PORT", "0").env_remove("SLACK_CLIENT_ID");
        let (app, line) = Process::start(&mut app, "Open ");
        let home = line
            .split_whitespace()
            .find(|word| word.starts_with("http://"));
        let home = home.expect("the quickstart prints its URL").to_owned();

        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0");
        let (driver, line) = Process::start(&mut driver, "started successfully on port");
        let port = line
            .trim_end_matches('.')
            .rsplit(' ')
            .next()
            .expect("a port")
            .to_owned();
        Self {
            home,
            driver: format!("http://127.0.0.1:{port}"),
            http: HttpTransport::new(),
            profiles: TempDir::new().expect("a directory"),
            _processes: [app, driver],
        }
    }

    /// Starts a new browser session. Sessions share no cookies.
    async fn browser(&self) -> Browser<'_> {
        let profile = tempfile::tempdir_in(self.profiles.path())
            .expect("a directory")
            .keep();
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // The page may still be loading when the test looks for an element.
            "timeouts": {"implicit": 10_000},
            "goog:chromeOptions": {"args": args},
        }}});
        let mut browser = Browser {
            stage: self,
            session: "session".into(),
        };
        let answer = browser.ask(Method::POST, "", &wanted).await;
        let id = answer["sessionId"].as_str().expect("a session");
        browser.session = format!("session/{id}");
        browser
    }
}

/// One WebDriver session.
struct Browser<'a> {
    stage: &'a Stage,
    session: String,
}

impl Browser<'_> {
    /// Ends the browser session. Otherwise the browser keeps running, because the WebDriver is
    /// killed.
    async fn quit(self) {
        self.ask(Method::DELETE, "", &Value::Null).await;
    }

    async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", &json!({"url": url})).await;
    }

    async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.ask(
            Method::POST,
            &format!("/element/{element}/click"),
            &json!({}),
        )
        .await;
    }

    /// Waits until the page shows this text, and fails if it does not.
    async fn sees(&self, text: &str) {
        self.find_by(
            "xpath",
            &format!("//body[contains(normalize-space(.), '{text}')]"),
        )
        .await;
    }

    async fn text(&self) -> String {
        self.text_of("body").await
    }

    async fn text_of(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        let path = format!("/element/{element}/text");
        let answer = self.ask(Method::GET, &path, &Value::Null).await;
        answer.as_str().expect("text").to_owned()
    }

    async fn url(&self) -> String {
        let answer = self.ask(Method::GET, "/url", &Value::Null).await;
        answer.as_str().expect("a URL").to_owned()
    }

    async fn tab(&self) -> String {
        let answer = self.ask(Method::GET, "/window", &Value::Null).await;
        answer.as_str().expect("a handle").to_owned()
    }

    async fn new_tab(&self) -> String {
        let answer = self
            .ask(Method::POST, "/window/new", &json!({"type": "tab"}))
            .await;
        let tab = answer["handle"].as_str().expect("a handle").to_owned();
        self.switch_to(&tab).await;
        tab
    }

    async fn switch_to(&self, tab: &str) {
        self.ask(Method::POST, "/window", &json!({"handle": tab}))
            .await;
    }

    async fn find(&self, selector: &str) -> String {
        self.find_by("css selector", selector).await
    }

    async fn find_by(&self, using: &str, value: &str) -> String {
        let by = json!({"using": using, "value": value});
        let answer = self.ask(Method::POST, "/element", &by).await;
        let mut ids = answer.as_object().expect("an element").values();
        ids.next()
            .and_then(Value::as_str)
            .expect("an element has an id")
            .to_owned()
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let uri = format!("{}/{}{path}", self.stage.driver, self.session);
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        let answer = self
            .stage
            .http
            .send(request)
            .await
            .expect("the WebDriver responds");
        let status = answer.status();
        let mut answer: Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert!(status.is_success(), "{path}: {answer}");
        answer["value"].take()
    }
}

/// A child process that is killed when this value is dropped.
struct Process(Child);

impl Process {
    /// Starts the process, waits for a line that contains `wanted`, and returns that line.
    fn start(command: &mut Command, wanted: &str) -> (Self, String) {
        let program = command.get_program().to_owned();
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{program:?} does not start ({error}); run scripts/browser-test")
        });
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        let line = lines
            .find(|line| line.contains(wanted))
            .expect("it says that it is ready");
        // Keeps reading the output, because a full pipe would block the process.
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
