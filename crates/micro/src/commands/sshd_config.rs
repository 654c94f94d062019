//! Edits the global section of sshd_config(5) and of the files it includes; every other
//! line stays as it is, byte for byte.
//!
//! sshd takes the first value of a keyword, but adds up `Port` and `AllowUsers`. A `Match`
//! block reaches to the end of its file, and one in an included file no further.

use std::path::{Path, PathBuf};

/// As sshd has it.
const MAX_DEPTH: usize = 16;

/// A keyword and the values it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) keyword: &'static str,
    pub(super) values: Vec<String>,
    /// Several lines add up.
    pub(super) adds_up: bool,
    /// Other names of the keyword.
    pub(super) aliases: &'static [&'static str],
}

impl Setting {
    fn is_named(&self, name: &str) -> bool {
        std::iter::once(&self.keyword).chain(self.aliases).any(|known| known.eq_ignore_ascii_case(name))
    }

    fn is_so(&self, values: &[String]) -> bool {
        same(values, &self.values, self.adds_up)
    }

    fn line(&self) -> String {
        format!("{} {}\n", self.keyword, self.values.join(" "))
    }
}

/// Whether two lists have the same words, in whatever order; names of users have a case.
pub(super) fn same(some: &[String], others: &[String], exact: bool) -> bool {
    let is = |one: &str, other: &str| one == other || (!exact && one.eq_ignore_ascii_case(other));
    let count = |all: &[String], word: &str| all.iter().filter(|one| is(one, word)).count();
    some.len() == others.len() && some.iter().all(|word| count(some, word) == count(others, word))
}

/// One file, in lines with their ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) lines: Vec<Vec<u8>>,
    pub(super) changed: bool,
    /// Per line: the files that it includes, by their place in [`Config`].
    includes: Vec<(usize, Vec<usize>)>,
}

/// The main file first, then those it includes.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) files: Vec<File>,
    /// Those that a `Match` block includes.
    inside: Vec<usize>,
}

/// How files are found and read.
pub(super) trait Source {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// The files that a pattern names, in order.
    fn glob(&self, pattern: &str) -> Vec<PathBuf>;
}

/// A line's keyword in lower case, and its values.
fn words(line: &[u8]) -> Option<(String, Vec<String>)> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let keyword = text[..end].trim_matches('"').to_ascii_lowercase();
    let rest = text[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let mut values = Vec::new();
    let (mut value, mut quoted, mut open) = (String::new(), false, false);
    for c in rest.chars() {
        match c {
            '"' => (quoted, open) = (!quoted, true),
            '#' if !quoted && !open => break,
            c if c.is_whitespace() && !quoted => {
                if std::mem::take(&mut open) {
                    values.push(std::mem::take(&mut value));
                }
            }
            c => {
                open = true;
                value.push(c);
            }
        }
    }
    if open {
        values.push(value);
    }
    Some((keyword, values))
}

impl Config {
    /// Reads a main file and what its global section includes.
    pub(super) fn load(source: &dyn Source, main: &Path) -> Result<Self, String> {
        let mut config = Self { files: Vec::new(), inside: Vec::new() };
        config.add(source, main, 0)?;
        Ok(config)
    }

    fn add(&mut self, source: &dyn Source, path: &Path, depth: usize) -> Result<usize, String> {
        if let Some(at) = self.files.iter().position(|file| file.path == path) {
            return Ok(at);
        }
        if depth > MAX_DEPTH {
            return Err(format!("{}: too many levels of Include", path.display()));
        }
        let bytes = source
            .read(path)
            .map_err(|error| format!("open {}: {}", path.display(), crate::os::cause(&error)))?;
        let lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let at = self.files.len();
        self.files.push(File { path: path.to_owned(), lines, changed: false, includes: Vec::new() });
        for line in 0..self.global_end(at) {
            self.include(source, at, line, depth)?;
        }
        Ok(at)
    }

    /// Reads what a line includes, if it does.
    fn include(&mut self, source: &dyn Source, at: usize, line: usize, depth: usize) -> Result<(), String> {
        let Some((keyword, patterns)) = words(&self.files[at].lines[line]) else { return Ok(()) };
        if keyword != "include" {
            return Ok(());
        }
        let mut included = Vec::new();
        for pattern in patterns {
            let pattern = if pattern.starts_with('/') { pattern } else { format!("/etc/ssh/{pattern}") };
            for file in source.glob(&pattern) {
                included.push(self.add(source, &file, depth + 1)?);
            }
        }
        self.files[at].includes.push((line, included));
        Ok(())
    }

    /// Reads what `Match` blocks include, too: all of that is inside of a block.
    pub(super) fn load_blocks(&mut self, source: &dyn Source) -> Result<(), String> {
        let mut at = 0;
        // Files that are met are added behind, and have their turn.
        while at < self.files.len() {
            let start = if self.inside.contains(&at) { 0 } else { self.global_end(at) };
            for line in start..self.files[at].lines.len() {
                if self.included(at, line).is_none() {
                    self.include(source, at, line, 1)?;
                }
                let files = self.included(at, line).unwrap_or_default().to_vec();
                self.inside.extend(files);
            }
            at += 1;
        }
        Ok(())
    }

    fn included(&self, at: usize, line: usize) -> Option<&[usize]> {
        self.files[at].includes.iter().find(|(known, _)| *known == line).map(|(_, files)| files.as_slice())
    }

    /// Makes settings so in every `Match` block that was read: a block that says otherwise
    /// wins over the global section.
    pub(super) fn set_in_blocks(&mut self, settings: &[Setting]) {
        for at in 0..self.files.len() {
            let start = if self.inside.contains(&at) { 0 } else { self.global_end(at) };
            (start..self.files[at].lines.len()).for_each(|line| self.correct(at, line, settings));
        }
    }

    fn correct(&mut self, at: usize, line: usize, settings: &[Setting]) {
        let Some((name, values)) = words(&self.files[at].lines[line]) else { return };
        let wrong = settings.iter().find(|setting| setting.is_named(&name) && !setting.is_so(&values));
        if let Some(setting) = wrong {
            let text = &self.files[at].lines[line];
            let indent = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            self.files[at].lines[line] = [&text[..indent], setting.line().as_bytes()].concat();
            self.files[at].changed = true;
        }
    }

    /// The users that `Match` blocks name, without patterns.
    pub(super) fn users_of_blocks(&self) -> Vec<String> {
        let lines = self.files.iter().flat_map(|file| &file.lines);
        let blocks = lines.filter_map(|line| words(line)).filter(|(keyword, _)| keyword == "match");
        let mut users = Vec::new();
        for (_, criteria) in blocks {
            for pair in criteria.windows(2).filter(|pair| pair[0].eq_ignore_ascii_case("user")) {
                let names = pair[1].split(',').filter(|name| !name.contains(['*', '?', '!']));
                users.extend(names.map(str::to_owned));
            }
        }
        users
    }

    /// The number of lines before the first `Match`.
    fn global_end(&self, file: usize) -> usize {
        let is_match = |line: &Vec<u8>| words(line).is_some_and(|(keyword, _)| keyword == "match");
        let lines = &self.files[file].lines;
        lines.iter().position(is_match).unwrap_or(lines.len())
    }

    /// The lines of the global section that set a keyword, in sshd's order.
    fn find(
        &self,
        file: usize,
        setting: &Setting,
        depth: usize,
        found: &mut Vec<(usize, usize, Vec<String>)>,
    ) {
        if depth > MAX_DEPTH {
            return;
        }
        for line in 0..self.global_end(file) {
            if let Some(included) = self.included(file, line) {
                included.iter().for_each(|file| self.find(*file, setting, depth + 1, found));
                continue;
            }
            match words(&self.files[file].lines[line]) {
                Some((name, values)) if setting.is_named(&name) => found.push((file, line, values)),
                _ => {}
            }
        }
    }

    /// Makes a setting so; nothing changes if it is.
    pub(super) fn set(&mut self, setting: &Setting) {
        let mut found = Vec::new();
        self.find(0, setting, 0, &mut found);
        let is_so = match (setting.adds_up, found.first()) {
            (_, None) => false,
            (true, _) => {
                setting.is_so(&found.iter().flat_map(|(_, _, values)| values.clone()).collect::<Vec<_>>())
            }
            (false, Some((_, _, values))) => setting.is_so(values),
        };
        if is_so {
            return;
        }
        let line = setting.line().into_bytes();
        let mut places = found.into_iter().map(|(file, line, _)| (file, line));
        let Some((file, at)) = places.next() else { return self.insert(line) };
        self.files[file].lines[at] = line;
        self.files[file].changed = true;
        for (file, at) in places {
            let duplicate = &mut self.files[file].lines[at];
            // The same file may be included twice.
            if duplicate.first() != Some(&b'#')
                && words(duplicate).is_some_and(|(_, values)| values != setting.values)
            {
                duplicate.insert(0, b'#');
                self.files[file].changed = true;
            }
        }
    }

    /// Adds a line at the end of the main file's global section.
    fn insert(&mut self, line: Vec<u8>) {
        let at = self.global_end(0);
        let main = &mut self.files[0];
        if let Some(before) = at.checked_sub(1).and_then(|at| main.lines.get_mut(at))
            && before.last() != Some(&b'\n')
        {
            before.push(b'\n');
        }
        main.lines.insert(at, line);
        main.changed = true;
        for (included, _) in &mut main.includes {
            if *included >= at {
                *included += 1;
            }
        }
    }

    /// A file's bytes, with what it includes replaced by other paths.
    pub(super) fn draft(&self, file: usize, name: &dyn Fn(usize) -> String) -> Vec<u8> {
        let file = &self.files[file];
        let mut bytes = Vec::new();
        for (at, line) in file.lines.iter().enumerate() {
            match file.includes.iter().find(|(included, _)| *included == at) {
                // An Include of nothing includes nothing.
                Some((_, files)) if files.is_empty() => bytes.push(b'\n'),
                Some((_, files)) => {
                    let names: Vec<String> = files.iter().map(|file| name(*file)).collect();
                    bytes.extend_from_slice(format!("Include {}\n", names.join(" ")).as_bytes());
                }
                None => bytes.extend_from_slice(line),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Tree(BTreeMap<&'static str, &'static str>);

    impl Source for Tree {
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            let text = self.0.get(path.to_str().unwrap()).ok_or(std::io::ErrorKind::NotFound)?;
            Ok(text.as_bytes().to_vec())
        }
        fn glob(&self, pattern: &str) -> Vec<PathBuf> {
            let prefix = pattern.split('*').next().unwrap();
            self.0.keys().filter(|path| path.starts_with(prefix)).map(PathBuf::from).collect()
        }
    }

    fn no(keyword: &'static str) -> Setting {
        Setting { keyword, values: vec!["no".into()], adds_up: false, aliases: &[] }
    }

    fn edited(files: &[(&'static str, &'static str)], settings: &[Setting]) -> Vec<(String, bool)> {
        let tree = Tree(files.iter().copied().collect());
        let mut config = Config::load(&tree, Path::new("/etc/ssh/sshd_config")).unwrap();
        settings.iter().for_each(|setting| config.set(setting));
        config.files.iter().map(|f| (String::from_utf8(f.lines.concat()).unwrap(), f.changed)).collect()
    }

    const MAIN: &str = "/etc/ssh/sshd_config";

    #[test]
    fn the_first_value_is_replaced_and_later_ones_are_commented_out() {
        let files = [(
            MAIN,
            "HostKey a\nHostKey b\n# PasswordAuthentication x\n  passwordauthentication=yes\nPasswordAuthentication \"yes\"\nMatch User a\n  PasswordAuthentication yes\n",
        )];
        let expected = "HostKey a\nHostKey b\n# PasswordAuthentication x\nPasswordAuthentication no\n#PasswordAuthentication \"yes\"\nMatch User a\n  PasswordAuthentication yes\n";
        assert_eq!(edited(&files, &[no("PasswordAuthentication")]), [(expected.to_owned(), true)]);
    }

    #[test]
    fn a_new_line_comes_before_the_first_match() {
        let files = [(MAIN, "Port 22\nMatch all\nX11Forwarding no\n")];
        let expected = "Port 22\nPermitRootLogin no\nMatch all\nX11Forwarding no\n";
        assert_eq!(edited(&files, &[no("PermitRootLogin")]), [(expected.to_owned(), true)]);
        assert_eq!(
            edited(&[(MAIN, "Port 22")], &[no("PermitRootLogin")])[0].0,
            "Port 22\nPermitRootLogin no\n"
        );
        assert_eq!(edited(&[(MAIN, "")], &[no("PermitRootLogin")])[0].0, "PermitRootLogin no\n");
    }

    #[test]
    fn an_included_file_comes_where_it_is_included() {
        let main = "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n";
        let part = "PasswordAuthentication yes\nMatch User a\nPermitRootLogin yes\n";
        let files = [(MAIN, main), ("/etc/ssh/sshd_config.d/50-cloud.conf", part)];
        let after = edited(&files, &[no("PasswordAuthentication"), no("PermitRootLogin")]);
        assert_eq!(
            after[0].0,
            "Include /etc/ssh/sshd_config.d/*.conf\n#PasswordAuthentication yes\nPermitRootLogin no\n"
        );
        assert_eq!(after[1].0, "PasswordAuthentication no\nMatch User a\nPermitRootLogin yes\n");
    }

    #[test]
    fn what_is_so_stays_untouched() {
        let users = Setting {
            keyword: "AllowUsers",
            values: vec!["b".into(), "a".into()],
            adds_up: true,
            aliases: &[],
        };
        let files = [(MAIN, "permitrootlogin NO\nPermitRootLogin yes\nAllowUsers a\nAllowUsers b\n")];
        let after = edited(&files, &[no("PermitRootLogin"), users]);
        assert_eq!(after, [(files[0].1.to_owned(), false)]);
    }

    #[test]
    fn keywords_that_add_up_are_taken_together() {
        let port = Setting { keyword: "Port", values: vec!["2222".into()], adds_up: true, aliases: &[] };
        let files = [(MAIN, "Port 2222\nPort 22\n")];
        assert_eq!(edited(&files, &[port]), [("Port 2222\n#Port 22\n".to_owned(), true)]);
    }

    #[test]
    fn an_include_of_itself_ends() {
        let files = [(MAIN, "Include /etc/ssh/sshd_config\nPort 22\n")];
        assert_eq!(edited(&files, &[no("PermitRootLogin")]).len(), 1);
    }

    #[test]
    fn a_draft_includes_drafts() {
        let files = [
            (MAIN, "Include conf/*\nInclude none/*\nPort 1\nMatch all\nInclude conf/*\n"),
            ("/etc/ssh/conf/a", ""),
        ];
        let config = Config::load(&Tree(files.into_iter().collect()), Path::new(MAIN)).unwrap();
        let draft = config.draft(0, &|at| format!("/draft/{at}"));
        assert_eq!(
            String::from_utf8(draft).unwrap(),
            "Include /draft/1\n\nPort 1\nMatch all\nInclude conf/*\n"
        );
    }

    #[test]
    fn blocks_and_what_they_include_say_the_same() {
        let main = "PasswordAuthentication no\nMatch User a,b*\n  PasswordAuthentication yes\n  Include conf/*\nMatch all\n\tPermitRootLogin yes\n";
        let files =
            [(MAIN, main), ("/etc/ssh/conf/x", "ChallengeResponseAuthentication yes\nX11Forwarding no\n")];
        let mut config = Config::load(&Tree(files.into_iter().collect()), Path::new(MAIN)).unwrap();
        config.load_blocks(&Tree(files.into_iter().collect())).unwrap();
        let aliases = &["ChallengeResponseAuthentication"];
        let keyboard = Setting { aliases, ..no("KbdInteractiveAuthentication") };
        let all = [no("PasswordAuthentication"), keyboard];
        all.iter().for_each(|setting| config.set(setting));
        config.set_in_blocks(&all);
        let text = |at: usize| String::from_utf8(config.files[at].lines.concat()).unwrap();
        let expected = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMatch User a,b*\n  PasswordAuthentication no\n  \
                        Include conf/*\nMatch all\n\tPermitRootLogin yes\n";
        assert_eq!(text(0), expected);
        assert_eq!(text(1), "KbdInteractiveAuthentication no\nX11Forwarding no\n");
        assert_eq!(config.users_of_blocks(), ["a"]);
        let draft = String::from_utf8(config.draft(0, &|at| format!("/draft/{at}"))).unwrap();
        assert!(draft.contains("  Include /draft/1\n") || draft.contains("Include /draft/1\n"), "{draft}");
    }
}
