//! Single files: read, written, changed in one place, made of a template. What is put in place
//! may be tried out first, and is never put where somebody else has written in between.

use std::sync::Arc;

use anyhow::Result;
use legwork_base::digest::sha256;
use legwork_remote::{Error, FileRead, FileWrite};
use serde_json::Value;

use super::connected::{Connected, bytes_of, content, invalid};
use super::edit::Edit;
use super::report::{Report, State, Style};
use super::template::Template;
use super::{diff, work};
use crate::args::ssh::PutArgs;
use crate::commands::exec::quoted;

/// What is written at once; a line holds it in base64.
pub(crate) const MAX_CONTENT: usize = 7 * 1024 * 1024;
/// How often a change is tried that somebody else's change comes in the way of.
const ATTEMPTS: usize = 5;
/// What the runner says of a file that is not what it was.
const CHANGED: &str = "has changed since it was read";

/// A file, and how it is put in place.
pub(crate) struct Put {
    pub(crate) path: String,
    /// It may be new.
    pub(crate) create: bool,
    pub(crate) args: PutArgs,
}

impl Put {
    fn write(&self, path: &str, bytes: &[u8]) -> FileWrite {
        FileWrite {
            path: path.to_owned(),
            mode: self.args.mode.clone().unwrap_or_default(),
            owner: self.args.owner.clone().unwrap_or_default(),
            group: self.args.group_name.clone().unwrap_or_default(),
            create: self.create,
            backup: self.args.backup,
            dry_run: self.args.dry_run,
            ..content(bytes)
        }
    }

    /// Has a program on the host look at what is to be written.
    async fn validate(&self, on: &Connected<'_>, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some(command) = &self.args.validate else { return Ok(()) };
        let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // In the same folder: some programs look at what lies beside.
        let draft = format!("{path}.legwork-{:x}", unique.as_nanos());
        let write = FileWrite { path: draft.clone(), mode: "0600".into(), create: true, ..content(bytes) };
        on.call(write).await?;
        let tried = on.shell(vec!["-c".into(), command.replace("%s", &quoted(&draft))]).await;
        let gone = on.shell(["-c", "rm -f -- \"$1\"", "sh", &draft].map(str::to_owned).into()).await;
        tried.map_err(|error| match error {
            Error::InvalidCommand(said) => {
                invalid(format!("{path}: --validate did not let it be written: {said}"))
            }
            other => other,
        })?;
        gone.map(drop)
    }

    /// Puts bytes there; the former ones, if they were read, must be those that are there still.
    async fn bring(
        &self,
        on: &Connected<'_>,
        path: &str,
        former: Option<&Option<Vec<u8>>>,
        bytes: &[u8],
        report: &mut Report,
    ) -> Result<(), Error> {
        if bytes.len() > MAX_CONTENT {
            return Err(invalid(format!("{path}: {} bytes, and 7 MiB are written at once", bytes.len())));
        }
        let write = self.write(path, bytes);
        let write = match former {
            Some(Some(former)) => FileWrite { former: sha256(former), ..write },
            Some(None) => FileWrite { former: "none".to_owned(), ..write },
            None => write,
        };
        let is_same = former.is_some_and(|former| former.as_deref() == Some(bytes));
        if !is_same && !self.args.dry_run {
            self.validate(on, path, bytes).await?;
        }
        let result = on.call(write).await?;
        let verb = match (result.created, result.changed) {
            (true, _) => "created",
            (_, true) => "written",
            (_, false) => "unchanged",
        };
        let line = format!("{}: {verb}, {} bytes", self.path, result.bytes_written);
        work::add(report, self.args.dry_run, result.changed, line, &result);
        if let Some(former) = former.filter(|_| on.diff) {
            report.diff.extend(diff::unified(&self.path, former.as_deref(), bytes));
        }
        Ok(())
    }

    /// Writes these bytes.
    pub(crate) async fn write_all(
        &self,
        on: &Connected<'_>,
        bytes: &[u8],
        report: &mut Report,
    ) -> Result<(), Error> {
        let path = on.at_home(&self.path).await?;
        if !on.diff && self.args.validate.is_none() {
            return self.bring(on, &path, None, bytes, report).await;
        }
        self.retried(on, &path, report, |_| Ok(bytes.to_vec())).await
    }

    /// Changes the file in one place.
    pub(crate) async fn edit(
        &self,
        on: &Connected<'_>,
        edit: &Edit,
        report: &mut Report,
    ) -> Result<(), Error> {
        let path = on.at_home(&self.path).await?;
        let removes = matches!(edit, Edit::NoLine { .. } | Edit::Block { content: None, .. });
        if removes && on.read(&path).await?.is_none() {
            report.said.push(format!("{}: unchanged, it is not there", self.path));
            report.changed = Some(report.changed.unwrap_or(false));
            return Ok(());
        }
        let make = |former: &Option<Vec<u8>>| match former {
            None if !self.create => {
                Err(invalid(format!("{}: it is not there; --create makes it", self.path)))
            }
            former => edit
                .apply(former.as_deref().unwrap_or_default())
                .map_err(|error| invalid(format!("{}: {error:#}", self.path))),
        };
        self.retried(on, &path, report, make).await
    }

    async fn retried(
        &self,
        on: &Connected<'_>,
        path: &str,
        report: &mut Report,
        make: impl Fn(&Option<Vec<u8>>) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        for attempt in 1.. {
            let former = on.read(path).await?;
            let bytes = make(&former)?;
            match self.bring(on, path, Some(&former), &bytes, report).await {
                Err(Error::Command(failure)) if failure.message.contains(CHANGED) && attempt < ATTEMPTS => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// Fills in a template.
    pub(crate) async fn template(
        &self,
        on: &Connected<'_>,
        template: &Arc<Template>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut facts = on.target.facts.clone();
        if facts.is_none() && template.asks_facts {
            facts = Some(super::facts::gather(on).await?);
        }
        let name = &on.target.name;
        let text = template.render(name, facts.as_ref()).map_err(|error| invalid(format!("{error:#}")))?;
        self.write_all(on, text.as_bytes(), report).await
    }
}

/// Prints a file.
pub(crate) async fn read(path: &str, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    let (printer, name) = (on.printer, &on.target.name);
    let path = on.at_home(path).await?;
    let result = on.call(FileRead { path, ..Default::default() }).await?;
    let bytes = bytes_of(result.content.as_bytes(), result.content_base64.as_deref())?;
    if result.truncated {
        report.state = State::Failed;
        let (has, read) = (result.size, bytes.len());
        report.error =
            Some(format!("the file has {has} bytes, and {read} were read; `legwork ssh cp` copies it"));
    }
    match printer.style {
        Style::Json | Style::Lines => {
            report.results.push(serde_json::to_value(&result).unwrap_or(Value::Null))
        }
        Style::Plain => printer.output(name, false, &bytes, false),
        Style::Grouped => report.stdout = Some(String::from_utf8_lossy(&bytes).into_owned()),
        Style::Prefixed => {
            let text = String::from_utf8_lossy(&bytes);
            text.lines().for_each(|line| printer.output(name, false, line.as_bytes(), true));
        }
    }
    Ok(())
}
