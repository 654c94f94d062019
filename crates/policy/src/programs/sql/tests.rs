use super::*;

#[test]
fn statements_that_look_pass() {
    for (dialect, texts) in [
        (
            Dialect::Postgres,
            &[
                "select 1",
                "select state, count(*) from pg_stat_activity group by 1",
                "SELECT pg_size_pretty(pg_database_size(current_database()))",
                "select * from t where name = 'drop table; it''s' and x = $$ ; delete $$ -- ; update\n limit 5;",
                "with x as (select 1 as a) select a from x; show work_mem",
                "explain select * from t",
                "explain delete from t where id = 1",
                "explain (analyze, buffers) select count(*) from t",
                "select replace(name, 'a', 'b'), x.update from x",
                "select date_trunc('hour', now() - interval '1 day'), sum(n) filter (where n > 3) over (order by a) from t",
                "select (select max(id) from t) in (1, 2) /* note */",
                "table t",
                "values (1), (2)",
                "\\dt+ public.*",
                "\\l",
                "",
            ][..],
        ),
        (
            Dialect::Mysql,
            &[
                "show processlist",
                "show slave status\\G",
                "use app; show tables; describe t; select count(*) from t",
                "select `id` from t where a = \"x; drop\" # delete\n",
                "SHOW CREATE TABLE t; SHOW GRANTS FOR x; SHOW VARIABLES LIKE 'max%'",
                "select table_schema, sum(data_length) / 1024 from information_schema.tables group by 1",
            ],
        ),
        (
            Dialect::Sqlite,
            &[
                ".tables",
                ".schema users",
                "select * from [t] limit 3",
                "pragma table_info(users)",
                "PRAGMA user_version",
                "pragma main.journal_mode; select json_extract(a, '$.b') from t",
                "explain query plan select 1",
            ],
        ),
    ] {
        for text in texts {
            assert_eq!(check(dialect, text), Ok(()), "{dialect:?}: {text}");
        }
    }
}

#[test]
fn statements_that_act_do_not_pass() {
    for (dialect, texts) in [
        (
            Dialect::Postgres,
            &[
                "\\! id",
                "\\dt `id`",
                "\\dt \\! id",
                "\\d\n\\! id",
                "\\copy t from program 'id'",
                "\\o /etc/x",
                "select 1 \\g |id",
                "select 1 \\gexec",
                "copy t to program 'id'",
                "copy (select 1) to '/etc/x'",
                "select 1; drop table t",
                "select pg_read_file('/etc/passwd')",
                "select PG_READ_FILE ('/etc/passwd')",
                "select pg_catalog.pg_read_file('/etc/passwd')",
                "select \"pg_read_file\"('/etc/passwd')",
                "select pg_read_file/**/('/etc/passwd')",
                "select pg_read_file --\n('/etc/passwd')",
                "select evil.count(1)",
                "select lo_export(1, '/etc/x')",
                "select query_to_xml('drop table t', true, true, '')",
                "select dblink('x', 'y')",
                "select set_config('a', 'b', false)",
                "with x as (delete from t returning *) select * from x",
                "with x as (insert into t values (1) returning 1) select 1",
                "select * into t2 from t",
                "select * from t for update",
                "select next value for s",
                "select * from t for key share",
                "explain analyze delete from t",
                "explain (analyze) update t set a = 1",
                "explain analyze create table x as select 1",
                "do $$ begin perform 1; end $$",
                "set role admin",
                "load 'x'",
                "select e'\\'; drop table t --'",
                "select '\\'; drop table t; --'",
                "select $a$ $b$ $a$; drop table t; --$b$",
                "select /* /* */ 1; drop table t; -- */ */",
                "select a$x$; drop table t; --$x$",
                "prepare x as delete from t",
                "execute x",
                "call f()",
                "vacuum",
                "notify x",
                "unterminated 'x",
                "select 'x",
            ][..],
        ),
        (
            Dialect::Mysql,
            &[
                "system id",
                "\\! id",
                "select 1; system id",
                "select 1\\G system id",
                "select 1; \\! id",
                "source /etc/x",
                "tee /etc/x",
                "pager sh -c id",
                "select 1 into outfile '/etc/x'",
                "select 1 INTO DUMPFILE '/etc/x'",
                "select load_file('/etc/passwd')",
                "load data infile 'x' into table t",
                "/*! drop table t */",
                "select 1 /*!into outfile '/x'*/",
                "select 1 /*M! into outfile '/x' */",
                "select 'a\\'; drop table t; -- '",
                "select 1 --1; drop table t",
                "replace into t values (1)",
                "insert into t values (1)",
                "set global x = 1",
                "select sys_exec('id')",
                "delimiter //",
                "handler t open",
                "analyze table t",
                "explain analyze delete from t",
                "select sleep(1)",
                ".tables",
            ],
        ),
        (
            Dialect::Sqlite,
            &[
                ".shell id",
                ".system id",
                ".output /etc/x",
                ".once |id",
                ".read x",
                ".import a b",
                ".load ./x.so",
                ".open x",
                ".log x",
                ".mode 'x' `id`",
                "select load_extension('./x.so')",
                "select writefile('/etc/x', 'y')",
                "select readfile('/etc/passwd')",
                "select edit('x', 'id')",
                "attach 'x' as y",
                "vacuum into 'x'",
                "pragma journal_mode = wal",
                "pragma journal_mode(wal)",
                "pragma temp_store_directory = '/x'",
                "select 1; delete from t",
                "with x as (select 1) replace into t select * from x",
                "select [a]('x')",
            ],
        ),
    ] {
        for text in texts {
            assert!(check(dialect, text).is_err(), "{dialect:?}: {text}");
        }
    }
}

#[test]
fn no_function_of_the_list_is_known_to_act() {
    for acts in [
        "pg_read_file",
        "lo_import",
        "load_file",
        "writefile",
        "setval",
        "nextval",
        "sleep",
        "dblink",
        "eval",
    ] {
        assert!(!is_harmless(acts), "{acts}");
    }
}
