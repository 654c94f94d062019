//! The micro-runner as a whole process: the protocol's page, §9 line by line.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use legwork_e2e::micro::{Micro, binary, dist, is_alive, until_gone};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_binary_is_small_and_has_few_dependencies() {
    for arch in ["x86_64", "aarch64"] {
        let file = dist().join(format!("legwork-micro-{arch}-linux"));
        let size = std::fs::metadata(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; run make micro", file.display()))
            .len();
        assert!(size <= 500_000, "{arch}: {size} bytes");
    }
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "-p", "legwork-micro", "-e", "normal,no-proc-macro", "--prefix", "none", "--offline"])
        .args(["--target", "x86_64-unknown-linux-musl", "--no-dedupe", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates: std::collections::BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    // A new one is a decision: each is code on every host.
    assert!((20..=36).contains(&crates.len()), "{}: {crates:#?}", crates.len());
    assert!(!crates.iter().any(|name| name.starts_with("tokio")), "no async runtime");
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree_and_only_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    // A daemon that an earlier command leaves on purpose.
    let script = "setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $!";
    let daemon = micro.done("exec", json!({ "command": script, "capture_out": true })).await;
    let daemon = daemon["stdout"].as_str().unwrap().to_owned();
    // One in a session of its own that ignores SIGTERM, and one that lost its parent.
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 0.2; done' & \
                  (setsid sleep 301 & echo $! > orphan); echo before; sleep 302";
    let begun = Instant::now();
    let (_, answer) = micro.call("exec", 1, json!({ "command": script, "capture_out": true })).await;
    let result = &answer["data"]["result"];
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(-1), &json!("before\n")));
    assert_eq!(result["metadata"]["timed_out"], "true");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for name in ["stubborn", "orphan"] {
        let pid = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(!is_alive(&pid), "{name} is alive");
    }
    assert!(is_alive(&daemon), "the daemon of another command was ended, too");
    // The runner works on.
    assert_eq!(micro.done("exec", json!({ "command": "true" })).await["exit_code"], 0);
    std::process::Command::new("kill").arg(daemon.trim()).status().unwrap();
}

#[tokio::test]
async fn a_pipe_that_a_grandchild_holds_does_not_hang_the_runner() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let (_, answer) =
        micro.call("exec", 1, json!({ "command": "sleep 300 & echo out", "capture_out": true })).await;
    assert_eq!(answer["data"]["result"]["stdout"], "out\n");
    assert_eq!(answer["data"]["result"]["metadata"]["timed_out"], "true");
}

#[tokio::test]
async fn exec_does_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let both = |more: Value| {
        let mut params = json!({ "capture_out": true, "capture_err": true });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let result = micro
        .done("exec", both(json!({ "command": "pwd; env", "work_dir": "/", "env": { "A": "b c" } })))
        .await;
    let text = result["stdout"].as_str().unwrap();
    assert!(text.starts_with("/\n") && text.contains("A=b c") && !text.contains("HOME="), "{text}");
    let result = micro.done("exec", both(json!({ "command": "kill -9 $$" }))).await;
    assert_eq!((&result["exit_code"], &result["metadata"]["signal"]), (&json!(-1), &json!("9")));
    // Whatever is hostile in a shell is inert in an argument.
    let hostile = ["-oProxyCommand=x", "; id", "$(id)", "../x", "a\nb", "'"];
    let mut args = vec!["%s|"];
    args.extend(hostile);
    let result = micro.done("exec", both(json!({ "command": "printf", "args": args }))).await;
    assert_eq!(result["stdout"], hostile.map(|word| format!("{word}|")).concat());
    let result = micro.done("exec", both(json!({ "command": "printf '\\377a'; cat" }))).await;
    assert_eq!((&result["stdout"], &result["stdout_base64"]), (&json!("\u{fffd}a"), &json!("/2E=")));
    let result = micro.done("exec", json!({ "command": "echo unseen" })).await;
    assert!(result.get("stdout").is_none());
    for (params, message) in [
        (
            json!({ "command": "no-such", "args": ["x"] }),
            "failed to execute command: exec: \"no-such\": executable file not found in $PATH",
        ),
        (
            json!({ "command": "/no/such", "args": ["x"] }),
            "failed to execute command: fork/exec /no/such: no such file or directory",
        ),
        (
            json!({ "command": "true", "work_dir": "/none" }),
            "failed to execute command: chdir /none: no such file or directory",
        ),
        (
            json!({ "command": "/etc/passwd", "args": ["x"] }),
            "failed to execute command: fork/exec /etc/passwd: permission denied",
        ),
        (json!({ "command": "a\u{0}b" }), "failed to execute command: a parameter has a zero byte"),
        (json!({ "command": ["x"] }), "failed to parse params: command: expected a string"),
        (json!(null), "command is required"),
    ] {
        assert_eq!(micro.error("exec", params).await["message"], message);
    }
}

#[tokio::test]
async fn lines_stream_as_they_come_and_no_byte_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    // The first line comes while the command waits for us.
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = "echo first; read x < fifo; printf '\\377\\n'; head -c 40000 /dev/zero | tr '\\0' e; printf '\\n'; printf end";
    let id = micro.send("exec", 30, json!({ "command": script, "stream_lines": true })).await;
    let first = micro.message().await;
    assert_eq!(first["data"]["message"], "first");
    std::fs::write(&fifo, "go\n").unwrap();
    let mut bytes = b"first\n".to_vec();
    loop {
        let message = micro.message().await;
        assert_eq!(message["data"]["command_id"], id.as_str());
        if message["type"] == "DONE" {
            assert!(message["data"]["result"].get("stdout").is_none());
            break;
        }
        let data = &message["data"];
        assert_eq!((&data["level"], &data["metadata"]["stream"]), (&json!("info"), &json!("stdout")));
        assert!(data["message"].as_str().unwrap().len() <= 16 * 1024);
        match data["metadata"]["base64"].as_str() {
            Some(base64) => bytes.extend(STANDARD.decode(base64).unwrap()),
            None => bytes.extend(data["message"].as_str().unwrap().as_bytes()),
        }
        if data["metadata"].get("continued").is_none() {
            bytes.push(b'\n');
        }
    }
    let mut expected = b"first\n\xff\n".to_vec();
    expected.extend(vec![b'e'; 40_000]);
    expected.extend(b"\nend");
    assert!(bytes == expected, "{} bytes for {}", bytes.len(), expected.len());
}

#[tokio::test]
async fn captured_output_is_bounded_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    // 5 MiB of what takes six bytes each: only some of it fits into a line.
    let script = "head -c 5242880 /dev/zero; head -c 5242880 /dev/zero >&2";
    let result =
        micro.done("exec", json!({ "command": script, "capture_out": true, "capture_err": true })).await;
    for stream in ["stdout", "stderr"] {
        assert_eq!(result["metadata"][format!("{stream}_truncated")], "true");
        assert!(result[stream].as_str().unwrap().len() > 500_000);
    }
}

#[tokio::test]
async fn a_bad_line_is_answered_once_and_the_next_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    micro.write(b"\n   \r\n{oops\n").await;
    let answer = micro.message().await;
    assert_eq!((&answer["type"], &answer["data"]["code"]), (&json!("ERROR"), &json!("INVALID_CMD")));
    assert!(answer["data"].get("command_id").is_none());
    let mut long = vec![b'x'; 11 * 1024 * 1024];
    long.push(b'\n');
    micro.write(&long).await;
    assert_eq!(micro.message().await["data"]["message"], "line too long");
    micro.write(b"{\"type\":\"CMD\",\"data\":{\"id\":\"k\",\"type\":\"exec\",\"timeout\":0}}\n").await;
    let answer = micro.message().await;
    assert_eq!(answer["data"]["command_id"], "k");
    assert_eq!(answer["data"]["message"], "invalid command: timeout must be positive");
    assert_eq!(micro.done("exec", json!({ "command": "true" })).await["exit_code"], 0);
    let (exit, status) = micro.exit().await;
    assert_eq!((&exit["reason"], &exit["commands_total"], status), (&json!("stdin_closed"), &json!(1), 0));
}

/// A small generator (xorshift64*): a failure must come again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }
}

#[tokio::test]
async fn a_million_random_lines_get_one_answer_each() {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "\"type\":\"CMD\"",
        "\"data\":",
        "\"id\":\"a\"",
        ",",
        "\"timeout\":1",
        "\"params\":{}",
        "null",
        "[",
        "]",
        "\\u0000",
        "\\",
        "\"",
        "é",
        "1e999",
        "-1",
        "\"type\":\"READY\"",
        "\"type\":\"exec\"",
        " ",
        "\t",
        "true",
        "\u{7f}",
        "\"type\":\"file.read\"",
        ":",
        "\"path\":\"\"",
    ];
    const LINES: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let (mut stdin, mut stdout) = micro.streams();
    let sending = tokio::spawn(async move {
        let mut random = Random(0x1234_5678_9abc_def1);
        let (mut chunk, mut expected) = (Vec::new(), 0usize);
        for _ in 0..LINES {
            let mut line = Vec::new();
            for _ in 0..random.below(8) {
                match random.below(12) {
                    0 => line.push(u8::try_from(random.below(256)).unwrap()),
                    _ => line.extend(PIECES[random.below(PIECES.len())].as_bytes()),
                }
            }
            line.retain(|byte| *byte != b'\n');
            expected += usize::from(!line.iter().all(u8::is_ascii_whitespace));
            chunk.extend(line);
            chunk.push(b'\n');
            if chunk.len() > 256 * 1024 {
                tokio::io::AsyncWriteExt::write_all(&mut stdin, &chunk).await.unwrap();
                chunk.clear();
            }
        }
        tokio::io::AsyncWriteExt::write_all(&mut stdin, &chunk).await.unwrap();
        expected
    });
    let (mut answers, mut line) = (0usize, String::new());
    loop {
        line.clear();
        assert!(tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap() > 0, "it ended");
        if line.starts_with("{\"type\":\"EXIT\"") {
            break;
        }
        assert!(line.starts_with("{\"type\":\"ERROR\"") || line.starts_with("{\"type\":\"DONE\""), "{line}");
        answers += 1;
    }
    assert_eq!(answers, sending.await.unwrap());
}

#[tokio::test]
async fn files_are_read_exactly_and_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("bin", b"\xff\0A");
    let result = micro.done("file.read", json!({ "path": "bin" })).await;
    assert_eq!(result["content_base64"], STANDARD.encode(b"\xff\0A"));
    assert_eq!((&result["encoding"], &result["checksum"]), (&json!("base64"), &json!(hex(b"\xff\0A"))));
    write("text", b"12345");
    for (max, content, truncated) in
        [(5, "12345", false), (4, "1234", true), (6, "12345", false), (0, "12345", false)]
    {
        let result = micro.done("file.read", json!({ "path": "text", "max_bytes": max })).await;
        assert_eq!((&result["content"], &result["truncated"]), (&json!(content), &json!(truncated)), "{max}");
        assert_eq!(result["checksum"], hex(content.as_bytes()));
    }
    // Each byte takes six in JSON, and the line must stay below its bound (checked by `line`).
    write("zeros", &vec![0; 10 * 1024 * 1024]);
    let result = micro.done("file.read", json!({ "path": "zeros" })).await;
    let content = result["content"].as_str().unwrap();
    assert!(content.len() > 1_500_000 && result["truncated"] == true);
    assert_eq!(result["checksum"], hex(content.as_bytes()));
    assert_eq!(result["size"], 10 * 1024 * 1024);
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success());
    std::os::unix::fs::symlink("text", dir.path().join("link")).unwrap();
    assert_eq!(micro.done("file.read", json!({ "path": "link" })).await["content"], "12345");
    for (params, message) in [
        (json!({ "path": "fifo" }), "failed to open file: open fifo: not a regular file"),
        (json!({ "path": "." }), "failed to read file: read .: is a directory"),
        (json!({ "path": "none" }), "failed to stat file: stat none: no such file or directory"),
        (json!({ "path": "text", "max_bytes": -1 }), "max_bytes must not be negative"),
        (json!({}), "path is required"),
    ] {
        let error = micro.error("file.read", params).await;
        assert_eq!((&error["code"], &error["message"]), (&json!("EXEC_FAILED"), &json!(message)));
    }
}

#[tokio::test]
async fn files_are_written_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let result = micro.done("file.write", json!({ "path": "a/b/new", "content": "x", "create": true })).await;
    assert_eq!((&result["created"], &result["checksum"]), (&json!(true), &json!(hex(b"x"))));
    assert_eq!((read("a/b/new"), mode("a/b/new")), (b"x".to_vec(), 0o644));
    micro
        .done(
            "file.write",
            json!({ "path": "a/b/new", "content_base64": "/wBB", "content": "no", "mode": "4750" }),
        )
        .await;
    assert_eq!((read("a/b/new"), mode("a/b/new")), (b"\xff\0A".to_vec(), 0o4750));
    // The mode stays, a link stays a link, and the file behind it is another one: nobody sees half.
    std::os::unix::fs::symlink("b/new", dir.path().join("a/link")).unwrap();
    let before = std::fs::metadata(dir.path().join("a/b/new")).unwrap().ino();
    let result = micro.done("file.write", json!({ "path": "a/link", "content": "y", "backup": true })).await;
    assert!(result["backup_path"].as_str().unwrap().ends_with("a/link.bak"));
    assert_eq!(
        (read("a/b/new"), mode("a/b/new"), read("a/link.bak")),
        (b"y".to_vec(), 0o4750, b"\xff\0A".to_vec())
    );
    assert_ne!(std::fs::metadata(dir.path().join("a/b/new")).unwrap().ino(), before);
    assert!(std::fs::symlink_metadata(dir.path().join("a/link")).unwrap().is_symlink());
    for (params, message) in [
        (json!({ "path": "absent", "content": "x" }), "file does not exist and create=false: absent"),
        (
            json!({ "path": "a/b/new", "content": "z", "mode": "rw" }),
            "invalid mode: \"rw\" is not octal between 0 and 7777",
        ),
        (
            json!({ "path": "a/b/new", "content": "z", "owner": "nobody-here" }),
            "failed to set ownership: unknown user nobody-here",
        ),
        (
            json!({ "path": "a/b/new", "content": "z", "owner": "-x" }),
            "failed to set ownership: unknown user -x",
        ),
        (json!({ "path": "a/b", "content": "z" }), "failed to write file: open a/b: is a directory"),
        (
            json!({ "path": "a/b/new", "content_base64": "?" }),
            "failed to parse params: content_base64: not base64",
        ),
    ] {
        assert_eq!(micro.error("file.write", params).await["message"], message);
    }
    // A dry run and all the errors changed nothing, and left nothing.
    micro.done("file.write", json!({ "path": "a/b/new", "content": "z", "dry_run": true })).await;
    assert_eq!(read("a/b/new"), b"y");
    assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    if rustix::process::geteuid().is_root() {
        micro
            .done(
                "file.write",
                json!({ "path": "a/b/new", "content": "o", "owner": "daemon", "group": "65534" }),
            )
            .await;
        let found = std::fs::metadata(dir.path().join("a/b/new")).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1, 65534, 0o4750));
        micro.done("file.write", json!({ "path": "a/b/new", "content": "p" })).await;
        assert_eq!(std::fs::metadata(dir.path().join("a/b/new")).unwrap().uid(), 1, "the owner stays");
    }
}

#[tokio::test]
async fn a_key_runs_a_command_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    let send = |id: &str, command: &str| {
        let params = json!({ "command": command, "capture_out": true });
        let data =
            json!({ "id": id, "type": "exec", "timeout": 9, "idempotency_key": "k", "params": params });
        format!("{}\n", json!({ "type": "CMD", "data": data }))
    };
    micro.write(send("1", "echo x >> ran; wc -l < ran").as_bytes()).await;
    let first = micro.message().await;
    micro.write(send("2", "echo x >> ran; wc -l < ran").as_bytes()).await;
    let again = micro.message().await;
    assert_eq!(first["data"]["result"], again["data"]["result"]);
    assert_eq!(
        (&again["data"]["command_id"], &again["data"]["metadata"]["replayed"]),
        (&json!("2"), &json!("true"))
    );
    micro.write(send("3", "echo other").as_bytes()).await;
    assert_eq!(micro.message().await["data"]["code"], "INVALID_CMD");
    assert_eq!(std::fs::read_to_string(dir.path().join("ran")).unwrap(), "x\n");
}

#[tokio::test]
async fn with_a_key_only_signed_commands_run() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let file = dir.path().join("key.pub");
    std::fs::write(&file, STANDARD.encode(key.verifying_key().as_bytes())).unwrap();
    let mut micro = Micro::ready(dir.path(), &["--verify-key", file.to_str().unwrap()]).await;
    let params = r#"{"command": "echo $0",  "capture_out":true}"#;
    let line = |id: &str, timeout: u32, params: &str, signature: &str| {
        format!(
            "{{\"type\":\"CMD\",\"data\":{{\"id\":\"{id}\",\"type\":\"exec\",\"timeout\":{timeout},\"params\":{params},\"signature\":\"{signature}\"}}}}\n"
        )
    };
    let text = legwork_proto::micro::signed_text("a", "exec", 5, &hex(params.as_bytes()));
    let signature = STANDARD.encode(key.sign(text.as_bytes()).to_bytes());
    for (line, expected) in [
        (line("a", 5, params, &signature), None),
        (line("a", 5, params, ""), Some("signature required")),
        (line("b", 5, params, &signature), Some("bad signature")),
        (line("a", 6, params, &signature), Some("bad signature")),
        (line("a", 5, r#"{"command":"id"}"#, &signature), Some("bad signature")),
        (line("a", 5, params, "AAAA"), Some("bad signature")),
    ] {
        micro.write(line.as_bytes()).await;
        let answer = micro.message().await;
        match expected {
            None => assert_eq!(answer["data"]["result"]["exit_code"], 0, "{answer}"),
            Some(message) => assert_eq!(
                (&answer["data"]["code"], &answer["data"]["message"]),
                (&json!("INVALID_CMD"), &json!(message))
            ),
        }
    }
    let (exit, _) = micro.exit().await;
    assert_eq!(exit["commands_total"], 1);
    let mut broken = Micro::start(dir.path(), &["--verify-key", "/none"]).await;
    assert_eq!(broken.message().await["data"]["code"], "INIT_FAILED");
    assert_eq!(broken.status().await, 1);
    assert!(dir.path().join("micro-runner").exists(), "a failed start deletes nothing");
}

#[tokio::test]
async fn only_allowed_types_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::start(dir.path(), &["--allow", "file.read,pkg.ensure"]).await;
    let ready = micro.message().await;
    assert_eq!(ready["data"]["capabilities"]["exec"], false);
    assert_eq!(ready["data"]["capabilities"]["file.read"], true);
    let error = micro.error("exec", json!({ "command": "true" })).await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("INVALID_CMD"), &json!("command type disabled: exec"))
    );
    // With `exec` off, an option that would run a program is no way around.
    let options = json!(["-oDPkg::Pre-Invoke::=touch pwned"]);
    let params = json!({ "name": "hello", "state": "present", "manager": "apt", "options": options });
    let error = micro.error("pkg.ensure", params).await;
    assert!(error["message"].as_str().unwrap().contains("exec is disabled"), "{error}");
}

#[tokio::test]
async fn its_life_ends_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let mut idle = Micro::ready(dir.path(), &["--ttl", "1s"]).await;
    let begun = Instant::now();
    let (exit, status) = idle.ended().await;
    assert_eq!((&exit["reason"], &exit["self_deleted"], status), (&json!("ttl_expired"), &json!(true), 0));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(!dir.path().join("micro-runner").exists());
    let mut busy = Micro::ready(dir.path(), &["--ttl", "1s"]).await;
    let (_, answer) = busy.call("exec", 60, json!({ "command": "sleep 60" })).await;
    assert_eq!(answer["data"]["result"]["metadata"]["timed_out"], "true");
    assert_eq!(busy.ended().await.0["reason"], "ttl_expired");
}

#[tokio::test]
async fn a_signal_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    micro.send("exec", 60, json!({ "command": "echo $$ > child; sleep 60" })).await;
    let child = dir.path().join("child");
    while std::fs::read_to_string(&child).map_or(0, |text| text.len()) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = micro.child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let answer = micro.message().await;
    assert_eq!(
        (&answer["type"], &answer["data"]["message"]),
        (&json!("ERROR"), &json!("terminated by signal"))
    );
    let (exit, status) = micro.ended().await;
    assert_eq!((&exit["reason"], &exit["exit_code"], status), (&json!("error"), &json!(143), 143));
    assert!(!is_alive(&std::fs::read_to_string(child).unwrap()) && !dir.path().join("micro-runner").exists());
}

#[tokio::test]
async fn a_signal_ends_it_though_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    micro
        .send("exec", 60, json!({ "command": "yes | head -c 4000000; : > made", "capture_out": true }))
        .await;
    while !dir.path().join("made").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = micro.child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let begun = Instant::now();
    assert_eq!(micro.status().await, 143);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!dir.path().join("micro-runner").exists());
}

#[tokio::test]
async fn a_runner_whose_peer_is_gone_ends_and_its_child_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for streaming in [false, true] {
        let mut micro = Micro::ready(dir.path(), &[]).await;
        let script = if streaming { "echo $$ > child; yes" } else { "echo $$ > child; sleep 60" };
        micro.send("exec", 60, json!({ "command": script, "stream_lines": streaming })).await;
        let child = dir.path().join("child");
        while std::fs::read_to_string(&child).map_or(0, |text| text.len()) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        micro.close_stdin();
        micro.close_stdout();
        micro.status().await;
        until_gone(&std::fs::read_to_string(&child).unwrap()).await;
        std::fs::remove_file(&child).unwrap();
        assert!(!dir.path().join("micro-runner").exists());
    }
}

#[tokio::test]
async fn stdout_may_vanish_right_after_stdin() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let mut micro = Micro::ready(dir.path(), &[]).await;
        micro.done("exec", json!({ "command": "true" })).await;
        micro.close_stdin();
        micro.close_stdout();
        micro.status().await;
        assert!(!dir.path().join("micro-runner").exists());
    }
}

#[tokio::test]
async fn a_controller_that_does_not_read_does_not_stop_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    micro.send("exec", 1, json!({ "command": "echo $$ > child; exec yes", "stream_lines": true })).await;
    let child = dir.path().join("child");
    while std::fs::read_to_string(&child).map_or(0, |text| text.len()) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until_gone(&std::fs::read_to_string(&child).unwrap()).await;
    // Nothing of what was said is lost on the one who reads late.
    let mut last = Value::Null;
    while last["type"] != "DONE" {
        last = micro.message().await;
    }
    assert_eq!(last["data"]["result"]["metadata"]["timed_out"], "true");
}

#[tokio::test]
async fn it_deletes_only_what_was_put_there_to_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, args: &[&str]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(binary(), &path).unwrap();
        let mut command = tokio::process::Command::new(&path);
        command.args(args);
        (path, command)
    };
    for (name, args, deleted) in [
        ("other-name", &[][..], false),
        ("other-name", &["--self-delete"], true),
        ("micro-runner-x", &["--keep"], false),
        ("micro-runner-x", &[], true),
        (".legwork-0/micro-runner", &[], true),
    ] {
        let (path, command) = named(name, args);
        let micro = Micro::from_command(command).await;
        let (exit, _) = micro.exit().await;
        assert_eq!((exit["self_deleted"] == true, !path.exists()), (deleted, deleted), "{name} {args:?}");
    }
    assert!(!dir.path().join(".legwork-0").exists(), "the folder made for it goes with it");
}

#[tokio::test]
async fn commands_sent_ahead_run_in_order_and_a_last_line_needs_no_newline() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = Micro::ready(dir.path(), &[]).await;
    for n in 0..50 {
        micro.send("exec", 9, json!({ "command": format!("echo {n} >> order") })).await;
    }
    let last = json!({ "type": "CMD", "data": { "id": "z", "type": "exec", "timeout": 9, "params": { "command": "true" } } });
    micro.write(last.to_string().as_bytes()).await;
    let (exit, _) = micro.exit().await;
    assert_eq!(exit["commands_total"], 51);
    let order = std::fs::read_to_string(dir.path().join("order")).unwrap();
    assert_eq!(order, (0..50).map(|n| format!("{n}\n")).collect::<String>());
}

#[test]
fn the_binary_names_no_folder_of_its_builder() {
    let bytes = std::fs::read(binary()).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in [project.to_str().unwrap(), "/.cargo/", "/.rustup/", "/home/", "/root/"] {
        assert!(!text.contains(folder), "the binary names {folder}");
    }
}

#[tokio::test]
async fn under_the_name_the_original_gives_it_the_runner_goes_too() {
    let dir = tempfile::tempdir().unwrap();
    for (name, goes) in [("froyo-micro-runner", true), ("froyo-micro-runner-7", true), ("froyo-other", false)]
    {
        let program = dir.path().join(name);
        std::fs::copy(binary(), &program).unwrap();
        let mut command = tokio::process::Command::new(&program);
        command.current_dir(dir.path()).kill_on_drop(true);
        let mut micro = Micro::from_command(command).await;
        micro.message().await;
        let (exit, _) = micro.exit().await;
        assert_eq!((&exit["self_deleted"], program.exists()), (&json!(goes), !goes), "{name}");
    }
}
