//! Secrets that a task asks for by their names: its commands get them as variables or as files.

use std::collections::BTreeMap;
use std::path::Path;

use legwork_yaml::{Node, Value};

use legwork_base::Secret;

use crate::masks::can_be_masked;

/// Most of them.
const MOST: usize = 64;

/// A secret that a task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    name: String,
    /// The variable that holds it, or the path of its file.
    variable: String,
    is_file: bool,
}

/// Reads `secrets` of a task.
pub(crate) fn asked(config: &Node) -> Result<Vec<Asked>, String> {
    const SHAPE: &str = "secrets must be a list of names, or of {\"name\", \"env\"} or {\"name\", \"file\"}: a variable's name";
    let list = match config.get("secrets").map(|node| &node.value) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::List(list)) if list.len() <= MOST => list,
        Some(_) => return Err(SHAPE.into()),
    };
    let mut all: Vec<Asked> = Vec::new();
    for node in list {
        let text = |key: &str| match node.get(key).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(SHAPE.to_owned()),
        };
        let asked = match &node.value {
            Value::Text(name) => Asked { name: name.clone(), variable: name.clone(), is_file: false },
            Value::Map(entries) => {
                if let Some(entry) =
                    entries.iter().find(|e| !["name", "env", "file"].contains(&e.key.as_str()))
                {
                    return Err(format!("secrets: there is no '{}'; {SHAPE}", entry.key));
                }
                match (text("name")?, text("env")?, text("file")?) {
                    (Some(name), env, None) => {
                        Asked { variable: env.unwrap_or_else(|| name.clone()), name, is_file: false }
                    }
                    (Some(name), None, Some(variable)) => Asked { name, variable, is_file: true },
                    _ => return Err(SHAPE.into()),
                }
            }
            _ => return Err(SHAPE.into()),
        };
        is_variable(&asked.variable)?;
        if all.iter().any(|other| other.variable == asked.variable) {
            return Err(format!("secrets: two of them are called {}", asked.variable));
        }
        all.push(asked);
    }
    Ok(all)
}

fn is_variable(name: &str) -> Result<(), String> {
    let is_good = name.len() <= 128
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    // What loads programs, or steers what we start, is no place for a secret.
    let steers = ["LD_", "LEGWORK_"].iter().any(|start| name.starts_with(start)) || name == "PATH";
    match is_good && !steers {
        true => Ok(()),
        false => Err(format!("secrets: '{name}' can't be a variable")),
    }
}

/// What commands get; files are written to a folder that is the task's alone. Says which secret is
/// missing.
pub(crate) fn give(
    asked: &[Asked],
    folder: &Path,
    find: impl Fn(&str) -> Option<Secret>,
) -> Result<BTreeMap<String, String>, String> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let _ = std::fs::remove_dir_all(folder);
    let mut env = BTreeMap::new();
    for Asked { name, variable, is_file } in asked {
        let secret = find(name).ok_or_else(|| {
            format!("there is no secret '{name}' for this task: see `legwork secret`, or LEGWORK_SECRET_{name} of the runner")
        })?;
        if !can_be_masked(secret.expose()) {
            return Err(format!(
                "the secret '{name}' has no line of at least 4 characters, so that it could not be masked in what the task tells: take a longer one"
            ));
        }
        if !is_file {
            env.insert(variable.clone(), secret.expose().to_owned());
            continue;
        }
        let failed = |e: std::io::Error| format!("the secret '{name}' can't be written to a file: {e}");
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder).map_err(failed)?;
        let path = folder.join(variable);
        let mut file =
            std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(secret.expose().as_bytes()).map_err(failed)?;
        env.insert(variable.clone(), path.to_string_lossy().into_owned());
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Asked>, String> {
        asked(&legwork_yaml::parse_json(json.as_bytes()).expect("json"))
    }

    #[test]
    fn secrets_are_given_as_they_are_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let all =
            read(r#"{"secrets": ["A", {"name": "b", "env": "B_TOKEN"}, {"name": "c", "file": "C_FILE"}]}"#)
                .expect("ok");
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("secrets");
        let env = give(&all, &folder, |name| Some(Secret::new(format!("value of {name}")))).expect("given");
        assert_eq!((env["A"].as_str(), env["B_TOKEN"].as_str()), ("value of A", "value of b"));
        let file = Path::new(&env["C_FILE"]);
        assert_eq!(std::fs::read_to_string(file).expect("file"), "value of c");
        assert_eq!(file.metadata().expect("meta").permissions().mode() & 0o777, 0o600);
        let missing = give(&all, &folder, |name| (name == "A").then(|| Secret::new("abcd")));
        assert!(missing.is_err_and(|e| e.contains("no secret 'b'")));
        for short in ["abc", "a\nb\nc", "äöü", "  x  "] {
            let short = give(&all, &folder, |_| Some(Secret::new(short)));
            assert!(short.is_err_and(|e| e.contains("'A' has no line of at least 4 characters")));
        }
        for (json, problem) in [
            (r#"{"secrets": "A"}"#, "must be a list"),
            (r#"{"secrets": [{"env": "A"}]}"#, "must be a list"),
            (r#"{"secrets": [{"name": "a", "env": "LD_PRELOAD"}]}"#, "can't be a variable"),
            (r#"{"secrets": [{"name": "a", "file": "../x"}]}"#, "can't be a variable"),
            (r#"{"secrets": ["A", "A"]}"#, "two of them"),
            (r#"{"secrets": [{"name": "a", "mode": 1}]}"#, "there is no 'mode'"),
        ] {
            assert!(read(json).is_err_and(|e| e.contains(problem)), "{json}");
        }
        assert_eq!(read("{}"), Ok(Vec::new()));
    }
}
