//! A process from the outside: told, listened to, stopped, continued, killed.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Duration;

use crate::orders::{MARK, Order, Orders, VARIABLE, Word};

/// Something that a process did, or Slack on its behalf.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is about to take this step, and waits for leave.
    Step(String, Permit),
    Said(Word),
    /// Its output has ended.
    Gone,
}

/// Leave to take a step. Dropped, the step is never taken.
#[derive(Debug)]
pub(crate) enum Permit {
    Process,
    Slack(oneshot::Sender<()>),
}

pub(crate) struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    events: mpsc::UnboundedReceiver<Event>,
    /// For others that speak on its behalf.
    pub(crate) sender: mpsc::UnboundedSender<Event>,
}

impl Child {
    /// This test binary once more, to be a process of the fleet.
    pub(crate) async fn start(orders: &Orders) -> Self {
        let mut child = Self::bare();
        let orders = serde_json::to_string(orders).expect("orders are plain");
        child.write(&orders).await;
        match child.next().await {
            Event::Said(Word::Ready) => child,
            other => panic!("a process that starts says so, and not {other:?}"),
        }
    }

    /// Without orders.
    pub(crate) fn bare() -> Self {
        let program = std::env::current_exe().expect("this runs");
        let mut process = Command::new(program)
            .args(["--exact", crate::PROCESS, "--nocapture"])
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this runs once, so it can twice");
        let input = process.stdin.take().expect("piped");
        let output = process.stdout.take().expect("piped");
        let (sender, events) = mpsc::unbounded_channel();
        let told = sender.clone();
        drop(tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(word) = line.strip_prefix(MARK) else {
                    continue;
                };
                let event = match serde_json::from_str(word).expect("a word of ours") {
                    Word::Step(name) => Event::Step(name, Permit::Process),
                    word => Event::Said(word),
                };
                // Whoever started it may have had enough.
                let _ = told.send(event);
            }
            let _ = told.send(Event::Gone);
        }));
        Self {
            process,
            input,
            events,
            sender,
        }
    }

    pub(crate) async fn tell(&mut self, order: Order) {
        let order = serde_json::to_string(&order).expect("orders are plain");
        self.write(&order).await;
    }

    async fn write(&mut self, line: &str) {
        let line = format!("{line}\n");
        let written = self.input.write_all(line.as_bytes()).await;
        written.expect("the process listens");
        self.input.flush().await.expect("the process listens");
    }

    /// What it does next. That it never does anything is a failure of the test.
    pub(crate) async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("a process does not come to a halt");
        event.expect("it holds a sender itself")
    }

    pub(crate) async fn go(&mut self, permit: Permit) {
        match permit {
            Permit::Process => self.tell(Order::Go).await,
            // Whoever asked may be gone.
            Permit::Slack(go) => drop(go.send(())),
        }
    }

    /// What it says to a question. Steps that it announced before it was freed are taken by now.
    pub(crate) async fn answer(&mut self) -> Word {
        loop {
            match self.next().await {
                Event::Said(word) => return word,
                Event::Step(_, Permit::Process) => {}
                other => panic!("a process that is free answers, and not {other:?}"),
            }
        }
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("it runs");
    }

    /// Stops it where it is, and answers when it has come to rest.
    pub(crate) async fn stop(&self) {
        self.signal("-STOP").await;
        let pid = self.process.id().expect("it runs");
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.expect("it runs").contains(") T ")
        };
        while !is_stopped() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn resume(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await;
        assert!(sent.expect("kill is there").success());
    }

    /// Finishes what it has under way, and ends. Whether it could.
    pub(crate) async fn end(&mut self) -> bool {
        self.tell(Order::End).await;
        loop {
            match self.next().await {
                Event::Said(Word::Ended(is_finished)) => return is_finished,
                Event::Gone => return false,
                _ => {}
            }
        }
    }

    /// Ends its input, as the end of its parent would, and waits until it has ended too.
    pub(crate) async fn orphan(self) -> std::process::ExitStatus {
        let Self {
            mut process, input, ..
        } = self;
        drop(input);
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        ended.expect("an orphan ends").expect("it was ours")
    }
}

/// Far longer than anything takes, even on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
