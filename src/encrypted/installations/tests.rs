use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::*;
use crate::backend::{Metadata, Sealed, Version};
use crate::encrypted::record::Draft;

/// The newest golden database. `tests/store/golden.rs` reads the older ones.
const DATABASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/database-1.json");

#[test]
fn todays_code_writes_the_golden_forms_to_the_byte() {
    let mut written = 0;
    for tenant in tenants().values() {
        let record = |prefix: &str| {
            let mut slots = tenant.iter().filter(|(slot, _)| slot.starts_with(prefix));
            slots.next().map(|(_, record)| record)
        };
        let install = record("install").expect("every tenant has this record");
        let (bot, user) = (record("bot"), record("user/"));
        let installation = opened(install, bot, user).expect("a known form");

        let steps = stored_over(&installation, &[None, None, None]);
        let steps = steps.expect("nothing is stored").into_iter();
        assert_eq!(steps.len(), tenant.len());
        for (step, golden) in steps.zip([Some(install), bot, user].into_iter().flatten()) {
            let Step::Put(_, draft) = step else {
                panic!("nothing is stored");
            };
            assert_same(&draft, golden);
        }
        written += tenant.len();
    }
    assert_eq!(written, 7);
}

#[test]
fn a_form_of_a_later_version_or_of_another_kind_is_refused_and_not_written_over() {
    for tenant in tenants().into_values() {
        for (slot, record) in tenant {
            let text = record.row.metadata.as_str();
            let (_, rest) = text.split_once("\"kind\":\"").expect("a kind");
            let kind = rest.split('"').next().expect("its end");
            let named = |kind: &str| format!("\"kind\":\"{kind}\"");
            for metadata in [
                text.replace("\"v\":1", "\"v\":2"),
                text.replace(&named(kind), &named("other")),
            ] {
                assert_ne!(metadata, text);
                let other = Record {
                    row: row(&metadata),
                    plaintext: record.plaintext.clone(),
                };
                let refused = match slot.as_str() {
                    "install" => InstallFacts::read(&other).is_err(),
                    "bot" => grant_facts::bot(&other).is_err(),
                    _ => grant_facts::user(&other).is_err(),
                };
                assert!(refused, "{metadata}");
                assert!(install_facts::summary(&other.row).is_none());
            }
            let summary = install_facts::summary(&record.row);
            assert_eq!(summary.is_some(), slot == "install");
        }
    }
}

#[test]
fn members_that_this_version_does_not_know_are_ignored() {
    for tenant in tenants().into_values() {
        let with_more = |record: &Record| {
            let more = |json: &str| {
                let json = json.strip_suffix('}').expect("an object");
                format!("{json},\"later\":{{\"x\":[1]}}}}")
            };
            let plaintext = String::from_utf8(record.plaintext.to_vec()).expect("JSON");
            let plaintext = Zeroizing::new(more(&plaintext).into_bytes());
            Record {
                row: row(&more(record.row.metadata.as_str())),
                plaintext,
            }
        };
        let install = with_more(&tenant["install"]);
        let bot = tenant.get("bot").map(with_more);
        let opened = opened(&install, bot.as_ref(), None).expect("opens");
        assert_eq!(opened.bot.is_some(), bot.is_some());
    }
}

fn assert_same(draft: &Draft, golden: &Record) {
    assert_eq!(draft.metadata, golden.row.metadata.as_str());
    assert_eq!(draft.plaintext, golden.plaintext);
}

/// Returns the golden records of each tenant by slot.
fn tenants() -> BTreeMap<String, BTreeMap<String, Record>> {
    let text = std::fs::read_to_string(DATABASE).expect("the golden database exists");
    let database: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut tenants: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for golden in database["rows"].as_array().expect("rows") {
        let text = |name: &str| golden[name].as_str().unwrap_or_default().to_owned();
        if text("slot") != "state" && !text("partition").ends_with("/keyring") {
            let plaintext = Zeroizing::new(text("plaintext").into_bytes());
            let record = Record {
                row: row(&text("metadata")),
                plaintext,
            };
            tenants
                .entry(text("partition"))
                .or_default()
                .insert(text("slot"), record);
        }
    }
    tenants
}

fn row(metadata: &str) -> Row {
    Row {
        version: Version::mint(),
        metadata: Metadata::new(metadata),
        sealed: Sealed::from_stored([]),
        due: None,
    }
}

fn opened(
    install: &Record,
    bot: Option<&Record>,
    user: Option<&Record>,
) -> Result<StoredInstallation, Error> {
    let copy = |record: &Record| Record {
        row: record.row.clone(),
        plaintext: record.plaintext.clone(),
    };
    let records = [Some(install), None, bot, user].map(|record| record.map(copy));
    stored(&records).map(|stored| stored.expect("the installation has facts"))
}
