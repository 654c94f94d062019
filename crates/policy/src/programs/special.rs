//! Programs whose command line needs code of its own to be read.

use super::{Finding, Inner, Syntax, refuse, refuse_always, refuse_text};
use crate::script::Word;

/// Where a shell or `source` would read what somebody else feeds it (16).
fn is_fed(path: &str) -> bool {
    path == "-"
        || path == "/dev/stdin"
        || path.starts_with("/dev/fd/")
        || path.starts_with("/dev/tcp/")
        || path.starts_with("/proc/")
}

/// `source FILE`; the other interpreters run what they are given (20).
pub(super) fn interpreter(name: &str, args: &[Word]) -> Finding {
    if !matches!(name, "source" | ".") {
        return Ok(Vec::new());
    }
    match args.first().map(Word::literal) {
        Some(Some(path)) if !is_fed(&path) && !path.starts_with('-') => Ok(Vec::new()),
        Some(Some(_)) => refuse_always(format!("'{name}' would read what is fed to it")),
        _ => refuse_always(format!("'{name}' needs a file that the line names")),
    }
}

/// `bash -c TEXT`, `bash FILE`.
pub(super) fn shell(name: &str, args: &[Word], syntax: Syntax) -> Finding {
    if syntax == Syntax::Other {
        return refuse(format!("'{name}' reads script text in a syntax that can't be judged here"));
    }
    let mut takes_text = false;
    let mut at = 0;
    while let Some(word) = args.get(at) {
        let Some(text) = word.literal() else {
            return refuse_text(format!(
                "a word that bash computes stands where '{name}' takes an option or a script"
            ));
        };
        at += 1;
        if text == "--" || text == "-" {
            if text == "-" && !takes_text && args.get(at).is_none() {
                return refuse_always(format!("'{name}' would read a script from its input"));
            }
            break;
        }
        if matches!(text.as_str(), "--noprofile" | "--norc" | "--posix" | "--restricted") {
            continue;
        }
        let Some(cluster) = text.strip_prefix(['-', '+']) else {
            at -= 1;
            break;
        };
        if cluster == "o" {
            match args.get(at).and_then(Word::literal).as_deref() {
                Some("pipefail" | "errexit" | "nounset" | "xtrace" | "noglob" | "noclobber") => at += 1,
                _ => return refuse(format!("'{name}' with an option that is not known to be harmless")),
            }
            continue;
        }
        if cluster.chars().any(|c| !"ceuxvfnC".contains(c)) {
            return refuse(format!("'{name}' with {text}, an option that is not known to be harmless"));
        }
        takes_text |= cluster.contains('c');
    }
    match args.get(at).map(Word::literal) {
        None => refuse_always(format!("'{name}' would read a script from its input")),
        Some(None) => refuse_text(format!("'{name}' runs script text that bash computes")),
        Some(Some(text)) if takes_text => Ok(vec![Inner::Script { text, syntax }]),
        Some(Some(path)) if is_fed(&path) => refuse_always(format!("'{name}' would run what is fed to it")),
        // A rule for `bash FILE` is a rule for everything, said at load (20).
        Some(Some(_)) => Ok(Vec::new()),
    }
}

/// `trap TEXT SIGNAL…`.
pub(super) fn trap(args: &[Word]) -> Finding {
    let texts: Option<Vec<String>> = args.iter().map(Word::literal).collect();
    let Some(texts) = texts else { return refuse_text("'trap' runs script text that bash computes") };
    let mut texts = texts.iter().map(String::as_str).filter(|t| *t != "--");
    let (Some(text), signals) = (texts.next(), texts) else { return Ok(Vec::new()) };
    let signals: Vec<&str> = signals.collect();
    if matches!(text, "-p" | "-l") {
        return Ok(Vec::new());
    }
    if signals.iter().any(|s| s.to_ascii_uppercase().trim_start_matches("SIG").starts_with("DEBUG")) {
        return refuse_always("'trap … DEBUG' runs before every other command");
    }
    if text.is_empty() || text == "-" || signals.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Inner::Script { text: text.to_owned(), syntax: Syntax::Bash }])
}

/// `hash -p` gives a name to another program.
pub(super) fn hash(args: &[Word]) -> Finding {
    let harmless = |w: &Word| {
        w.literal().is_some_and(|t| matches!(t.as_str(), "-r" | "-l" | "-t" | "-d") || !t.starts_with('-'))
    };
    if args.iter().all(harmless) {
        Ok(Vec::new())
    } else {
        refuse_always("'hash -p' gives a name to another program")
    }
}
