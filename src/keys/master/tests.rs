use super::*;
use crate::seal::KeyId;

fn key(byte: &str) -> String {
    byte.repeat(32)
}

fn context() -> KeyContext<'static> {
    KeyContext {
        app: "1.2",
        key_id: KeyId::from_bytes([1; 16]),
        epoch: 1,
    }
}

fn local(text: &str) -> LocalKeyProvider {
    master_keys(text).expect("the text has keys")
}

async fn wrapped(by: &impl KeyProvider) -> Vec<u8> {
    let (_, wrapped) = by
        .generate(&context())
        .await
        .expect("a local provider works");
    wrapped
}

#[tokio::test]
async fn the_first_line_is_the_primary_and_the_others_are_retired() {
    let text = format!("# new\n{}\n\n  {}  \r\n# end", key("11"), key("22"));
    let both = local(&text);
    let old = wrapped(&local(&key("22"))).await;
    both.unwrap(&old, &context())
        .await
        .expect("the second line is a retired key");
    let new = wrapped(&both).await;
    let first = local(&key("11")).unwrap(&new, &context()).await;
    first.expect("the first line is the primary");
}

#[test]
fn one_wrong_line_refuses_the_whole_text() {
    for text in [
        String::new(),
        format!("{}\ncanary", key("11")),
        format!("{}\n{}", key("11"), key("00")),
    ] {
        let refused = master_keys(&text).expect_err("a line is no key");
        assert!(!format!("{refused:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_key_that_is_added_to_a_file_serves_a_running_process() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("the file is writable");
    write(&key("11"));
    let keys = MasterKeys::open(Source::File(file.path().into()))
        .await
        .expect("it has a key");
    let by_other = wrapped(&local(&key("22"))).await;

    write(&format!("{}\n{}", key("22"), key("11")));
    let early = keys.unwrap(&by_other, &context()).await;
    assert!(
        matches!(early, Err(KeyError::UnknownKey { .. })),
        "the file was read less than 10 s ago"
    );
    *keys.0.read_at.lock().await -= READ_AGAIN;
    keys.unwrap(&by_other, &context())
        .await
        .expect("the key was added");

    write("canary");
    *keys.0.read_at.lock().await -= READ_AGAIN;
    let unknown = wrapped(&local(&key("33"))).await;
    let refused = keys.unwrap(&unknown, &context()).await;
    assert!(
        matches!(refused, Err(KeyError::UnknownKey { .. })),
        "{refused:?}"
    );
    keys.unwrap(&by_other, &context())
        .await
        .expect("an unreadable file takes no key away");
}
