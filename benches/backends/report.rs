//! Prints the table and the lines of JSON.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::databases::Subject;
use super::measure::Times;

pub(crate) fn head() {
    println!("{:57}   {:>34}", "", "times bare");
    println!(
        "{:8} {:>7} {:>4} {:5} {:>8} {:>8} {:>6} {:>8}   {:>8} {:>8} {:>8} {:>8}",
        "backend",
        "tenants",
        "at",
        "side",
        "p50 µs",
        "p99 µs",
        "CPU µs",
        "ops/s",
        "p50",
        "p99",
        "CPU",
        "ops/s"
    );
}

pub(crate) fn rows(
    backend: &str,
    concurrency: usize,
    subjects: &[Arc<Subject>; 2],
    measured: &[Vec<Times>; 2],
    json: bool,
) {
    for (subject, all) in subjects.iter().zip(measured) {
        let bare = Figures::of(&all[0]);
        for ((side, _), times) in subject.sides.iter().zip(all) {
            let own = Figures::of(times);
            let ratio = own.over(&bare);
            let tenants = subject.tenants;
            println!(
                "{backend:8} {tenants:>7} {concurrency:>4} {side:5} {:>8.1} {:>8.1} {:>6.1} {:>8.0}   \
                 {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
                own.p50, own.p99, own.cpu, own.ops, ratio.p50, ratio.p99, ratio.cpu, ratio.ops,
            );
            if json {
                let line = json!({
                    "backend": backend,
                    "tenants": tenants,
                    "concurrency": concurrency,
                    "side": side,
                    "p50_us": own.p50,
                    "p99_us": own.p99,
                    "cpu_us": own.cpu,
                    "ops_per_s": own.ops,
                    "p50_ratio": ratio.p50,
                    "p99_ratio": ratio.p99,
                    "cpu_ratio": ratio.cpu,
                    "ops_ratio": ratio.ops,
                });
                println!("{line}");
            }
        }
    }
    let [few, many] = measured;
    for (nth, (side, _)) in subjects[0].sides.iter().enumerate() {
        println!(
            "{backend:8} {concurrency:>4} at once, {side}: p50 of {} tenants is {:.2} times that of {}",
            subjects[1].tenants,
            Figures::of(&many[nth]).over(&Figures::of(&few[nth])).p50,
            subjects[0].tenants,
        );
    }
}

/// Times in microseconds, and calls per second.
struct Figures {
    p50: f64,
    p99: f64,
    cpu: f64,
    ops: f64,
}

impl Figures {
    fn of(times: &Times) -> Self {
        Self {
            p50: micros(times.percentile(50)),
            p99: micros(times.percentile(99)),
            cpu: micros(times.worked()),
            ops: times.per_second(),
        }
    }

    fn over(&self, other: &Self) -> Self {
        Self {
            p50: self.p50 / other.p50,
            p99: self.p99 / other.p99,
            cpu: self.cpu / other.cpu,
            ops: self.ops / other.ops,
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
