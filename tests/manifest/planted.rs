//! Manifests with one planted fault each.

use slack_installs::manifest::{Expected, Grade, check};

use crate::{EXAMPLE, expected, texts};

/// A fault: what it replaces in the example, by what, and the line, path and grade of its finding.
/// The line is the one where `at` begins, in the changed text.
pub(super) struct Fault {
    pub(super) of: &'static str,
    pub(super) by: &'static str,
    at: &'static str,
    path: &'static str,
    grade: Grade,
}

pub(super) const fn error(
    of: &'static str,
    by: &'static str,
    at: &'static str,
    path: &'static str,
) -> Fault {
    Fault {
        of,
        by,
        at,
        path,
        grade: Grade::Error,
    }
}

pub(super) const fn warning(
    of: &'static str,
    by: &'static str,
    at: &'static str,
    path: &'static str,
) -> Fault {
    Fault {
        of,
        by,
        at,
        path,
        grade: Grade::Warning,
    }
}

const REDIRECT: &str = "    - https://app.example.com/slack/oauth_redirect\n";

/// The faults of redirect URLs.
const REDIRECTS: &[Fault] = &[
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- http://app.example.com/slack/oauth_redirect",
        "- http://app",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- http://localhost:3000/slack/oauth_redirect",
        "- http://localhost",
        "oauth_config.redirect_urls[0]",
    ),
    warning(
        REDIRECT,
        "    - https://app.example.com/slack/oauth_redirect\n    - https://127.0.0.1/slack\n",
        "- https://127",
        "oauth_config.redirect_urls[1]",
    ),
    warning(
        REDIRECT,
        concat!(
            "    - https://app.example.com/slack/oauth_redirect\n",
            "    - https://app.example.com/slack/oauth_redirect\n",
        ),
        "- https://app.example.com/slack/oauth_redirect\n  scopes",
        "oauth_config.redirect_urls[1]",
    ),
    error(
        "/slack/oauth_redirect\n  scopes",
        "/slack/oauth_redirect#top\n  scopes",
        "- https://app.example.com/slack/oauth_redirect#top",
        "oauth_config.redirect_urls[0]",
    ),
    warning(
        REDIRECT,
        concat!(
            "    - https://app.example.com/slack/oauth_redirect\n",
            "    - https://app.example.com/slack/oauth_redirect?plan=pro\n",
        ),
        "- https://app.example.com/slack/oauth_redirect?plan",
        "oauth_config.redirect_urls[1]",
    ),
    error(REDIRECT, "", "redirect_urls:", "oauth_config.redirect_urls"),
    error(
        "redirect_urls:\n    - https://app.example.com/slack/oauth_redirect",
        "redirect_urls: []",
        "redirect_urls: []",
        "oauth_config.redirect_urls",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- https://app.example.com/oauth/callback",
        "- https://app.example.com/oauth/callback",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        REDIRECT,
        "    - standup://oauth\n    - https://app.example.com/slack/oauth_redirect\n",
        "- standup://oauth",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- https://me:secret@app.example.com/slack/oauth_redirect",
        "- https://me",
        "oauth_config.redirect_urls[0]",
    ),
];

/// The faults of scopes.
const SCOPES: &[Fault] = &[
    warning(
        "      - chat:write\n      - commands\n",
        "      - channels:read\n      - chat:write\n      - commands\n",
        "- channels:read",
        "oauth_config.scopes.bot[1]",
    ),
    error(
        "      - app_mentions:read\n",
        "",
        "bot:\n",
        "oauth_config.scopes.bot",
    ),
    error(
        "    user:\n      - chat:write\n",
        "    user:\n      - chat:write\n      - channels:history\n",
        "- channels:history",
        "oauth_config.scopes.user[1]",
    ),
    error(
        "      - users:read\n    bot_optional",
        "      - users:read\n      - admin.users:read\n    bot_optional",
        "- admin.users:read",
        "oauth_config.scopes.bot[5]",
    ),
    warning(
        concat!(
            "  slash_commands:\n    - command: /standup\n",
            "      url: https://app.example.com/slack/command\n",
            "      description: Starts a standup\n",
        ),
        "",
        "- commands",
        "oauth_config.scopes.bot[2]",
    ),
    error(
        "    bot_optional:\n      - users:read\n",
        "    bot_optional:\n      - users:read.email\n",
        "- users:read.email",
        "oauth_config.scopes.bot_optional[0]",
    ),
    error(
        "    user:\n      - chat:write\n",
        "    user:\n      - chat:write\n      - openid\n",
        "- openid",
        "oauth_config.scopes.user[1]",
    ),
    error(
        "      - users:read\n    bot_optional",
        "      - users:read\n      - apps.requests.write\n    bot_optional",
        "- apps.requests.write",
        "oauth_config.scopes.bot[5]",
    ),
];

/// The faults of events, URLs and settings.
const SETTINGS: &[Fault] = &[
    error(
        "      - app_uninstalled\n",
        "",
        "bot_events:",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        "      - tokens_revoked\n",
        "",
        "bot_events:",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        "      - team_access_revoked\n",
        "",
        "bot_events:",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        "socket_mode_enabled: false",
        "socket_mode_enabled: true",
        "socket_mode_enabled",
        "settings.socket_mode_enabled",
    ),
    warning(
        "token_rotation_enabled: true",
        "token_rotation_enabled: false",
        "token_rotation_enabled",
        "settings.token_rotation_enabled",
    ),
    warning(
        "  token_rotation_enabled: true\n",
        "",
        "settings:",
        "settings.token_rotation_enabled",
    ),
    error(
        "org_deploy_enabled: true",
        "org_deploy_enabled: false",
        "org_deploy_enabled",
        "settings.org_deploy_enabled",
    ),
    error(
        "https://app.example.com/slack/events",
        "http://app.example.com/slack/events",
        "request_url: http://app",
        "settings.event_subscriptions.request_url",
    ),
    error(
        "    request_url: https://app.example.com/slack/interactions\n",
        "",
        "interactivity:",
        "settings.interactivity.request_url",
    ),
    error(
        "      url: https://app.example.com/slack/command\n",
        "      url: https://localhost/slack/command\n",
        "url: https://localhost",
        "features.slash_commands[0].url",
    ),
    error(
        "  scopes:\n",
        "  pkce_enabled: true\n  scopes:\n",
        "pkce_enabled",
        "oauth_config.pkce_enabled",
    ),
    error(
        "socket_mode_enabled: false",
        "socket_mode_enabled: \"false\"",
        "socket_mode_enabled",
        "settings.socket_mode_enabled",
    ),
    error(
        "    - 203.0.113.0/24",
        "    - 203.0.113.0/33",
        "- 203.0.113.0/33",
        "settings.allowed_ip_address_ranges[0]",
    ),
    error(
        "name: Standup\n",
        "name: Standup for all the teams of the whole company\n",
        "name: Standup",
        "display_information.name",
    ),
    error(
        "  privacy_policy_url: https://app.example.com/privacy\n",
        "",
        "app_directory:",
        "app_directory.privacy_policy_url",
    ),
    warning(
        "direct_install_url: https://app.example.com/slack/install",
        "direct_install_url: https://app.example.com/install",
        "direct_install_url",
        "app_directory.direct_install_url",
    ),
];

#[test]
fn each_planted_fault_is_found_at_its_line_and_nothing_else_is() {
    for fault in [REDIRECTS, SCOPES, SETTINGS].concat_refs() {
        fault.is_found();
    }
}

impl Fault {
    /// Asserts that the check finds this fault in the example, and nothing else.
    #[track_caller]
    pub(super) fn is_found(&self) {
        let (of, by) = (self.of, self.by);
        assert!(EXAMPLE.matches(of).count() > 0, "{of:?}");
        let text = EXAMPLE.replacen(of, by, 1);
        let at = text.find(self.at).expect("the fault is there");
        let line = text[..at].matches('\n').count() + 1;
        let found = check(&text, &expected());
        let [finding] = &found[..] else {
            panic!("{of:?} by {by:?}: {:#?}", texts(&found));
        };
        assert_eq!(
            (finding.line, &*finding.path, finding.grade),
            (line, self.path, self.grade),
            "{finding}"
        );
        assert!(!finding.reason.is_empty() && !finding.remedy.is_empty());
        assert!(!finding.to_string().contains("secret"), "{finding}");
    }
}

trait ConcatRefs {
    fn concat_refs(&self) -> Vec<&'static Fault>;
}

impl ConcatRefs for [&'static [Fault]] {
    fn concat_refs(&self) -> Vec<&'static Fault> {
        self.iter().flat_map(|faults| faults.iter()).collect()
    }
}

#[test]
fn faults_that_need_no_configuration_are_found_without_it() {
    let none = Expected::default();
    for fault in [SETTINGS, REDIRECTS].concat_refs() {
        // Only the comparison finds these.
        let needs_it = ["pkce_enabled", "direct_install_url"];
        let needs_it = needs_it.iter().any(|it| fault.path.ends_with(it));
        let found = check(&EXAMPLE.replacen(fault.of, fault.by, 1), &none);
        let is_callback = fault.by.contains("oauth/callback");
        let count = usize::from(!needs_it && !is_callback);
        assert_eq!(found.len(), count, "{:?}: {:#?}", fault.by, texts(&found));
    }
}

#[test]
fn an_app_without_any_subscription_has_one_finding_that_names_all_events() {
    let from = EXAMPLE.find("  event_subscriptions").expect("a block");
    let to = EXAMPLE.find("  interactivity").expect("a block");
    let text = format!("{}{}", &EXAMPLE[..from], &EXAMPLE[to..]);
    let found = check(&text, &expected());
    let [finding] = &found[..] else {
        panic!("{:#?}", texts(&found));
    };
    assert_eq!(finding.line, 28, "the line of `settings`");
    for event in ["app_uninstalled", "tokens_revoked", "team_access_granted"] {
        assert!(finding.reason.contains(event), "{finding}");
    }
}

#[test]
fn a_finding_is_one_line_whatever_the_manifest_contains() {
    let long = "x".repeat(5000);
    let text = EXAMPLE.replace("- commands", &format!("- \"a\\nb\\u001b[31m{long}\""));
    for finding in check(&text, &expected()) {
        let text = finding.to_string();
        assert!(
            !text.contains(char::is_control) && text.len() < 1000,
            "{text}"
        );
    }
}
