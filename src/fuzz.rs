//! What the fuzz targets in `tests/fuzz` run. Compiled only for fuzzing, and for the test that
//! replays the kept corpora.

use crate::{backend, encrypted, oauth, request, seal, slack};

/// What a target does with an input. It panics if it finds a fault.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 8] = [
    ("cookie", oauth::fuzz::cookie),
    ("cursors", cursors),
    ("envelope", seal::fuzz::envelope),
    ("form", request::fuzz::form),
    ("payload", request::fuzz::payload),
    ("slack_responses", slack::fuzz::responses),
    ("state", oauth::fuzz::state),
    ("verify", request::fuzz::verify),
];

/// Runs one target.
///
/// # Panics
///
/// If the input shows a fault.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, run) = found.expect("a known target");
    run(input);
}

fn cursors(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    backend::fuzz::cursor(&text);
    encrypted::fuzz::cursor(&text);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{fs, panic};

    use super::*;

    /// Returns the inputs of a target that are kept, with their names.
    fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let files = fs::read_dir(folder.join(target)).expect("each target has a corpus");
        let read = |file: std::io::Result<fs::DirEntry>| {
            let path = file.expect("a file").path();
            let input = fs::read(&path).expect("a file");
            (path.display().to_string(), input)
        };
        files.map(read).collect()
    }

    #[test]
    fn every_kept_input_of_every_fuzz_target_finds_no_fault() {
        let mut faults = Vec::new();
        for (target, run) in TARGETS {
            let corpus = corpus(target);
            assert!(corpus.len() >= 5, "{target} has {} inputs", corpus.len());
            for (name, input) in corpus {
                if panic::catch_unwind(|| run(&input)).is_err() {
                    faults.push(name);
                }
            }
        }
        assert_eq!(faults, [""; 0], "these inputs find faults");
    }

    #[test]
    fn every_fuzz_target_has_its_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a file");
        for (target, _) in TARGETS {
            let program = folder.join(format!("fuzz_targets/{target}.rs"));
            assert!(program.exists(), "{target}");
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
        }
    }
}
