//! One wall around all that a task runs: what a command leaves is there for the next one, whatever
//! the wall, and gone with the task.

use legwork_e2e::model::{Answer, Model};
use legwork_e2e::pod::{Callback, Place, agent, model_env, steps};
use serde_json::json;

/// Whether a wall can be had here; said if not.
fn can(profile: &str) -> bool {
    let works = |program: &str, args: &[&str]| {
        std::process::Command::new(program).args(args).output().is_ok_and(|done| done.status.success())
    };
    let can = match profile {
        "namespaces" => works("unshare", &["--net", "--user", "true"]),
        "gvisor" => works("runsc", &["--version"]) && rustix::process::geteuid().is_root(),
        _ => true,
    };
    if !can {
        assert!(std::env::var_os("CI").is_none() || profile == "gvisor", "CI must be able to make {profile}");
        eprintln!("NOT TESTED HERE: a task's world in {profile}");
    }
    can
}

/// A place outside of /tmp, which gVisor has for itself.
fn place() -> Place {
    let mut place = Place::new();
    if rustix::process::geteuid().is_root() {
        place.dir = tempfile::Builder::new().prefix("legwork-e2e-").tempdir_in("/var/lib").unwrap();
        place.workspace = place.dir.path().join("ws");
        std::fs::create_dir(&place.workspace).unwrap();
    }
    place
}

/// A server on a port and on a socket, which writes down that it was asked to end.
const SERVER: &str = r#"
import http.server, os, signal, socket, sys, threading
def end(*_):
    open('asked', 'w').write('yes')
    os._exit(0)
signal.signal(signal.SIGTERM, end)
if sys.argv[1] == 'unix':
    unix = socket.socket(socket.AF_UNIX); unix.bind('/tmp/s'); unix.listen()
    threading.Thread(target=lambda: [unix.accept()[0].send(b'unix') for _ in iter(int, 1)], daemon=True).start()
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
open('port.new', 'w').write(str(server.server_port))
os.rename('port.new', 'port')
server.serve_forever()
"#;

async fn is_shared_within(profile: &str) {
    if !can(profile) {
        return;
    }
    let (place, callback) = (place(), Callback::start().await);
    place.write("server.py", SERVER).write("page", "it serves\n");
    let unix = if profile == "landlock" { "no" } else { "unix" };
    let start = format!(
        "echo kept > /tmp/kept-$$ 2>/dev/null && mv /tmp/kept-$$ /tmp/legwork-kept || true
         echo shm > /dev/shm/legwork-kept || true; echo data > $TMPDIR/data
         nohup /usr/bin/python3 server.py {unix} > server.log 2>&1 & until test -s port; do sleep 0.05; done"
    );
    let mut look =
        "cat $TMPDIR/data && curl --noproxy '*' -fsS http://127.0.0.1:$(cat port)/page && cat server.log"
            .to_owned();
    if profile != "landlock" {
        look.push_str(
            " && cat /tmp/legwork-kept /dev/shm/legwork-kept && /usr/bin/python3 -c \"
import socket
s = socket.socket(socket.AF_UNIX); s.connect('/tmp/s'); print(s.recv(9).decode())\"",
        );
    }
    // Something that was reached must have been reachable by nothing but the wall's sharing.
    let env = [("LEGWORK_SANDBOX", profile), ("LEGWORK_SANDBOX_UNIX_SOCKETS", "1")];
    let ended = place.run(&steps(&[&start, &look, "test ! -e asked"]), &callback, &env).await;
    let said: Vec<String> =
        callback.of("log").iter().map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(ended.code, Some(0), "{profile}: {:?}", callback.events());
    assert!(said.iter().any(|line| line == "it serves"), "{profile}: {said:?}");
    if profile != "landlock" {
        for line in ["kept", "shm", "unix"] {
            assert!(said.iter().any(|l| l == line), "{profile}: {line}: {said:?}");
        }
        assert!(!std::path::Path::new("/tmp/legwork-kept").exists(), "it is the wall's own /tmp");
    }
    // It was asked, and had its time. (Debian's `runsc` ends with the first signal, and with it
    // all that is behind it.)
    if profile != "gvisor" {
        assert_eq!(place.read("asked"), "yes", "{profile}");
    }
    let port: u16 = place.read("port").trim().parse().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "{profile}: it lives on");
}

#[tokio::test]
async fn a_task_has_one_wall_of_landlock() {
    is_shared_within("landlock").await;
}

#[tokio::test]
async fn a_task_has_one_wall_of_namespaces() {
    is_shared_within("namespaces").await;
}

#[tokio::test]
async fn a_task_has_one_wall_of_gvisor() {
    is_shared_within("gvisor").await;
}

/// A time limit ends what a command runs, and not what others left; the next task finds nothing.
#[tokio::test]
async fn a_wall_outlives_its_commands_and_no_task() {
    if !can("namespaces") {
        return;
    }
    let place = place();
    let shell = |command: &str| json!({"command": command, "timeout": 1});
    let model = Model::start([
        Answer::new().tool("t0", "shell", &json!({"command": "sleep 300 & echo $! > /tmp/left"})).scene(),
        Answer::new().tool("t1", "shell", &shell("sleep 200; echo never")).scene(),
        Answer::new()
            .tool("t2", "shell", &shell("kill -0 $(cat /tmp/left) && echo it lives; pgrep -f '^sleep 200'"))
            .scene(),
        // Whoever ends the world has ended its own.
        Answer::new().tool("t3", "shell", &json!({"command": "kill -9 -1"})).scene(),
        Answer::new().tool("t4", "shell", &json!({"command": "cat /tmp/left; echo a new one"})).scene(),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let [key, url] = model_env(&model.url);
    let env = [("LEGWORK_SANDBOX", "namespaces"), key, url];
    let ended = place.run(&agent("go", &["legwork"]), &callback, &env).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let outputs: Vec<String> =
        callback.of("tool_end").iter().map(|e| e["output"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(outputs[1].contains("timed out after 1 seconds"), "{outputs:?}");
    assert_eq!(outputs[2], "STDOUT:\nit lives\n\n\nEXIT CODE: 1", "{outputs:?}");
    assert!(outputs[4].contains("a new one") && outputs[4].contains("No such file"), "{outputs:?}");
    let callback = Callback::start().await;
    let env = [("LEGWORK_SANDBOX", "namespaces"), ("TASK_ID", "42")];
    let task = steps(&["test ! -e /tmp/left && ! pgrep -f '^sleep 300'"]);
    let ended = place.run(&task, &callback, &env).await;
    assert_eq!(ended.code, Some(0), "{:?}", callback.events());
}
