//! Measures sealing and opening of one row, on one core. The row is a bot's row with rotation, of
//! usual size. Also measures one SHA-256 block; opening a row takes seven.
//!
//! The seal is private to the crate, so the benchmark compiles the same source files.
//!
//! Run `cargo bench --bench seal`.

#![allow(dead_code, missing_docs, unreachable_pub, unused_imports, unused_macros)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

#[macro_use]
#[path = "../src/debug.rs"]
mod debug;
#[path = "../src/seal/derived.rs"]
mod derived;
#[path = "../src/seal/envelope.rs"]
mod envelope;
#[path = "../src/seal/key.rs"]
mod key;
#[path = "../src/seal/keyring.rs"]
mod keyring;
#[path = "../src/lru.rs"]
mod lru;
#[path = "../src/random.rs"]
mod random;

use envelope::{Context, RECORD, open, seal};
use key::{DataKey, KeyId};

/// The same type as in `src/seal.rs`, which is not compiled into the benchmark.
#[derive(Clone, Eq, PartialEq)]
struct Sealed(Vec<u8>);

#[derive(Debug, Eq, PartialEq)]
struct Undecryptable;

fn main() {
    let (key_id, key) = (KeyId::generate(), DataKey::generate());
    let context = Context {
        app: "100000000001.200000000002",
        partition: "100000000001.200000000002/T0ALPHA0001",
        slot: "bot",
        kind: "bot",
        version: &[7; 16],
        due: Some(("refresh", 1_790_040_000)),
        metadata: METADATA,
    };
    let plaintext = format!(
        r#"{{"access_token":"xoxe.xoxb-1-{}","refresh_token":"xoxe-1-{}"}}"#,
        "M".repeat(150),
        "N".repeat(140)
    );
    let plaintext = plaintext.as_bytes();
    let sealed = seal(RECORD, key_id, &key, &context, plaintext);
    println!(
        "a row of {} bytes of metadata and {} of plaintext, one core",
        METADATA.len(),
        plaintext.len()
    );

    let opening = measure(|| {
        let opened = open(RECORD, &key, black_box(&context), &sealed.0);
        black_box(opened.expect("it was sealed for this context"));
    });
    let sealing = measure(|| {
        black_box(seal(RECORD, key_id, &key, black_box(&context), plaintext));
    });
    let blocks = [0; 64 * BLOCKS];
    // The padding adds one block.
    let block = measure(|| {
        black_box(digest(&SHA256, black_box(&blocks)));
    }) / (BLOCKS as u32 + 1);
    println!("open:  {opening:?}");
    println!("seal:  {sealing:?}, including random bytes from the system");
    println!("block: {block:?}");
}

/// Returns the time of one call in the fastest of many short rounds. Other work on the machine
/// affects that round least.
fn measure(call: impl Fn()) -> Duration {
    let round = || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        begun.elapsed() / CALLS
    };
    (0..ROUNDS).map(|_| round()).min().expect("some rounds")
}

const METADATA: &str = r#"{"v":1,"kind":"bot","bot_user_id":"U0BOT000001","scopes":"app_mentions:read,channels:history,channels:read,chat:write,commands,users:read","expires_at":1790043200,"granted_at":1790000000,"rotation":{"install":"0123456789abcdef0123456789abcdef","generation":7,"issued_at":1790000000000,"mark":"0123456789abcdef","past":["0123456789abcdef","0123456789abcdef","0123456789abcdef"]}}"#;

const CALLS: u32 = 50;
const ROUNDS: usize = 5000;
const BLOCKS: usize = 64;
