//! One process of the fleet: this program, started by itself.
//!
//! It reads its orders, then `go`, and then `on` after a pause. It writes reports. When its input
//! ends, the parent has ended, and the process exits.

use std::io::Write as _;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use crate::callers::Callers;
use crate::orders::Orders;
use crate::tally::Report;
use crate::watch::Watch;
use crate::{Failure, backends};

/// The argument of a process of the fleet.
pub(crate) const ARGUMENT: &str = "--process-of-a-fleet";

pub(crate) async fn run() -> Result<(), Failure> {
    let mut input = read_input();
    let orders = input
        .recv()
        .await
        .ok_or("the input ended before the orders")?;
    let orders: Orders = serde_json::from_str(&orders)
        .map_err(|_| "the first line of the input is not JSON orders")?;
    let (reports, written) = write_reports();
    let watch = Watch::new(reports.clone(), orders.pause_at);
    let backend = backends::open(&orders.backend).await?;
    let callers = Callers::ready(&orders, backend, &watch, reports.clone()).await?;
    // Fails only if the process is ending.
    let _ = reports.send(Report::Ready);
    input.recv().await.ok_or("the input ended before `go`")?;
    let go_on = watch.go_on();
    let listening = tokio::spawn(async move {
        while input.recv().await.is_some() {
            go_on.add_permits(1);
        }
        std::process::exit(1);
    });
    callers.ask().await;
    listening.abort();
    drop((reports, watch));
    written
        .join()
        .map_err(|_| "the thread that writes the reports panicked")??;
    Ok(())
}

/// Reads the lines of the input as they arrive.
pub(crate) fn read_input() -> mpsc::UnboundedReceiver<String> {
    let (lines, input) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let read = std::io::stdin().lines().map_while(Result::ok);
        // Stops when the receiver is dropped.
        read.map(|line| lines.send(line)).all(|sent| sent.is_ok())
    });
    input
}

/// Writes reports on a separate thread, so that callers do not wait.
fn write_reports() -> (
    mpsc::UnboundedSender<Report>,
    JoinHandle<std::io::Result<()>>,
) {
    let (reports, mut coming) = mpsc::unbounded_channel::<Report>();
    let written = thread::spawn(move || {
        let mut output = std::io::BufWriter::new(std::io::stdout().lock());
        while let Some(report) = coming.blocking_recv() {
            writeln!(output, "{report}")?;
            while let Ok(report) = coming.try_recv() {
                writeln!(output, "{report}")?;
            }
            output.flush()?;
        }
        Ok(())
    });
    (reports, written)
}
