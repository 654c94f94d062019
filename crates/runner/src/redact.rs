//! Keeping secrets out of records: by the key before them, and by known shapes.

/// What stands for a secret.
const MASK: &str = "[redacted]";

/// Words after which a value is secret.
const KEYS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "private_key",
    "credential",
];

/// Beginnings of tokens that are secret wherever they stand.
const SHAPES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "sk-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "wnt_",
    "fk_",
    "lwk_",
    "eyJhbGciOi",
    "npm_",
    "pypi-",
];

/// Masks what looks like a secret in a line.
pub fn redact(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut secret_next = false;
    for piece in
        line.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '?'))
    {
        let end = piece
            .trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '?'))
            .len();
        let (word, rest) = piece.split_at(end);
        if word.is_empty() {
            out.push_str(rest);
            continue;
        }
        let lower = word.to_ascii_lowercase();
        let names_secret = |text: &str| KEYS.iter().any(|key| text.contains(key));
        match word.find(['=', ':']) {
            _ if secret_next && !matches!(lower.as_str(), "bearer" | "basic") => out.push_str(MASK),
            Some(at) if names_secret(&lower[..at]) && at + 1 < word.len() => {
                out.push_str(&word[..=at]);
                out.push_str(MASK);
            }
            _ if SHAPES.iter().any(|shape| word.contains(shape) && word.len() > shape.len() + 8) => {
                out.push_str(MASK)
            }
            _ => match userinfo(word) {
                Some((before, after)) => {
                    out.push_str(before);
                    out.push_str(MASK);
                    out.push_str(after);
                }
                None => out.push_str(word),
            },
        }
        let opens = matches!(lower.as_str(), "bearer" | "basic")
            || lower.ends_with("authorization:")
            || ((lower.starts_with("--") || lower.ends_with(':') || lower.ends_with('='))
                && names_secret(&lower)
                && !lower.trim_end_matches([':', '=']).contains('='));
        secret_next = opens && !rest.contains([';', '&', '|']);
        out.push_str(rest);
    }
    out
}

/// What stands before and after the credentials of a URL.
fn userinfo(word: &str) -> Option<(&str, &str)> {
    let start = word.find("://")? + 3;
    let authority = word[start..].find('/').map_or(word.len(), |at| start + at);
    let end = start + word[start..authority].rfind('@')?;
    Some((&word[..start], &word[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        for (line, want) in [
            ("ls -la /tmp", "ls -la /tmp"),
            ("mysql --password=hunter2 db", "mysql --password=[redacted] db"),
            ("mysql --password hunter2 db", "mysql --password [redacted] db"),
            ("curl -H 'Authorization: Bearer abc.def' x", "curl -H 'Authorization: Bearer [redacted]' x"),
            ("export API_KEY=abc; ls", "export API_KEY=[redacted]; ls"),
            ("git clone https://ghp_0123456789abcdef@host/x", "git clone [redacted]"),
            ("kubectl get secret", "kubectl get secret"),
            ("echo lwk_0123456789abcdef", "echo [redacted]"),
            ("http://h/p?a=1&token=x&b=2", "http://h/p?a=1&token=[redacted]&b=2"),
            ("curl https://me:pw@h/p", "curl https://[redacted]@h/p"),
        ] {
            assert_eq!(redact(line), want);
        }
    }
}
