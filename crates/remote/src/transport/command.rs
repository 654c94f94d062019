//! Any program that runs a shell somewhere: `docker exec`, `kubectl exec`, `nsenter`.

use std::path::PathBuf;

use super::{Starting, Transport, bootstrap, link, spawn};
use crate::{Binaries, Error};

/// A program and its arguments, to which `sh -c LINE` is added, or put in place of `{}`:
/// `docker exec -i web`, `kubectl exec -i web-0 --`.
#[derive(Debug, Clone)]
pub struct Template {
    name: String,
    words: Vec<String>,
}

impl Template {
    /// A template; `name` is what people call the host.
    pub fn new(name: impl Into<String>, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.into(), words: words.into_iter().map(Into::into).collect() }
    }
}

impl Transport for Template {
    fn start<'a>(&'a self, binaries: &'a Binaries, flags: &'a [String]) -> Starting<'a> {
        Box::pin(async move {
            bootstrap::check_flags(flags)?;
            let (token, room) = (bootstrap::token()?, binaries.room());
            let line = bootstrap::line(&token, flags, bootstrap::Stay::Once, room);
            let shell = ["sh".to_owned(), "-c".to_owned(), line];
            let mut words = self.words.iter();
            let program = words.next().ok_or_else(|| Error::Start("the template is empty".into()))?;
            let mut args: Vec<String> = Vec::new();
            let mut placed = false;
            for word in words {
                if word == "{}" {
                    args.extend(shell.clone());
                    placed = true;
                } else {
                    args.push(word.clone());
                }
            }
            if !placed {
                args.extend(shell);
            }
            let child = spawn(&PathBuf::from(program), &args, false)
                .map_err(|error| Error::Start(format!("{program}: {error}")))?;
            let mut link = link(child).ok_or_else(|| Error::Start("no pipes".into()))?;
            bootstrap::upload(&mut link, binaries).await?;
            Ok(link)
        })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
