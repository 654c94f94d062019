//! Kubernetes' secrets: read only by a rule that names them.

use super::{Refusal, refuse};
use crate::script::{Command, Word};

/// Refuses a command of kubectl that names secrets, in any case and in any of the ways to name
/// a kind (`Secret`, `pods,secrets.v1`, `secret/db`), unless the rule that allowed it does.
pub(super) fn check(base: &str, command: &Command, rule: &str) -> Result<(), Refusal> {
    if !matches!(base, "kubectl" | "oc") || rule.to_ascii_lowercase().contains("secret") {
        return Ok(());
    }
    let words = command.words.iter().skip(1).filter_map(Word::literal);
    let named = words.filter(|word| !word.starts_with('-')).find(|word| word.split(',').any(is_secret));
    match named {
        Some(word) => refuse(format!(
            "'{word}' would show secrets; a rule that names them would let it, such as '{base} get secrets *'"
        )),
        None => Ok(()),
    }
}

/// Whether one of the kinds of a list is that of secrets: `secret`, `Secrets.v1.`, `secret/NAME`.
fn is_secret(kind: &str) -> bool {
    let kind = kind.split(['/', '.']).next().unwrap_or_default();
    kind.eq_ignore_ascii_case("secret") || kind.eq_ignore_ascii_case("secrets")
}

#[cfg(test)]
mod tests {
    use crate::{Decision, Policy};

    #[test]
    fn secrets_are_shown_by_no_spelling_but_by_a_rule_that_names_them() {
        let rules = [("*", "deny"), ("kubectl get *", "allow"), ("kubectl describe *", "allow")];
        let policy = Policy::from_pairs(rules).expect("rules");
        for (line, allowed) in [
            ("kubectl get secrets", false),
            ("kubectl get Secret db -o yaml", false),
            ("kubectl get pods,SECRETS", false),
            ("kubectl get -n x secrets.v1.", false),
            ("kubectl get Secret/db", false),
            ("kubectl describe secret db", false),
            ("kubectl get pods -l app=secret", true),
            ("kubectl get pods secret-service", true),
            ("kubectl get sealedsecrets", true),
        ] {
            let decision = policy.judge(line).decision;
            assert_eq!(decision == Decision::Allow, allowed, "{line}: {:?}", policy.judge(line).message());
        }
        let named = Policy::from_pairs([("*", "deny"), ("kubectl get secrets *", "allow")]).expect("rules");
        assert_eq!(named.judge("kubectl get secrets -n x").decision, Decision::Allow);
    }
}
