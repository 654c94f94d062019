//! The border to the operating system: Unix. On others the program builds, and says at its
//! start that it can't work.

mod hold;
mod signals;
mod tree;

pub(crate) use hold::hold;
pub(crate) use signals::Signals;
pub(crate) use tree::Tree;

/// What Go says of a failed system call: the reason alone, in lower case.
pub(crate) fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    // "No such file" becomes "no such file", but "RPC failed" stays.
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// Go's names of where we run.
pub(crate) fn platform() -> (&'static str, &'static str) {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    (system, processor)
}
