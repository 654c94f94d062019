//! What the clients take for themselves: `\dt` of psql, `.tables` of sqlite3, and the
//! settings of SQLite that tell something.

use super::Dialect;

/// Commands of psql that describe, without `+` and `S`.
const PSQL: &[&str] = &[
    "d", "da", "dA", "db", "dc", "dC", "dd", "dD", "dp", "dE", "df", "dF", "dFd", "dFp", "dFt", "dg", "di",
    "dl", "dL", "dm", "dn", "do", "dO", "dP", "drds", "dRp", "dRs", "ds", "dt", "dT", "du", "dv", "dx", "dX",
    "dy", "l", "list", "z", "conninfo", "sf", "sv",
];

/// Commands of sqlite3 that tell or set how to show.
const SQLITE: &[&str] = &[
    ".tables",
    ".schema",
    ".databases",
    ".indexes",
    ".indices",
    ".fullschema",
    ".dbinfo",
    ".show",
    ".headers",
    ".header",
    ".mode",
    ".width",
    ".nullvalue",
    ".separator",
    ".timer",
    ".stats",
    ".eqp",
    ".changes",
    ".help",
    ".version",
    ".dump",
    ".lint",
    ".bail",
    ".timeout",
];

/// Settings that are read, with a table's name for those that take one.
const PRAGMAS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
    "database_list",
    "collation_list",
    "function_list",
    "module_list",
    "pragma_list",
    "compile_options",
    "page_count",
    "page_size",
    "freelist_count",
    "schema_version",
    "user_version",
    "application_id",
    "encoding",
    "journal_mode",
    "auto_vacuum",
    "cache_size",
    "foreign_keys",
    "synchronous",
    "data_version",
];
/// Of those, the ones for which a value in brackets is a name and not a new setting.
const NAMED: usize = 10;

pub(super) fn check(dialect: Dialect, text: &str) -> Result<(), String> {
    if text.trim_end().contains('\n') {
        return Err("holds a command of the client and more".into());
    }
    let mut words = text.split_whitespace();
    let command = words.next().unwrap_or_default();
    let known = match dialect {
        Dialect::Postgres => {
            let name = command.strip_prefix('\\').map(|name| name.trim_end_matches(['+', 'S']));
            name.is_some_and(|name| PSQL.contains(&name))
        }
        Dialect::Sqlite => SQLITE.contains(&command),
        Dialect::Mysql => false,
    };
    if !known {
        return Err(format!("holds '{command}', a command of the client that is not known to look only"));
    }
    // In an argument psql runs what stands in backticks and fills in variables, and a
    // backslash begins the next command.
    let plain = |word: &str| word.chars().all(|c| c.is_alphanumeric() || "_.*%-,+?=".contains(c));
    if words.all(plain) { Ok(()) } else { Err(super::UNCLEAR.to_owned()) }
}

/// `PRAGMA name`, `PRAGMA name(table)`, perhaps with a schema before it.
pub(super) fn pragma(text: &str) -> Result<(), String> {
    let name = text.split('(').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    let at = PRAGMAS.iter().position(|known| *known == name);
    match at {
        Some(_) if !text.contains(['(', '=']) => Ok(()),
        Some(at) if at < NAMED && !text.contains('=') => Ok(()),
        _ => Err(format!("sets '{name}', or it is not known to be only read")),
    }
}
