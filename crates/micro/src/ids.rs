//! Users and groups by name: the host's files first, then whatever `getent` knows.

use crate::process::{Job, Keep};
use crate::request::Context;

/// Which table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Users,
    Groups,
}

impl Table {
    fn file(self) -> &'static str {
        match self {
            Self::Users => "/etc/passwd",
            Self::Groups => "/etc/group",
        }
    }

    fn database(self) -> &'static str {
        match self {
            Self::Users => "passwd",
            Self::Groups => "group",
        }
    }
}

/// The number of a name; a number stands for itself.
pub(crate) fn find(context: &mut Context<'_>, table: Table, name: &str) -> Option<u32> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        return name.parse().ok();
    }
    if !is_name(name) {
        return None;
    }
    let known = std::fs::read(table.file()).ok().and_then(|text| lookup(&text, name));
    known.or_else(|| {
        // Users of a directory service are in no file.
        let job = Job { out: Keep::Capture(4096), ..Job::new("getent", &[table.database(), name]) };
        let ended = context.run(&job).ok()?;
        lookup(&ended.stdout.bytes, name)
    })
}

/// The name of a user's number, from the host's file.
pub(crate) fn name_of(user: u32) -> Option<String> {
    let table = std::fs::read_to_string(Table::Users.file()).ok()?;
    let number = user.to_string();
    let found = table.lines().find(|line| line.split(':').nth(2) == Some(&number));
    found.and_then(|line| line.split(':').next()).map(str::to_owned)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.len() <= 256 && !name.contains([':', '\n', '\0', '/'])
}

fn lookup(table: &[u8], name: &str) -> Option<u32> {
    table.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        (fields.next()? == name.as_bytes()).then_some(())?;
        std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_a_whole() {
        let table = b"root:x:0:0:root:/root:/bin/sh\nrooted:x:7:7::/:/bin/sh\nbroken\n";
        assert_eq!(lookup(table, "root"), Some(0));
        assert_eq!(lookup(table, "rooted"), Some(7));
        assert_eq!(lookup(table, "roo"), None);
        assert_eq!(lookup(table, "broken"), None);
    }

    #[test]
    fn hostile_names_are_none() {
        for name in ["", "-x", "a:b", "a\nroot", "../x", "a\0b"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
