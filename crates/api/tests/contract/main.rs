//! The contract against what is made from it: the OpenAPI document, the types of the web page, the
//! table of codes in docs/api.md. `LEGWORK_UPDATE=1` writes the files anew.
#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

mod openapi;
mod typescript;

use std::path::{Path, PathBuf};

use legwork_api::{Code, Operation, Visitor, visit_all};
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A file that is made from the contract is as it would be made now.
fn check(path: &str, made: &str) {
    let path = workspace().join(path);
    if std::env::var_os("LEGWORK_UPDATE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).position(|(a, b)| a != b);
    assert!(
        kept == made,
        "{} is not what the contract says (from line {}); LEGWORK_UPDATE=1 cargo test -p legwork-api --test contract \
         writes it anew",
        path.display(),
        differs.unwrap_or_default() + 1
    );
}

#[test]
fn the_document_is_the_contract() {
    let document = openapi::document();
    check("crates/api/openapi.json", &format!("{}\n", serde_json::to_string_pretty(&document).unwrap()));
}

#[test]
fn the_types_of_the_page_are_the_contract() {
    check("web/src/lib/contract.ts", &typescript::types(&openapi::document()));
}

#[test]
fn every_operation_says_all_about_itself() {
    let document = openapi::document();
    let mut ids = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = format!("{method} {path}");
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let summary = operation["summary"].as_str().unwrap();
            assert!(summary.ends_with('.') && summary.len() < 120, "{name}: {summary}");
            assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{name}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|d| d.len() > 5), "{name} {status}");
                for content in
                    response["content"].as_object().into_iter().flatten().map(|(_, content)| content)
                {
                    let has_example = content.get("example").or(content.get("examples")).is_some();
                    assert!(has_example, "{name}: the answer {status} has no example");
                }
            }
            if let Some(body) = operation.get("requestBody") {
                assert!(
                    body["content"]["application/json"].get("example").is_some(),
                    "{name}: no example of the body"
                );
            }
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "two operations have one operationId");
}

/// Examples are read as what they are examples of, and nothing of them is lost.
#[test]
fn examples_are_what_they_are_examples_of() {
    struct Examples(usize);
    impl Visitor for Examples {
        fn visit<O: Operation>(&mut self) {
            let about = O::ABOUT;
            if let Some(example) = openapi::example_of_answer(about.id) {
                let read: O::Answer =
                    serde_json::from_value(example.clone()).unwrap_or_else(|e| panic!("{}: {e}", about.id));
                assert_eq!(serde_json::to_value(&read).unwrap(), example, "{}", about.id);
                self.0 += 1;
            }
            if about.max_body > 0 {
                let example = openapi::example_of::<O::Body>();
                let text = example.to_string();
                legwork_api::body::<O::Body>(text.as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", about.id));
            }
        }
    }
    let mut examples = Examples(0);
    visit_all(&mut examples);
    assert!(examples.0 > 10);
}

/// What programs rely on stands in the table of docs/api.md, word for word.
#[test]
fn every_code_is_documented() {
    let page = std::fs::read_to_string(workspace().join("docs/api.md")).unwrap();
    let mut rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4).collect();
    rows.retain(|row| row.split('|').nth(2).is_some_and(|status| status.trim().parse::<u16>().is_ok()));
    let wanted: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("| `{}` | {} | {} |", code.as_str(), code.status(), code.meaning().trim()))
        .collect();
    assert_eq!(rows, wanted, "the table of codes in docs/api.md should be:\n{}\n", wanted.join("\n"));
}

/// Paths, fields and words that version 0.1 had are there still: others rely on them.
#[test]
fn nothing_that_was_there_is_gone() {
    let old: Value = serde_json::from_str(include_str!("openapi-0.1.json")).unwrap();
    let new = openapi::document();
    for (path, methods) in old["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let now = &new["paths"][path][method];
            assert!(now.is_object(), "{method} {path} is gone");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let same = |p: &Value| p["name"] == parameter["name"] && p["in"] == parameter["in"];
                assert!(
                    now["parameters"].as_array().unwrap().iter().any(same),
                    "{method} {path}: {}",
                    parameter["name"]
                );
            }
            for status in operation["responses"].as_object().unwrap().keys().filter(|s| *s != "4XX") {
                assert!(now["responses"].get(status).is_some(), "{method} {path} answers {status} no more");
            }
        }
    }
    for (name, schema) in old["components"]["schemas"].as_object().unwrap() {
        let name = if name == "NewTokenAnswer" { "IssuedToken" } else { name };
        let now = &new["components"]["schemas"][name];
        for property in schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            assert!(now["properties"].get(property).is_some(), "{name}.{property} is gone");
        }
        for word in schema["enum"].as_array().into_iter().flatten() {
            let words = now["oneOf"].as_array().unwrap_or_else(|| panic!("{name} has no words: {now}"));
            assert!(words.iter().any(|known| known["const"] == *word), "{name}: {word} is gone");
        }
    }
}
