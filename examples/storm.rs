//! Everybody at once: N processes × M callers ask for tokens that have just expired.
//!
//! ```text
//! cargo run --release --features testing,sqlite --example storm -- \
//!     --backend memory --processes 4 --callers 64 --workspaces 1000 --latency-ms 100
//! ```
//!
//! Prints one JSON line. Each process is a rotator of its own here, with its own store over one
//! database: nothing is shared but rows and Slack.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::secret::Code;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::store::{ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{
    FakeSlack, Fault, Person, RefreshCounts, Rotation, Who, Workspace, World,
};
use slack_installs::{
    Clock, EncryptedStore, Installation, InstallationKey, InstallationStore as _, LocalKeyProvider,
    MasterKey, RotationConfig, TeamId, TokenRotator,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ADMIN: &str = "U0ADMIN0001";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::read()?;
    match options.backend.split_once(':') {
        None if options.backend == "memory" => storm(&options, MemoryBackend::default()).await,
        #[cfg(feature = "sqlite")]
        Some(("sqlite", path)) => {
            let backend = slack_installs::backend::SqliteBackend::open(path).await?;
            storm(&options, backend).await
        }
        _ => Err("--backend is memory, or sqlite:PATH with the feature sqlite".into()),
    }
}

struct Options {
    backend: String,
    processes: usize,
    callers: usize,
    workspaces: usize,
    latency: Duration,
    grace: Duration,
}

impl Options {
    fn read() -> Result<Self, Failure> {
        let mut words = std::env::args().skip(1);
        let mut given = HashMap::new();
        while let Some(name) = words.next() {
            let name = name
                .strip_prefix("--")
                .ok_or("an option begins with --")?
                .to_owned();
            let value = words
                .next()
                .ok_or_else(|| format!("--{name} has no value"))?;
            given.insert(name, value);
        }
        let mut number = |name: &str, default: u64| match given.remove(name) {
            Some(text) => text.parse().map_err(|_| format!("--{name}: not a number")),
            None => Ok(default),
        };
        let options = Self {
            processes: usize::try_from(number("processes", 1)?)?,
            callers: usize::try_from(number("callers", 1000)?)?,
            workspaces: usize::try_from(number("workspaces", 1)?)?,
            latency: Duration::from_millis(number("latency-ms", 100)?),
            grace: Duration::from_millis(number("grace-ms", 2000)?),
            backend: given
                .remove("backend")
                .unwrap_or_else(|| "memory".to_owned()),
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("no such option: --{unknown}").into()),
            None => Ok(options),
        }
    }
}

async fn storm<B: Backend>(options: &Options, backend: B) -> Result<(), Failure> {
    let world = World::default().with_clock(Clock::from_fn(SystemTime::now));
    let fake = FakeSlack::in_process(world);
    let grace = options.grace;
    fake.rotate_tokens(Rotation {
        grace,
        ..Rotation::default()
    });
    let backend = Arc::new(backend);
    let key = MasterKey::generate().to_base64();
    let open = async || {
        let provider = LocalKeyProvider::new(MasterKey::parse(&key)?);
        let store = EncryptedStore::open(Arc::clone(&backend), provider, fake.client_id()).await?;
        Ok::<_, Failure>(store)
    };
    let store = open().await?;
    let tenants = install(&fake, &store, options.workspaces).await?;
    let mut fleet = Vec::new();
    for _ in 0..options.processes {
        let slack = SlackClient::with_transport(fake.environment(), fake.transport())
            .with_clock(fake.clock());
        let config = RotationConfig::new(credentials(&fake));
        fleet.push(TokenRotator::new(config, slack, open().await?).with_clock(fake.clock()));
    }
    fake.advance(Duration::from_secs(13 * 3600));
    fake.inject("oauth.v2.access", Fault::delay(options.latency).always());

    let tenants = Arc::new(tenants);
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    for rotator in &fleet {
        for caller in 0..options.callers {
            let (rotator, fake) = (rotator.clone(), fake.clone());
            let tenants = Arc::clone(&tenants);
            callers.spawn(async move {
                let mut asked = Vec::with_capacity(tenants.len());
                // Each in an order of its own, as requests come.
                for turn in 0..tenants.len() {
                    let tenant = &tenants[(turn + caller * 7919) % tenants.len()];
                    let from = Instant::now();
                    let token = rotator.token_for(tenant, Credential::Bot).await;
                    let is_live = token.map(|token| fake.is_live(token.access_token.expose()));
                    asked.push((from.elapsed(), is_live.ok()));
                }
                asked
            });
        }
    }
    let asked: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();

    let mut waits: Vec<_> = asked.iter().map(|(wait, _)| *wait).collect();
    waits.sort_unstable();
    let wait = |share: f64| {
        let place = (waits.len() as f64 * share) as usize;
        let wait = waits.get(place.min(waits.len().saturating_sub(1)));
        wait.map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
    };
    let mut stored_current = 0;
    for tenant in tenants.iter() {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant: tenant.clone(),
        };
        let stored = store.chain(&key).await?;
        let is_live = |token: &str| fake.is_live(token);
        let is_current = stored.is_some_and(|it| is_live(it.grant.access_token.expose()));
        stored_current += usize::from(is_current);
    }
    let RefreshCounts {
        calls, duplicates, ..
    } = fake.refresh_counts();
    let line = serde_json::json!({
        "backend": options.backend.split(':').next(),
        "processes": options.processes,
        "callers": options.callers,
        "workspaces": options.workspaces,
        "latency_ms": options.latency.as_millis(),
        "asked": asked.len(),
        "refresh_calls": calls,
        "duplicate_calls": duplicates,
        "failed": asked.iter().filter(|(_, is_live)| is_live.is_none()).count(),
        "unusable": asked.iter().filter(|(_, is_live)| *is_live == Some(false)).count(),
        "stored_current": stored_current,
        "wait_p50_ms": wait(0.5),
        "wait_p99_ms": wait(0.99),
        "seconds": seconds,
    });
    println!("{line}");
    Ok(())
}

fn credentials(fake: &FakeSlack) -> ClientCredentials {
    ClientCredentials {
        client_id: fake.client_id(),
        client_secret: fake.client_secret(),
    }
}

/// The app in that many workspaces, by the real flow's two calls.
async fn install<B: Backend>(
    fake: &FakeSlack,
    store: &EncryptedStore<B>,
    workspaces: usize,
) -> Result<Vec<InstallationKey>, Failure> {
    let slack =
        SlackClient::with_transport(fake.environment(), fake.transport()).with_clock(fake.clock());
    let mut tenants = Vec::with_capacity(workspaces);
    for number in 0..workspaces {
        let id = format!("T0STORM{number:05}");
        fake.add_workspace(Workspace::new(&id, "Storm"));
        fake.add_person(&id, Person::admin(ADMIN, "ada"));
        let mut url = fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", fake.client_id().as_str())
            .append_pair("scope", "chat:write")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", &id);
        let callback = fake.allow(&url, Who::user(ADMIN).at(&id))?;
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.ok_or("the callback has no code")?.1)?;
        let issued = slack
            .oauth_v2_access(&credentials(fake), &code, REDIRECT)
            .await?;
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        store.store(&installation).await?;
        tenants.push(InstallationKey::workspace(TeamId::new(id)?));
    }
    Ok(tenants)
}
