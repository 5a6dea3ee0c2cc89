//! Faults in the form of a manifest: other types, other spellings, and YAML's other styles.

use slack_installs::manifest::{Expected, check};

use crate::planted::{Fault, error, warning};
use crate::{EXAMPLE, expected, texts};

const BOT_SCOPES: &str = "    bot:
      - app_mentions:read
      - chat:write
      - commands
      - team:read
      - users:read
    bot_optional:
      - users:read
";

const BOT_EVENTS: &str = "    bot_events:
      - app_mention
      - app_uninstalled
      - grid_migration_finished
      - team_access_granted
      - team_access_revoked
      - team_rename
      - tokens_revoked
";

const COMMAND: &str = "    - command: /standup
      url: https://app.example.com/slack/command
      description: Starts a standup
";

const FAULTS: &[Fault] = &[
    // Lists as texts, and in the flow style.
    error(
        BOT_SCOPES,
        "    bot: app_mentions:read,chat:write,commands,team:read,users:read\n",
        "bot: app",
        "oauth_config.scopes.bot",
    ),
    error(
        BOT_SCOPES,
        "    bot: [app_mentions:read, chat:write, commands, team:read]\n",
        "bot: [",
        "oauth_config.scopes.bot",
    ),
    error(
        "      - chat:write\n      - commands\n",
        "      - chat.write\n      - commands\n",
        "- chat.write",
        "oauth_config.scopes.bot[1]",
    ),
    error(
        "    user:\n      - chat:write\n",
        "    user:\n      - search:read.public\n",
        "- search:read.public",
        "oauth_config.scopes.user[0]",
    ),
    error(
        "    user:\n      - chat:write\n",
        "    user:\n      - chat:write\n      - identity.basic\n",
        "- identity.basic",
        "oauth_config.scopes.user[1]",
    ),
    warning(
        "      - team:read\n      - users:read\n",
        "      - team:read\n      - team:read\n      - users:read\n",
        "- team:read\n      - users",
        "oauth_config.scopes.bot[4]",
    ),
    error(
        BOT_EVENTS,
        "    bot_events: app_uninstalled\n",
        "bot_events: app",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        BOT_EVENTS,
        "    bot_events: [app_uninstalled, team_access_granted, team_access_revoked, \
         tokens_revoked]\n",
        "bot_events: [",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        BOT_EVENTS,
        "    user_events:
      - app_uninstalled
      - tokens_revoked
",
        "event_subscriptions:",
        "settings.event_subscriptions.bot_events",
    ),
    error(
        "      - app_uninstalled\n",
        "      - app_uninstall\n",
        "bot_events:",
        "settings.event_subscriptions.bot_events",
    ),
    warning(
        "      - tokens_revoked\n",
        "      - tokens_revoked\n      - app_mention\n",
        "- app_mention\n  interactivity",
        "settings.event_subscriptions.bot_events[7]",
    ),
    // Redirect URLs.
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- https://*.example.com/slack/oauth_redirect",
        "- https://*",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- \" https://app.example.com/slack/oauth_redirect\"",
        "- \" https",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- app.example.com/slack/oauth_redirect",
        "- app.example.com",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "- https://app.example.com/slack/oauth_redirect",
        "- /slack/oauth_redirect",
        "- /slack",
        "oauth_config.redirect_urls[0]",
    ),
    error(
        "redirect_urls:\n    - https",
        "redirect_urls: https",
        "redirect_urls:",
        "oauth_config.redirect_urls",
    ),
    error(
        "  redirect_urls:\n",
        "  redirect_url:\n",
        "oauth_config:",
        "oauth_config.redirect_urls",
    ),
    // URLs that Slack calls.
    error(
        "request_url: https://app.example.com/slack/events",
        "request_url: https://10.0.0.7/slack/events",
        "request_url: https://10",
        "settings.event_subscriptions.request_url",
    ),
    error(
        "request_url: https://app.example.com/slack/events",
        "request_url: https://127.0.0.1/slack/events",
        "request_url: https://127",
        "settings.event_subscriptions.request_url",
    ),
    error(
        "    request_url: https://app.example.com/slack/events\n",
        "",
        "event_subscriptions:",
        "settings.event_subscriptions.request_url",
    ),
    error(
        "    request_url: https://app.example.com/slack/interactions\n",
        "    request_url: /slack/interactions\n",
        "request_url: /slack",
        "settings.interactivity.request_url",
    ),
    error(
        "      url: https://app.example.com/slack/command\n",
        "      url: http://app.example.com/slack/command\n",
        "url: http://",
        "features.slash_commands[0].url",
    ),
    error(
        "      url: https://app.example.com/slack/command\n",
        "",
        "- command",
        "features.slash_commands[0].url",
    ),
    warning(
        COMMAND,
        "    - command: /standup
      url: https://app.example.com/slack/command
      description: Starts a standup
    - command: /standup
      url: https://app.example.com/slack/command
      description: Starts it again
",
        "command: /standup
      url: https://app.example.com/slack/command
      description: Starts it again",
        "features.slash_commands[1].command",
    ),
    // Settings.
    error(
        "org_deploy_enabled: true",
        "org_deploy_enabled: \"true\"",
        "org_deploy_enabled",
        "settings.org_deploy_enabled",
    ),
    error(
        "  org_deploy_enabled: true\n",
        "",
        "settings:",
        "settings.org_deploy_enabled",
    ),
    error(
        "token_rotation_enabled: true",
        "token_rotation_enabled: yes",
        "token_rotation_enabled",
        "settings.token_rotation_enabled",
    ),
    error(
        "  token_rotation_enabled: true\n",
        "  token_rotation_enabled: true\n  token_rotation_enabled: false\n",
        "token_rotation_enabled: false",
        "settings.token_rotation_enabled",
    ),
    error(
        "major_version: 1",
        "major_version: 3",
        "major_version",
        "_metadata.major_version",
    ),
    error(
        "  name: Standup\n",
        "",
        "display_information:",
        "display_information.name",
    ),
    error(
        "  description: Asks each team what it does today.\n",
        "  description: Asks each team what it does today.\n  long_description: Too short.\n",
        "long_description",
        "display_information.long_description",
    ),
    // The entry in the Marketplace.
    error(
        "  support_email: support@example.com\n",
        "  support_email: https://app.example.com/support\n",
        "support_email",
        "app_directory.support_email",
    ),
    error(
        "  support_url: https://app.example.com/support\n",
        "  support_url: http://app.example.com/support\n",
        "support_url",
        "app_directory.support_url",
    ),
    error(
        "  direct_install_url: https://app.example.com/slack/install\n",
        "",
        "app_directory:",
        "app_directory.direct_install_url",
    ),
    error(
        "    - productivity\n",
        "    - productivity\n    - communication\n    - design\n    - finance\n",
        "app_directory_categories:",
        "app_directory.app_directory_categories",
    ),
];

#[test]
fn a_fault_of_another_form_or_spelling_is_found_at_its_line_and_nothing_else_is() {
    for fault in FAULTS {
        fault.is_found();
    }
}

#[test]
fn the_flow_style_and_quotes_make_no_difference() {
    let flowing = EXAMPLE
        .replace(
            BOT_EVENTS,
            "    bot_events: [app_mention, app_uninstalled, grid_migration_finished, \
             team_access_granted, team_access_revoked, team_rename, \"tokens_revoked\"]\n",
        )
        .replace(
            "    - https://app.example.com/slack/oauth_redirect\n",
            "    - 'https://app.example.com/slack/oauth_redirect' # the callback\n",
        )
        .replace(
            COMMAND,
            "    - {command: /standup, url: 'https://app.example.com/slack/command', \
             description: Starts a standup}\n",
        );
    for expected in [expected(), Expected::default()] {
        let found = check(&flowing, &expected);
        assert!(found.is_empty(), "{:#?}", texts(&found));
    }
}

#[test]
fn a_yaml_anchor_without_an_alias_is_no_fault_and_an_alias_is_one_finding() {
    let anchored = EXAMPLE.replace("    user:\n      - chat", "    user: &mine\n      - chat");
    let found = check(&anchored, &expected());
    assert!(found.is_empty(), "{:#?}", texts(&found));
    let repeated = anchored.replace(
        "    user: &mine\n",
        "    user_optional: []\n    user: &mine\n",
    );
    let repeated = repeated.replace(
        "supported_languages:\n    - en",
        "supported_languages: *mine",
    );
    let found = check(&repeated, &expected());
    assert_eq!(found.len(), 1, "{:#?}", texts(&found));
    let line = repeated.lines().position(|it| it.contains("*mine"));
    assert_eq!(Some(found[0].line), line.map(|line| line + 1));
}
