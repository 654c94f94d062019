//! A corpus of workflows, in the shapes that people have them in: each says in its first lines what it
//! must do. `# expect: runs`, `differs`, or `refused LINE WORDS`; `# said: WORDS` is what it says when it
//! is run.

use std::path::{Path, PathBuf};

use legwork_e2e::pod::Place;
use serde_json::Value;

fn corpus() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

/// A repository that has all of them, and the actions that they use.
fn repository() -> Place {
    let place = Place::new();
    for (name, text) in corpus() {
        place.write(&format!(".github/workflows/{name}"), &text);
    }
    let actions = Path::new(env!("CARGO_MANIFEST_DIR")).join("actions");
    for file in ["greet/action.yml", "js/action.yml", "js/main.js", "js/post.js"] {
        let text = std::fs::read_to_string(actions.join(file)).unwrap();
        place.write(&format!(".github/actions/{file}"), &text);
    }
    place
}

fn words<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

/// `import` tells the truth about each file, and four in five run.
#[tokio::test]
async fn each_workflow_of_the_corpus_is_told_as_it_is() {
    let place = repository();
    let output = legwork_e2e::legwork(place.dir.path())
        .args(["workflow", "import", "--json", "."])
        .current_dir(&place.workspace)
        .output()
        .await
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = told["files"].as_array().unwrap();
    let corpus = corpus();
    assert!(corpus.len() >= 60 && files.len() == corpus.len(), "{} of {}", files.len(), corpus.len());
    let mut wrong = Vec::new();
    for (file, (name, text)) in files.iter().zip(&corpus) {
        let expected = words(text, "# expect:")[0];
        let mut parts = expected.splitn(3, ' ');
        let (state, line) = (parts.next().unwrap(), parts.next());
        let mut is_good = file["state"] == state && file["file"].as_str().unwrap().ends_with(name.as_str());
        if let (Some(line), Some(text)) = (line, parts.next()) {
            let first = &file["refused"][0];
            is_good &= line.parse().is_ok_and(|line: u64| first["line"] == line)
                && first["text"].as_str().unwrap().contains(text);
        }
        if !is_good {
            wrong.push(format!("{name}: {expected}: {file}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let run = told["runs"].as_u64().unwrap() + told["differs"].as_u64().unwrap();
    assert!(run * 100 >= files.len() as u64 * 80, "{run} of {}", files.len());
}

/// What says what it says is run.
#[tokio::test]
async fn the_workflows_of_the_corpus_do_what_they_say() {
    let mut wrong = Vec::new();
    for (name, text) in corpus() {
        let said = words(&text, "# said:");
        if said.is_empty() {
            continue;
        }
        let place = repository();
        let file = format!(".github/workflows/{name}");
        let output = legwork_e2e::legwork(place.dir.path())
            .args(["task", "run", &file])
            .current_dir(&place.workspace)
            // The harness has a HOME without toolchains.
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", std::env::var_os("HOME").unwrap_or_default())
            .output()
            .await
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_said = |words: &&str| out.lines().any(|line| line.contains(*words));
        if output.status.code() != Some(0) || !said.iter().all(is_said) {
            let more = String::from_utf8_lossy(&output.stderr);
            wrong.push(format!("{name}: {:?} {said:?}\n{out}{more}", output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}
