//! A process as its parent sees it: the parent gives it orders, reads its words, and stops,
//! continues and kills it.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Duration;

use crate::orders::{MARK, Order, Orders, VARIABLE, Word};

/// An event of a process, or of Slack on its behalf.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is about to take this step, and waits for the permit.
    Step(String, Permit),
    Said(Word),
    /// Its output has ended.
    Gone,
}

/// A permit to take a step. If it is dropped, the step is never taken.
#[derive(Debug)]
pub(crate) enum Permit {
    Process,
    Slack(oneshot::Sender<()>),
}

pub(crate) struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    events: mpsc::UnboundedReceiver<Event>,
    /// For others that report events on its behalf.
    pub(crate) sender: mpsc::UnboundedSender<Event>,
}

impl Child {
    /// Starts this test binary again as a process of the fleet.
    pub(crate) async fn start(orders: &Orders) -> Self {
        let mut child = Self::bare();
        let orders = serde_json::to_string(orders).expect("orders can be serialized");
        child.write(&orders).await;
        match child.next().await {
            Event::Said(Word::Ready) => child,
            other => panic!("expected the process to be ready, got {other:?}"),
        }
    }

    /// Starts a process without orders.
    pub(crate) fn bare() -> Self {
        let program = std::env::current_exe().expect("the test binary has a path");
        let mut process = Command::new(program)
            .args(["--exact", crate::PROCESS, "--nocapture"])
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the test binary can be started again");
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
                let event =
                    match serde_json::from_str(word).expect("a line with the mark is a word") {
                        Word::Step(name) => Event::Step(name, Permit::Process),
                        word => Event::Said(word),
                    };
                // The receiver may have been dropped.
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
        let order = serde_json::to_string(&order).expect("orders can be serialized");
        self.write(&order).await;
    }

    async fn write(&mut self, line: &str) {
        let line = format!("{line}\n");
        let written = self.input.write_all(line.as_bytes()).await;
        written.expect("the process listens");
        self.input.flush().await.expect("the process listens");
    }

    /// Returns the next event. Panics if there is none within a minute.
    pub(crate) async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("the process makes progress");
        event.expect("the child holds a sender")
    }

    pub(crate) async fn go(&mut self, permit: Permit) {
        match permit {
            Permit::Process => self.tell(Order::Go).await,
            // The process that made the request may have died.
            Permit::Slack(go) => drop(go.send(())),
        }
    }

    /// Returns the response to an order. Skips steps that were announced before the process was
    /// freed.
    pub(crate) async fn answer(&mut self) -> Word {
        loop {
            match self.next().await {
                Event::Said(word) => return word,
                Event::Step(_, Permit::Process) => {}
                other => panic!("expected a word of a free process, got {other:?}"),
            }
        }
    }

    /// Kills the process, like a power cut.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("the process runs");
    }

    /// Stops the process, and returns when it has stopped.
    pub(crate) async fn stop(&self) {
        self.signal("-STOP").await;
        let pid = self.process.id().expect("the process runs");
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.expect("the process runs").contains(") T ")
        };
        while !is_stopped() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn resume(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.process.id().expect("the process runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await;
        assert!(sent.expect("`kill` is on the `PATH`").success());
    }

    /// Lets the process finish what is in progress, and end. Reports whether it finished.
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

    /// Closes the process's input, as the death of its parent would, and waits until the process
    /// has ended.
    pub(crate) async fn orphan(self) -> std::process::ExitStatus {
        let Self {
            mut process, input, ..
        } = self;
        drop(input);
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        ended
            .expect("an orphan ends")
            .expect("the process is our child")
    }
}

/// Far longer than any step takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
