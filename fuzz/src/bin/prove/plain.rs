//! The plain reading of the rules: the last one that fits `NAME ARGUMENTS` decides.
//!
//! Written anew and kept simple on purpose: it shares nothing with the policy's own code, so
//! that a blind spot of that can't be one of the proof's.

/// A rule as the operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) pattern: String,
    pub(crate) action: String,
    /// What its program runs in turn is free.
    pub(crate) any: bool,
}

impl Rule {
    /// `PATTERN` allows, `!PATTERN` denies, `PATTERN +any` has `children: any`.
    pub(crate) fn read(text: &str) -> Self {
        let (text, any) = match text.strip_suffix(" +any") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        match text.strip_prefix('!').filter(|rest| !rest.is_empty()) {
            Some(pattern) => Self { pattern: pattern.into(), action: "deny".into(), any },
            None => Self { pattern: text.into(), action: "allow".into(), any },
        }
    }

    pub(crate) fn deny_all() -> Self {
        Self { pattern: "*".into(), action: "deny".into(), any: false }
    }

    pub(crate) fn allow_all() -> Self {
        Self { pattern: "*".into(), action: "allow".into(), any: false }
    }

    /// Whether it spells a whole command: it then speaks for what that runs, too.
    fn is_exact(&self) -> bool {
        !self.pattern.contains('*')
    }
}

/// What a process executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) path: String,
    pub(crate) argv: Vec<String>,
}

impl Image {
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// `NAME ARGUMENTS`, as a rule is written.
    pub(crate) fn text(&self) -> String {
        text_of(self.name(), &self.argv)
    }
}

fn text_of(name: &str, argv: &[String]) -> String {
    let mut text = name.to_owned();
    for word in argv.iter().skip(1) {
        text.push(' ');
        text.push_str(word);
    }
    text
}

/// Whether a pattern fits a whole text; `*` stands for any characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    if let Some(name) = pattern.strip_suffix(" *")
        && !name.contains('*')
        && text == name
    {
        return true;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A pattern without the assignments before its command, and with quotes as bash reads them.
fn command_of(pattern: &str) -> String {
    let mut rest = pattern;
    while let Some((word, after)) = rest.split_once(' ') {
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        });
        if !is_assignment {
            break;
        }
        rest = after;
    }
    rest.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect()
}

/// The rule that decides over an image, if one fits. Quotes count for nothing on both sides.
pub(crate) fn decides<'a>(rules: &'a [Rule], image: &Image) -> Option<&'a Rule> {
    let unquoted =
        |text: &str| -> String { text.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect() };
    let text = unquoted(&image.text());
    // A program of several names is what its first word says.
    let by_word = image.argv.first().map(|word| {
        let word = word.trim_start_matches('-');
        unquoted(&text_of(word.rsplit('/').next().unwrap_or(word), &image.argv))
    });
    rules
        .iter()
        .rev()
        .filter(|rule| !rule.pattern.starts_with("> ") && !rule.pattern.starts_with(">> "))
        .find(|rule| {
            let pattern = command_of(&rule.pattern);
            fits(&pattern, &text)
                || rule.action == "deny" && by_word.as_ref().is_some_and(|word| fits(&pattern, word))
        })
}

/// Programs that others have for parts: parent, and what it runs in turn.
const HELPERS: &[(&str, &[&str])] = &[
    ("git", &["git", "git-*", "ssh", "sh"]),
    ("git-*", &["git", "git-*", "ssh"]),
    (
        "man",
        &[
            "apropos", "col", "eqn", "groff", "grotty", "gzip", "locale", "man", "nroff", "preconv", "tbl",
            "troff", "zsoelim",
        ],
    ),
    ("dpkg", &["dpkg-*"]),
    ("apt", &["dpkg"]),
    ("apt-cache", &["dpkg"]),
    ("flock", &["sh"]),
    ("ldd", &["ld-linux-*"]),
    ("rsync", &["ssh"]),
    ("scp", &["ssh"]),
    // Whoever's shell the user database names: an account without one has this.
    ("su", &["nologin"]),
    ("tar", &["bzip2", "gzip", "sh", "xz", "zstd"]),
    ("watch", &["sh"]),
    ("zcat", &["gzip"]),
];

/// Whether a program is a part of what stands above it: of the nearest, or of that whose part
/// the nearest is itself.
fn is_helper(ancestors: &[Image], image: &Image) -> bool {
    for (above, further) in ancestors.iter().zip(1..) {
        let parts = HELPERS.iter().filter(|(parent, _)| fits(parent, above.name()));
        if parts.flat_map(|(_, helpers)| *helpers).any(|helper| fits(helper, image.name())) {
            return true;
        }
        if !is_helper(&ancestors[further..], above) {
            return false;
        }
    }
    false
}

/// Why an exec was wrong, if it was. `ancestors` are the images above it, nearest first; none
/// for what the line's own shell runs.
pub(crate) fn wrong(rules: &[Rule], ancestors: &[Image], image: &Image) -> Option<String> {
    let decision = decides(rules, image);
    if decision.is_some_and(|rule| rule.action == "allow") {
        return None;
    }
    if is_helper(ancestors, image) {
        return None;
    }
    let named_deny = decision.is_some_and(|rule| rule.action != "allow" && rule.pattern != "*");
    let freed = ancestors
        .iter()
        .filter_map(|above| decides(rules, above))
        .any(|rule| rule.action == "allow" && (rule.any || rule.is_exact() && !named_deny));
    if freed {
        return None;
    }
    let rule = decision.map_or("no rule".to_owned(), |rule| format!("'{}'", rule.pattern));
    let by = ancestors.first().map(|above| format!(" (run by {})", above.name())).unwrap_or_default();
    Some(format!("{} was executed{by}, and the rules say {rule}: {}", image.path, image.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Image {
        let argv: Vec<String> = text.split(' ').map(String::from).collect();
        Image { path: format!("/usr/bin/{}", argv[0]), argv }
    }

    fn rules(texts: &[&str]) -> Vec<Rule> {
        std::iter::once(Rule::deny_all()).chain(texts.iter().map(|text| Rule::read(text))).collect()
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = rules(&["git *", "!git push *", "ls", "FOO=* cat *", "echo 'a b'"]);
        let may = |text: &str| wrong(&rules, &[], &image(text)).is_none();
        for text in ["git", "git log -1", "ls", "cat x", "echo a b"] {
            assert!(may(text), "{text}");
        }
        for text in ["git push", "git push origin", "ls -l", "gitx", "rm x"] {
            assert!(!may(text), "{text}");
        }
    }

    #[test]
    fn argv_0_frees_nothing_and_can_convict() {
        let rules = rules(&["ls *", "busybox *", "!rm *"]);
        let mut called_ls = image("touch owned");
        called_ls.argv[0] = "ls".into();
        assert!(wrong(&rules, &[], &called_ls).is_some());
        let mut called_rm = image("busybox x");
        called_rm.argv[0] = "/bin/rm".into();
        assert!(wrong(&rules, &[], &called_rm).is_some());
    }

    #[test]
    fn what_stands_beneath_is_free_by_a_rule_that_says_so_or_as_a_part() {
        let rules = rules(&["make * +any", "sudo systemctl restart x", "tar *", "env *"]);
        let under = |above: &[&str], text: &str| {
            let above: Vec<Image> = above.iter().map(|text| image(text)).collect();
            wrong(&rules, &above, &image(text)).is_none()
        };
        assert!(under(&["sh -c cc", "make all"], "cc x.c"));
        assert!(under(&["sudo systemctl restart x"], "systemctl restart x"));
        assert!(!under(&["sudo systemctl restart y"], "systemctl restart y"));
        assert!(under(&["sh -c gzip", "tar -czf x y"], "gzip"));
        assert!(!under(&["env gzip"], "gzip"));
        assert!(!under(&["env sh", "tar -cf x y"], "touch owned"));
    }
}
