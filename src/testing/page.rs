//! The HTML of the authorize page: plain forms, no script.

use crate::html::escape;

use super::app::App;
use super::consent::Ask;

/// One option on the page: a person and a place.
pub(super) struct Choice {
    pub(super) label: String,
    pub(super) preselected: bool,
    /// The value of the form field `who`.
    pub(super) value: String,
}

/// Renders the page: the choices, the scopes, and the buttons `allow` and `cancel`.
///
/// The form contains the authorize URL's query, so that the server keeps no state between the two
/// requests.
pub(super) fn consent(
    app: &App,
    ask: &Ask,
    query: &[(String, String)],
    choices: &[Choice],
) -> String {
    let carried = [
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "team",
        "user_scope",
    ];
    let carried = query
        .iter()
        .filter(|(name, _)| carried.contains(&name.as_str()));
    let carried: String = carried.map(|(name, value)| hidden(name, value)).collect();
    let who = match choices {
        [] => "<p id=\"who\">No person here can install the app.</p>".to_owned(),
        [only] => {
            let label = escape(&only.label);
            format!(
                "<p>As <b id=\"who\">{label}</b></p>{}",
                hidden("who", &only.value)
            )
        }
        several => {
            let options: String = several.iter().map(option).collect();
            format!("<p><label>As <select id=\"who\" name=\"who\">{options}</select></label></p>")
        }
    };
    let scopes = |id: &str, title: &str, scopes: &crate::installation::Scopes| {
        let items: String = scopes
            .iter()
            .map(|s| format!("<li>{}</li>", escape(s)))
            .collect();
        if scopes.is_empty() {
            String::new()
        } else {
            format!("<h2>{title}</h2><ul id=\"{id}\">{items}</ul>")
        }
    };
    let disabled = if choices.is_empty() { " disabled" } else { "" };
    let name = escape(&app.name);
    page(&format!(
        "<h1><span id=\"app\">{name}</span> asks to be installed</h1>\
         <form method=\"post\" action=\"/oauth/v2/authorize\">{carried}{who}{}{}\
         <p><button id=\"allow\" name=\"answer\" value=\"allow\"{disabled}>Allow</button> \
         <button id=\"cancel\" name=\"answer\" value=\"cancel\">Cancel</button></p></form>",
        scopes("scopes", "The bot may", &ask.bot_scopes),
        scopes("user-scopes", "On your behalf it may", &ask.user_scopes),
    ))
}

/// Renders Slack's error page, which does not redirect the browser.
pub(super) fn refusal(code: &str) -> String {
    page(&format!(
        "<h1>This app cannot be installed</h1><p>Error: <code id=\"error\">{}</code></p>",
        escape(code)
    ))
}

fn option(choice: &Choice) -> String {
    let selected = if choice.preselected { " selected" } else { "" };
    let (value, label) = (escape(&choice.value), escape(&choice.label));
    format!("<option value=\"{value}\"{selected}>{label}</option>")
}

fn hidden(name: &str, value: &str) -> String {
    let (name, value) = (escape(name), escape(value));
    format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Fake Slack</title>\
         <style>body{{font:16px sans-serif;margin:3em auto;max-width:36em}}\
         button{{font:inherit;padding:.5em 2em}}</style></head><body>\
         <p>This is a fake Slack, for tests.</p>{body}</body></html>"
    )
}
