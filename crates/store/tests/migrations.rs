//! Stores of earlier hubs are opened and taken to the present version; what can't be read is
//! left as it was, and the error names it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use legwork_store::{Filter, Lane, Runners, Runs, Scope, Sessions, Sqlite, State, Tasks, Tokens};

fn fixture(version: u32) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/hub-v{version}.sql"));
    std::fs::read_to_string(path).unwrap()
}

/// A store as a hub of that version left it.
fn made(dir: &Path, version: u32) -> PathBuf {
    let path = dir.join("hub.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    // A dump fills tables before those that they refer to.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(&fixture(version)).unwrap();
    path
}

#[tokio::test]
async fn the_store_of_each_earlier_version_is_taken_to_the_present_one() {
    for version in 1..=6 {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), version);
        let store = Sqlite::open(&path, Lane::Threads).unwrap();
        let task = |id: &str| store.task(id.to_owned());
        let one = task("tsk_1").await.unwrap().unwrap();
        assert_eq!(one.args, r#"{"command":"uname -a","timeout":120}"#, "version {version}");
        assert_eq!((one.runs[0].state, one.runs[0].exit_code), (State::Succeeded, Some(0)));
        assert!(one.runs[0].result.as_deref().unwrap().contains("Linux"));
        assert!(task("tsk_3").await.unwrap().unwrap().args.contains(&"A".repeat(20_000)));
        let failed = task("tsk_4").await.unwrap().unwrap().runs.remove(0);
        assert!(failed.result.unwrap().contains(&"B".repeat(20_000)));
        let open = store.open_runs().await.unwrap();
        let dialled: Vec<_> = open.iter().filter(|r| r.number.is_none()).collect();
        assert_eq!(dialled.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["run_2", "run_3"]);
        assert!(dialled[0].cancel_requested && dialled[0].state == Some(State::Running));
        assert_eq!(store.find_key(Scope::Runners, "key-1".into()).await.unwrap().unwrap().id, "tsk_1");
        let runner = store.runners().await.unwrap().remove(0);
        assert_eq!((runner.name.as_str(), runner.token_id.as_str()), ("web-1", "tok_2"));
        assert_eq!(store.tokens().await.unwrap().iter().filter(|(_, t)| !t.revoked).count(), 2);
        if version >= 2 {
            the_pool_is_there(&store).await;
        }
        drop(store);
        // And once more: nothing is left to be done.
        Sqlite::open(&path, Lane::Threads).unwrap();
    }
}

async fn the_pool_is_there(store: &Sqlite) {
    let done = store.numbered(1).await.unwrap().unwrap();
    assert_eq!((done.operation.as_str(), done.session_id.as_deref()), ("agent", Some("ses_1")));
    assert_eq!(done.runs[0].usage.as_deref(), Some(r#"{"input_tokens":7}"#));
    let open = store.open_runs().await.unwrap().into_iter().find(|r| r.number == Some(2)).unwrap();
    assert_eq!((open.key.as_deref(), open.attempts), (Some("key-hash"), 2));
    assert!(open.has_effects && open.cancel_requested && open.selection.contains("pod-a"));
    assert!(store.arguments(open.task_id.clone()).await.unwrap().contains(&"C".repeat(20_000)));
    // The same key was used in both places; both keep theirs.
    assert_eq!(store.find_key(Scope::Pool, "key-1".into()).await.unwrap().unwrap().number, Some(1));
    assert_eq!(store.messages("ses_1".into()).await.unwrap()[0].parts[0].text.as_deref(), Some("hello"));
    let list = store.list(Filter { limit: 99, ..Filter::default() }).await.unwrap();
    assert_eq!(list.len(), 6);
}

/// Opens what can't be opened, and says why it can't; nothing of it may change.
fn refused(path: &Path) -> String {
    let before = std::fs::read(path).unwrap();
    let error = Sqlite::open(path, Lane::Threads).unwrap_err().to_string();
    assert_eq!(std::fs::read(path).unwrap(), before, "{error}");
    assert!(error.contains("hub.db"), "{error}");
    error
}

#[tokio::test]
async fn a_store_from_the_future_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE things (id TEXT); PRAGMA user_version = 99").unwrap();
    drop(connection);
    assert!(refused(&path).contains("newer version (99)"));
}

#[tokio::test]
async fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    std::fs::write(&path, "this is a text, and it is longer than a header of a database ".repeat(99))
        .unwrap();
    assert!(refused(&path).contains("not a database"));
    std::fs::remove_file(&path).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE things (id TEXT)").unwrap();
    drop(connection);
    assert!(refused(&path).contains("no hub's"));
}

#[tokio::test]
async fn a_damaged_store_of_an_earlier_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    // A table is missing that a step needs.
    let path = made(dir.path(), 2);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA wal_checkpoint(TRUNCATE); DROP TABLE pod_tasks; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    drop(connection);
    let error = Sqlite::open(&path, Lane::Threads).unwrap_err().to_string();
    assert!(error.contains("hub.db") && error.contains("left as it was"), "{error}");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 4);
    assert!(version < 6, "the step that failed is not counted");
    drop(connection);
    // Pages are overwritten.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..4096].fill(0xAA);
    std::fs::write(&path, bytes).unwrap();
    assert!(refused(&path).contains("malformed"));
}
