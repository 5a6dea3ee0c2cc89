use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::keys::connect;

/// 32 bytes in hex.
fn key(byte: &str) -> String {
    byte.repeat(32)
}

async fn kind_of(url: &str) -> Option<KeySetupErrorKind> {
    let connected = connect(url).await;
    connected.err().map(|refused| {
        let text = crate::error_chain::error_chain(&refused);
        assert!(!text.contains("canary"), "{text}");
        refused.kind()
    })
}

fn script(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the directory is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    (directory, format!("key-command:{}", path.display()))
}

#[tokio::test]
async fn a_command_writes_the_key_and_gets_its_arguments_without_a_shell() {
    let (_directory, url) = script("[ \"$1\" = 'a b;c' ] && [ $# = 2 ] && echo \"$2\"");
    let url = format!("{url}?arg=a%20b;c&arg={}", key("11"));
    assert_eq!(kind_of(&url).await, None);
}

#[tokio::test]
async fn a_command_that_fails_is_refused_even_if_it_wrote_a_key() {
    let (_directory, url) = script(&format!("echo {}; exit 3", key("11")));
    assert_eq!(kind_of(&url).await, Some(KeySetupErrorKind::Unreadable));
    let missing = kind_of("key-command:/nowhere/canary").await;
    assert_eq!(missing, Some(KeySetupErrorKind::Unreadable));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_when_its_time_is_over() {
    for hangs in [
        "echo $$ >PID; exec sleep 600",
        "echo $$ >PID; exec >&-; exec sleep 600",
    ] {
        let (directory, url) = script(&hangs.replace("PID", "\"$(dirname \"$0\")/pid\""));
        let hung = kind_of(&format!("{url}?timeout=1")).await;
        assert_eq!(hung, Some(KeySetupErrorKind::Unavailable), "{hangs}");
        let pid = std::fs::read_to_string(directory.path().join("pid")).expect("it was started");
        let process = format!("/proc/{}", pid.trim());
        assert!(!Path::new(&process).exists(), "the program was killed");
    }
}

#[tokio::test]
async fn output_without_end_is_refused() {
    let (_directory, url) = script("exec yes canary");
    assert_eq!(kind_of(&url).await, Some(KeySetupErrorKind::Invalid));
}

#[tokio::test]
async fn a_descriptor_of_a_file_or_a_pipe_has_the_key() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), key("11")).expect("the file is writable");
    let open = File::open(file.path()).expect("it exists");
    assert_eq!(kind_of(&format!("key-fd:{}", open.as_raw_fd())).await, None);

    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, key("11").as_bytes()).expect("it has room");
    drop(writer);
    assert_eq!(
        kind_of(&format!("key-fd:{}", reader.as_raw_fd())).await,
        None
    );
    let closed = kind_of("key-fd:9999").await;
    assert_eq!(closed, Some(KeySetupErrorKind::Unreadable));
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_nobody_writes_to_does_not_block_the_start_for_ever() {
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let hung = kind_of(&format!("key-fd:{}", reader.as_raw_fd())).await;
    assert_eq!(hung, Some(KeySetupErrorKind::Unavailable));
}

#[tokio::test]
async fn an_environment_variable_that_is_not_set_or_no_key_is_refused() {
    let unset = kind_of("key-env:SLACK_INSTALLS_NO_SUCH_VARIABLE").await;
    assert_eq!(unset, Some(KeySetupErrorKind::Unreadable));
    assert_eq!(
        kind_of("key-env:PATH").await,
        Some(KeySetupErrorKind::Invalid)
    );
}

#[tokio::test]
async fn a_file_that_is_no_key_is_refused_and_not_shown() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let url = format!("key-file:{}", file.path().display());
    let zeros = key("00");
    for text in [
        "",
        "# only a comment\n",
        "canary",
        &zeros,
        &"c".repeat(LONGEST + 1),
    ] {
        std::fs::write(file.path(), text).expect("the file is writable");
        assert_eq!(
            kind_of(&url).await,
            Some(KeySetupErrorKind::Invalid),
            "{}",
            text.len()
        );
    }
    std::fs::write(file.path(), b"\xff\xfe").expect("the file is writable");
    assert_eq!(kind_of(&url).await, Some(KeySetupErrorKind::Invalid));
    assert_eq!(
        kind_of("key-file:/nowhere").await,
        Some(KeySetupErrorKind::Unreadable)
    );
}
