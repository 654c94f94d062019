//! Many hosts: which are chosen, what is known of them, where their results go, and copies from
//! one to another.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use legwork_e2e::sshd::Sshd;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn write(dir: &Path, name: &str, text: &str, mode: u32) -> String {
    let file = dir.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn inventories_of_ansible_and_ssh_name_hosts_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let port = sshd.port;
    let ini = write(
        dir.path(),
        "hosts.ini",
        &format!(
            "[web]\nw[1:2] ansible_host=127.0.0.1 ansible_port={port}\n[all:vars]\nansible_user=root\n[edge]\nw2\n"
        ),
        0o644,
    );
    let dynamic = write(
        dir.path(),
        "inventory.sh",
        "#!/bin/sh\necho '{\"web\": {\"hosts\": [\"w1\", \"w2\"]}, \"edge\": [\"w2\"], \"_meta\": {\"hostvars\": {}}}'\n",
        0o755,
    );
    let config = write(
        dir.path(),
        "config",
        &std::fs::read_to_string(sshd.config()).unwrap().replace("Host *", "Host w1 w2 w3"),
        0o644,
    );
    for (inventory, words, expected) in [
        (&ini, &["@web", "!@edge"][..], &["w1"][..]),
        (&ini, &["@web", "&@edge"], &["w2"]),
        (&dynamic, &["w*"], &["w1", "w2"]),
        (&config, &["@all", "!w1"], &["w2", "w3"]),
    ] {
        let args = [&["-i", inventory, "--json"][..], words, &["--", "echo", "here"]].concat();
        let (status, out, err) = sshd.ssh(&args).await;
        assert_eq!(status, 0, "{words:?} {out} {err}");
        let all = json(&out);
        let names: Vec<&str> =
            all["hosts"].as_array().unwrap().iter().map(|host| host["host"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
        assert_eq!(all["hosts"][0]["stdout"], "here\n");
    }
    let (status, _, err) = sshd.ssh(&["-i", &ini, "web", "--", "id"]).await;
    assert!(status != 0 && err.contains("@web names its hosts"), "{err}");
}

#[tokio::test]
async fn facts_are_json_and_hosts_are_chosen_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let (status, out, err) = sshd.ssh(&["facts", "h1"]).await;
    assert_eq!(status, 0, "{err}");
    let facts = json(&out);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap().matches("\nprocessor").count() + 1;
    assert_eq!((&facts["kernel"]["name"], &facts["cpus"]), (&"Linux".into(), &processors.into()));
    assert!(facts["memory_mb"].as_u64().unwrap() > 0 && facts["os"]["id"].is_string(), "{facts}");
    let inventory =
        write(dir.path(), "i.yaml", "hosts:\n  h1: {vars: {zone: eu}}\n  h2: {vars: {zone: us}}\n", 0o644);
    let chosen = async |condition: &str| {
        let args = ["--inventory", &inventory, "--json", "--where", condition, "@all", "--", "true"];
        let (status, out, err) = sshd.ssh(&args).await;
        let hosts =
            json(if out.is_empty() { "{}" } else { &out })["hosts"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = hosts.iter().map(|host| host["host"].as_str().unwrap().to_owned()).collect();
        (status, names.join(" "), err)
    };
    assert_eq!(chosen("zone == 'eu'").await.1, "h1");
    assert_eq!(chosen("facts.kernel.name == 'Linux' and zone == 'us'").await.1, "h2");
    assert_eq!(chosen("facts.cpus > 0").await.1, "h1 h2");
    let (status, _, err) = chosen("facts.os.id == 'plan9'").await;
    assert!(status != 0 && err.contains("holds of no host"), "{err}");
    let (status, _, err) = chosen("zon == 'eu'").await;
    assert!(status != 0 && err.contains("host h1") && err.contains("undefined"), "{err}");
    // A host that can't be asked is not left out in silence.
    let args = [
        "--json",
        "--where",
        "facts.cpus > 0",
        "-o",
        "ConnectTimeout=1",
        "--connect-retries",
        "0",
        "h1",
        "ssh://127.0.0.1:1",
        "--",
        "true",
    ];
    let (status, out, _) = sshd.ssh(&args).await;
    let all = json(&out);
    assert_eq!(
        (status, &all["summary"]["succeeded"], &all["summary"]["unreachable"]),
        (255, &1.into(), &1.into()),
        "{out}"
    );
}

#[tokio::test]
async fn each_hosts_output_goes_to_its_folder_and_comes_as_lines() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let folder = dir.path().join("out");
    let folder_text = folder.display().to_string();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for more in [&[][..], &["--json"], &["--group"], &["--json-lines"]] {
        let command = "printf 'a\\nb'; echo err >&2; exit 3";
        let args = [&["--output-dir", &folder_text, "h1", "h2"][..], more, &["--", command]].concat();
        let (status, out, err) = sshd.ssh(&args).await;
        assert_eq!(status, 3, "{more:?} {err}");
        for host in ["h1", "h2"] {
            let file = |name: &str| read(&format!("{host}/{name}"));
            assert_eq!((file("stdout").trim_end(), file("stderr").as_str()), ("a\nb", "err\n"), "{more:?}");
            assert_eq!(json(&file("result.json"))["exit_code"], 3);
        }
        if more == ["--json-lines"] {
            let lines: Vec<Value> = out.lines().map(json).collect();
            let texts = lines.iter().filter(|line| line["host"] == "h1" && line["stream"] == "stdout");
            let text: Vec<&str> = texts.map(|line| line["text"].as_str().unwrap()).collect();
            assert_eq!(text.join("\n"), "a\nb", "{out}");
            assert_eq!(lines.iter().filter(|line| line["state"] == "failed").count(), 2, "{out}");
            assert_eq!(lines.last().unwrap()["summary"]["failed"], 2, "{out}");
        }
    }
    // Lines come while the command still runs.
    let mut child = sshd
        .legwork(&["--json-lines", "-n", "h1", "--", "echo first; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let first =
        tokio::time::timeout(legwork_e2e::DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(json(&first)["text"], "first");
}

#[tokio::test]
async fn files_and_folders_go_from_host_to_host() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let at = |name: &str| dir.path().join(name).display().to_string();
    write(dir.path(), "from/key", "secret", 0o600);
    write(dir.path(), "from/run", "#!/bin/sh\n", 0o777);
    write(dir.path(), "from/sub/large", &"x".repeat(7_500_000), 0o640);
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    let cp = async |args: &[&str]| {
        let (status, out, err) = sshd.ssh(args).await;
        assert_eq!(status, 0, "{args:?} {out} {err}");
        out
    };
    let (key, run) = (format!("h1:{}", at("from/key")), format!("h1:{}", at("from/run")));
    cp(&["cp", &key, &run, &format!("h2 h3:{}/", at("to"))]).await;
    assert_eq!((mode("to/key"), mode("to/run")), (0o600, 0o777));
    let out = cp(&["cp", &key, &format!("h2:{}/", at("to"))]).await;
    assert!(out.contains("unchanged"), "{out}");
    cp(&["cp", "-r", &format!("h1:{}", at("from")), &format!("h2:{}", at("whole"))]).await;
    assert_eq!((mode("whole/key"), mode("whole/run"), mode("whole/sub/large")), (0o600, 0o777, 0o640));
    std::fs::write(dir.path().join("whole/more"), "").unwrap();
    let args = ["sync", "--delete", &format!("h1:{}/", at("from")), &format!("h2:{}", at("whole"))];
    assert!(cp(&args).await.contains("- more"));
    let (status, _, err) = sshd.ssh(&["cp", "h1:/no/such/file", &format!("h2:{}", at("x"))]).await;
    assert!(status != 0 && err.contains("no such file"), "{err}");
    let (status, _, err) = sshd.ssh(&["cp", &key, &at("from/run"), &format!("h2:{}/", at("to"))]).await;
    assert!(status != 0 && err.contains("is here, and others are on a host"), "{err}");
}
