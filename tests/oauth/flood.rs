//! What a stranger who opens the flow's URLs can put into the log.

use http::{HeaderMap, Method, StatusCode};

use super::support::app::App;
use crate::support::log::Log;

#[tokio::test]
async fn a_flood_of_callbacks_without_a_good_state_is_ten_lines_a_minute_at_most() {
    let app = App::new().await;
    let (log, logging) = Log::of_this_thread();
    for number in 0..500 {
        let uri = format!("/slack/oauth_redirect?code=c&state={number}");
        let uri = uri.parse().expect("a path");
        let headers = HeaderMap::new();
        let page = app.provider.callback_response(&Method::GET, &uri, &headers);
        assert_eq!(page.await.status(), StatusCode::BAD_REQUEST);
    }
    drop(logging);
    let log = log.text();
    let lines = log.matches("an install flow ended without an installation");
    assert_eq!(lines.count(), 10);
    assert!(log.contains("invalid_state") && log.contains("left_out=0"));
}
