#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slack_installs::fuzz::run("cursors", input));
