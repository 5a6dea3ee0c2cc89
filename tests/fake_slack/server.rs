//! The server, the clock, the seed and the secrets.

use super::*;

#[test]
fn no_debug_shows_a_secret() {
    let fake = FakeSlack::in_process(World::default());
    install(&fake, "incoming-webhook", "chat:write", ADA);
    let command = fake.slash_command(ADA, "/hello", "");
    let click = fake.block_action(ADA, "go");
    let seen = format!("{fake:?} {:?} {command:?} {click:?}", fake.transport());
    assert!(
        fake.secrets().len() > 8,
        "the codes, tokens, tickets and secrets are known"
    );
    assert_secret_free(&fake, &seen);
}

#[test]
fn every_answer_carries_the_time_of_slacks_own_clock() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let fake = FakeSlack::in_process(World::default().with_clock(Clock::from_fn(move || start)));
    let date = |fake: &FakeSlack| {
        let answer = fake
            .handle(&api(fake, "auth.test", None, ""))
            .expect("a response");
        let date = answer.headers()["date"].to_str().expect("ASCII");
        httpdate::parse_http_date(date).expect("a date")
    };
    assert_eq!(date(&fake), start);
    let clock = fake.clock();
    fake.advance(Duration::from_secs(3600));
    assert_eq!(date(&fake), start + Duration::from_secs(3600));
    assert_eq!(clock.now(), start + Duration::from_secs(3600));
    let event = fake.app_uninstalled("T0ALPHA0001");
    assert_eq!(event.json().expect("JSON")["event_time"], 1_790_003_600);
}

#[test]
fn one_seed_makes_one_world() {
    let run = |seed| {
        let fake = FakeSlack::in_process(World::default().with_seed(seed));
        let token = bot_token(&install(&fake, "commands", "", ADA));
        (token, fake.secrets())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let unseeded = || FakeSlack::in_process(World::default()).secrets();
    assert_ne!(unseeded(), unseeded());
}

#[tokio::test]
async fn the_server_ends_with_its_last_handle() -> Checked {
    let fake = FakeSlack::start().await?;
    let base = fake.environment().base().clone();
    let address = (
        base.host_str().ok_or("no host")?.to_owned(),
        base.port().ok_or("no port")?,
    );
    let clone = fake.clone();
    drop(fake);
    tokio::net::TcpStream::connect(address.clone()).await?;
    drop(clone);
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(address.clone())
            .await
            .is_err()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("it still listens".into())
}

#[tokio::test]
async fn over_http_unknown_paths_and_huge_bodies_are_refused() -> Checked {
    let fake = FakeSlack::start().await?;
    let lost = get(&fake.environment().base().join("nowhere")?);
    assert_eq!(
        over_http(&fake, lost).await?.status(),
        StatusCode::NOT_FOUND
    );
    let put = Request::put(fake.environment().api_url("auth.test").as_str()).body(Bytes::new())?;
    assert_eq!(over_http(&fake, put).await?.status(), StatusCode::NOT_FOUND);
    let huge = post(&fake, "api/auth.test", &"x".repeat(2 * 1024 * 1024));
    assert!(over_http(&fake, huge).await.is_err());
    assert_eq!(fake.calls("auth.test"), 0);
    Ok(())
}
