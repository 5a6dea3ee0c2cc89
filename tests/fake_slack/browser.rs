//! The browser that keeps cookies.

use slack_installs::testing::InstallError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;

/// A request that the app received: its first line and two headers.
#[derive(Debug)]
struct Seen {
    body: String,
    cookies: Option<String>,
    host: String,
    line: String,
}

/// An app on a free port. It redirects its install page to `authorize`, and sets cookies.
struct Shop {
    seen: mpsc::UnboundedReceiver<Seen>,
    url: Url,
}

impl Shop {
    async fn open(authorize: Url) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (send, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read(&mut stream).await else {
                    continue;
                };
                let response = respond(&request.line, &authorize);
                let _ = send.send(request);
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        Ok(Self {
            seen,
            url: url.parse().expect("a URL"),
        })
    }

    fn page(&self, path: &str) -> Url {
        self.url.join(path).expect("a URL")
    }

    /// Returns the oldest request that was not returned yet.
    fn next(&mut self) -> Seen {
        self.seen.try_recv().expect("a request has arrived")
    }
}

fn respond(line: &str, authorize: &Url) -> String {
    let (status, headers) = match line {
        "POST /login" => ("200 OK", "set-cookie: session=1; Path=/\r\n".to_owned()),
        "GET /slack/install" => {
            let cookies = "set-cookie: flow=2; Path=/slack; Max-Age=600\r\n\
                           set-cookie: shy=3; Path=/; SameSite=Strict\r\n";
            let headers = format!("{cookies}location: {authorize}\r\n");
            ("302 Found", headers)
        }
        _ => ("200 OK", String::new()),
    };
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
}

async fn read(stream: &mut tokio::net::TcpStream) -> Option<Seen> {
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |wanted: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(": "));
                let mut named = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                named.next().map(|(_, value)| value.to_owned())
            };
            let length = header("content-length").map_or(0, |n| n.parse().expect("a number"));
            if body.len() == length {
                let line = head.lines().next()?.split_once(" HTTP")?.0;
                let line = line.split('?').next()?.to_owned();
                return Some(Seen {
                    body: body.to_owned(),
                    cookies: header("cookie"),
                    host: header("host")?,
                    line,
                });
            }
        }
        if stream.read_buf(&mut heard).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn a_browser_keeps_cookies_through_an_install() -> Checked {
    let fake = FakeSlack::start().await?;
    let mut authorize = authorize(&fake, "commands", "");
    authorize
        .query_pairs_mut()
        .append_pair("team", "T0ALPHA0001");
    let mut shop = Shop::open(authorize).await?;
    let mut browser = fake.browser();
    let form = [("name", "ada & co")];
    assert_eq!(
        browser.post(&shop.page("login"), &form).await?.status(),
        200
    );
    let login = shop.next();
    assert_eq!((&*login.body, login.cookies), ("name=ada+%26+co", None));

    let page = shop.page("slack/install");
    assert_eq!(browser.install(&page, ADA).await?.status(), 200);
    let begun = shop.next();
    assert_eq!(begun.cookies.as_deref(), Some("session=1"));
    let callback = shop.next();
    assert_eq!(callback.line, "GET /slack/oauth_redirect");
    assert_eq!(callback.host, "localhost:3000", "the redirect URL's host");
    assert_eq!(
        callback.cookies.as_deref(),
        Some("flow=2; session=1"),
        "a strict cookie is not sent after a redirect from Slack"
    );
    browser.get(&shop.page("account")).await?;
    assert_eq!(shop.next().cookies.as_deref(), Some("session=1; shy=3"));
    assert_eq!(browser.cookie("flow"), Some("2"));
    Ok(())
}

#[tokio::test]
async fn a_browsers_cookies_expire_by_the_fakes_clock() -> Checked {
    let fake = FakeSlack::start().await?;
    let mut shop = Shop::open(authorize(&fake, "commands", "")).await?;
    let page = shop.page("slack/install");
    let mut browser = fake.browser();
    let authorize = browser.begin(&page).await?;
    let callback = fake.allow(&authorize, ADA)?;
    fake.advance(Duration::from_secs(600));
    assert_eq!(browser.cookie("flow"), None);
    browser.finish(&page, &callback).await?;
    assert_eq!(shop.next().line, "GET /slack/install");
    assert_eq!(shop.next().cookies, None);
    assert_eq!(browser.cookie("shy"), Some("3"));
    browser.clear_cookies();
    assert_eq!(browser.cookie("shy"), None);
    assert_eq!(format!("{browser:?}"), "Browser");
    Ok(())
}

#[tokio::test]
async fn two_browsers_share_no_cookies() -> Checked {
    let fake = FakeSlack::start().await?;
    let mut shop = Shop::open(authorize(&fake, "commands", "")).await?;
    let (mut ada, mut ben) = (fake.browser(), fake.browser());
    ada.post(&shop.page("login"), &[]).await?;
    shop.next();
    ben.get(&shop.page("account")).await?;
    assert_eq!(shop.next().cookies, None);
    let mut copy = ada.clone();
    copy.get(&shop.page("account")).await?;
    assert_eq!(shop.next().cookies.as_deref(), Some("session=1"));
    Ok(())
}

#[tokio::test]
async fn a_page_that_does_not_redirect_is_an_error_with_its_status() -> Checked {
    let fake = FakeSlack::start().await?;
    let shop = Shop::open(authorize(&fake, "commands", "")).await?;
    let begun = fake.browser().begin(&shop.page("elsewhere")).await;
    assert!(matches!(
        begun,
        Err(InstallError::NotRedirected(StatusCode::OK))
    ));
    Ok(())
}
