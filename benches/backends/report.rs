//! A table, and lines of JSON.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::databases::Subject;
use super::measure::{Measured, Times};

pub(crate) fn head() {
    println!(
        "{:8} {:>7} {:>7} | {:>33} | {:>33} | whole / bare\n{:24} | {SIDE} | {SIDE} | {:>6} {:>6} {:>6} {:>6}",
        "backend", "tenants", "at once", "bare", "whole", "", "p50", "p99", "CPU", "ops/s"
    );
}

pub(crate) fn rows(
    backend: &str,
    concurrency: usize,
    subjects: &[Arc<Subject>; 2],
    measured: &[Measured; 2],
    json: bool,
) {
    for (subject, Measured { bare, whole }) in subjects.iter().zip(measured) {
        let tenants = subject.tenants;
        let ratio = |percent| {
            whole.percentile(percent).as_secs_f64() / bare.percentile(percent).as_secs_f64()
        };
        let worked = whole.worked().as_secs_f64() / bare.worked().as_secs_f64();
        let throughput = whole.per_second() / bare.per_second();
        println!(
            "{backend:8} {tenants:>7} {concurrency:>7} | {} | {} | {:>6.2} {:>6.2} {worked:>6.2} {throughput:>6.2}",
            side(bare),
            side(whole),
            ratio(50),
            ratio(99),
        );
        if json {
            let line = json!({
                "backend": backend,
                "tenants": tenants,
                "concurrency": concurrency,
                "bare": side_json(bare),
                "whole": side_json(whole),
                "p50_ratio": ratio(50),
                "p99_ratio": ratio(99),
                "cpu_ratio": worked,
                "ops_ratio": throughput,
            });
            println!("{line}");
        }
    }
    let [few, many] = measured;
    let grows = |of: fn(&Measured) -> &Times| {
        of(many).percentile(50).as_secs_f64() / of(few).percentile(50).as_secs_f64()
    };
    println!(
        "{backend:8} p50 of {} tenants is {:.2} times that of {} (bare: {:.2})",
        subjects[1].tenants,
        grows(|measured| &measured.whole),
        subjects[0].tenants,
        grows(|measured| &measured.bare),
    );
}

fn side(times: &Times) -> String {
    let [p50, p99] = [50, 99].map(|percent| micros(times.percentile(percent)));
    let worked = micros(times.worked());
    format!(
        "{p50:>8.1} {p99:>8.1} {worked:>6.1} {:>8.0}",
        times.per_second()
    )
}

fn side_json(times: &Times) -> serde_json::Value {
    json!({
        "p50_us": micros(times.percentile(50)),
        "p99_us": micros(times.percentile(99)),
        "cpu_us": micros(times.worked()),
        "ops_per_s": times.per_second(),
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

const SIDE: &str = "  p50 µs   p99 µs CPU µs    ops/s";
