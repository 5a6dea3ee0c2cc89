//! Injected faults.

use super::*;

#[tokio::test]
async fn faults_before_the_effect_leave_everything_as_it_was() -> Checked {
    let fake = FakeSlack::start().await?;
    let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
    let code = param(&callback, "code").ok_or("no code")?;
    let try_it = || over_http(&fake, exchange(&fake, &code));

    fake.inject("oauth.v2.access", Fault::error("internal_error"));
    fake.inject(
        "oauth.v2.access",
        Fault::rate_limited(Duration::from_secs(30)).times(2),
    );
    fake.inject("oauth.v2.access", Fault::unavailable());
    fake.inject("oauth.v2.access", Fault::lost());
    assert_eq!(json_of(&try_it().await?)?["error"], "internal_error");
    for _ in 0..2 {
        let limited = try_it().await?;
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limited.headers()["retry-after"], "30");
    }
    let unavailable = try_it().await?;
    assert_eq!(unavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unavailable.headers()["content-type"], "text/html");
    assert!(try_it().await.is_err(), "the connection was closed");
    assert!(!fake.is_installed("T0ALPHA0001"));
    assert_eq!(
        json_of(&try_it().await?)?["ok"],
        true,
        "the code was not spent"
    );

    let outcomes: Vec<_> = fake
        .call_log()
        .into_iter()
        .map(|call| call.outcome)
        .collect();
    let error = Outcome::Error("internal_error".to_owned());
    let (limited, unavailable) = (Outcome::Status(429), Outcome::Status(503));
    let expected = [
        error,
        limited.clone(),
        limited,
        unavailable,
        Outcome::Lost,
        Outcome::Ok,
    ];
    assert_eq!(outcomes, expected);
    Ok(())
}

#[tokio::test]
async fn a_fault_after_the_effect_hides_what_has_happened() -> Checked {
    let fake = FakeSlack::start().await?;
    let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
    let code = param(&callback, "code").ok_or("no code")?;
    fake.inject("oauth.v2.access", Fault::lost().after_effect());
    assert!(over_http(&fake, exchange(&fake, &code)).await.is_err());
    assert!(fake.is_installed("T0ALPHA0001"));
    let again = json_of(&over_http(&fake, exchange(&fake, &code)).await?)?;
    assert_eq!(again["error"], "invalid_code");
    Ok(())
}

#[tokio::test]
async fn in_process_a_lost_answer_is_lost_and_a_foreign_host_is_not_reached() -> Checked {
    let fake = FakeSlack::in_process(World::default());
    let transport = fake.transport();
    fake.inject("auth.test", Fault::lost());
    let lost = transport.send(api(&fake, "auth.test", None, "")).await;
    assert!(matches!(lost, Err(TransportError::Lost(_))));
    let answer = transport.send(api(&fake, "auth.test", None, "")).await?;
    assert_eq!(json_of(&answer)?["error"], "not_authed");
    let elsewhere = Request::get("https://slack.com/api/auth.test").body(Bytes::new())?;
    let refused = transport.send(elsewhere).await;
    assert!(matches!(refused, Err(TransportError::NotSent(_))));
    assert_eq!(fake.calls("auth.test"), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delay_before_the_effect_differs_from_one_after_it() -> Checked {
    let second = Duration::from_secs(1);
    for (fault, installed_meanwhile) in [
        (Fault::delay(second), false),
        (Fault::delay(second).after_effect(), true),
    ] {
        let fake = FakeSlack::in_process(World::default());
        let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
        let code = param(&callback, "code").ok_or("no code")?;
        fake.inject("oauth.v2.access", fault);
        let (transport, request) = (fake.transport(), exchange(&fake, &code));
        let start = tokio::time::Instant::now();
        let call = tokio::spawn(async move { transport.send(request).await });
        tokio::time::sleep(second / 2).await;
        assert_eq!(fake.is_installed("T0ALPHA0001"), installed_meanwhile);
        assert_eq!(json_of(&call.await??)?["ok"], true);
        assert_eq!(start.elapsed(), second);
    }
    Ok(())
}

#[test]
fn faults_can_last_and_can_be_called_off() {
    let fake = FakeSlack::in_process(World::default());
    fake.inject("auth.test", Fault::error("fatal_error").always());
    for _ in 0..3 {
        assert_eq!(ask(&fake, "auth.test", None, "")["error"], "fatal_error");
    }
    assert_eq!(
        ask(&fake, "auth.revoke", None, "")["error"],
        "not_authed",
        "the fault is for another method"
    );
    fake.clear_faults();
    assert_eq!(ask(&fake, "auth.test", None, "")["error"], "not_authed");
}

#[tokio::test]
async fn a_fault_of_no_times_strikes_nothing() {
    let fake = FakeSlack::in_process(World::default());
    fake.inject("auth.test", Fault::unavailable().times(0));
    let url = fake.environment().api_url("auth.test");
    for _ in 0..2 {
        let request = Request::post(url.as_str()).body(Bytes::new());
        let answer = fake.transport().send(request.expect("a request")).await;
        assert_eq!(answer.expect("a response").status(), 200);
    }
}
