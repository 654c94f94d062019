//! Paths as clients give them, and what went wrong with them
//! (`docs/protocols/workspace.md` §6 and §8).

use std::io;

use legwork_workspace::{Error, strerror};
use serde::Serialize;

/// What went wrong, in the protocol's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

/// `file:error`, in the protocol's order.
#[derive(Debug, Serialize)]
pub(crate) struct FileError<'a> {
    pub(crate) event: &'a str,
    pub(crate) path: Option<&'a str>,
    pub(crate) error: &'a str,
    pub(crate) code: &'a str,
}

/// A failed acknowledgement.
#[derive(Debug, Serialize)]
pub(crate) struct Failed<'a> {
    pub(crate) error: &'a str,
    pub(crate) code: &'a str,
}

impl Trouble {
    /// What a failed acknowledgement says.
    pub(crate) fn failed(&self) -> Failed<'_> {
        Failed { error: &self.text, code: self.code }
    }

    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new("bad_request", text)
    }

    /// Something went wrong in the server itself.
    pub(crate) fn internal() -> Self {
        Self::new("io_error", "internal error")
    }

    /// An event that nobody knows: the original ignores it, but who waits for an answer must
    /// not wait for ever.
    pub(crate) fn unknown(event: &str) -> Self {
        let short: String = event.chars().take(100).collect();
        Self::new("unknown_event", format!("unknown event: {short}"))
    }

    pub(crate) fn outside(path: &str) -> Self {
        Self::new("outside_workspace", format!("path is outside the workspace: {path}"))
    }

    /// What happened to the path as it was given.
    pub(crate) fn of(error: &Error, path: &str) -> Self {
        match error {
            Error::Outside { .. } | Error::Escapes { .. } => Self::outside(path),
            Error::IsDirectory { .. } => Self::new("is_directory", format!("is a directory: {path}")),
            Error::NotAFile { .. } => Self::new("not_a_file", format!("not a regular file: {path}")),
            Error::Io { source, .. } => Self::of_io(source, path),
            Error::BadGlob | Error::BadPattern(_) => Self::bad(error.to_string()),
            Error::TooMuch { .. } => Self::new("too_large", error.to_string()),
        }
    }

    pub(crate) fn of_io(error: &io::Error, path: &str) -> Self {
        let (code, text) = match error.kind() {
            io::ErrorKind::NotFound => ("not_found", "no such file or directory".to_owned()),
            io::ErrorKind::NotADirectory => ("not_a_directory", "not a directory".to_owned()),
            io::ErrorKind::IsADirectory => ("is_directory", "is a directory".to_owned()),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ("permission_denied", strerror(error))
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ("no_space", strerror(error)),
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => ("exists", strerror(error)),
            io::ErrorKind::FileTooLarge => ("too_large", strerror(error)),
            // A device or socket that can't be opened.
            _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                ("not_a_file", "not a regular file".to_owned())
            }
            _ => ("io_error", strerror(error)),
        };
        Self::new(code, format!("{text}: {path}"))
    }
}

/// Where the workspace is, as it was configured and as it really is.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) configured: String,
    real: String,
}

/// What the original's workspace is called.
const ORIGINAL: &str = "/workspace";

impl Names {
    pub(crate) fn new(configured: &str, real: &str) -> Self {
        let configured = configured.trim_end_matches('/');
        let configured = if configured.is_empty() { "/" } else { configured };
        Self { configured: configured.to_owned(), real: real.to_owned() }
    }

    /// What a client means, relative to the root; the root itself is "".
    pub(crate) fn relative(&self, given: &str) -> Result<String, Trouble> {
        if given.contains('\0') {
            return Err(Trouble::outside(&given.replace('\0', "\u{fffd}")));
        }
        let inside = if given.starts_with('/') {
            [&*self.configured, &*self.real, ORIGINAL]
                .iter()
                .find_map(|root| below(given, root))
                .or_else(|| given.bytes().all(|b| b == b'/').then_some(""))
                .ok_or_else(|| Trouble::outside(given))?
        } else {
            given
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in inside.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(Trouble::outside(given));
                    }
                }
                name => parts.push(name),
            }
        }
        Ok(parts.join("/"))
    }

    /// A file's path: never the root.
    pub(crate) fn file(&self, given: &str) -> Result<String, Trouble> {
        let path = self.relative(given)?;
        if path.is_empty() {
            return Err(Trouble::new("is_directory", format!("is a directory: {given}")));
        }
        Ok(path)
    }

    /// The path that clients see.
    pub(crate) fn absolute(&self, relative: &str) -> String {
        if relative.is_empty() {
            self.configured.clone()
        } else if self.configured == "/" {
            format!("/{relative}")
        } else {
            format!("{}/{relative}", self.configured)
        }
    }
}

/// The rest of a path that lies in a folder, by whole names.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?;
    (rest.is_empty() || rest.starts_with('/') || root == "/").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_the_protocol_says() {
        let names = Names::new("/srv/ws/", "/mnt/real");
        for (given, want) in [
            ("", Some("")),
            (".", Some("")),
            ("/", Some("")),
            ("a/b/", Some("a/b")),
            ("./a//b", Some("a/b")),
            ("a/../b", Some("b")),
            ("/srv/ws", Some("")),
            ("/srv/ws/a", Some("a")),
            ("/mnt/real/a", Some("a")),
            ("/workspace", Some("")),
            ("/workspace/a", Some("a")),
            ("/workspace-2/a", None),
            ("/srv/ws2/a", None),
            ("/srv/ws/../x", None),
            ("/etc/hosts", None),
            ("..", None),
            ("a/../../b", None),
            ("a\0b", None),
        ] {
            assert_eq!(names.relative(given).ok().as_deref(), want, "{given:?}");
        }
        assert_eq!(names.file("/").expect_err("root").code, "is_directory");
        assert_eq!(names.absolute("a/b"), "/srv/ws/a/b");
        assert_eq!(names.absolute(""), "/srv/ws");
    }
}
