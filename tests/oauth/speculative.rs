//! Requests that no person made: they spend neither the state nor the code.

use http::{HeaderMap, Method, StatusCode};

use super::options;
use super::support::app::{ADA, App, Browser, installed};

#[tokio::test]
async fn a_speculative_request_spends_nothing() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let uri = callback[url::Position::BeforePath..].parse();
    let uri = uri.expect("a path");
    for (name, value) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("sec-purpose", "prefetch;anonymous-client-ip"),
        ("sec-purpose", "Prefetch"),
        ("sec-speculation-tags", "null"),
        ("purpose", "prefetch"),
        ("purpose", "preview"),
        ("x-purpose", "preview"),
        ("x-purpose", "prefetch"),
        ("x-sec-purpose", "prefetch"),
        ("x-moz", "prefetch"),
        ("moz-purpose", "preview"),
    ] {
        let mut headers = browser.headers(&callback);
        headers.insert(name, value.parse().expect("a value"));
        let get = &Method::GET;
        let page = app.provider.callback_response(get, &uri, &headers).await;
        assert_eq!(
            page.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{name}: {value}"
        );
        assert_eq!(
            (page.body().as_str(), app.exchanges()),
            ("", 0),
            "{name}: {value}"
        );
        // A header that comes twice counts if either says so.
        headers.insert(name, "other".parse().expect("a value"));
        headers.append(name, value.parse().expect("a value"));
        let page = app.provider.callback_response(get, &uri, &headers).await;
        assert_eq!(
            page.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{name}: {value}"
        );
    }
    let head = browser
        .request(&app.provider, &Method::HEAD, &callback)
        .await;
    assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(app.exchanges(), 0);
    // The person follows the link.
    let mut headers = browser.headers(&callback);
    for (name, value) in [
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "cross-site"),
        ("purpose", ""),
        ("x-purpose", "instant"),
    ] {
        headers.insert(name, value.parse().expect("a value"));
    }
    let page = app.provider.callback_response(&Method::GET, &uri, &headers);
    let page = page.await;
    assert!(installed(&page), "{}", page.body());
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn a_speculative_callback_without_a_state_starts_no_flow() {
    let app = App::new().await;
    let mut headers = HeaderMap::new();
    headers.insert("sec-purpose", "prefetch".parse().expect("a value"));
    let uri = "/slack/oauth_redirect?code=1".parse().expect("a path");
    let page = app.provider.callback_response(&Method::GET, &uri, &headers);
    let page = page.await;
    assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers().get("set-cookie").is_none());
}
