//! The question before a change, on a real terminal.

use std::process::Stdio;

use slack_installs::store::LifecycleStore as _;
use tokio::process::Command;

use super::act::house;
use super::every::{All, Does, EVERY, NONE};
use super::{House, Ran};
use crate::support::app::{ALPHA, key};

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
    let question = "Type T0ALPHA0001 to continue: ";
    let steps = [(question, "t0alpha0001\n")];
    let ran = house.on_terminal(100, &steps, &freeze).await;
    ran.ends(4);
    let steps = [(question, "T0ALPHA0001\n")];
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

/// The changes that cannot be undone by another command meet every refusal, and each of the others
/// one of them and the interrupt.
#[tokio::test]
async fn another_text_or_an_interrupt_at_the_question_changes_nothing() {
    let all = All::new(House::new().await).await;
    let before = all.house.rows().await;
    let calls = all.house.app.fake.call_log().len();
    let changes = EVERY.into_iter().filter(|case| case.2 == Does::Changes);
    for (nth, case) in changes.enumerate() {
        let question = format!("Type {} to continue: ", all.word(case));
        let few = [REFUSALS[nth % 4], REFUSALS[4 + nth % 2]];
        let is_final = ["keys promote", "keys destroy", "audit erase"].contains(&case.0);
        for (typed, code, text) in if is_final { &REFUSALS[..] } else { &few } {
            let steps = [(question.as_str(), *typed)];
            let ran = all
                .house
                .on_terminal(80, &steps, &all.arguments(case))
                .await;
            assert!(ran.ends(*code).contains(text), "{case:?} {typed:?} {ran:?}");
            assert!(!ran.out.contains("^Cerror"), "{ran:?}");
            assert_eq!(all.changed(&before).await, NONE, "{case:?} {typed:?}");
        }
    }
    assert_eq!(all.house.app.fake.call_log().len(), calls);
}

#[tokio::test]
async fn the_id_of_a_data_key_or_of_a_tenant_of_the_log_that_is_typed_confirms() {
    let all = All::new(House::new().await).await;
    for path in ["audit erase", "keys destroy"] {
        confirmed(&all, path).await;
    }
    // Another house, because the key is destroyed.
    let all = All::new(House::new().await).await;
    confirmed(&all, "keys promote").await;
}

/// Types the right word at the question of a command, and checks that the change was made.
async fn confirmed(all: &All, path: &str) {
    let case = EVERY.into_iter().find(|case| case.0 == path);
    let case = case.expect("it is in the table");
    let word = all.word(case);
    let (question, typed) = (format!("Type {word} to continue: "), format!("{word}\n"));
    let steps = [(question.as_str(), typed.as_str())];
    let ran = all
        .house
        .on_terminal(100, &steps, &all.arguments(case))
        .await;
    ran.ends(0);
    let listed = all.house.run(&["keys", "list"]).await;
    let line = listed.ends(0).lines().find(|line| line.starts_with(word));
    match path {
        "keys promote" => assert!(line.is_some_and(|it| it.contains("primary")), "{listed:?}"),
        "keys destroy" => assert_eq!(line, None, "{listed:?}"),
        _ => {
            let again = [&all.arguments(case)[..], &["--yes"]].concat();
            all.house.run(&again).await.ends(3);
        }
    }
}
