//! The SQL of the guide about storage.

use slack_installs::{ClientId, EncryptedStore, InstallationStore as _, LocalKeyProvider, Scopes};

use super::servers::postgres::{Postgres, fetch};
use super::support::installs::{With as _, in_org, in_workspace, rotating, with_both};
use super::support::providers::master_key;
use super::{fast, open};

use sqlx::Row as _;

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_and_the_queries_of_the_guide_are_those_of_the_database() {
    let guide = include_str!("../../docs/storage.md").split("```sql\n");
    let blocks = guide
        .skip(1)
        .map(|it| it.split("\n```").next().expect("its end"));
    let (schemas, queries): (Vec<_>, Vec<_>) =
        blocks.partition(|block| block.starts_with("CREATE TABLE"));
    let [_, schema] = schemas[..] else {
        panic!("the guide has the table of SQLite and that of Postgres");
    };
    let migration = include_str!("../../src/backend/postgres/1.sql");
    assert!(migration.contains(schema), "{schema}");

    let server = Postgres::start_with(&["wal_sync_method=fdatasync"]).await;
    let url = server.database("guide").await;
    let app = ClientId::new("100000000001.200000000002").expect("an id");
    let keys = LocalKeyProvider::new(master_key());
    let store = EncryptedStore::open(open(&url, fast()).await, keys, app).await;
    let store = store.expect("the database is up");
    // Of three bots, one lacks the scope `commands`, and one has a token that must be refreshed.
    let mut poor = in_workspace("T0BRAVO0001").with_bot("xoxb-2");
    let bot = poor.bot.as_mut().expect("a bot");
    bot.grant.scopes = Scopes::from("chat:write");
    let mut org = in_org("E0BIG000001", None).with_bot("xoxb-3");
    let bot = org.bot.as_mut().expect("a bot");
    bot.grant = rotating("xoxe.xoxb-3", "xoxe-3");
    let full = with_both("T0ALPHA0001", "xoxb-1", "U0ADMIN0001", "xoxp-1");
    for installation in [full, poor, org] {
        store.store(&installation).await.expect("stored");
    }
    let found = async |query: &str| {
        let query = query.trim_end().trim_end_matches(';');
        let query = format!("SELECT to_jsonb(found)::text FROM ({query}) found");
        let rows = fetch(&url, &query).await;
        rows.iter()
            .map(|row| row.get::<String, _>(0))
            .collect::<Vec<_>>()
    };
    let [newest, people, poor, waiting] = queries[..] else {
        panic!("the guide has four queries");
    };
    assert_eq!(found(newest).await.len(), 3);
    let people = found(people).await;
    assert_eq!(
        people[0], r#"{"people": 1, "tenant": "T0ALPHA0001"}"#,
        "{people:?}"
    );
    assert_eq!(people.len(), 3);
    assert_eq!(
        found(poor).await,
        [r#"{"scopes": "chat:write", "team_id": "T0BRAVO0001"}"#]
    );
    let waiting = found(waiting).await;
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert!(waiting[0].contains(r#""waiting": 1"#), "{waiting:?}");
}
