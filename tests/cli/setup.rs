//! `init`, `completions` and `man`.

use super::House;

#[tokio::test]
async fn init_makes_files_that_only_the_owner_reads_and_that_the_program_accepts() {
    let mut house = House::new().await;
    let client_id = house.values["SLACK_CLIENT_ID"].clone();
    house.values.clear();
    let ran = house.run(&["init"]).await;
    ran.ends(0);
    let key = house.path("master-key");
    let config = house.path("slack-installs.conf");
    #[cfg(unix)]
    for path in [&key, &config] {
        use std::os::unix::fs::PermissionsExt as _;

        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let secret = std::fs::read_to_string(&key).expect("a file");
    assert!(!ran.out.contains(secret.trim()) && secret.trim().len() == 44);
    // It replaces no file.
    house.run(&["init"]).await.ends(4);
    assert_eq!(std::fs::read_to_string(&key).expect("a file"), secret);
    // Nor does it make a key for a configuration that has another one.
    std::fs::create_dir(house.path("old")).expect("the directory is ours");
    let old = house.path("old/slack-installs.conf");
    std::fs::write(old, "").expect("the directory is ours");
    house.run(&["init", "--directory", "old"]).await.ends(4);
    assert!(!house.path("old/master-key").exists());

    let text = std::fs::read_to_string(&config).expect("a file");
    let text = text.replace("SLACK_CLIENT_ID=", &format!("SLACK_CLIENT_ID={client_id}"));
    std::fs::write(&config, text).expect("the file is ours");
    let flag = ["--config", "slack-installs.conf"];
    house.run(&[&["migrate"], &flag[..]].concat()).await.ends(0);
    let ran = house.run(&[&["stats"], &flag[..]].concat()).await;
    // The app has not made its first data key yet.
    ran.ends(4);
    assert!(ran.err.contains("no data keys yet"), "{ran:?}");
}

#[tokio::test]
async fn completions_and_manual_pages_are_made() {
    let house = House::new().await;
    for shell in ["bash", "zsh", "fish"] {
        let ran = house.run(&["completions", shell]).await;
        assert!(ran.ends(0).contains("explain"), "{ran:?}");
    }
    let ran = house.run(&["man"]).await;
    assert!(ran.ends(0).contains(".TH slack-installs"), "{ran:?}");
    house.run(&["man", "pages"]).await.ends(0);
    let page = std::fs::read_to_string(house.path("pages/slack-installs-explain.1"));
    assert!(page.expect("a page").contains("explain"));
}
