//! Which names a diff may have: those within a checkout, and none that is a repository's own, as any
//! of the file systems that a checkout may lie on would read them.

/// Refuses a name that leads out of the checkout, or into what git keeps for itself.
pub(super) fn check(name: &[u8]) -> Result<(), String> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    let drive = name.get(1) == Some(&b':') && name[0].is_ascii_alphabetic();
    if name.is_empty() || name[0] == b'/' || name[0] == b'\\' || (cfg!(windows) && drive) {
        return Err(format!("'{}' is no name within the checkout", shown()));
    }
    if name.contains(&0) {
        return Err(format!("'{}' holds what no name can", shown()));
    }
    if name.split(|b| *b == b'/').any(|part| part.is_empty() || part == b".") {
        return Err(format!("'{}' is no plain name", shown()));
    }
    // Windows parts names at backslashes as well.
    for part in name.split(|b| matches!(b, b'/' | b'\\')) {
        if part == b".." {
            return Err(format!("'{}' leads out of the checkout", shown()));
        }
        if is_git(part) {
            return Err(format!("'{}' belongs to git itself", shown()));
        }
    }
    Ok(())
}

/// Whether a file system may take a part of a name for `.git`.
fn is_git(part: &[u8]) -> bool {
    // HFS+ sees no difference in case, and does not see some letters at all.
    let seen: String = String::from_utf8_lossy(part).chars().filter(|c| !is_unseen(*c)).collect();
    let seen = seen.to_ascii_lowercase();
    // NTFS drops dots and blanks at the end, has streams after a colon, and short names.
    let plain = seen.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(plain, ".git" | "git~1")
}

/// The letters that HFS+ leaves out when it compares names.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_the_checkout_and_out_of_its_repository() {
        for good in [
            "a",
            "a b/c.txt",
            ".github/x",
            ".gitignore",
            "x.git/config",
            "..a/b..",
            "git~2",
            "\u{200c}x",
            "a/...",
            "é",
            ".git-x",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "..",
            "a//b",
            "./a",
            "a/.",
            "a/",
            "a\0b",
            ".git/config",
            "a/.git/hooks/x",
            ".GIT/x",
            ".gIt",
            ".git ./x",
            ".git...",
            ".git::$INDEX_ALLOCATION/x",
            "GIT~1/x",
            "git~1",
            ".g\u{200c}it/x",
            "\u{feff}.git/x",
            ".gi\u{206f}T",
            "a\\..\\b",
            "a\\.git\\config",
            "\\\\host\\x",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(check(b"\xff\xfe"), Ok(()));
    }
}
