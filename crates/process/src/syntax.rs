//! Bash's own word on the syntax of a text it is about to run.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Most of bash's complaint that is kept.
const MAX_MESSAGE: u64 = 4096;

/// What bash said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyntaxCheck {
    /// It can be run.
    Valid,
    /// It can't, for the reason given.
    Invalid(String),
}

/// Asks `bash -n` whether `text` is valid, in the environment it would run in.
/// Blocks while bash reads, which is milliseconds for the longest line: it runs
/// nothing of it.
pub fn check_syntax<'a>(
    bash: &Path,
    text: &str,
    env: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> io::Result<SyntaxCheck> {
    let mut child = Command::new(bash)
        .args(["--noprofile", "--norc", "-n", "-c", text])
        .env_clear()
        .envs(env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut message = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_MESSAGE).read_to_end(&mut message)?;
    }
    let status = child.wait()?;
    let message = String::from_utf8_lossy(&message).trim().to_owned();
    // A warning, such as a here-document ended by the end of the text, means that
    // bash reads the text otherwise than it looks.
    Ok(if status.success() && message.is_empty() {
        SyntaxCheck::Valid
    } else {
        SyntaxCheck::Invalid(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn bash_has_the_last_word() {
        let env = BTreeMap::new();
        let check = |text| check_syntax(Path::new("/bin/bash"), text, &env).expect("bash runs");
        assert_eq!(check("for i in 1 2; do echo $i; done"), SyntaxCheck::Valid);
        assert!(matches!(check("if true"), SyntaxCheck::Invalid(m) if m.contains("syntax error")));
        assert!(matches!(check("cat <<EOF\nx"), SyntaxCheck::Invalid(m) if m.contains("here-document")));
        assert_eq!(check("touch /nonexistent/never-run"), SyntaxCheck::Valid);
    }
}
