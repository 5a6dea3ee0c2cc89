//! The storm: a fake Slack, the workspaces, and the processes that request tokens.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::backend::Backend;
use slack_installs::testing::{FakeSlack, Fault, Rotation, World};
use slack_installs::{Clock, MasterKey};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::callers::Callers;
use crate::options::Options;
use crate::orders::Orders;
use crate::tally::{Outcome, Report, Tally};
use crate::watch::Watch;
use crate::workspaces::Workspaces;
use crate::{Failure, backends, process};

/// Longer than the lifetime of a token.
const AGE: Duration = Duration::from_secs(13 * 60 * 60);

pub(crate) async fn storm(options: &Options) -> Result<Outcome, Failure> {
    let backend = backends::open(&options.backend).await?;
    // The app was installed so long ago that every token has expired.
    let then = Clock::from_fn(|| SystemTime::now() - AGE);
    let fake = FakeSlack::start_with(World::default().with_clock(then)).await?;
    fake.rotate_tokens(Rotation {
        grace: options.grace,
        ..Rotation::default()
    });
    let orders = Orders {
        backend: options.backend.clone(),
        callers: options.callers,
        each: options.each,
        workspaces: options.workspaces,
        slack: fake.environment().base().to_string(),
        client_id: fake.client_id().to_string(),
        client_secret: fake.client_secret().expose().to_owned(),
        master_key: MasterKey::generate().to_base64().to_string(),
        pause_at: (options.kills > 0).then_some(options.kill_at),
        steady: None,
    };
    let workspaces = Workspaces::open(&fake, Arc::clone(&backend), &orders).await?;
    workspaces.install().await?;
    fake.advance(AGE);
    fake.inject("oauth.v2.access", Fault::delay(options.latency).always());

    let mut fleet = Fleet::new(orders, options.kills);
    if options.backend == "memory" {
        fleet.run_within(backend).await?;
    } else {
        fleet.run(options.processes).await?;
    }
    let current = workspaces.current().await?;
    workspaces.remove().await?;
    let took = fleet.last.duration_since(fleet.begun);
    let kills = options.kills - fleet.kills_left;
    Ok(Outcome::new(fleet.tally, &fake, current, kills, took))
}

pub(crate) struct Fleet {
    orders: Orders,
    kills_left: usize,
    tally: Tally,
    begun: Instant,
    /// When the last report arrived.
    last: Instant,
}

/// A child process of the fleet.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
}

/// The number of a process, and its report; `None` if it ended.
pub(crate) type News = (usize, Option<Report>);

impl Fleet {
    pub(crate) fn new(orders: Orders, kills_left: usize) -> Self {
        Self {
            orders,
            kills_left,
            tally: Tally::default(),
            begun: Instant::now(),
            last: Instant::now(),
        }
    }

    /// Runs the callers in this process, for a database in its memory.
    async fn run_within(&mut self, backend: Arc<dyn Backend>) -> Result<(), Failure> {
        let (reports, mut coming) = mpsc::unbounded_channel();
        let watch = Watch::new(reports.clone(), None);
        let callers = Callers::ready(&self.orders, backend, &watch, reports).await?;
        drop(watch);
        self.begun = Instant::now();
        let asking = tokio::spawn(callers.ask());
        while let Some(report) = coming.recv().await {
            self.note(report);
        }
        Ok(asking.await?)
    }

    async fn run(&mut self, processes: usize) -> Result<(), Failure> {
        let (news, mut coming) = mpsc::unbounded_channel();
        let mut fleet = Vec::with_capacity(processes);
        for number in 0..processes {
            fleet.push(self.launch(number, &news).await?);
        }
        let mut waiting = processes;
        let mut running = processes;
        while running > 0 {
            let (number, report) = coming
                .recv()
                .await
                .ok_or("no process of the fleet is running")?;
            match report {
                Some(Report::Ready) if waiting > 0 => {
                    waiting -= 1;
                    if waiting == 0 {
                        self.begun = Instant::now();
                        for process in &mut fleet {
                            process.say("go").await?;
                        }
                    }
                }
                // This process replaces a killed one.
                Some(Report::Ready) => fleet[number].say("go").await?,
                Some(Report::Paused) if self.kills_left > 0 => {
                    self.kills_left -= 1;
                    fleet[number].child.kill().await?;
                    fleet.push(self.launch(fleet.len(), &news).await?);
                    running += 1;
                }
                Some(Report::Paused) => fleet[number].say("on").await?,
                Some(report) => self.note(report),
                None => {
                    running -= 1;
                    fleet[number].ended().await?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, report: Report) {
        self.last = Instant::now();
        self.tally.add(report);
    }

    /// Starts a process and sends it its orders.
    pub(crate) async fn launch(
        &self,
        number: usize,
        news: &mpsc::UnboundedSender<News>,
    ) -> Result<Process, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(process::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("the process has no piped input")?;
        let output = child
            .stdout
            .take()
            .ok_or("the process has no piped output")?;
        let mut process = Process { child, input };
        process.say(&serde_json::to_string(&self.orders)?).await?;
        let news = news.clone();
        drop(tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The last line of a killed process may be incomplete.
                if let Ok(report) = Report::parse(&line) {
                    let _ = news.send((number, Some(report)));
                }
            }
            let _ = news.send((number, None));
        }));
        Ok(process)
    }
}

impl Process {
    pub(crate) async fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    /// Waits until the process has ended. A killed process has no exit code, and is not an error.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        let status = self.child.wait().await?;
        if status.code().is_some_and(|code| code != 0) {
            return Err("a process of the fleet failed; its error is above".into());
        }
        Ok(())
    }
}
