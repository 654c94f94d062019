//! Properties of the table: what it does not know never passes, however it is spelt.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

fn command(words: &[&str]) -> Command {
    let words = words.iter().map(|word| Word::of(word)).collect();
    Command { words, prefixes: Vec::new(), span: crate::verdict::Span { start: 0, end: 0 } }
}

fn passes(words: &[&str]) -> bool {
    let rule = format!("{} *", words[0]);
    [false, true].iter().any(|gate| check(words[0], &command(words), &rule, *gate).is_ok())
}

/// Every option with the words before it.
static ALL: LazyLock<Vec<table::Placed>> = LazyLock::new(table::every_option);

/// The names of all options.
static NAMES: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| ALL.iter().map(|(_, name, ..)| *name).collect());

#[test]
fn options_that_act_are_refused_in_every_spelling() {
    let mut wrong = Vec::new();
    for (path, option, opt, dash) in ALL.iter().cloned() {
        if matches!(opt.effect, Effect::Free) {
            continue;
        }
        let value = format!("{option}=./x");
        let attached = format!("{option}./x");
        let double = format!("-{option}");
        let mut spellings = vec![vec![option, "./x"], vec![option, "./x", "y"]];
        if option.starts_with("--") || dash {
            spellings.push(vec![&value]);
        } else {
            spellings.push(vec![&attached]);
        }
        if dash && !option.starts_with("--") {
            spellings.push(vec![&double, "./x"]);
        }
        // Cut short it may be unclear, but never harmless, unless that is an option of its own.
        for end in 3..option.len() {
            if option.starts_with("--") && option.is_char_boundary(end) && !NAMES.contains(&option[..end]) {
                spellings.push(vec![&option[..end], "./x"]);
            }
        }
        for spelling in spellings {
            let words: Vec<&str> = path.iter().copied().chain(spelling).collect();
            if passes(&words) {
                wrong.push(words.join(" "));
            }
        }
    }
    assert!(wrong.is_empty(), "{} pass:\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_option_that_nobody_knows_never_passes(
        name in "--[a-z]{3,9}-[a-z]{2,6}", at in 0..100_000usize, value in prop::option::of("[a-z./]{1,5}")
    ) {
        let (path, ..) = &ALL[at % ALL.len()];
        prop_assume!(!NAMES.contains(name.as_str()) && !NAMES.contains(&name[1..]));
        let text = value.map_or_else(|| name.clone(), |value| format!("{name}={value}"));
        let words: Vec<&str> = path.iter().copied().chain([text.as_str()]).collect();
        prop_assert!(!passes(&words), "{:?}", words);
    }

    #[test]
    fn whatever_the_words_are_nothing_panics_and_a_rule_that_spells_all_allows_all(
        words in prop::collection::vec("[-a-z=/@{}.*]{0,8}", 1..6), program in 0..100_000usize
    ) {
        let (path, ..) = &ALL[program % ALL.len()];
        let line: Vec<&str> = path.iter().copied().chain(words.iter().map(String::as_str)).collect();
        let _ = passes(&line);
        prop_assert!(check(path[0], &command(&line), &line.join(" ").replace('*', ""), false).is_ok());
    }
}
