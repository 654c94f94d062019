//! Names of hosts as people write them: ranges, patterns, ports.

use anyhow::{Context as _, Result, bail};

/// A range makes at most so many hosts.
const MAX_RANGE: u64 = 100_000;

/// A host as ssh knows it, from one as people write it: `ssh://me@web1:2222`, `[::1]:2222`.
pub(super) fn written(word: &str) -> (String, Option<&str>) {
    let (word, is_url) = word.strip_prefix("ssh://").map_or((word, false), |rest| (rest, true));
    let word = if is_url { word.trim_end_matches('/') } else { word };
    let (user, host) = word.rsplit_once('@').map_or((None, word), |(user, host)| (Some(user), host));
    let bare = |host: &str| user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return match rest.strip_prefix(':').filter(|number| port(number)) {
            Some(number) => (bare(address), Some(number)),
            None if rest.is_empty() => (bare(address), None),
            None => (word.to_owned(), None),
        };
    }
    match host.split_once(':').filter(|(_, number)| is_url && port(number)) {
        Some((name, number)) => (bare(name), Some(number)),
        None => (word.to_owned(), None),
    }
}

/// `web[1-3,08-10].example.com`, and as Ansible has it `web[01:50]`, `db-[a:f]`, `x[0:9:3]`: every
/// host of a range. Leading zeros are kept.
pub(super) fn range(word: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = word.split_once('[') else { return Ok(vec![word.to_owned()]) };
    let Some((inside, after)) = rest.split_once(']') else { return Ok(vec![word.to_owned()]) };
    let mut middles = Vec::new();
    if inside.contains(':') {
        // [::1] is an address.
        let Some(all) = colons(word, inside)? else { return Ok(vec![word.to_owned()]) };
        middles = all;
    } else {
        for part in inside.split(',') {
            match part.split_once('-') {
                None if !part.is_empty() => middles.push(part.to_owned()),
                Some((from, to)) => middles.extend(numbers(word, from, to, 1)?),
                None => bail!("{word}: a part of the range is empty"),
            }
        }
    }
    let afters = range(after)?;
    if middles.len().saturating_mul(afters.len()) as u64 > MAX_RANGE {
        bail!("{word}: a range has at most {MAX_RANGE} hosts");
    }
    let all =
        middles.iter().flat_map(|middle| afters.iter().map(move |after| format!("{before}{middle}{after}")));
    Ok(all.collect())
}

/// `01:50`, `a:f`, `0:9:3`; `None` if it is no such range.
fn colons(word: &str, inside: &str) -> Result<Option<Vec<String>>> {
    let parts: Vec<&str> = inside.split(':').collect();
    let (from, to, step) = match parts[..] {
        [from, to] => (from, to, 1),
        [from, to, step] => match step.parse() {
            Ok(step @ 1..) => (from, to, step),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let letter = |text: &str| text.chars().next().filter(|c| text.len() == 1 && c.is_ascii_alphabetic());
    if let (Some(from), Some(to)) = (letter(from), letter(to)) {
        if from > to {
            bail!("{word}: a range goes up");
        }
        return Ok(Some((from..=to).step_by(step).map(String::from).collect()));
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits(from) && digits(to) { numbers(word, from, to, step).map(Some) } else { Ok(None) }
}

fn numbers(word: &str, from: &str, to: &str, step: usize) -> Result<Vec<String>> {
    let number = |text: &str| -> Result<u64> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).with_context(|| format!("{word}: {text:?} is no number"))
    };
    let (first, last) = (number(from)?, number(to)?);
    if first > last || last - first >= MAX_RANGE {
        bail!("{word}: a range goes up, and has at most {MAX_RANGE} hosts");
    }
    let width = if from.starts_with('0') { from.len() } else { 0 };
    Ok((first..=last).step_by(step).map(|n| format!("{n:0width$}")).collect())
}

/// Whether a name fits a pattern of `*` and `?`.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(name))
}

/// The words of a text, as a shell takes them: quotes and backslashes; a `#` after a blank ends it.
pub(super) fn split(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => {
                if std::mem::take(&mut open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            '#' if !open => break,
            '\'' | '"' => {
                open = true;
                loop {
                    match rest.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match rest.next() {
                            Some(next @ ('"' | '\\')) => word.push(next),
                            Some(next) => word.extend(['\\', next]),
                            None => bail!("a quote is not closed: {text}"),
                        },
                        Some(inside) => word.push(inside),
                        None => bail!("a quote is not closed: {text}"),
                    }
                }
            }
            '\\' => {
                open = true;
                word.extend(rest.next());
            }
            c => {
                open = true;
                word.push(c);
            }
        }
    }
    if open {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (word, expected) in [
            ("web[1-3].x", &["web1.x", "web2.x", "web3.x"][..]),
            ("web[08-10,a]", &["web08", "web09", "web10", "weba"]),
            ("[::1]", &["[::1]"]),
            ("[fe80::1%eth0]", &["[fe80::1%eth0]"]),
            ("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]),
            ("web[08:10]", &["web08", "web09", "web10"]),
            ("[1:2].x", &["1.x", "2.x"]),
            ("db-[a:c].x", &["db-a.x", "db-b.x", "db-c.x"]),
            ("s-[01:09:4].dc1", &["s-01.dc1", "s-05.dc1", "s-09.dc1"]),
            ("h-[1:2]-[1:2].x", &["h-1-1.x", "h-1-2.x", "h-2-1.x", "h-2-2.x"]),
        ] {
            assert_eq!(range(word).unwrap(), expected, "{word}");
        }
        for bad in [
            "web[3-1]",
            "web[1-x]",
            "web[]",
            "web[1,,2]",
            "web[1-999999999]",
            "w[5:1]",
            "w[c:a]",
            "a[1-999]b[1-999]",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(
            split(r#"a b="c d" e='f # g' h\ i "" # rest"#).unwrap(),
            ["a", "b=c d", "e=f # g", "h i", ""]
        );
        assert_eq!(split("a=1#2").unwrap(), ["a=1#2"]);
        assert!(split("a='b").is_err());
    }

    #[test]
    fn hosts_are_written_as_ssh_takes_them() {
        for (word, address, port) in [
            ("web1", "web1", None),
            ("[::1]", "::1", None),
            ("me@[::1]:2222", "me@::1", Some("2222")),
            ("ssh://me@web1:2222", "me@web1", Some("2222")),
            ("ssh://[fe80::1%eth0]/", "fe80::1%eth0", None),
            ("DOM+me@web1", "DOM+me@web1", None),
            ("::1", "::1", None),
            ("web1:22", "web1:22", None),
        ] {
            assert_eq!(written(word), (address.to_owned(), port), "{word}");
        }
    }
}
