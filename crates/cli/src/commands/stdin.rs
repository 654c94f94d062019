//! What `exec` passes of its standard input: as a here-document behind the command, so that
//! every runner understands it and the policy judges what is run as ever.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::oneshot;

/// The most that is passed: a line of shell is an argument, and the kernel bounds those.
const MOST: usize = 96 * 1024;
/// How long the first byte may take, where nobody said that it comes: many are started with an
/// input that never ends.
const FIRST: Duration = Duration::from_millis(500);

/// Reads the standard input; `None` if there is nothing to pass.
pub(super) async fn read(wanted: bool, refused: bool) -> Result<Option<Vec<u8>>> {
    if refused || (!wanted && std::io::stdin().is_terminal()) {
        return Ok(None);
    }
    let (begun, first) = oneshot::channel();
    let (ended, all) = oneshot::channel();
    // A thread of its own: a read that never ends keeps nobody.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock().take(MOST as u64 + 1);
        let mut data = vec![0u8; 4096];
        let len = input.read(&mut data);
        let _ = begun.send(());
        let read = len.and_then(|len| {
            data.truncate(len);
            if len > 0 { input.read_to_end(&mut data).map(|_| data) } else { Ok(data) }
        });
        let _ = ended.send(read);
    });
    if !wanted && tokio::time::timeout(FIRST, first).await.is_err() {
        eprintln!(
            "legwork: nothing came on the standard input, so the command gets none (--stdin waits for it)"
        );
        return Ok(None);
    }
    let data = all.await.context("the standard input was not read")?;
    let data = data.context("failed to read the standard input")?;
    Ok(Some(data).filter(|data| !data.is_empty()))
}

/// The line with its input.
pub(super) fn with(line: &str, data: &[u8]) -> Result<String> {
    if data.len() > MOST {
        bail!(
            "the standard input is larger than {MOST} bytes, the most that exec passes: put it into a file on the \
             runner, or give --no-stdin"
        );
    }
    let text = std::str::from_utf8(data).ok().filter(|text| !text.contains('\0'));
    let Some(text) = text else {
        bail!("the standard input is no text, which is all that exec passes: encode it, or give --no-stdin");
    };
    if !text.ends_with('\n') {
        eprintln!("legwork: the standard input does not end with a newline; the command gets one");
    }
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    // A word that is no line of it.
    let mut end = String::from("LEGWORK_STDIN");
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    Ok(format!("{{ {line}\n}} <<'{end}'\n{text}{newline}{end}"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "bash itself says what it reads")]
mod tests {
    use super::*;

    #[test]
    fn the_input_arrives_byte_for_byte() {
        for text in ["a\nb\n", "$(rm x) `y` \\ '\"\n", "LEGWORK_STDIN\nLEGWORK_STDIN_\n", "\n\n"] {
            let line = with("cat", text.as_bytes()).expect("a line");
            let ran = std::process::Command::new("bash").args(["-c", &line]).output().expect("bash");
            assert_eq!(String::from_utf8_lossy(&ran.stdout), text, "{line}");
        }
    }

    #[test]
    fn what_can_not_be_passed_is_said() {
        assert!(with("cat", &[b'x'; MOST + 1]).is_err_and(|e| e.to_string().contains("larger")));
        assert!(with("cat", &[0xff, b'\n']).is_err_and(|e| e.to_string().contains("no text")));
        assert!(with("cat", b"a\0b\n").is_err());
    }

    #[test]
    fn a_comment_does_not_swallow_the_input() {
        let ran = std::process::Command::new("bash")
            .args(["-c", &with("wc -l # count", b"a\nb\n").expect("a line")])
            .output()
            .expect("bash");
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "2");
    }
}
