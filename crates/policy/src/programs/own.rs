//! An operator's own table of options.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::known;

/// A table of an operator's, which counts beside the built-in one and before it. Two of the
/// same text are the same.
#[derive(Clone, Copy)]
pub struct Tables(&'static Own);

struct Own {
    text: &'static str,
    table: known::OwnTable,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TableError {
    /// Where the entry begins, from 1.
    pub line: usize,
    /// What it is, and what would be right.
    pub problem: String,
}

/// Texts of tables that were read. Each stays for as long as the process lives, as rules that
/// commands run by may be held against it at any time; a text that was read before is not
/// read again.
static READ: LazyLock<Mutex<HashMap<&'static str, &'static Own>>> = LazyLock::new(Mutex::default);

/// Most that a table may have: the built-in one has less than half of it.
const MAX_BYTES: usize = 256 * 1024;

impl Tables {
    /// Reads a table as `legwork policy tables` describes it.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = read.get(text) {
            return Ok(Self(own));
        }
        if text.len() > MAX_BYTES {
            let problem = format!("the table has {} bytes; at most {MAX_BYTES} are read", text.len());
            return Err(TableError { line: 1, problem });
        }
        let kept: &'static str = text.to_owned().leak();
        let table = known::read_own(kept).map_err(|(line, problem)| TableError { line, problem })?;
        let own: &'static Own = Box::leak(Box::new(Own { text: kept, table }));
        read.insert(kept, own);
        Ok(Self(own))
    }

    /// What the file says.
    pub fn text(&self) -> &str {
        self.0.text
    }
}

impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Tables {}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tables").field(&self.0.text.len()).finish()
    }
}

/// Has the table count until the guard is dropped.
pub(crate) fn in_force(tables: Option<Tables>) -> known::Own {
    known::with_own(tables.map(|tables| &tables.0.table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Policy};

    #[test]
    fn an_operators_table_counts_beside_the_built_in_one_and_goes_with_the_rules() {
        let rules = [("*", "deny"), ("our-tool *", "allow"), ("kubectl get *", "allow"), ("jq *", "allow")];
        let plain = Policy::from_pairs(rules).expect("rules");
        let text = "program our-tool; use: gnu; free: -v --since=; write: -o=\nmore kubectl get; free: --our-flag\n\
                    program jq; exec: -r\n";
        let own = plain.clone().with_tables(Some(Tables::parse(text).expect("a table")));
        let passes = |policy: &Policy, line: &str| policy.judge(line).decision == Decision::Allow;
        for (line, before, with) in [
            ("our-tool -v --since=1h x", false, true),
            ("our-tool -o x", false, false),
            ("our-tool --unheard-of", false, false),
            ("kubectl get pods --our-flag", false, true),
            ("kubectl get pods --kubeconfig=x", false, false),
            ("jq -r .a", true, false),
        ] {
            assert_eq!((passes(&plain, line), passes(&own, line)), (before, with), "{line}");
        }
        assert!(plain.notes().iter().any(|note| note.pattern == "our-tool *"));
        assert!(!own.notes().iter().any(|note| note.pattern == "our-tool *"));
        let sent = serde_json::to_string(&own).expect("JSON");
        let arrived: Policy = serde_json::from_str(&sent).expect("a policy");
        assert_eq!(arrived, own);
        assert!(passes(&arrived, "our-tool -v"));
        let error = Tables::parse("\nprogram a; free: -x; exec: -x").expect_err("a contradiction");
        assert_eq!(error.to_string(), "line 2: -x is free and exec; keep one");
    }
}
