//! The table `pool_runners`.

use rusqlite::named_params;

use super::{Sqlite, json, number, signed, texts};
use crate::{Answer, Pool, PoolRunner};

impl Pool for Sqlite {
    fn pool_runners(&self) -> Answer<'_, Vec<PoolRunner>> {
        self.read(|c| {
            let mut statement = c.prepare(
                "SELECT id, name, ip, version, capabilities, seen_at_ms FROM pool_runners ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(PoolRunner {
                    id: row.get("id")?,
                    name: row.get("name")?,
                    ip: row.get("ip")?,
                    version: row.get("version")?,
                    capabilities: texts(row, "capabilities")?,
                    seen_at_ms: number(row, "seen_at_ms")?,
                })
            })?;
            rows.collect()
        })
    }

    fn keep_pool_runner(&self, runner: PoolRunner) -> Answer<'_, i64> {
        self.write(move |c| {
            let sql = "INSERT INTO pool_runners (name, ip, version, capabilities, created_at_ms, seen_at_ms)
                 VALUES (:name, :ip, :version, :capabilities, :at, :at)
                 ON CONFLICT (name) DO UPDATE SET ip = :ip, version = :version, capabilities = :capabilities,
                     seen_at_ms = :at
                 RETURNING id";
            c.prepare_cached(sql)?.query_row(
                named_params! {
                    ":name": runner.name,
                    ":ip": runner.ip,
                    ":version": runner.version,
                    ":capabilities": json(&runner.capabilities),
                    ":at": signed(runner.seen_at_ms),
                },
                |row| row.get(0),
            )
        })
    }

    fn forget_pool_runners(&self, names: Vec<String>) -> Answer<'_, ()> {
        self.write(move |c| {
            let mut statement = c.prepare_cached("DELETE FROM pool_runners WHERE name = :name")?;
            names.iter().try_for_each(|name| statement.execute(named_params! { ":name": name }).map(drop))
        })
    }
}
