//! Where a workspace is kept: a folder, and an S3 server; snapshots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use legwork_e2e::workspace::{Workspace, http, spawn};
use legwork_e2e::{DEADLINE, until};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// All files beneath a folder, our own notes left out.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn add(root: &Path, at: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != ".legwork" {
                    add(root, &path, into);
                }
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                into.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    add(root, root, &mut found);
    found
}

fn write(root: &Path, path: &str, data: impl AsRef<[u8]>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}

async fn post(workspace: &Workspace, path: &str) -> (u16, Value) {
    let answer = http().post(workspace.url(path)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn loaded(workspace: &Workspace) {
    until("the workspace is loaded", || async {
        http().get(workspace.url("/files")).send().await.is_ok_and(|a| a.status() == 200)
    })
    .await;
}

/// Fills, saves, changes, saves, and comes back elsewhere.
async fn comes_back(uri: &str, env: &[(&str, &str)], stored: impl Fn() -> BTreeMap<String, Vec<u8>>) {
    let mut all = env.to_vec();
    all.push(("S3_URI", uri));
    let mut workspace = Workspace::start(&all).await;
    loaded(&workspace).await;
    assert_eq!(contents(&workspace.root).len(), 2, "what was stored by others is loaded");
    for (path, data) in
        [("src/a b.txt", "one"), ("ümlaut", "ü"), ("odd#1%20", "odd"), ("empty", ""), ("gone", "x")]
    {
        write(&workspace.root, path, data);
    }
    let big: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&workspace.root, "big.bin", &big);
    write(&workspace.root, "node_modules/x", "not stored");
    use std::os::unix::fs::PermissionsExt;
    write(&workspace.root, "run.sh", "#!/bin/sh");
    std::fs::set_permissions(workspace.root.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (status, said) = post(&workspace, "/api/storage/save").await;
    assert_eq!((status, &said["files"]), (200, &json!(7)), "{said}");
    assert_eq!(post(&workspace, "/api/storage/save").await.1["files"], 0, "only what has changed");
    std::fs::remove_file(workspace.root.join("gone")).unwrap();
    write(&workspace.root, "src/a b.txt", "two");
    let (_, said) = post(&workspace, "/api/storage/save").await;
    assert_eq!((&said["files"], &said["deleted"]), (&json!(1), &json!(1)), "{said}");
    // What is not saved yet is saved at the end.
    write(&workspace.root, "last", "last");
    assert_eq!(workspace.stop().await, 0);
    let mut want = contents(&workspace.root);
    want.retain(|path, _| !path.starts_with("node_modules"));
    assert_eq!(stored().keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    assert!(stored() == want);
    let mut other = Workspace::start(&all).await;
    loaded(&other).await;
    assert!(contents(&other.root) == want);
    let mode = other.root.join("run.sh").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    // A workspace that is not empty is newer than what is stored.
    write(&other.root, "last", "newer");
    other.kill().await;
    other.again(&all).await;
    loaded(&other).await;
    assert_eq!(std::fs::read(other.root.join("last")).unwrap(), b"newer");
    assert_eq!(post(&other, "/api/storage/save").await.1["files"], 1);
    // The credentials reach no shell.
    let mut client = other.client().await;
    let shown = client.type_until("env; echo E''ND\n", "END\r\n").await;
    assert!(!shown.contains("AWS_"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_kept_in_a_folder() {
    let store = tempfile::tempdir().unwrap();
    write(store.path(), "theirs/x", "x");
    write(store.path(), "y", "y");
    let uri = format!("file://{}", store.path().display());
    let stored = || {
        let found = contents(store.path()).into_iter();
        found.map(|(path, data)| (path.replace("%23", "#").replace("%25", "%"), data)).collect()
    };
    comes_back(&uri, &[], stored).await;
}

/// A real S3 server, over a folder.
struct S3 {
    _process: Child,
    endpoint: String,
    folder: tempfile::TempDir,
}

impl S3 {
    async fn start() -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools/versitygw");
        assert!(tools.exists(), "run scripts/tools first: it builds the S3 server");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/bucket")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(tools)
            .args([
                "--access",
                "key",
                "--secret",
                "secret-secret",
                "--port",
                &format!("127.0.0.1:{port}"),
                "posix",
            ])
            .arg(folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("the S3 server listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { _process: process, endpoint: format!("http://127.0.0.1:{port}"), folder }
    }

    fn env(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret-secret"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ]
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("data/bucket")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_kept_in_s3() {
    let s3 = S3::start().await;
    write(&s3.bucket(), "code/abc/theirs/x", "x");
    write(&s3.bucket(), "code/abc/y", "y");
    write(&s3.bucket(), "code/abcd/other", "another workspace's");
    let root = s3.bucket().join("code/abc");
    comes_back("s3://bucket/code/abc/", &s3.env(), || contents(&root)).await;
    assert_eq!(contents(&s3.bucket().join("code/abcd")).len(), 1);
    // Wrong credentials end the start with their reason; nothing is deleted later.
    let mut env = s3.env().to_vec();
    env[1].1 = "wrong";
    env.push(("S3_URI", "s3://bucket/code/abc/"));
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("ws")).unwrap();
    let (mut process, _) = spawn(home.path(), &home.path().join("ws"), &env).await.unwrap();
    let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(contents(&root).len() > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_a_save_leaves_the_old_or_the_new() {
    const FILES: usize = 300;
    for delay in [0, 5, 15, 30, 50, 80, 120, 200] {
        let store = tempfile::tempdir().unwrap();
        let uri = format!("file://{}", store.path().display());
        let env = [("S3_URI", &*uri)];
        let mut workspace = Workspace::start(&env).await;
        loaded(&workspace).await;
        for n in 0..FILES {
            write(&workspace.root, &format!("d{}/f{n}", n % 7), "old");
        }
        write(&workspace.root, "removed", "old");
        assert_eq!(post(&workspace, "/api/storage/save").await.0, 200);
        for n in 0..FILES {
            write(&workspace.root, &format!("d{}/f{n}", n % 7), "new");
        }
        std::fs::remove_file(workspace.root.join("removed")).unwrap();
        let url = workspace.url("/api/storage/save");
        let saving = tokio::spawn(async move { http().post(url).send().await.map(|a| a.status()) });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        workspace.kill().await;
        let told = saving.await.unwrap().is_ok();
        let other = Workspace::start(&env).await;
        loaded(&other).await;
        let got = contents(&other.root);
        let states: std::collections::BTreeSet<&[u8]> = got.values().map(Vec::as_slice).collect();
        assert_eq!(states.len(), 1, "after {delay} ms: a mixture");
        let is_new = states.contains(&b"new"[..]);
        assert_eq!(got.len(), if is_new { FILES } else { FILES + 1 }, "after {delay} ms");
        assert!(is_new || !told, "a save that was answered is there");
        assert!(!store.path().join(".legwork/pending.tar.zst").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_was_not_loaded_is_not_saved() {
    let store = tempfile::tempdir().unwrap();
    write(store.path(), "precious", "x");
    write(store.path(), ".legwork/manifest.json", "damaged");
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("ws");
    std::fs::create_dir(&root).unwrap();
    let uri = format!("file://{}", store.path().display());
    let (mut process, _) = spawn(home.path(), &root, &[("S3_URI", &uri)]).await.unwrap();
    let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(std::fs::read(store.path().join("precious")).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_made_compared_and_restored() {
    let workspace = Workspace::start(&[]).await;
    let http = http();
    write(&workspace.root, "a", "one");
    write(&workspace.root, "d/b", "one");
    let make = async |name: &str| -> String {
        let body = json!({ "name": name }).to_string();
        let answer = http.post(workspace.url("/api/snapshots")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        made["id"].as_str().unwrap().to_owned()
    };
    let get = async |path: &str| -> Value {
        http.get(workspace.url(path)).send().await.unwrap().json().await.unwrap()
    };
    let first = make("first").await;
    write(&workspace.root, "a", "two");
    write(&workspace.root, "c", "two");
    std::fs::remove_dir_all(workspace.root.join("d")).unwrap();
    write(&workspace.root, "d", "a file now");
    let now = contents(&workspace.root);
    let diff = get(&format!("/api/snapshots/{first}/diff")).await;
    assert_eq!(diff, json!({ "added": ["c", "d"], "changed": ["a"], "deleted": ["d/b"] }));
    let (status, said) = post(&workspace, &format!("/api/snapshots/{first}/restore")).await;
    assert_eq!(status, 200, "{said}");
    let want = [("a".to_owned(), b"one".to_vec()), ("d/b".to_owned(), b"one".to_vec())];
    assert_eq!(contents(&workspace.root), BTreeMap::from(want));
    // What was there before can be had back.
    let before = said["before"]["id"].as_str().unwrap();
    assert_eq!(get("/api/snapshots").await["snapshots"][0]["id"], before);
    assert_eq!(post(&workspace, &format!("/api/snapshots/{before}/restore")).await.0, 200);
    assert_eq!(contents(&workspace.root), now);
    for id in ["nobody", "..%2f..", "a%2fb"] {
        assert_eq!(post(&workspace, &format!("/api/snapshots/{id}/restore")).await.0, 404, "{id}");
    }
    // One that was tampered with is not restored.
    let state = workspace.home.path().join(".local/state/legwork/workspaces");
    let folder = std::fs::read_dir(&state).unwrap().flatten().next().unwrap().path();
    let archive = folder.join(format!(".legwork/snapshots/{first}.tar.zst"));
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let (status, said) = post(&workspace, &format!("/api/snapshots/{first}/restore")).await;
    assert_eq!(status, 502, "{said}");
    assert_eq!(contents(&workspace.root), now);
    let delete = http.delete(workspace.url(&format!("/api/snapshots/{first}"))).send().await.unwrap();
    assert_eq!(delete.status(), 204);
    assert!(!archive.exists());
}
