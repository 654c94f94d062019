//! `find` and `fd`: what they run for the files they find.

use super::options::Options;
use super::wrappers::replace;
use super::{Finding, Inner, refuse_always, refuse_computed};
use crate::script::{Command, Frag, Word};

const RUNS: &[&str] = &["-exec", "-execdir", "-ok", "-okdir"];

/// Tests and actions whose next word is a value.
const VALUES: &[&str] = &[
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-wholename",
    "-iwholename",
    "-lname",
    "-ilname",
    "-regex",
    "-iregex",
    "-regextype",
    "-size",
    "-type",
    "-xtype",
    "-user",
    "-group",
    "-uid",
    "-gid",
    "-perm",
    "-links",
    "-inum",
    "-samefile",
    "-newer",
    "-anewer",
    "-cnewer",
    "-mtime",
    "-atime",
    "-ctime",
    "-mmin",
    "-amin",
    "-cmin",
    "-used",
    "-fstype",
    "-maxdepth",
    "-mindepth",
    "-printf",
];

pub(super) fn open(outer: &Command) -> Finding {
    let args = &outer.words[1..];
    let mut inner = Vec::new();
    // Found names begin with a start path; the default one is `.`.
    let starts_plainly = args
        .iter()
        .take_while(|w| !w.literal_head().starts_with(['-', '(', '!']))
        .all(|w| !w.could_start_with_dash());
    let mut at = 0;
    let mut is_value = false;
    while let Some(word) = args.get(at) {
        at += 1;
        if std::mem::take(&mut is_value) && !word.could_be_many() {
            continue;
        }
        let Some(text) = word.literal() else {
            if word.could_start_with_dash() {
                return refuse_computed(
                    "a computed word could be an option with which 'find' runs or deletes something; start it \
                     with a literal such as ./",
                    true,
                );
            }
            continue;
        };
        is_value = VALUES.contains(&text.as_str());
        if !RUNS.contains(&text.as_str()) {
            continue;
        }
        let rest = &args[at..];
        let end = rest.iter().enumerate().position(|(i, w)| {
            let text = w.literal();
            text.as_deref() == Some(";")
                || text.as_deref() == Some("+") && i > 0 && rest[i - 1].literal().as_deref() == Some("{}")
        });
        let Some(end) = end else {
            return refuse_always(format!("'find' with {text} and no end of its command"));
        };
        // A computed word could be the `;` itself, and what follows then an option.
        if rest[..end]
            .iter()
            .any(|w| w.could_be_many() || w.literal().is_none() && w.literal_head().is_empty())
        {
            return refuse_computed(
                format!("a word that bash computes stands in the command of {text}"),
                false,
            );
        }
        let mut words: Vec<Word> = rest[..end].to_vec();
        let path = if starts_plainly { Frag::Path } else { Frag::Unknown { quoted: true } };
        for word in &mut words {
            replace(word, "{}", &path);
        }
        match words.first().and_then(Word::literal) {
            Some(_) => inner.push(Inner::Command(Command { words, prefixes: Vec::new(), span: outer.span })),
            None => return refuse_always("'find' fills in the program's name"),
        }
        at += end + 1;
    }
    Ok(inner)
}

pub(super) fn check_fd(name: &str, args: &[Word]) -> Finding {
    let refused = ["-x", "-X", "--exec", "--exec-batch", "-l", "--list-details"];
    Options::new(&refused, &["-e", "-t", "-d", "-E"]).check(name, args).map(|()| Vec::new())
}
