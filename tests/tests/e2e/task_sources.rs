//! What a task works on, from real git servers, and what it brings back to them; and what others would
//! like that to be.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_e2e::git::{GitServer, git};
use legwork_e2e::model::{Answer, Model};
use legwork_e2e::pod::{Callback, Place, model_env, steps};
use legwork_e2e::sshd::Sshd;
use legwork_e2e::{Hub, legwork};
use serde_json::{Value, json};

const SECRET: &str = "ghp_0123456789abcdef";

/// A repository on a server, with a branch, a tag and a submodule.
fn repository(dir: &Path) -> PathBuf {
    let work = dir.join("work");
    std::fs::create_dir_all(work.join("src")).unwrap();
    git(&work, &["init", "--quiet", "-b", "main"]);
    std::fs::write(work.join("a.txt"), "one\n").unwrap();
    std::fs::write(work.join("src/b.txt"), "b\n").unwrap();
    std::fs::write(work.join(".gitignore"), "ignored\n").unwrap();
    git(&work, &["add", "--all"]);
    git(&work, &["commit", "--quiet", "-m", "one"]);
    git(&work, &["tag", "v1"]);
    std::fs::write(work.join("a.txt"), "two\n").unwrap();
    git(&work, &["commit", "--quiet", "-am", "two"]);
    git(dir, &["clone", "--quiet", "--bare", "work", "repo.git"]);
    work
}

async fn run(task: Value, env: &[(&str, &str)]) -> (Option<i32>, Callback, Place, String) {
    let (place, callback) = (Place::new(), Callback::start().await);
    let ended = place.run(&task, &callback, env).await;
    (ended.code, callback, place, ended.log)
}

fn of(source: Value, result: Value, commands: &[&str]) -> Value {
    let mut task = steps(commands);
    task["source"] = source;
    task["result"] = result;
    task
}

/// A result as it was told, part by part.
fn told(callback: &Callback, kind: &str) -> String {
    let events = callback.of("result");
    let parts = events.iter().filter(|event| event["kind"] == kind);
    parts.map(|event| event["text"].as_str().unwrap()).collect()
}

/// The names in an archive that was told.
fn listing(told: &str) -> String {
    let packed = STANDARD.decode(told).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(&packed[..]).unwrap());
    let entries = archive.entries().unwrap();
    entries.map(|entry| format!("{}\n", entry.unwrap().path().unwrap().display())).collect()
}

#[tokio::test]
async fn a_repository_comes_over_http_and_a_branch_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let server = GitServer::start(dir.path(), Some(SECRET)).await;
    let url = format!("{}/repo.git", server.url);
    let source = json!({"git": {"url": url, "secret": "GH"}});
    let result = json!({
        "diff": true, "branch": {"name": "fix/one", "message": "Fix it"}, "archive": true, "artifacts": ["out/*.bin"],
    });
    let commands = [
        "cat a.txt; git log --oneline | wc -l",
        "echo three > a.txt; rm src/b.txt; echo n > new; echo i > ignored; mkdir out; echo o > out/x.bin",
        // What it leaves in its own repository is believed by nobody.
        "git config core.sshCommand 'touch pwned'; git config url.http://127.0.0.1:1/.insteadOf http://; \
         git config core.fsmonitor 'touch pwned'; git remote set-url origin http://127.0.0.1:1/x; env",
    ];
    let env = [("LEGWORK_SECRET_GH", SECRET)];
    let (code, callback, place, log) = run(of(source.clone(), result, &commands), &env).await;
    assert_eq!(code, Some(0), "{:?}", callback.events());
    let lines: Vec<String> =
        callback.of("log").iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect();
    assert!(lines.contains(&"two".to_owned()) && lines.contains(&"2".to_owned()), "{lines:?}");
    let diff = told(&callback, "diff");
    assert!(diff.contains("+three") && diff.contains("new") && !diff.contains("b/ignored"), "{diff}");
    // The branch is on the server: one commit on top of what was fetched.
    let bare = dir.path().join("repo.git");
    let pushed = told(&callback, "branch");
    let commit = git(&bare, &["rev-parse", "fix/one"]);
    assert_eq!(pushed, format!("fix/one {commit}"));
    assert_eq!(git(&bare, &["show", "fix/one:a.txt"]), "three");
    assert_eq!(git(&bare, &["log", "--format=%s", "fix/one"]), "Fix it\ntwo\none");
    assert_eq!(git(&bare, &["ls-tree", "-r", "--name-only", "fix/one"]), ".gitignore\na.txt\nnew\nout/x.bin");
    assert!(!place.workspace.join("pwned").exists());
    for (kind, wanted) in [("archive", "new"), ("artifacts", "out/x.bin")] {
        let listed = listing(&told(&callback, kind));
        assert!(listed.lines().any(|line| line == wanted), "{kind}: {listed}");
        assert!(!listed.contains("ignored\n") || kind == "archive", "{listed}");
        assert!(!listed.lines().any(|line| line == "ignored" || line.starts_with(".git/")), "{listed}");
    }
    // The secret is nowhere: not in events, not in the log, not in the workspace.
    let all = format!("{:?}{log}", callback.events());
    assert!(!all.contains(SECRET));
    let found =
        std::process::Command::new("grep").args(["-r", SECRET]).arg(&place.workspace).output().unwrap();
    assert!(found.stdout.is_empty());
    // A branch that is there is not written over, and that is the end of such a task.
    let again = json!({"branch": "fix/one"});
    let (code, callback, _, _) = run(of(source.clone(), again, &["echo four > a.txt"]), &env).await;
    let error = callback.of("error").remove(0)["message"].as_str().unwrap().to_owned();
    assert!(code == Some(1) && error.contains("git push ended with"), "{error}");
    assert_eq!(git(&bare, &["rev-parse", "fix/one"]), commit);
    // Tags, commits, depth and folders.
    let first = git(&bare, &["rev-parse", "v1"]);
    for (more, commands) in [
        (json!({"ref": "v1"}), ["test $(cat a.txt) = one"]),
        (
            json!({"ref": first, "depth": 1}),
            ["test $(git log --oneline | wc -l) = 1 && test $(cat a.txt) = one"],
        ),
        (json!({"sparse": ["src"]}), ["test -e src/b.txt && test -e a.txt && ! test -e out"]),
    ] {
        let mut source = source.clone();
        source["git"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (code, callback, _, _) = run(of(source, Value::Null, &commands), &env).await;
        assert_eq!(code, Some(0), "{more} {:?}", callback.events());
    }
}

/// A secret opens the host that it was named for, and no other: neither where that one sends us, nor
/// where a submodule is.
#[tokio::test]
async fn a_secret_goes_to_its_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let work = repository(dir.path());
    let (server, evil) =
        (GitServer::start(dir.path(), Some(SECRET)).await, GitServer::start(dir.path(), Some("x")).await);
    std::fs::write(
        work.join(".gitmodules"),
        format!("[submodule \"s\"]\n\tpath = s\n\turl = {}/repo.git\n", evil.url),
    )
    .unwrap();
    let head = git(&work, &["rev-parse", "HEAD"]);
    git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},s")]);
    git(&work, &["add", ".gitmodules"]);
    git(&work, &["commit", "--quiet", "-m", "sub"]);
    git(&work, &["push", "--quiet", "../repo.git", "HEAD:main"]);
    let env = [("LEGWORK_SECRET_GH", SECRET)];
    let source =
        json!({"git": {"url": format!("{}/repo.git", server.url), "secret": "GH", "submodules": true}});
    let (code, callback, _, _) = run(of(source, Value::Null, &["true"]), &env).await;
    assert_eq!(code, Some(1));
    let error = callback.of("error").remove(0).to_string();
    assert!(error.contains("git submodule ended with"), "{error}");
    assert!(evil.shown().len() > 1, "it was asked");
    *server.elsewhere.lock().unwrap() = Some(evil.url.clone());
    let source = json!({"git": {"url": format!("{}/repo.git", server.url), "secret": "GH"}});
    let (code, _, _, _) = run(of(source, Value::Null, &["true"]), &env).await;
    assert_eq!(code, Some(1));
    let shown: Vec<String> = evil.shown().into_iter().flatten().collect();
    let wrong = |shown: &String| {
        let text = STANDARD.decode(shown.strip_prefix("Basic ").unwrap()).unwrap();
        String::from_utf8_lossy(&text).contains(SECRET)
    };
    assert!(!shown.iter().any(wrong), "{shown:?}");
}

#[tokio::test]
async fn a_repository_comes_over_ssh() {
    if !Path::new("/usr/sbin/sshd").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI must have sshd");
        eprintln!("NOT TESTED HERE: git over ssh (needs openssh-server)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let sshd = Sshd::start(&dir.path().join("ssh")).await;
    let read = |name: &str| std::fs::read_to_string(dir.path().join("ssh").join(name)).unwrap();
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap().trim().to_owned();
    let url = format!("ssh://{user}@127.0.0.1:{}{}/repo.git", sshd.port, dir.path().display());
    let hosts = format!("[127.0.0.1]:{} {}", sshd.port, read("host_key.pub"));
    let key = read("id");
    let env = [("LEGWORK_SECRET_KEY", key.as_str())];
    let source = json!({"git": {"url": url, "secret": "KEY", "known_hosts": hosts}});
    let result = json!({"branch": "from-ssh"});
    let commands = ["test $(cat a.txt) = two; echo ssh > a.txt", "! grep -rs 'PRIVATE 'KEY .. ~ 2>/dev/null"];
    let (code, callback, place, log) = run(of(source, result, &commands), &env).await;
    assert_eq!(code, Some(0), "{:?}", callback.events());
    assert_eq!(git(&dir.path().join("repo.git"), &["show", "from-ssh:a.txt"]), "ssh");
    assert!(!format!("{:?}{log}", callback.events()).contains("PRIVATE KEY"));
    let left =
        std::process::Command::new("grep").args(["-rsl", "PRIVATE KEY"]).arg(place.dir.path()).output();
    assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "", "the key lies nowhere");
    // Another host's key is no host's.
    let other = hosts.replace(&read("host_key.pub"), &read("id.pub"));
    let source = json!({"git": {"url": url, "secret": "KEY", "known_hosts": other}});
    let (code, callback, _, _) = run(of(source, Value::Null, &["true"]), &env).await;
    let error = callback.of("error").remove(0).to_string();
    assert!(code == Some(1) && error.contains("ost key verification failed"), "{error}");
}

/// What a repository would have us run, write elsewhere, or believe.
#[tokio::test]
async fn a_hostile_repository_runs_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let work = repository(dir.path());
    let pwned = dir.path().join("pwned");
    let touch = format!("touch {}", pwned.display());
    std::fs::create_dir_all(work.join("hooks")).unwrap();
    for name in ["post-checkout", "post-index-change", "reference-transaction", "post-merge"] {
        let hook = work.join("hooks").join(name);
        std::fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(
        work.join(".gitattributes"),
        "* filter=evil diff=evil merge=evil text eol=crlf\n*.txt working-tree-encoding=latin-1\n",
    )
    .unwrap();
    std::fs::write(work.join(".gitconfig"), format!("[core]\n\tfsmonitor = {touch}\n")).unwrap();
    std::os::unix::fs::symlink("/etc", work.join("etc")).unwrap();
    std::os::unix::fs::symlink("../../..", work.join("up")).unwrap();
    git(&work, &["add", "--all"]);
    // A folder that takes the place of a link, as in CVE-2024-32002.
    git(&work, &["commit", "--quiet", "-m", "evil"]);
    git(&work, &["push", "--quiet", "../repo.git", "HEAD:main"]);
    let server = GitServer::start(dir.path(), None).await;
    let url = format!("{}/repo.git", server.url);
    let source = json!({"git": {"url": url}});
    let result = json!({"diff": true, "archive": true, "artifacts": ["etc/*", "up/*", "*.txt"]});
    let (code, callback, _, _) = run(of(source, result, &["echo x >> a.txt"]), &[]).await;
    assert_eq!(code, Some(0), "{:?}", callback.events());
    assert!(!pwned.exists());
    let diff = told(&callback, "diff");
    assert!(diff.contains("+x") && !diff.contains("etc/"), "{diff}");
    for kind in ["archive", "artifacts"] {
        let listed = listing(&told(&callback, kind));
        assert!(!listed.contains("passwd") && listed.contains("a.txt"), "{kind}: {listed}");
    }
    // Submodules that are no repositories but commands, files, options, or a way out.
    for (path, address) in [
        ("s", "ext::sh -c 'touch /tmp/x'".to_owned()),
        ("s", format!("file://{}", dir.path().join("repo.git").display())),
        ("s", dir.path().join("repo.git").display().to_string()),
        ("s", "--upload-pack=touch x".to_owned()),
        ("../out", url.clone()),
    ] {
        let modules = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {address}\n");
        std::fs::write(work.join(".gitmodules"), modules).unwrap();
        let head = git(&work, &["rev-parse", "HEAD"]);
        git(&work, &["add", ".gitmodules"]);
        if !path.starts_with("..") {
            git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},{path}")]);
        }
        git(&work, &["commit", "--quiet", "-m", "sub", "--allow-empty"]);
        git(&work, &["push", "--quiet", "--force", "../repo.git", "HEAD:main"]);
        let source = json!({"git": {"url": url, "submodules": true}});
        let (code, callback, place, _) = run(of(source, Value::Null, &["true"]), &[]).await;
        let is_out = place.dir.path().join("out").exists();
        assert!(!pwned.exists() && !is_out, "{address}");
        assert!(code == Some(1) || path.starts_with(".."), "{address}: {:?}", callback.events());
        if code == Some(1) {
            assert!(callback.of("error")[0]["message"].as_str().unwrap().contains("git "), "{address}");
        }
    }
}

/// An archive that would fill the disk, and one that would write beside the workspace.
#[tokio::test]
async fn an_archive_bomb_ends_with_its_reason() {
    let pack = |name: &str, content: &mut dyn std::io::Read, size: u64| {
        let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        std::io::Write::write_all(&mut out, header.as_bytes()).unwrap();
        std::io::copy(content, &mut out).unwrap();
        std::io::Write::write_all(&mut out, &[0; 1024]).unwrap();
        STANDARD.encode(out.finish().unwrap())
    };
    // Two hundred megabytes of nothing, in some kilobytes.
    let size = 200 << 20;
    let zeros = pack("zeros", &mut std::io::Read::take(std::io::repeat(0), size), size);
    let escape = pack("../escaped", &mut &[b'x'; 512][..], 512);
    for (archive, reason) in [(zeros, "too much"), (escape, "leads out")] {
        let (code, callback, place, _) =
            run(of(json!({ "archive": archive }), Value::Null, &["true"]), &[]).await;
        assert_eq!(code, Some(1));
        let error = callback.of("error").remove(0)["message"].as_str().unwrap().to_owned();
        assert!(error.starts_with("the task's source: ") && error.contains(reason), "{error}");
        assert!(callback.of("step_start").is_empty());
        assert!(!place.dir.path().join("escaped").exists());
        let used = std::process::Command::new("du").args(["-sk"]).arg(place.dir.path()).output().unwrap();
        let used: u64 = String::from_utf8_lossy(&used.stdout).split('\t').next().unwrap().parse().unwrap();
        assert!(used < 100 << 10, "{used} KiB stay on the disk");
    }
}

/// A checkout of any size goes along, here and to a hub; to that only what it has not got.
#[tokio::test]
async fn a_checkout_goes_along_piece_by_piece() {
    let hub_dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&hub_dir.path().join("hub")).await;
    let place = Place::new();
    git(&place.workspace, &["init", "--quiet"]);
    let noise = |name: &str, size: u64| {
        let from = std::fs::File::open("/dev/urandom").unwrap();
        let mut file = std::fs::File::create(place.workspace.join(name)).unwrap();
        std::io::copy(&mut std::io::Read::take(from, size), &mut file).unwrap();
    };
    // More than would fit into a task's own words.
    noise("large", 26 << 20);
    place.write("src/a.sh", "echo one\n").write("src/b.sh", "echo one\n").write(".gitignore", "ignored\n");
    place.write("ignored", "secret");
    let model = Model::start([
        Answer::new()
            .tool(
                "t1",
                "shell",
                &json!({"command": "sh src/a.sh; stat -c %s large; ls ignored 2>&1; echo 1 >> src/a.sh"}),
            )
            .scene(),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let script = Answer::new().tool(
        "t1",
        "shell",
        &json!({"command": "sh src/a.sh; stat -c %s large; ls ignored 2>&1"}),
    );
    let script: Vec<_> =
        std::iter::repeat_n([script.scene(), Answer::new().text(&["ok"]).scene()], 4).flatten().collect();
    let remote = Model::start(script).await;
    let env_of = |model: &Model| {
        let [key, url] = model_env(&model.url).map(|(name, value)| (name.to_owned(), value.to_owned()));
        [key, url]
    };
    let run = async |args: &[&str], model: &Model| {
        let mut command = legwork(place.dir.path());
        command.current_dir(&place.workspace).args(["agent", "go"]).args(args);
        for (name, value) in env_of(model) {
            command.env(name, value);
        }
        let done = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (code, out, err) = run(&["--local"], &model).await;
    assert_eq!(code, Some(0), "{out} {err}");
    assert!(out.contains("one") && out.contains("27262976") && out.contains("No such file"), "{out}");
    assert!(err.contains("1 file changed"), "{err}");
    // By a hub.
    let token = place.dir.path().join("token");
    std::fs::write(&token, &hub.admin).unwrap();
    let registration = hub.api().get("/pods/registration").await.1;
    let register = format!("{}{}", hub.url, registration["path"].as_str().unwrap());
    let runner = Place::new();
    let [key, url] = env_of(&remote);
    let env = [
        ("MODE", "standby"),
        ("REGISTER_URL", register.as_str()),
        ("POD_NAME", "pool-1"),
        ("POD_IP", "127.0.0.1"),
        (key.0.as_str(), key.1.as_str()),
        (url.0.as_str(), url.1.as_str()),
    ];
    let _pod = runner.spawn(&env);
    let args = ["--hub-url", &hub.url, "--token-file", token.to_str().unwrap()];
    let (code, out, err) = run(&args, &remote).await;
    assert_eq!(code, Some(0), "{out} {err}");
    assert!(out.contains("one") && out.contains("27262976") && out.contains("No such file"), "{out}");
    let new = |err: &str| -> u64 {
        err.split("MiB); ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    assert!(new(&err) > 26 << 10, "{err}");
    // Once more: nothing of it is new. A small change is a small change.
    let (code, _, err) = run(&args, &remote).await;
    assert_eq!((code, new(&err)), (Some(0), 0), "{err}");
    place.write("src/a.sh", "echo one two\n");
    let (code, out, err) = run(&args, &remote).await;
    assert!(code == Some(0) && out.contains("one two") && new(&err) == 1, "{out} {err}");
    // What was lost on the way, or by the hub, is sent again, and that alone.
    let pieces = hub.data.join("pieces");
    let of = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let large =
        of(&pieces).iter().flat_map(|dir| of(dir)).find(|p| p.metadata().unwrap().len() == 4 << 20).unwrap();
    std::fs::remove_file(large).unwrap();
    let (code, _, err) = run(&args, &remote).await;
    assert!(code == Some(0) && (4096..4100).contains(&new(&err)), "{err}");
    // Whoever may not submit tasks neither asks nor sends; a stranger to a task gets nothing of it.
    let http = reqwest::Client::new();
    let question = json!({"digests": ["0".repeat(64)]}).to_string();
    for (path, wanted) in [("/trees/missing", 401), ("/trees/pieces", 401), ("/internal/tasks/1/pieces", 401)]
    {
        let answer = http.post(format!("{}{path}", hub.url)).body(question.clone()).send().await.unwrap();
        assert_eq!(answer.status(), wanted, "{path}");
    }
    let ask = |body: String| {
        http.post(format!("{}/trees/missing", hub.url)).bearer_auth(&hub.admin).body(body).send()
    };
    for body in [json!({"digests": ["../../etc"]}), json!({"digests": 1}), json!({"digests": [], "x": 1})] {
        assert_eq!(ask(body.to_string()).await.unwrap().status(), 400, "{body}");
    }
}

/// What `cargo new` and `npm create` leave: repositories within, with a commit and without, and deeper.
#[tokio::test]
async fn files_of_repositories_within_come_back_like_others() {
    let commands = [
        "git init -q newproj; mkdir newproj/src; echo fn > newproj/src/main.rs; echo t > newproj/.gitignore; echo t > newproj/t",
        "git init -q done; cd done; echo d > d.txt; git add .; \
         git -c user.name=t -c user.email=t@t commit -q -m x; git init -q 'deep er'; echo e > 'deep er/e'; git init -q void",
        "git init -q was; rm -rf was/.git; mkdir plain; cd plain; echo p > p; cd ..; rm file; git init -q file; echo f > file/f",
    ];
    let result = json!({"diff": true, "archive": true, "artifacts": ["newproj/**/*.rs", "["]});
    let (place, callback) = (Place::new(), Callback::start().await);
    place.write("file", "x\n").write("keep", "k\n");
    let ended = place.run(&of(Value::Null, result, &commands), &callback, &[]).await;
    let wanted =
        ["newproj/src/main.rs", "newproj/.gitignore", "done/d.txt", "done/deep er/e", "plain/p", "file/f"];
    let (diff, archive) = (told(&callback, "diff"), listing(&told(&callback, "archive")));
    for name in wanted {
        assert!(diff.contains(&format!("+++ b/{name}")), "{name}: {diff}");
        assert!(archive.lines().any(|line| line == name), "{name}: {archive}");
    }
    assert!(!diff.contains("160000") && !diff.contains("newproj/t\n"), "{diff}");
    assert!(!archive.contains(".git/") && !archive.lines().any(|line| line == "newproj/t"), "{archive}");
    let said = callback.of("log").iter().any(|event| {
        let message = event["message"].as_str().unwrap();
        message.contains("without their history") && message.contains("newproj")
    });
    assert!(said, "{:?}", callback.of("log"));
    // One result that can't be had costs none of the others.
    let error = callback.of("error").remove(0)["message"].as_str().unwrap().to_owned();
    assert!(ended.code == Some(1) && error.contains("artifacts: result.artifacts: ["), "{error}");
}

/// A secret that is a common word: what holds it is refused by its name, and nothing is rewritten.
#[tokio::test]
async fn a_result_is_told_byte_for_byte_or_not_at_all() {
    let env = [("LEGWORK_SECRET_DB", "postgres")];
    let commands = [
        "mkdir out; echo fine > out/fine; printf 'caf\\351\\n' > latin1",
        "if [ -n \"$LEAK\" ]; then printf 'host=postgres.internal\\n' > db.conf; \
         { head -c 99 /dev/zero; echo postgres; } > packed.bin; fi",
    ];
    let task = |leak: &str| {
        let result = json!({"diff": true, "archive": true, "artifacts": ["out/*"]});
        let mut task = of(Value::Null, result, &commands);
        task["secrets"] = json!(["DB"]);
        for step in task["steps"].as_array_mut().unwrap() {
            step["env"] = json!({ "LEAK": leak });
        }
        task
    };
    let (code, callback, _, log) = run(task("yes"), &env).await;
    let error = callback.of("error").remove(0)["message"].as_str().unwrap().to_owned();
    assert_eq!(code, Some(1), "{error}");
    for kind in ["diff", "archive"] {
        assert!(error.contains(&format!("{kind}: it holds a secret and is not told")), "{error}");
        assert_eq!(told(&callback, kind), "", "{kind}");
    }
    assert!(error.contains("db.conf") && error.contains("packed.bin"), "{error}");
    assert!(!error.contains("latin1") && !format!("{:?}{log}", callback.events()).contains("postgres"));
    assert_eq!(listing(&told(&callback, "artifacts")), "out/fine\n");
    // Without it all of it comes, and bytes that are no UTF-8 are the same bytes.
    let (code, callback, _, _) = run(task(""), &env).await;
    assert_eq!(code, Some(0), "{:?}", callback.events());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("diff"), told(&callback, "diff")).unwrap();
    git(dir.path(), &["init", "--quiet"]);
    git(dir.path(), &["apply", "diff"]);
    assert_eq!(std::fs::read(dir.path().join("latin1")).unwrap(), b"caf\xe9\n");
    assert_eq!(std::fs::read(dir.path().join("out/fine")).unwrap(), b"fine\n");
    assert_eq!(listing(&told(&callback, "archive")), "latin1\nout/fine\n");
}
