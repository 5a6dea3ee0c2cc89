//! The question before a change, on a real terminal.

use std::process::Stdio;

use slack_installs::store::LifecycleStore as _;
use tokio::process::Command;

use super::act::{ACTIONS, house};
use super::{House, Ran};
use crate::support::app::{ALPHA, BRAVO, key};

impl House {
    /// Runs the program on a terminal of this width. `steps` are pairs of a text to wait for, and
    /// what is typed then.
    pub(crate) async fn on_terminal(
        &self,
        columns: usize,
        steps: &[(&str, &str)],
        arguments: &[&str],
    ) -> Ran {
        let python = std::env::var_os("SLACK_INSTALLS_PYTHON").unwrap_or_else(|| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/terminal.py");
        let steps = serde_json::to_string(steps).expect("JSON");
        let output = Command::new(python)
            .arg(script)
            .args([
                &columns.to_string(),
                &steps,
                env!("CARGO_BIN_EXE_slack-installs"),
            ])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm-256color")
            .envs(&self.values)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("Python runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let ran: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        Ran {
            code: i32::try_from(ran["code"].as_i64().expect("a number")).expect("a small one"),
            out: ran["shown"].as_str().expect("a text").to_owned(),
            err: String::new(),
        }
    }
}

#[tokio::test]
async fn the_tenants_id_that_is_typed_confirms() {
    let house = house().await;
    let freeze = ["freeze", ALPHA, "--reason", "ticket"];
    let steps = [("Type T0ALPHA0001 to continue: ", "T0ALPHA0001\n")];
    let ran = house.on_terminal(100, &steps, &freeze).await;
    assert!(ran.ends(0).contains("put on hold"), "{ran:?}");
    let hold = house.app.store.held(&key(ALPHA)).await.expect("responds");
    assert!(hold.is_some_and(|hold| hold.is_on && hold.reason == "ticket"));
}

/// What is typed, the exit code, and a word of the text.
const REFUSALS: [(&str, i32, &str); 6] = [
    ("yes\n", 4, "not confirmed; nothing was changed"),
    ("T0OTHER0001\n", 4, "not confirmed; nothing was changed"),
    ("\n", 4, "not confirmed; nothing was changed"),
    // The end of the input, an interrupt, and one after some letters.
    ("\u{4}", 4, "not confirmed; nothing was changed"),
    ("\u{3}", 130, "interrupted"),
    ("T0AL\u{3}", 130, "interrupted"),
];

#[tokio::test]
async fn another_text_or_an_interrupt_at_the_question_changes_nothing() {
    let house = house().await;
    let before = house.rows().await;
    let calls = house.app.fake.call_log().len();
    let keys: [&[&str]; 3] = [&["keys", "add"], &["keys", "reseal"], &["keys", "rewrap"]];
    for (nth, action) in ACTIONS.iter().chain(&keys).enumerate() {
        let word = match action {
            ["reconcile"] => "reconcile",
            ["keys", word] => word,
            _ if action.contains(&BRAVO) => BRAVO,
            _ => ALPHA,
        };
        let question = format!("Type {word} to continue: ");
        // Each action meets the interrupt, and one of the other refusals.
        for (typed, code, text) in [REFUSALS[nth % 4], REFUSALS[4], REFUSALS[5]] {
            let ran = house.on_terminal(80, &[(&question, typed)], action).await;
            assert!(
                ran.ends(code).contains(text),
                "{action:?} {typed:?} {ran:?}"
            );
            assert!(!ran.out.contains("^Cerror"), "{ran:?}");
            assert_eq!(house.rows().await, before, "{action:?} {typed:?}");
        }
    }
    assert_eq!(house.app.fake.call_log().len(), calls);
}
