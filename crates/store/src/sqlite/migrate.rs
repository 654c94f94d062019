//! From each earlier version to the present one.

use rusqlite::Connection;

/// Each step takes the store from one version to the next; steps are never changed.
pub(super) const STEPS: &[&str] = &[
    include_str!("steps/0001.sql"),
    include_str!("steps/0002.sql"),
    include_str!("steps/0003.sql"),
    include_str!("steps/0004.sql"),
    include_str!("steps/0005.sql"),
    include_str!("steps/0006.sql"),
    include_str!("steps/0007.sql"),
];

pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Says why a store of a version can't be used.
pub(super) fn check(connection: &Connection, version: usize) -> Result<(), String> {
    if version > STEPS.len() {
        return Err(format!(
            "it is of a newer version ({version}) than this hub knows ({}): start the newer hub again, or give this one a folder of its own",
            STEPS.len()
        ));
    }
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
        .map_err(|e| e.to_string())?;
    match (version, tables) {
        (0, 0) => Ok(()),
        (0, _) => Err("it is no hub's: it has tables, and no version".into()),
        (_, 0) => Err(format!("it is damaged: it has no tables, and the version {version}")),
        _ => Ok(()),
    }
}

/// Takes the store to the present version. A step is made whole or not at all.
pub(super) fn migrate(connection: &Connection, version: usize) -> Result<(), String> {
    for (step, sql) in STEPS.iter().enumerate().skip(version) {
        let whole = format!("BEGIN IMMEDIATE; {sql} PRAGMA user_version = {}; COMMIT;", step + 1);
        if let Err(error) = connection.execute_batch(&whole) {
            let _ = connection.execute_batch("ROLLBACK");
            return Err(format!(
                "it can't be taken from version {step} to {}, and is left as it was: {error}",
                step + 1
            ));
        }
    }
    Ok(())
}
