//! A shell's place from call to call: its folder, and what it exports.
//!
//! No shell is kept alive for it. Each call is a shell of its own, which takes up where the last
//! one ended and notes where it ends itself: so an unclosed quote, an `exit` or a hang spoils no
//! later call, and a runner that is killed finds all of it again. The notes are files that the
//! commands can write; we never read them.

use std::path::{Path, PathBuf};

/// Where a session's notes are.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    dir: PathBuf,
}

/// Which shell, and so what of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/bin/sh`: the folder and exports.
    Posix,
    /// `bash`: variables and functions too.
    Bash,
}

impl Session {
    /// A session with its notes in a folder that commands may write.
    pub(crate) fn new(dir: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Forgets all of it.
    pub(super) fn restart(&self) {
        for name in ["sh", "sh.cwd", "bash", "bash.cwd"] {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }

    /// A command's text that begins where the last one ended; with `keeps` it notes its own end.
    /// `stays` says that the folder is given, and not the last one.
    pub(super) fn around(&self, command: &str, dialect: Dialect, stays: bool, keeps: bool) -> String {
        let (name, what) = match dialect {
            Dialect::Posix => ("sh", "export -p"),
            // The shell's own variables are read-only or made anew, and some can't be set at all.
            Dialect::Bash => (
                "bash",
                r#"declare -p | grep -Ev "^declare -[^ ]*(r| (BASH|DIRSTACK|FUNCNAME|GROUPS|PIPESTATUS))" ; declare -f"#,
            ),
        };
        let file = self.dir.join(name);
        let state = quoted(&file);
        let cwd = quoted(&file.with_extension("cwd"));
        let new = quoted(&file.with_extension("new"));
        // These are the call's own, whatever the last one had.
        let restore = format!(
            "LEGWORK_TMP=$TMPDIR; LEGWORK_BACK=$PWD; if ( . {state} ) >/dev/null 2>&1; then . {state} 2>/dev/null; fi; \
             TMPDIR=$LEGWORK_TMP; LEGWORK_OLD=$OLDPWD; cd -- \"$LEGWORK_BACK\"; "
        );
        let enter = if stays {
            String::new()
        } else {
            format!(
                "if IFS= read -r LEGWORK_CWD 2>/dev/null <{cwd}; then cd -- \"$LEGWORK_CWD\" 2>/dev/null || \
                 echo 'The folder is gone: back in the workspace.' >&2; fi; "
            )
        };
        let tidy = "OLDPWD=$LEGWORK_OLD; unset LEGWORK_TMP LEGWORK_BACK LEGWORK_OLD LEGWORK_CWD; ";
        let note = if keeps {
            let text = format!("{{ {{ {what}; }} >{new} && mv -f {new} {state}; pwd >{cwd}; }} 2>/dev/null");
            format!("trap {} 0; ", quoted_text(&text))
        } else {
            String::new()
        };
        format!("{restore}{enter}{tidy}{note}{command}")
    }
}

fn quoted(path: &Path) -> String {
    quoted_text(&path.to_string_lossy())
}

fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
