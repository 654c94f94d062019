//! The folders of other hubs: of version 0.1, in use, from the future, damaged. What can't be opened is named and
//! left as it is; what is damaged costs nothing else.
#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use legwork_hub::{Settings, listen};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// The secret of the fixtures' admin.
const SECRET: &str = "lwk_of_version_0_1";

/// A frame of an event file of version 0.1: length, kind, run, offset, payload.
fn frame(kind: u8, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The folder of a hub as one of version 0.1 left it, with a store of that version.
fn folder(dir: &Path, version: u32) -> PathBuf {
    let data = dir.join("hub");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/fixtures");
    let sql = std::fs::read_to_string(fixtures.join(format!("hub-v{version}.sql"))).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("hub.id"), "hub_1\n").unwrap();
    let connection = Connection::open(data.join("hub.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(&sql).unwrap();
    let hash: String = Sha256::digest(SECRET).iter().map(|b| format!("{b:02x}")).collect();
    connection.execute("UPDATE tokens SET hash = ?1 WHERE id = 'tok_1'", [hash]).unwrap();
    for (id, spread, frames) in [
        (
            "tsk_1",
            "_1",
            [
                frame(2, 0, br#"{"run":"run_1","runner":"web-1","state":"queued","at_ms":1}"#),
                frame(0, 0, b"Linux\n"),
                frame(2, 0, br#"{"run":"run_1","runner":"web-1","state":"succeeded","at_ms":2}"#),
                frame(3, 0, br#"{"task":"tsk_1"}"#),
            ],
        ),
        (
            "pod-0000000001",
            "01",
            [
                frame(2, 0, br#"{"type":"state","state":"queued","message":"queued"}"#),
                frame(2, 0, br#"{"type":"token","delta":"hello"}"#),
                frame(2, 0, br#"{"type":"done"}"#),
                frame(3, 0, br#"{"type":"state","state":"succeeded"}"#),
            ],
        ),
    ] {
        std::fs::create_dir_all(data.join("events").join(spread)).unwrap();
        std::fs::write(data.join("events").join(spread).join(id), frames.concat()).unwrap();
    }
    data
}

/// Changes the store of a folder.
fn change(data: &Path, sql: &str) {
    let connection = Connection::open(data.join("hub.db")).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Every file of a folder, but for the one that says who uses it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.metadata().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_name() != "lock" {
            found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

struct Hub {
    url: String,
    http: reqwest::Client,
    _stop: watch::Sender<bool>,
}

impl Hub {
    async fn open(data: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (hub, _) = legwork_hub::Hub::open(data, Settings::default()).await.unwrap();
        let listening = listen(hub, ([127, 0, 0, 1], 0).into(), None, None).await.ok().unwrap();
        let url = format!("http://{}/api/v1", listening.address);
        let stop = watch::Sender::new(false);
        tokio::spawn(listening.serve(stop.subscribe()));
        Self { url, http: reqwest::Client::new(), _stop: stop }
    }

    async fn text(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(SECRET);
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
        response.text().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }
}

/// Opens what can't be opened; says why it can't.
async fn refused(data: &Path) -> String {
    let before = files(data);
    let error = legwork_hub::Hub::open(data, Settings::default()).await.unwrap_err().to_string();
    let after = files(data);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{error}");
    assert!(before == after, "something was written: {error}");
    error
}

#[tokio::test]
async fn the_folder_of_a_hub_of_version_0_1_is_taken_over() {
    for version in 1..=5 {
        let dir = tempfile::tempdir().unwrap();
        let data = folder(dir.path(), version);
        let hub = Hub::open(&data).await;
        let tasks = hub.get("/tasks?limit=99").await;
        let tasks = tasks["items"].as_array().unwrap();
        assert_eq!(tasks.len(), if version == 1 { 4 } else { 6 }, "version {version}");
        let one = hub.get("/tasks/tsk_1").await;
        assert_eq!((&one["state"], &one["runs"][0]["exit_code"]), (&json!("succeeded"), &json!(0)));
        let events = hub.text("/tasks/tsk_1/events?follow=false").await;
        assert!(
            events.contains("Linux") && events.ends_with("event: end\ndata: {\"task\":\"tsk_1\"}\n\n"),
            "{events}"
        );
        // What was under way is under way.
        assert_eq!(hub.get("/tasks/tsk_2").await["state"], "running");
        assert_eq!(hub.get("/runners").await["items"][0]["name"], "web-1");
        if version > 1 {
            assert_eq!(hub.get("/pods/tasks/1").await["state"], "succeeded");
            let by_number = hub.text("/pods/tasks/1/events?follow=false").await;
            let by_id = hub.text("/tasks/pod-0000000001/events?follow=false").await;
            assert!(by_number.contains("hello") && by_id.contains("hello"), "{by_number}{by_id}");
        }
    }
}

#[tokio::test]
async fn a_folder_from_the_future_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = folder(dir.path(), 5);
    change(&data, "PRAGMA user_version = 99");
    let error = refused(&data).await;
    assert!(error.contains("hub.db") && error.contains("newer version (99)"), "{error}");
    // The same folder, once it is what this hub knows.
    change(&data, "PRAGMA user_version = 5");
    Hub::open(&data).await.get("/tasks/tsk_1").await;
}

#[tokio::test]
async fn two_hubs_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = folder(dir.path(), 5);
    let first = Hub::open(&data).await;
    let error = legwork_hub::Hub::open(&data, Settings::default()).await.unwrap_err().to_string();
    assert_eq!(error, format!("another hub is using {}", data.display()));
    // The first one goes on.
    assert_eq!(first.get("/tasks/tsk_1").await["state"], "succeeded");
}

#[tokio::test]
async fn a_damaged_store_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = folder(dir.path(), 5);
    change(&data, "SELECT 1");
    let whole = std::fs::read(data.join("hub.db")).unwrap();
    // The head is another's; the first page is; the file is cut off.
    for (what, bytes) in [
        ("not a database", [&b"no head "[..], &whole[8..]].concat()),
        ("malformed", [&whole[..100], &[0xAA; 3996], &whole[4096..]].concat()),
        ("malformed", whole[..5000].to_vec()),
    ] {
        std::fs::write(data.join("hub.db"), bytes).unwrap();
        let error = refused(&data).await;
        assert!(error.contains("hub.db") && error.contains(what), "{error}");
    }
    std::fs::write(data.join("hub.db"), &whole).unwrap();
    Hub::open(&data).await.get("/tasks/tsk_1").await;
}

/// A hub that began anew beside what an earlier one left would have lost all tasks and tokens
/// without a word.
#[tokio::test]
async fn a_folder_that_has_lost_a_part_is_named_and_left_alone() {
    for (part, is_emptied, wanted) in
        [("hub.db", false, "is missing"), ("hub.db", true, "is empty"), ("hub.id", true, "is empty")]
    {
        let dir = tempfile::tempdir().unwrap();
        let data = folder(dir.path(), 5);
        std::fs::write(data.join("admin.token"), format!("{SECRET}\n")).unwrap();
        match is_emptied {
            true => std::fs::write(data.join(part), "").unwrap(),
            false => std::fs::remove_file(data.join(part)).unwrap(),
        }
        let error = refused(&data).await;
        assert!(error.contains(part) && error.contains(wanted) && error.contains("from a copy"), "{error}");
    }
}

/// One bad file or row costs its own task, and no other.
#[tokio::test]
async fn what_is_damaged_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = folder(dir.path(), 5);
    change(&data, "UPDATE runs SET state = 'pondered' WHERE id = 'run_2'");
    let shared = data.join("events/shared");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("pack-0000000001"), b"this was a pack").unwrap();
    std::fs::write(shared.join("journal-0000000002"), b"this was a journal").unwrap();
    // A folder where the events of the task should be.
    std::fs::create_dir_all(data.join("events/_3/tsk_3")).unwrap();
    let hub = Hub::open(&data).await;
    let lost = hub.get("/tasks/tsk_2?wait_s=60").await;
    assert_eq!(lost["state"], "lost", "{lost}");
    assert!(lost["runs"][0]["error"].as_str().unwrap().contains("state"), "{lost}");
    let unreadable = hub.get("/tasks/tsk_3?wait_s=60").await;
    assert_eq!(unreadable["state"], "lost", "{unreadable}");
    assert_eq!(hub.get("/tasks/tsk_1").await["state"], "succeeded");
    assert!(hub.text("/tasks/tsk_1/events?follow=false").await.contains("Linux"));
    assert!(hub.text("/pods/tasks/1/events?follow=false").await.contains("hello"));
    assert_eq!(std::fs::read(shared.join("pack-0000000001")).unwrap(), b"this was a pack");
}
