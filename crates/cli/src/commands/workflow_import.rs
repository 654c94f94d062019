//! `legwork workflow import`: what of a folder of workflows runs here, what differs, what is refused.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use legwork_task::{Settings, missing_actions};
use legwork_workflow::{ActionFile, Level, Problem, Report, Source, Workflow};
use serde_json::{Value, json};

use super::lists::visible;
use crate::exit;

/// Most files, and most bytes of each.
const MOST: usize = 1000;
const MAX_FILE: u64 = 4 << 20;

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let settings = super::task::settings(None)?;
    let (root, files) = files_of(dir)?;
    if files.is_empty() {
        eprintln!("Error: there is no workflow in {}", dir.display());
        return Ok(exit::CONFIG);
    }
    let reports: Vec<(String, Report)> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
            (name, report(file, &root, &settings))
        })
        .collect();
    let count = |level: Level| reports.iter().filter(|(_, report)| report.level() == level).count();
    let (runs, differs, refused) = (count(Level::Runs), count(Level::Differs), count(Level::Refused));
    if json {
        let files: Vec<Value> = reports.iter().map(|(name, report)| as_json(name, report)).collect();
        println!("{}", json!({"files": files, "runs": runs, "differs": differs, "refused": refused}));
        return Ok(0);
    }
    for (name, report) in &reports {
        println!("{}: {}", visible(name), word(report.level()));
        for problem in &report.refused {
            println!("  {}", visible(&problem.to_string()));
        }
        for note in &report.differs {
            println!("  {} (differs)", visible(&note.to_string()));
        }
    }
    println!(
        "{} files: {runs} run as they are, {differs} run with differences, {refused} are refused",
        files.len()
    );
    Ok(0)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Runs => "runs",
        Level::Differs => "runs, with differences",
        Level::Refused => "refused",
    }
}

fn as_json(name: &str, report: &Report) -> Value {
    let list = |problems: &[Problem]| -> Vec<Value> {
        problems.iter().map(|p| json!({"line": p.line, "text": p.text})).collect()
    };
    let state = match report.level() {
        Level::Runs => "runs",
        Level::Differs => "differs",
        Level::Refused => "refused",
    };
    json!({"file": name, "state": state, "refused": list(&report.refused), "differs": list(&report.differs)})
}

/// The repository's root, and the workflows in it, by name.
fn files_of(dir: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let is_workflow =
        |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
    let inner = dir.join(".github/workflows");
    let place = if inner.is_dir() { inner } else { dir.to_owned() };
    let absolute = place.canonicalize().with_context(|| format!("failed to read {}", dir.display()))?;
    let root = absolute.ancestors().find(|above| above.join(".github").is_dir());
    let root = root.unwrap_or(if absolute.is_dir() { &absolute } else { Path::new("/") }).to_owned();
    if absolute.is_file() {
        return Ok((root, vec![absolute]));
    }
    let entries =
        std::fs::read_dir(&absolute).with_context(|| format!("failed to read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_workflow).collect();
    files.sort();
    files.truncate(MOST);
    Ok((root, files))
}

fn refused(line: u64, text: String) -> Report {
    Report { refused: vec![Problem { line, text }], differs: Vec::new() }
}

fn read(path: &Path) -> Result<String, String> {
    let meta = path.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(format!("it is no file of at most {MAX_FILE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn report(file: &Path, root: &Path, settings: &Settings) -> Report {
    let node = match read(file).and_then(|text| legwork_yaml::parse(&text)) {
        Ok(node) => node,
        Err(error) => return refused(0, error),
    };
    if node.get("jobs").is_none() {
        return refused(0, "it is no workflow: it has no jobs".into());
    }
    let workflow = match Workflow::of_file(&node) {
        Ok(workflow) => workflow,
        Err(problems) => return Report { refused: problems, differs: Vec::new() },
    };
    let mut report =
        Report { refused: missing_actions(&workflow, settings), differs: workflow.notes.clone() };
    for (step, uses) in workflow.uses() {
        let Source::Local(path) = &uses.source else { continue };
        let place = root.join(path);
        let text = read(&place.join("action.yml")).or_else(|_| read(&place.join("action.yaml")));
        let error = match text.map(|text| ActionFile::parse(&text)) {
            Ok(Ok(_)) => continue,
            Ok(Err(problems)) => problems.first().map(ToString::to_string).unwrap_or_default(),
            Err(_) => "there is no action.yml in it".into(),
        };
        report.refused.push(Problem { line: step.line, text: format!("'uses: {}': {error}", uses.name) });
    }
    for job in &workflow.jobs {
        if let Some(call) = job.call.as_ref().filter(|call| !root.join(&call.path).is_file()) {
            let text = format!("jobs.{}.uses: there is no {}", job.id, call.path);
            report.refused.push(Problem { line: job.line, text });
        }
    }
    report
}
