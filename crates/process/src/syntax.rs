//! Bash's own word on the syntax of a text it is about to run.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest a check may take; `bash -n` of 64 KiB takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
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
/// Blocks while bash runs.
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
    let mut message = String::new();
    let stderr = child.stderr.take();
    let start = Instant::now();
    if let Some(mut stderr) = stderr {
        let mut bytes = Vec::new();
        stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut bytes)?;
        message = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    loop {
        if let Some(status) = child.try_wait()? {
            // A warning, such as a here-document ended by the end of the text, means
            // that bash reads the text otherwise than it looks.
            return Ok(if status.success() && message.is_empty() {
                SyntaxCheck::Valid
            } else {
                SyntaxCheck::Invalid(message)
            });
        }
        if start.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(SyntaxCheck::Invalid("bash did not finish reading it".into()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
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
