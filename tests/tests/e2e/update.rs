//! Updates, with two built versions: found, checked, tried, put in place, and put
//! aside if they do not work.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_e2e::{ALLOW_ALL, Api, Hub, Runner, legwork_at, until};
use legwork_release::SecretKey;
use serde_json::json;

const NEXT: &str = env!("CARGO_BIN_EXE_legwork-next");

/// A release folder with one program as the given version.
fn publish(folder: &Path, version: &str, program: &Path, key: &SecretKey) {
    std::fs::create_dir_all(folder).unwrap();
    let name = format!("legwork_{}.tar.gz", legwork_release::target());
    let file = std::fs::File::create(folder.join(name)).unwrap();
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    archive.append_path_with_name(program, "legwork").unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    legwork_release::make(folder, version, key).unwrap();
}

/// A program that says it is `version`, and then does what the line says.
fn script(path: &Path, version: &str, line: &str) {
    let mut file = std::fs::File::create(path).unwrap();
    write!(file, "#!/bin/sh\n[ \"$1\" = version ] && echo legwork {version} && exit 0\n{line}\n").unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A hub that publishes, and a runner, installed in a folder of its own, that is to
/// be updated.
struct Bench {
    dir: tempfile::TempDir,
    hub: Hub,
    api: Api,
    key: SecretKey,
    home: PathBuf,
    program: PathBuf,
    runner: Runner,
}

impl Bench {
    async fn start(auto: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(&dir.path().join("hub")).await;
        let token = hub.runner_token("r1").await;
        let key = SecretKey::generate().unwrap();
        let home = dir.path().join("home");
        let program = dir.path().join("opt/legwork");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::copy(legwork_e2e::binary(), &program).unwrap();
        let more = format!("update_url: hub\nupdate_public_key: \"{}\"\nauto_update: {auto}\n", key.public());
        let url = format!("ws://{}/runner/ws", hub.address());
        Runner::configure(&home, &url, &token, ALLOW_ALL, &more);
        let runner = Runner::again_at(&program, &home).await;
        let api = hub.api();
        until("the runner connects", || api.is_online("r1")).await;
        Self { dir, hub, api, key, home, program, runner }
    }

    fn releases(&self) -> PathBuf {
        self.hub.data.join("releases")
    }

    async fn update(&self, args: &[&str]) -> (i32, String) {
        let output = legwork_at(&self.program, &self.home).arg("update").args(args).output().await.unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text)
    }

    async fn version(&self) -> String {
        self.api.get("/runners/r1").await.1["version"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_new_version_takes_over_and_running_commands_go_on() {
    let bench = Bench::start(false).await;
    let old = legwork_release::version();
    let (status, text) = bench.update(&[]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("404"), "{text}");
    publish(&bench.releases(), "99.0.0", Path::new(NEXT), &bench.key);
    let (status, text) = bench.update(&["--check"]).await;
    assert_eq!((status, text.trim()), (0, format!("{old} is installed, 99.0.0 is available").as_str()));
    assert_eq!(bench.version().await, old);
    let pid = bench.runner.pid();
    let task = bench.api.bash("r1", "echo before; sleep 4; echo after").await;
    until("it runs", || async { bench.api.get(&format!("/tasks/{task}")).await.1["state"] == "running" })
        .await;
    let (status, text) = bench.update(&[]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("installed 99.0.0"), "{text}");
    until("the new version is connected", || async { bench.version().await == "99.0.0" }).await;
    let end = bench.api.end(&task).await;
    assert_eq!(end["runs"][0]["result"]["stdout"], "before\nafter\n", "{end}");
    assert_eq!(end["runs"][0]["state"], "succeeded");
    // The same process, as who looks after it sees it.
    assert_eq!(bench.runner.pid(), pid);
    let said = legwork_at(&bench.program, &bench.home).arg("version").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "legwork 99.0.0\n");
    let left: Vec<_> = std::fs::read_dir(bench.program.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["legwork"]);
    // Back again only if that is asked for.
    publish(&bench.releases().join(format!("v{old}")), old, &legwork_e2e::binary(), &bench.key);
    let (status, text) = bench.update(&["--version", old]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("--allow-downgrade"), "{text}");
    let (status, text) = bench.update(&["--version", old, "--allow-downgrade"]).await;
    assert_eq!(status, 0, "{text}");
    until("the old version is connected", || async { bench.version().await == old }).await;
}

#[tokio::test]
async fn a_version_that_can_not_connect_is_put_aside() {
    let bench = Bench::start(false).await;
    let broken = bench.dir.path().join("broken");
    script(&broken, "98.0.0", "exit 3");
    publish(&bench.releases(), "98.0.0", &broken, &bench.key);
    let task = bench.api.bash("r1", "sleep 3; echo spared").await;
    until("it runs", || async { bench.api.get(&format!("/tasks/{task}")).await.1["state"] == "running" })
        .await;
    let (status, text) = bench.update(&[]).await;
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("98.0.0 does not work here, the old version runs on: it ended before it was connected"),
        "{text}"
    );
    assert_eq!(bench.api.end(&task).await["runs"][0]["result"]["stdout"], "spared\n");
    until("the old version is back", || bench.api.is_online("r1")).await;
    assert_eq!(bench.version().await, legwork_release::version());
    assert_eq!(bench.api.run("r1", "echo ok").await["result"]["stdout"], "ok\n");
    // A person may try it once more, and is answered again.
    let (status, text) = bench.update(&[]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("98.0.0 does not work here"), "{text}");
}

#[tokio::test]
async fn nothing_unsigned_or_foreign_is_run() {
    let bench = Bench::start(false).await;
    let folder = bench.releases();
    let trap = bench.dir.path().join("trap");
    let evidence = bench.dir.path().join("evidence");
    std::fs::write(&trap, format!("#!/bin/sh\ntouch {}\n", evidence.display())).unwrap();
    std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = async |want: &str| {
        let (status, text) = bench.update(&[]).await;
        assert_eq!(status, 1, "{text}");
        assert!(text.contains(want), "{want}: {text}");
        assert!(!evidence.exists(), "{want}");
    };
    // By another key.
    publish(&folder, "99.0.0", &trap, &SecretKey::generate().unwrap());
    refused("signature does not fit").await;
    // The archive swapped after signing.
    publish(&folder, "99.0.0", Path::new(NEXT), &bench.key);
    let archive = folder.join(format!("legwork_{}.tar.gz", legwork_release::target()));
    let signed = std::fs::read(&archive).unwrap();
    publish(&bench.dir.path().join("other"), "99.0.0", &trap, &bench.key);
    std::fs::copy(bench.dir.path().join("other").join(archive.file_name().unwrap()), &archive).unwrap();
    refused("is not what the manifest says").await;
    // Cut short.
    std::fs::write(&archive, &signed[..signed.len() / 2]).unwrap();
    refused("is not what the manifest says").await;
    // Rightly signed, but for another machine.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("legwork_Plan9_mips.tar.gz"), "x").unwrap();
    legwork_release::make(&folder, "99.0.0", &bench.key).unwrap();
    refused("has no archive for").await;
    // Rightly signed, and not what it says.
    let liar = bench.dir.path().join("liar");
    script(&liar, "97.0.0", "exit 1");
    std::fs::remove_dir_all(&folder).unwrap();
    publish(&folder, "99.0.0", &liar, &bench.key);
    refused("not 99.0.0: it is not used").await;
    assert_eq!(bench.version().await, legwork_release::version());
}

#[tokio::test]
async fn a_runner_updates_by_itself_once_a_release_is_there() {
    let mut bench = Bench::start(true).await;
    // The look at the start found nothing; the next start does.
    publish(&bench.releases(), "99.0.0", Path::new(NEXT), &bench.key);
    bench.runner.stop(rustix::process::Signal::USR2).await;
    bench.runner = Runner::again_at(&bench.program, &bench.home).await;
    until("the new version is connected", || async { bench.version().await == "99.0.0" }).await;
    // A version that failed is not tried again by itself.
    let broken = bench.dir.path().join("broken");
    script(&broken, "99.1.0", &format!("echo x >> {}; exit 1", bench.dir.path().join("tries").display()));
    publish(&bench.releases(), "99.1.0", &broken, &bench.key);
    for _ in 0..2 {
        bench.runner.stop(rustix::process::Signal::USR2).await;
        bench.runner = Runner::again_at(&bench.program, &bench.home).await;
        until("it is connected", || bench.api.is_online("r1")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(std::fs::read_to_string(bench.dir.path().join("tries")).unwrap(), "x\n");
}

#[tokio::test]
async fn releases_are_for_those_with_a_token_and_lead_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    std::fs::create_dir(dir.path().join("releases")).unwrap();
    std::fs::write(dir.path().join("releases/manifest.json"), "{}").unwrap();
    let get = async |path: &str, token: Option<&str>| {
        let mut request = hub.api().http.get(format!("{}/releases/{path}", hub.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let token = hub.runner_token("r").await;
    assert_eq!(get("manifest.json", None).await, 401);
    assert_eq!(get("manifest.json", Some(&token)).await, 200);
    for path in
        ["..%2Fadmin.token", "%2e%2e/admin.token", "v1/../../admin.token", "v1/x/y", ".hidden", "absent"]
    {
        assert_ne!(get(path, Some(&token)).await, 200, "{path}");
    }
}

#[tokio::test]
async fn a_service_of_another_user_is_updated_from_outside() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED HERE: updating a service of another user (starting one needs root)");
        return;
    }
    use std::os::unix::fs::chown;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let (key, api) = (SecretKey::generate().unwrap(), hub.api());
    let token = hub.runner_token("r1").await;
    let (home, program) = (dir.path().join("home"), dir.path().join("legwork"));
    std::fs::copy(legwork_e2e::binary(), &program).unwrap();
    let more = format!("update_url: hub\nupdate_public_key: \"{}\"\nauto_update: false\n", key.public());
    let url = format!("ws://{}/runner/ws", hub.address());
    Runner::configure(&home, &url, &token, ALLOW_ALL, &more);
    for path in [home.clone(), home.join(".legwork"), home.join(".legwork/config.yaml")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    // Who looks after it: starts it again whenever it ends.
    let (keep_program, keep_home) = (program.clone(), home.clone());
    let keeper = tokio::spawn(async move {
        loop {
            let mut command = legwork_at(&keep_program, &keep_home);
            command.uid(65534).gid(65534).arg("run").current_dir("/").stdout(std::process::Stdio::null());
            let _ = command.spawn().unwrap().wait().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    until("the runner connects", || api.is_online("r1")).await;
    publish(&hub.data.join("releases"), "99.0.0", Path::new(NEXT), &key);
    let task = api.bash("r1", "sleep 2; echo spared").await;
    until("it runs", || async { api.get(&format!("/tasks/{task}")).await.1["state"] == "running" }).await;
    // Another copy of the program would replace itself, and not the one that runs.
    let other = legwork_at(&legwork_e2e::binary(), &home).arg("update").output().await.unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("run that one's update"));
    let output = legwork_at(&program, &home).arg("update").output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(api.get("/runners/r1").await.1["version"], "99.0.0");
    assert_eq!(api.end(&task).await["runs"][0]["result"]["stdout"], "spared\n");
    keeper.abort();
}

#[tokio::test]
async fn without_an_address_or_a_key_update_says_so() {
    let dir = tempfile::tempdir().unwrap();
    Runner::configure(dir.path(), "ws://127.0.0.1:9/", "t", ALLOW_ALL, "");
    let output =
        legwork_at(&legwork_e2e::binary(), dir.path()).args(["update", "--json"]).output().await.unwrap();
    assert!(output.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, json!({ "state": "not_configured", "version": legwork_release::version() }));
}
