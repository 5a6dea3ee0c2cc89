//! Finds the tenant that a command acts on, and says what a command that failed has done.

use slack_installs::inspect::{ChainReport, Explanation, RowContents, explain};
use slack_installs::{AppStore, EnterpriseId, InstallationKey};

use super::Session;
use super::look::question;
use crate::args::{Command, Webhook};
use crate::failure::{Code, Failure};
use crate::output::shortened;

/// Returns what is stored for a tenant. If nothing is, the command has nothing to act on.
pub(super) async fn stored(
    session: &Session<'_>,
    tenant: &InstallationKey,
) -> Result<Explanation, Failure> {
    let store = session.store().await?;
    let explanation = explain(&store, &question(session, tenant, None, None)).await?;
    if explanation.served_by.as_ref() == Some(tenant) || has_own_rows(&store, tenant).await? {
        return Ok(explanation);
    }
    if let Some(org) = &explanation.served_by {
        let text = format!(
            "{tenant} has no installation of its own; it is served by the one of {}{}",
            org.id(),
            instead(session, org.id())
        );
        return Err(Failure::new(Code::NotFound, text));
    }
    if let Some(lost) = explanation.findings.first() {
        return Err(Failure::new(
            Code::NotFound,
            format!("{tenant} is not installed: {}; {}", lost.text, lost.remedy),
        ));
    }
    Err(not_found(session, &store, tenant).await)
}

async fn has_own_rows(store: &AppStore, tenant: &InstallationKey) -> Result<bool, Failure> {
    let own = store.inspect_tenant(tenant).await?;
    Ok(!own.rows.is_empty() || !own.malformed.is_empty())
}

/// Returns the tenant with its name, for a question.
pub(super) fn named(it: &Explanation) -> String {
    let install = it.installation.as_ref();
    let name = install.and_then(|it| it.team_name.as_ref().or(it.enterprise_name.as_ref()));
    match name {
        Some(name) => format!("{} ({})", it.tenant, shortened(name, 40)),
        None => it.tenant.to_string(),
    }
}

/// Returns the error for a tenant without rows. It names the installations that may be meant.
pub(super) async fn not_found(
    session: &Session<'_>,
    store: &AppStore,
    tenant: &InstallationKey,
) -> Failure {
    let hint = if tenant.is_org() {
        installed_in(store, tenant).await
    } else {
        store.organisations().await.map(|orgs| {
            let found = orgs.iter().map(EnterpriseId::as_str);
            let found = listed(found)?;
            let org = orgs.first()?;
            let text = format!(
                "the app is installed in {found}, which may serve {tenant}: `slack-installs \
                 explain {tenant} --org {org}` shows whether it does{}",
                instead(session, org.as_str())
            );
            Some(text)
        })
    };
    let text = match hint {
        Ok(Some(hint)) => format!("nothing is stored for {tenant} itself: check the id; {hint}"),
        _ => format!(
            "nothing is stored for {tenant}: check the id, SLACK_CLIENT_ID and the database"
        ),
    };
    Failure::new(Code::NotFound, text)
}

/// Names the workspaces of an organisation that have installations of their own.
async fn installed_in(
    store: &AppStore,
    org: &InstallationKey,
) -> Result<Option<String>, slack_installs::store::Error> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = store.inspect(from, AT_ONCE).await?;
        for row in &page.rows {
            if let Ok(RowContents::Install(install)) = &row.contents
                && install
                    .home
                    .enterprise()
                    .is_some_and(|it| it.id.as_str() == org.id())
            {
                found.push(row.tenant.id().to_owned());
            }
        }
        from = page.next;
        if from.is_none() || found.len() > NAMED {
            break;
        }
    }
    Ok(listed(found.iter().map(String::as_str)).map(|workspaces| {
        format!(
            "the app is not installed in the organisation as a whole, but in workspaces of it: \
             {workspaces}. Name a workspace; `slack-installs list --organisation {org}` lists all"
        )
    }))
}

/// Returns the first ids, for a sentence.
fn listed<'a>(ids: impl Iterator<Item = &'a str>) -> Option<String> {
    let ids: Vec<_> = ids.take(NAMED + 1).collect();
    let mut text = ids
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if ids.len() > NAMED {
        text.push_str(", …");
    }
    Some(text).filter(|text| !text.is_empty())
}

/// Names the organisation that serves a workspace, because records of the audit log are about the
/// tenant that has the installation. Empty if the tenant has its own.
pub(super) async fn logged_as(
    session: &Session<'_>,
    store: &AppStore,
    tenant: &InstallationKey,
) -> Result<String, Failure> {
    let explanation = explain(store, &question(session, tenant, None, None)).await?;
    let org = explanation.served_by.filter(|by| by != tenant);
    Ok(org.map_or_else(String::new, |org| {
        format!("; it is served by the installation of {org}, so its records are those of {org}")
    }))
}

/// Returns the same command for an organisation; empty for a command that takes a workspace too.
fn instead(session: &Session<'_>, org: &str) -> String {
    let command = match &session.args.command {
        Command::Freeze(_) => format!("freeze {org} --reason …"),
        Command::Thaw(_) => format!("thaw {org} --reason …"),
        Command::Revoke(_) => format!("revoke {org} --reason …"),
        Command::Purge(_) => format!("purge {org} --reason …"),
        Command::Refresh(_) => format!("refresh {org}"),
        Command::Show { .. } => format!("show {org}"),
        Command::Webhook(Webhook::Remove { channel, .. }) => {
            format!("webhook remove {org} --channel {channel}")
        }
        _ => return String::new(),
    };
    format!("; `slack-installs {command}` is about the whole organisation")
}

/// Adds to an error what the command has done before it failed, and the command that undoes it.
pub(super) async fn halted(
    session: &Session<'_>,
    before: &Explanation,
    failure: Failure,
) -> Failure {
    let tenant = &before.tenant;
    let now = async {
        let store = session.store().await?;
        let question = question(session, tenant, None, None);
        Ok::<_, Failure>(explain(&store, &question).await?)
    };
    match now.await {
        Ok(now) => failure.and(&changes(before, &now)),
        Err(_) => failure.and(&format!(
            "it is not known what was changed: `slack-installs explain {tenant}` shows it"
        )),
    }
}

/// Says in sentences how the tenant differs from before.
fn changes(before: &Explanation, now: &Explanation) -> String {
    let versions = |it: &Explanation| -> Vec<_> {
        let rows = it.rows.iter();
        rows.map(|row| (row.slot.clone(), row.version.clone()))
            .collect()
    };
    if versions(before) == versions(now) {
        return "nothing was changed".to_owned();
    }
    let tenant = &now.tenant;
    let is_on = |it: &Explanation| it.hold.as_ref().is_some_and(|hold| hold.is_on);
    let has_data = |it: &Explanation| {
        let mut rows = it.rows.iter();
        rows.any(|row| !["hold", "departure"].contains(&row.slot.as_str()))
    };
    let mut said = Vec::new();
    match (has_data(before), has_data(now)) {
        (true, false) => said.push("its data is deleted".to_owned()),
        (true, true) => said.push("its data is kept".to_owned()),
        (false, _) => {}
    }
    if is_on(now) && !is_on(before) {
        said.push(format!(
            "the tenant is on hold now, so no token is handed out: `slack-installs thaw {tenant} \
             --reason …` ends the hold"
        ));
    } else if is_on(now) {
        said.push("the tenant stays on hold, as before".to_owned());
    }
    said.join("; ")
}

/// Says what a refresh that failed has left of these tokens.
pub(super) async fn unrefreshed(
    session: &Session<'_>,
    before: &Explanation,
    credential: &str,
    failure: Failure,
) -> Failure {
    let tenant = &before.tenant;
    let now = async {
        let store = session.store().await.ok()?;
        let question = question(session, tenant, None, None);
        explain(&store, &question).await.ok()
    };
    let now = now.await;
    let of = |it: &Explanation| -> Option<ChainReport> {
        let mut chains = it.chains.iter();
        chains.find(|it| it.credential == credential).cloned()
    };
    if failure.code == Code::Refused
        && now
            .as_ref()
            .and_then(|it| it.hold.as_ref())
            .is_some_and(|hold| hold.is_on)
    {
        return failure.and(&format!(
            "`slack-installs explain {tenant}` has the reason, and `slack-installs thaw {tenant} \
             --reason …` ends the hold"
        ));
    }
    let (Some(was), Some(is)) = (of(before), now.as_ref().and_then(of)) else {
        return failure;
    };
    if is.is_withdrawn && is.is_dead {
        return failure.and("the old token is no longer handed out");
    }
    if is.is_withdrawn {
        let after = is
            .retry_at
            .filter(|at| at.0 > slack_installs::Clock::default().now());
        let after = after.map_or_else(String::new, |at| format!(" after {at}"));
        return failure.and(&format!(
            "the old token is no longer handed out, and there is no new one yet: run the same \
             command again{after}, which also revokes the old token; the app's next request gets a \
             new token too"
        ));
    }
    if was.is_dead && !is.is_dead {
        return failure.and("the dead mark is cleared, so the app tries the refresh tokens again");
    }
    failure
}

/// The installations that an error names.
const NAMED: usize = 5;

/// The rows of one page.
const AT_ONCE: usize = 1000;
