//! Files that are changed in one place or made of templates, on a real sshd.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use legwork_e2e::sshd::Sshd;
use serde_json::Value;

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether it changed, which must be so, and a second time not.
async fn changed(sshd: &Sshd, args: &[&str]) -> bool {
    let ask = async |more: &[&str]| {
        let (status, out, err) = sshd.ssh(&[&args[..2], &["h1", "--json"], more, &args[2..]].concat()).await;
        assert_eq!(status, 0, "{args:?} {out} {err}");
        json(&out)["hosts"][0]["changed"].as_bool().unwrap()
    };
    let would = ask(&["--dry-run"]).await;
    let did = ask(&[]).await;
    assert_eq!((would, ask(&[]).await, ask(&["--dry-run"]).await), (did, false, false), "{args:?}");
    did
}

#[tokio::test]
async fn a_line_is_put_into_a_file_once_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let file = dir.path().join("conf");
    let path = file.display().to_string();
    let line =
        async |args: &[&str]| changed(&sshd, &[&["file", "line"], args, &["--", &path]].concat()).await;
    std::fs::write(&file, b"\xef\xbb\xbfUsePAM yes\r\n#Port 22\r\nlast \xe9").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(line(&["--line", "AllowUsers a"]).await);
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"\xef\xbb\xbfUsePAM yes\r\n#Port 22\r\nlast \xe9\r\nAllowUsers a\r\n"
    );
    assert!(line(&["--match", "^#?Port\\b", "--line", "Port 2222"]).await);
    assert!(!line(&["--line", "UsePAM yes"]).await);
    assert!(line(&["--line", "quote's \"$HOME\" `id` \\1 & %s é", "--after", "^UsePAM"]).await);
    assert!(line(&["--match", "^last", "--absent"]).await);
    let grown = ["--match", r"^Port (\d+)$", "--line", "Port ${1}0", "--expand", "--backup", "--", &path];
    assert_eq!(sshd.ssh(&[&["file", "line", "h1"], &grown[..]].concat()).await.0, 0);
    assert_eq!(
        text(&file),
        "\u{feff}UsePAM yes\r\nquote's \"$HOME\" `id` \\1 & %s é\r\nPort 22220\r\nAllowUsers a\r\n"
    );
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    // A link stays one, and what it leads to is changed.
    let link = dir.path().join("link");
    symlink("conf", &link).unwrap();
    let link_path = link.display().to_string();
    assert!(changed(&sshd, &["file", "line", "--line", "by the link", "--", &link_path]).await);
    assert!(
        std::fs::symlink_metadata(&link).unwrap().is_symlink() && text(&file).ends_with("by the link\r\n")
    );
    // What is not there is made where that was asked for.
    let missing = dir.path().join("new/conf").display().to_string();
    let (status, _, err) = sshd.ssh(&["file", "line", "h1", "--line", "x", "--", &missing]).await;
    assert!(status != 0 && err.contains("--create makes it"), "{err}");
    assert!(changed(&sshd, &["file", "line", "--create", "--line", "x", "--", &missing]).await);
    assert!(!changed(&sshd, &["file", "line", "--absent", "--line", "x", "--", "/no/such/file"]).await);
    for (args, why) in [
        (&["--line", "a\nb"][..], "one line"),
        (&["--match", "(", "--line", "a"], "--match ("),
        (&["--match", "x"], "--line is needed"),
    ] {
        let args = [&["file", "line", "h1"], args, &["--", &path]].concat();
        let (status, _, err) = sshd.ssh(&args).await;
        assert!(status != 0 && err.contains(why), "{args:?} {err}");
    }
    std::fs::write(&file, b"a\0b").unwrap();
    let (status, _, err) = sshd.ssh(&["file", "line", "h1", "--line", "x", "--", &path]).await;
    assert!(status != 0 && err.contains("no text"), "{err}");
}

#[tokio::test]
async fn a_block_is_put_into_a_file_and_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let file = dir.path().join("hosts");
    let path = file.display().to_string();
    let block =
        async |args: &[&str]| changed(&sshd, &[&["file", "block"], args, &["--", &path]].concat()).await;
    std::fs::write(&file, "127.0.0.1 localhost").unwrap();
    assert!(block(&["--name", "a", "--content", "10.0.0.1 one\n10.0.0.2 two"]).await);
    assert!(block(&["--name", "ab", "--content", "other", "--at-start"]).await);
    assert!(block(&["--name", "a", "--content", "10.0.0.3 three"]).await);
    let both = "# BEGIN legwork ab\nother\n# END legwork ab\n127.0.0.1 localhost\n# BEGIN legwork a\n10.0.0.3 three\n# END legwork a\n";
    assert_eq!(text(&file), both);
    // What Ansible put there is changed where it stands.
    std::fs::write(&file, "# BEGIN ANSIBLE MANAGED BLOCK\nold\n# END ANSIBLE MANAGED BLOCK").unwrap();
    assert!(block(&["--marker", "# {mark} ANSIBLE MANAGED BLOCK", "--content", "new"]).await);
    assert_eq!(text(&file), "# BEGIN ANSIBLE MANAGED BLOCK\nnew\n# END ANSIBLE MANAGED BLOCK\n");
    assert!(block(&["--marker", "# {mark} ANSIBLE MANAGED BLOCK", "--absent"]).await);
    assert_eq!(text(&file), "");
    std::fs::write(&file, "# END legwork block\n").unwrap();
    let (status, _, err) = sshd.ssh(&["file", "block", "h1", "--content", "x", "--", &path]).await;
    assert!(status != 0 && err.contains("make no block"), "{err}");
    assert_eq!(text(&file), "# END legwork block\n");
}

#[tokio::test]
async fn what_changes_is_shown_and_tried_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let file = dir.path().join("conf");
    let path = file.display().to_string();
    std::fs::write(&file, "a\nb\n").unwrap();
    let args = ["file", "line", "h1", "--line", "c", "--diff", "--dry-run", "--", &path];
    let (_, out, _) = sshd.ssh(&args).await;
    assert!(out.contains(&format!("--- {path}\n+++ {path}\n@@ -1,2 +1,3 @@\n a\n b\n+c\n")), "{out}");
    assert_eq!(text(&file), "a\nb\n");
    let (_, out, _) = sshd.ssh(&["file", "line", "h1", "--line", "c", "--diff", "--json", "--", &path]).await;
    let diff = json(&out)["hosts"][0]["diff"].clone();
    assert!(diff.as_array().unwrap().contains(&"+c".into()), "{out}");
    // A check that fails keeps the former file, and leaves nothing beside it.
    let tried = ["file", "line", "h1", "--line", "bad", "--validate", "! grep -q bad %s", "--", &path];
    let (status, _, err) = sshd.ssh(&tried).await;
    assert!(status != 0 && err.contains("--validate did not let it be written"), "{err}");
    assert_eq!(text(&file), "a\nb\nc\n");
    let good = ["file", "line", "h1", "--line", "good", "--validate", "grep -q good %s", "--", &path];
    assert_eq!(sshd.ssh(&good).await.0, 0);
    assert_eq!(text(&file), "a\nb\nc\ngood\n");
    let beside: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("conf.") || name.starts_with(".conf"))
        .collect();
    assert!(beside.is_empty(), "{beside:?}");
}

#[tokio::test]
async fn two_who_change_one_file_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let file = dir.path().join("shared");
    let path = file.display().to_string();
    std::fs::write(&file, "start\n").unwrap();
    let names: Vec<String> = (0..8).map(|n| format!("line {n}")).collect();
    let (at, there) = (&sshd, path.as_str());
    let one = |name| async move { at.ssh(&["file", "line", "h1", "--line", name, "--", there]).await };
    let all = names.iter().map(|name| one(name.as_str()));
    let done = futures_util::future::join_all(all).await;
    let (mut lost, now) = (Vec::new(), text(&file));
    for (name, (status, _, err)) in names.iter().zip(done) {
        // Either it is there, or it was said that it is not.
        if now.lines().any(|line| line == name) != (status == 0) {
            lost.push(format!("{name}: {status} {err}"));
        }
    }
    assert!(lost.is_empty(), "{lost:?} {now}");
}

#[tokio::test]
async fn a_template_is_filled_in_with_each_hosts_variables() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let local = |name: &str| dir.path().join(name).display().to_string();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "inventory.yaml",
        "vars: {domain: example.com}\nhosts:\n  h1: {vars: {port: 8001, url: 'http://{{ inventory_hostname }}.{{ domain }}/'}}\n  h2: {vars: {port: 8002, url: x}}\n\
         groups:\n  web: {hosts: [h1, h2], vars: {workers: 4}}\n",
    );
    write(
        "app.conf.j2",
        "{% include 'head.j2' %}\nlisten {{ port }}\nworkers {{ workers }}\nurl {{ url }}\nkernel {{ facts.kernel.name }}\n{% for host in groups.web %}\n\
         peer {{ host }} {{ hostvars[host].port }}\n{% endfor %}\nname {{ name | quote }}\n",
    );
    write("head.j2", "# {{ inventory_hostname }}\n");
    std::fs::set_permissions(dir.path().join("app.conf.j2"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let there = dir.path().join("there");
    std::fs::create_dir(&there).unwrap();
    let inventory = local("inventory.yaml");
    let template = local("app.conf.j2");
    let fill = async |host: &str, more: &[&str]| {
        let to = format!("{host}:{}/{host}.conf", there.display());
        let args = ["template", "--inventory", &inventory, &template, &to, "--var", "name=it's"];
        sshd.ssh(&[&args[..], more].concat()).await
    };
    let (status, out, err) = fill("h1", &["--dry-run", "--diff"]).await;
    assert!(status == 0 && out.contains("+listen 8001") && !there.join("h1.conf").exists(), "{out} {err}");
    for (host, port, url) in [("h1", 8001, "http://h1.example.com/"), ("h2", 8002, "x")] {
        let (status, out, err) = fill(host, &["--mode", "0600"]).await;
        assert_eq!(status, 0, "{out} {err}");
        let expected = format!(
            "# {host}\nlisten {port}\nworkers 4\nurl {url}\nkernel Linux\npeer h1 8001\npeer h2 8002\nname 'it'\\''s'\n"
        );
        let file = there.join(format!("{host}.conf"));
        assert_eq!((text(&file), std::fs::metadata(&file).unwrap().mode() & 0o777), (expected, 0o600));
    }
    let (_, out, _) = fill("h1", &[]).await;
    assert!(out.contains("unchanged"), "{out}");
    // What is not set is said before anything is written, with its place.
    write("bad.j2", "one\n{{ prot }}\n");
    let bad = local("bad.j2");
    let (status, _, err) = sshd.ssh(&["template", &bad, &format!("h1:{}/bad", there.display())]).await;
    assert!(status != 0 && err.contains("undefined") && err.contains("line 2"), "{err}");
    assert!(!there.join("bad").exists());
    // Into a folder it goes by its name.
    write("plain.txt.j2", "x\n");
    let (status, _, err) =
        sshd.ssh(&["template", &local("plain.txt.j2"), &format!("h1:{}/", there.display())]).await;
    assert!(status == 0 && text(&there.join("plain.txt")) == "x\n", "{err}");
}
