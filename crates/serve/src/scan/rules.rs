//! What is looked for in files: secrets by their shapes, and an operator's own patterns.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use super::finding::Finding;

/// Shapes of secrets, as their issuers describe them.
const SECRETS: &[(&str, &str, &str)] = &[
    ("aws-access-key", "AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "aws-secret-key",
        "AWS secret key",
        r#"(?i)aws_secret_access_key['"\s]*[=:]['"\s]*[A-Za-z0-9/+=]{40}\b"#,
    ),
    ("private-key", "private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("github-token", "GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b"),
    ("gitlab-token", "GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("slack-token", "Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    ("stripe-key", "Stripe live key", r"\b[rs]k_live_[A-Za-z0-9]{20,}\b"),
    ("google-api-key", "Google API key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    ("anthropic-key", "Anthropic API key", r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    ("openai-key", "OpenAI API key", r"\bsk-(?:proj-)?[A-Za-z0-9]{32,}\b"),
    ("npm-token", "npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi-token", "PyPI token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    (
        "password-in-url",
        "password in an address",
        r"\b[a-z][a-z0-9+.-]*://[^/\s:@'\x22<>${}]+:[^/\s:@'\x22<>${}]{3,}@[A-Za-z0-9.-]+",
    ),
];

/// A rule of an operator's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    pattern: String,
    #[serde(default)]
    description: String,
    #[serde(default = "medium")]
    severity: String,
    /// A glob of the files it is for; all where it is missing.
    #[serde(default)]
    paths: Option<String>,
}

fn medium() -> String {
    "medium".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Written>,
}

struct Rule {
    id: String,
    description: String,
    severity: String,
    paths: Option<GlobMatcher>,
    pattern: Regex,
    secret: bool,
}

/// All rules of a scan.
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// All patterns at once: most files have none of them.
    any: RegexSet,
}

/// A pattern may not grow beyond this when it is compiled.
const MAX_PATTERN: usize = 4 << 20;

/// Why rules can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRules {
    /// A pattern of ours, or all together, can't be compiled.
    #[error(transparent)]
    Pattern(#[from] regex::Error),
    /// Something is wrong with the operator's file.
    #[error("{}: {why}", .file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What is wrong, in words.
        why: String,
    },
}

impl Rules {
    /// The built-in rules, and those of a file (YAML: `rules: [{id, pattern, …}]`).
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, BadRules> {
        let mut rules = Vec::new();
        for (id, description, pattern) in SECRETS {
            rules.push(Rule {
                id: (*id).to_owned(),
                description: (*description).to_owned(),
                severity: "high".into(),
                paths: None,
                pattern: compile(pattern)?,
                secret: true,
            });
        }
        if let Some(file) = file {
            let bad =
                |e: &dyn std::fmt::Display| BadRules::File { file: file.to_owned(), why: e.to_string() };
            let text = std::fs::read_to_string(file).map_err(|e| bad(&e))?;
            let written: File = serde_saphyr::from_str(&text).map_err(|e| bad(&e))?;
            for rule in written.rules {
                let paths = rule
                    .paths
                    .map(|glob| GlobBuilder::new(&glob).literal_separator(true).build())
                    .transpose()
                    .map_err(|e| bad(&format!("rule {}: paths: {e}", rule.id)))?;
                rules.push(Rule {
                    pattern: compile(&rule.pattern).map_err(|e| bad(&format!("rule {}: {e}", rule.id)))?,
                    id: rule.id,
                    description: rule.description,
                    severity: rule.severity,
                    paths: paths.map(|glob| glob.compile_matcher()),
                    secret: false,
                });
            }
        }
        let any = RegexSetBuilder::new(rules.iter().map(|r| r.pattern.as_str()))
            .multi_line(true)
            .size_limit(16 * MAX_PATTERN)
            .build()?;
        Ok(Self { rules, any })
    }

    /// Adds what is found in one file.
    pub(super) fn search(&self, path: &str, shown: &str, data: &[u8], findings: &mut Vec<Finding>) {
        const MOST: usize = 50;
        for index in self.any.matches(data) {
            let rule = &self.rules[index];
            if rule.paths.as_ref().is_some_and(|glob| !glob.is_match(path)) {
                continue;
            }
            for found in rule.pattern.find_iter(data).take(MOST) {
                let before = &data[..found.start()];
                let text = String::from_utf8_lossy(found.as_bytes());
                findings.push(Finding {
                    rule: rule.id.clone(),
                    severity: rule.severity.clone(),
                    description: rule.description.clone(),
                    path: shown.to_owned(),
                    line: Some(before.iter().filter(|b| **b == b'\n').count() as u64 + 1),
                    found: Some(if rule.secret { masked(&text) } else { text.chars().take(200).collect() }),
                    by: "legwork",
                });
            }
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).multi_line(true).size_limit(MAX_PATTERN).build()
}

/// Enough to find it again, too little to use it.
pub(super) fn masked(text: &str) -> String {
    let start: String = text.chars().take(6.min(text.chars().count() / 3)).collect();
    format!("{start}… ({} characters)", text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &Rules, path: &str, text: &str) -> Vec<(String, Option<u64>)> {
        let mut findings = Vec::new();
        rules.search(path, path, text.as_bytes(), &mut findings);
        assert!(findings.iter().all(|f| !f.found.as_ref().is_some_and(|m| m.contains("SECRETSECRET"))));
        findings.into_iter().map(|f| (f.rule, f.line)).collect()
    }

    #[test]
    fn secrets_are_found_by_their_shapes() {
        let rules = Rules::load(None).expect("rules");
        for (text, want) in [
            ("x\nkey = AKIASECRETSECRET1234\n", Some("aws-access-key")),
            ("-----BEGIN RSA PRIVATE KEY-----", Some("private-key")),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", Some("private-key")),
            ("-----BEGIN PUBLIC KEY-----", None),
            ("postgres://me:SECRETSECRET@db/x", Some("password-in-url")),
            ("https://${USER}:${PASS}@host", None),
            ("https://example.org/a:b@c", None),
            ("sk-ant-SECRETSECRETSECRETSECRET", Some("anthropic-key")),
            ("nothing here", None),
        ] {
            let got = found(&rules, "f", text);
            assert_eq!(got.first().map(|(rule, _)| rule.as_str()), want, "{text}");
        }
        assert_eq!(found(&rules, "f", "a\nb\nAKIASECRETSECRET1234")[0].1, Some(3));
    }

    #[test]
    fn a_file_adds_rules_or_says_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("rules.yaml");
        let load = |text: &str| {
            std::fs::write(&file, text).expect("file");
            Rules::load(Some(&file))
        };
        let rules = load("rules:\n- {id: no-eval, pattern: '\\beval\\(', paths: '**/*.js', severity: low}\n");
        let rules = rules.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found(&rules, "a/b.js", "eval(x)").len(), 1);
        assert_eq!(found(&rules, "a/b.py", "eval(x)").len(), 0);
        for (text, want) in [
            ("rules: [{id: x, pattern: '('}]", "rule x"),
            ("rules: [{id: x}]", "pattern"),
            ("rules: [{id: x, pattern: y, colour: red}]", "colour"),
            ("nothing", ""),
        ] {
            let error = load(text).err().unwrap_or_else(|| panic!("{text}"));
            let error = error.to_string();
            assert!(error.contains(want) && error.contains("rules.yaml"), "{error}");
        }
    }
}
