//! The preset for clusters against an API server that has a secret to show: ours, and as small as kubectl lets it be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use axum::Json;
use axum::extract::Path as Route;
use axum::http::StatusCode;
use axum::routing::get;
use legwork_e2e::{Hub, Runner, legwork, until};
use serde_json::{Value, json};

/// What must never be seen: the name of the secret, and what it holds, as it is and as base64.
const NAME: &str = "marker-name";
const MARKS: [&str; 3] = [NAME, "marker-value", "bWFya2VyLXZhbHVl"];

/// Serves a namespace with a pod and a secret; returns the address.
async fn api_server() -> String {
    let pod = || {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-a", "namespace": "default", "uid": "1"},
               "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})
    };
    let secret = || {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": "default", "uid": "2"},
               "type": "Opaque", "data": {"password": "bWFya2VyLXZhbHVl"}})
    };
    let list = |kind: &str, item: Value| json!({"apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {}, "items": [item]});
    let resource = |name: &str, single: &str, kind: &str, short: &[&str]| {
        json!({"name": name, "singularName": single, "namespaced": true, "kind": kind,
               "verbs": ["get", "list"], "shortNames": short})
    };
    let resources = json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
        resource("pods", "pod", "Pod", &["po"]), resource("secrets", "secret", "Secret", &[]),
        resource("events", "event", "Event", &["ev"]),
    ]});
    let (pods, secrets) = (list("Pod", pod()), list("Secret", secret()));
    let events = json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": []});
    let of_kind = move |kind: String| match kind.as_str() {
        "pods" => Ok(Json(pods.clone())),
        "secrets" => Ok(Json(secrets.clone())),
        "events" => Ok(Json(events.clone())),
        _ => Err(StatusCode::NOT_FOUND),
    };
    let everywhere = of_kind.clone();
    let app = axum::Router::new()
        .route(
            "/version",
            get(|| async { Json(json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})) }),
        )
        .route("/api", get(|| async { Json(json!({"kind": "APIVersions", "versions": ["v1"]})) }))
        .route(
            "/apis",
            get(|| async { Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})) }),
        )
        .route("/api/v1", get(move || async move { Json(resources) }))
        .route("/api/v1/{kind}", get(move |Route(kind): Route<String>| async move { everywhere(kind) }))
        .route(
            "/api/v1/namespaces/default/{kind}",
            get(move |Route(kind): Route<String>| async move { of_kind(kind) }),
        )
        .route(
            "/api/v1/namespaces/default/{kind}/{name}",
            get(move |Route((kind, _)): Route<(String, String)>| async move {
                match kind.as_str() {
                    "pods" => Ok(Json(pod())),
                    "secrets" => Ok(Json(secret())),
                    _ => Err(StatusCode::NOT_FOUND),
                }
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Kubernetes' own client: what `scripts/kubectl` has built, else the machine's.
fn kubectl() -> Option<PathBuf> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/kubectl");
    [built, "/usr/local/bin/kubectl", "/usr/bin/kubectl"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
}

/// Lines that would show the secret, each in its own way.
const SHOWING: &[&str] = &[
    "kubectl get secrets",
    "kubectl get secret",
    "kubectl get Secret",
    "kubectl get SECRETS",
    "kubectl get secrets.v1.",
    "kubectl get secret.v1.",
    "kubectl get pods,secrets",
    "kubectl get po,Secret -o name",
    "kubectl get secret marker-name",
    "kubectl get secret/marker-name",
    "kubectl get pod/pod-a secret/marker-name",
    "kubectl get -n default secret",
    "kubectl -n default get secret",
    "kubectl --namespace=default get secret -oname",
    "kubectl get -A secret",
    "kubectl get secret --all-namespaces",
    "kubectl get -o json secret",
    "kubectl get secret -o yaml",
    "kubectl get secret -o jsonpath='{.items[*].data.password}'",
    "kubectl get secret -o jsonpath='{.items[*].metadata.name}'",
    "kubectl get secret -o jsonpath-as-json='{.items}'",
    "kubectl get secret -o go-template='{{range .items}}{{.data.password}}{{end}}'",
    "kubectl get secret -o custom-columns=N:.metadata.name",
    "kubectl get secret --template='{{range .items}}{{.metadata.name}}{{end}}' -o go-template",
    "kubectl get --raw /api/v1/secrets",
    "kubectl get --raw=/api/v1/namespaces/default/secrets",
    "kubectl get --raw /api/v1/namespaces/default/secrets/marker-name",
    "kubectl get --raw '/version/../api/v1/secrets'",
    "kubectl get --raw /api/v1/%73ecrets",
    "kubectl get -f secret.json",
    "kubectl get -f=secret.json -o json",
    "kubectl get --filename secret.json",
    "kubectl get -R -f .",
    "kubectl get pods -f secret.json",
    "kubectl describe secret",
    "kubectl describe secrets/marker-name",
    "kubectl describe -f secret.json",
    "kind=secret; kubectl get $kind",
    "kubectl get $(echo secrets)",
    "kubectl get \"$(printf '%s%s' sec rets)\"",
    "kubectl get sec{ret,rets}",
    "kubectl get $'sec\\x72ets'",
    "kubectl get se''crets",
    "kubectl get sec\\rets",
    "for k in pods secrets; do kubectl get $k; done",
    "set -- secrets; kubectl get \"$@\"",
    "kubectl get pods,secrets -l 'x notin (y)'",
    "kubectl get secret --chunk-size=1",
    "kubectl get secret --sort-by=.metadata.name",
    "kubectl get secret --show-kind",
    "kubectl get secret | awk '{print $1}'",
    "kubectl config view --raw",
    "awk 'BEGIN{system(\"kubectl get secrets\")}'",
    "echo x | sed 's/x/kubectl get secrets/e'",
    "bash -c 'kubectl get secrets'",
    "env kubectl get secrets",
    "/usr/bin/env kubectl get secrets",
    "command kubectl get secrets",
    "eval kubectl get secrets",
    "echo secrets | xargs kubectl get",
];

/// Lines that the preset is there for.
const LOOKING: &[&str] = &[
    "kubectl get pods",
    "kubectl get po -A",
    "kubectl -n default get pods -o json",
    "kubectl get pod pod-a -o jsonpath='{.metadata.name}'",
    "kubectl get pods -o custom-columns=N:.metadata.name | grep pod",
    "kubectl get pods -oname | sort",
    "ns=default; kubectl get pods -n $ns",
];

async fn by_hand(home: &Path, line: &str) -> String {
    let mut command = tokio::process::Command::new("/bin/bash");
    let path = format!("{}/bin:/usr/bin:/bin", home.display());
    command.args(["-c", line]).env_clear().env("PATH", path).env("HOME", home).current_dir(home.join("ws"));
    let output = tokio::time::timeout(legwork_e2e::DEADLINE, command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn a_cluster_is_looked_at_and_its_secrets_stay_unread() {
    let Some(kubectl) = kubectl() else {
        eprintln!(
            "NOT TESTED HERE: the preset for clusters, as there is no kubectl (scripts/kubectl builds one)"
        );
        return;
    };
    let address = api_server().await;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("r1");
    for folder in ["bin", ".kube", "ws"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    symlink(kubectl, home.join("bin/kubectl")).unwrap();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {"token": "marker-value"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}]});
    fs::write(home.join(".kube/config"), config.to_string()).unwrap();
    let file =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": "default"}});
    fs::write(home.join("ws/secret.json"), file.to_string()).unwrap();

    let preset =
        legwork(dir.path()).args(["policy", "preset", "kubernetes-read-only"]).output().await.unwrap();
    let preset = String::from_utf8(preset.stdout).unwrap();
    let rules: Vec<(String, String)> = preset
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.rsplit_once(": "))
        .map(|(pattern, action)| (serde_json::from_str(pattern).unwrap(), action.to_owned()))
        .collect();
    let rules: Vec<(&str, &str)> = rules.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    let _runner = Runner::start(&home, &hub.address(), &token, &rules).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;

    let shows = |text: &str| MARKS.iter().any(|mark| text.contains(mark));
    let (mut wrong, mut controls) = (Vec::new(), 0);
    for line in SHOWING {
        // By hand it shows what is to be hidden, or it is no attack.
        controls += usize::from(shows(&by_hand(&home, line).await));
        let run = api.run("r1", line).await;
        let seen = format!("{}{}", run["result"]["stdout"], run["result"]["stderr"]);
        // What a refusal says of the line is not what the cluster says.
        let seen = seen.lines().filter(|text| !text.contains("legwork: ")).collect::<String>();
        let named = line.contains(NAME);
        let shown = shows(&seen) && !(named && run["state"] == "denied");
        if shown {
            wrong.push(format!("{line}: {run}"));
        }
    }
    for line in LOOKING {
        let run = api.run("r1", line).await;
        let out = run["result"]["stdout"].as_str().unwrap_or_default();
        if run["state"] != "succeeded" || !out.contains("pod-a") {
            wrong.push(format!("{line} must pass: {run}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(controls * 10 >= SHOWING.len() * 8, "{controls} of {} lines are attacks", SHOWING.len());
}
