//! Programs whose command line needs code of its own to be read.

use super::options::Options;
use super::{Finding, Inner, Syntax, refuse, refuse_always, refuse_computed, refuse_text, refuse_unseen};
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

pub(super) fn tar(args: &[Word]) -> Finding {
    const REFUSED: &[&str] = &[
        "--checkpoint-action",
        "--use-compress-program",
        "-I",
        "--to-command",
        "--info-script",
        "--new-volume-script",
        "-F",
        "--rsh-command",
        "--rmt-command",
        "--index-file",
        "--volno-file",
        "--absolute-names",
        "-P",
        "--remove-files",
        "--overwrite-dir",
    ];
    // The first word may be a cluster without a dash: `tar xIf prog archive`.
    if let Some(first) = args.first()
        && let Some(text) = first.literal()
        && !text.starts_with('-')
        && text.chars().any(|c| matches!(c, 'I' | 'F' | 'P'))
    {
        return refuse(format!("'tar' with {text} can run or write something else"));
    }
    // An archive name with a colon is on another machine, reached by rsh.
    let mut after_file = false;
    for word in args {
        let text = word.literal_head();
        let is_remote = |name: &str| name.split('/').next().is_some_and(|head| head.contains(':'));
        // Anywhere in a cluster, also in one without a dash: `-tvfHOST:x`.
        let cluster = text.strip_prefix('-').filter(|t| !t.starts_with('-'));
        let attached =
            text.strip_prefix("--file=").or_else(|| cluster?.split_once('f').map(|(_, name)| name));
        if (after_file && is_remote(&text) || attached.is_some_and(is_remote))
            && !args.iter().any(|w| w.literal().as_deref() == Some("--force-local"))
        {
            return refuse("'tar' reaches an archive on another machine by rsh");
        }
        after_file = text == "--file" || !text.starts_with("--") && text.ends_with('f');
    }
    let values = ["-f", "--file", "-C", "--directory", "-X", "-T", "--exclude"];
    Options::new(REFUSED, &values).knowing(&["--checkpoint"]).check("tar", args).map(|()| Vec::new())
}

/// Git's own options stand before the subcommand, the subcommand's after it.
pub(super) fn git(args: &[Word]) -> Finding {
    const GLOBAL: &[&str] = &[
        "--no-pager",
        "--no-replace-objects",
        "--bare",
        "--no-optional-locks",
        "--literal-pathspecs",
        "--glob-pathspecs",
        "--noglob-pathspecs",
        "--icase-pathspecs",
        "--version",
        "-v",
        "-h",
        "-P",
    ];
    const REFUSED: &[&str] = &[
        "--help",
        "--exec",
        "--ext-diff",
        "--textconv",
        "--open-files-in-pager",
        "--output",
        "--upload-pack",
        "--receive-pack",
        "--output-directory",
        "--exec-path",
        "--config-env",
        "--extcmd",
        "--tool",
        "--template",
        "--separate-git-dir",
        "--recurse-submodules",
        "--interactive",
        "--edit",
        "--edit-description",
        "--gpg-sign",
        "--filter",
        "--signing-key",
        "--path-format-exec",
        "--sendmail-cmd",
        "--to-cmd",
        "--cc-cmd",
        "--header-cmd",
    ];
    let mut at = 0;
    let sub = loop {
        let Some(word) = args.get(at) else { return Ok(Vec::new()) };
        let Some(text) = word.literal() else {
            return refuse_computed(
                "a computed word stands where git takes an option or its subcommand",
                true,
            );
        };
        at += 1;
        if text == "-C" {
            // As `cd` before it: a repository's own config is followed in either case.
            match args.get(at).map(Word::literal) {
                Some(Some(_)) => at += 1,
                _ => return refuse_computed("a computed word stands where git takes a folder", true),
            }
            continue;
        }
        if !text.starts_with('-') {
            break text;
        }
        if !GLOBAL.contains(&text.as_str()) {
            return refuse(format!("'git' with {text} can run or write something else"));
        }
    };
    let args = &args[at..];
    let first = args.first().map(Word::literal);
    let runs = match sub.as_str() {
        "config" => {
            // Options end at the first word that is none.
            let options = args.iter().map_while(Word::literal).take_while(|w| w.starts_with('-'));
            const READS: &[&str] = &["--get", "--get-all", "--get-regexp", "--list", "-l", "--get-urlmatch"];
            !options.into_iter().any(|o| READS.contains(&o.as_str()))
                && !matches!(first, Some(Some(ref word)) if word == "get" || word == "list")
        }
        "bisect" => !matches!(&first, Some(Some(w)) if matches!(w.as_str(), "log" | "view" | "terms")),
        "submodule" => !matches!(&first, None | Some(Some(_)) if first.as_ref().is_none_or(|w| {
            matches!(w.as_deref(), Some("status" | "summary"))
        })),
        "rebase" | "filter-branch" | "difftool" | "mergetool" | "daemon" | "instaweb" | "send-email"
        | "shell" | "hook" | "maintenance" | "credential" | "web--browse" | "gui" | "citool" | "svn"
        | "p4" | "cvsserver" | "upload-pack" | "receive-pack" | "for-each-repo" | "remote-ext"
        | "remote-fd" | "fast-import" | "imap-send" | "request-pull" | "cvsimport" | "archimport"
        | "help" | "var" | "bugreport" | "scalar" => true,
        // Those that start an editor or a signing program are told what to write.
        "log" | "diff" | "show" | "status" | "fetch" | "pull" | "push" | "clone" | "commit" | "merge"
        | "tag" | "notes" | "branch" | "checkout" | "switch" | "restore" | "reset" | "add" | "rm" | "mv"
        | "stash" | "cherry-pick" | "revert" | "am" | "apply" | "remote" | "ls-remote" | "ls-files"
        | "ls-tree" | "blame" | "annotate" | "cat-file" | "rev-parse" | "rev-list" | "describe"
        | "shortlog" | "reflog" | "grep" | "for-each-ref" | "show-ref" | "merge-base" | "diff-tree"
        | "diff-index" | "diff-files" | "name-rev" | "count-objects" | "fsck" | "gc" | "prune"
        | "worktree" | "init" | "archive" | "bundle" | "format-patch" | "range-diff" | "cherry"
        | "whatchanged" | "show-branch" | "symbolic-ref" | "update-ref" | "hash-object" | "write-tree"
        | "commit-tree" | "read-tree" | "update-index" | "check-ignore" | "check-attr" | "verify-commit"
        | "verify-tag" | "clean" | "sparse-checkout" | "version" | "show-index" | "stripspace"
        | "interpret-trailers" | "patch-id" | "mktree" | "mktag" | "unpack-objects" | "repack"
        | "pack-refs" | "column" | "diagnose" | "fmt-merge-msg" | "get-tar-commit-id" | "index-pack"
        | "pack-objects" | "merge-tree" | "merge-file" | "rerere" | "replace" | "multi-pack-index"
        | "commit-graph" | "check-mailmap" | "check-ref-format" | "verify-pack" | "mailinfo"
        | "mailsplit" | "refs" => false,
        other => {
            return refuse(format!("git's '{other}' may be an alias or a program of any kind"));
        }
    };
    if matches!(sub.as_str(), "rebase" | "bisect" | "submodule" | "difftool" | "mergetool") && runs {
        return refuse_unseen(format!("'git {sub}' can run other commands"));
    }
    if runs {
        return refuse(format!("'git {sub}' can run or set up other commands"));
    }
    // `ext::` runs a command as the transport.
    if args.iter().any(|w| {
        let head = w.literal_head();
        // Also as the value of an option.
        let head = head.strip_prefix("--").and_then(|o| o.split_once('=')).map_or(head.as_str(), |(_, v)| v);
        let helper = head
            .split_once("::")
            .is_some_and(|(helper, _)| helper.bytes().all(|b| b.is_ascii_alphanumeric()));
        helper
            && matches!(
                sub.as_str(),
                "clone" | "fetch" | "pull" | "push" | "ls-remote" | "remote" | "archive"
            )
    }) {
        return refuse("'git' with a transport helper runs it");
    }
    let short: &[&'static str] = match sub.as_str() {
        "grep" => &["-O"],
        "config" => &["-e"],
        "clone" => &["-c", "-u", "--config"],
        "fetch" | "pull" | "ls-remote" => &["-c"],
        "format-patch" | "archive" | "diff" | "log" | "show" | "diff-tree" => &["-o"],
        "add" | "checkout" | "stash" | "restore" | "reset" => &["-e"],
        _ => &[],
    };
    let mut refused = REFUSED.to_vec();
    refused.extend(short);
    // Which options take a value differs from subcommand to subcommand: none is skipped.
    Options::new(&refused, &[]).knowing(&["--text"]).check("git", args).map(|()| Vec::new())
}

/// `ip netns exec NAME COMMAND`, and commands from a file.
pub(super) fn ip(args: &[Word]) -> Finding {
    let mut at = 0;
    while let Some(word) = args.get(at) {
        let Some(text) = word.literal() else {
            return refuse_computed("a computed word stands where ip takes an option or its object", true);
        };
        at += 1;
        if let Some(option) = text.strip_prefix('-') {
            let option = option.trim_start_matches('-');
            if !option.is_empty() && ("batch".starts_with(option) && option != "br") || option == "force" {
                return refuse("'ip' with -batch runs commands from a file");
            }
            at += usize::from(matches!(
                option,
                "f" | "family" | "rc" | "rcvbuf" | "l" | "loops" | "n" | "netns"
            ));
            continue;
        }
        let object = text.as_str();
        let runs = object.starts_with("net") && "netns".starts_with(object)
            || object.starts_with('v') && "vrf".starts_with(object);
        let next = args.get(at).map(Word::literal);
        let looks =
            |word: &str| matches!(word, "list" | "lst" | "ls" | "show" | "sh" | "identify" | "id" | "pids");
        if runs
            && !matches!(&next, None | Some(Some(_)) if next.as_ref().is_none_or(|w| w.as_deref().is_some_and(looks)))
        {
            return refuse(format!("'ip {object}' can run other commands"));
        }
        break;
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Word> {
        text.split_whitespace().map(Word::of).collect()
    }

    #[test]
    fn git_runs_nothing_unseen() {
        for (line, fine) in [
            ("log --oneline -n 5", true),
            ("--no-pager diff --stat", true),
            ("config --get user.name", true),
            ("config alias.x !id", false),
            ("config --show-origin alias.x !id", false),
            ("config -l -e", false),
            ("-c core.pager=id log", false),
            ("--exec-path=/x log", false),
            ("grep -Oid x", false),
            ("grep --open-files=id x", false),
            ("clone ext::sh x", false),
            ("frobnicate", false),
            ("-C /repo log -1", true),
            ("clone -n --upload-pack=id x", false),
            ("bisect run id", false),
            ("log --help", false),
            ("submodule status", true),
            ("submodule foreach id", false),
            ("log --output=x", false),
        ] {
            assert_eq!(git(&words(line)).is_ok(), fine, "git {line}");
        }
    }

    #[test]
    fn ip_runs_nothing_unseen() {
        for (line, fine) in [
            ("addr", true),
            ("-br a", true),
            ("-j route show", true),
            ("netns list", true),
            ("netns exec x id", false),
            ("net e x id", false),
            ("-all netns exec id", false),
            ("vrf exec x id", false),
            ("-n x netns exec y id", false),
            ("-batch x", false),
            ("-b x", false),
        ] {
            assert_eq!(ip(&words(line)).is_ok(), fine, "ip {line}");
        }
    }
}
