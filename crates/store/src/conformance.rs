//! What every store must do. A new one calls [`run`] in a test, and is done when that passes.

use crate::{
    Approval, ApprovalFilter, ApprovalKind, ApprovalState, Assignment, Decided, Decision, End, Filter, Keyed,
    Message, MessageChange, NewRun, NewTask, Part, PoolRunner, Role, RunnerRow, Scope, State, Store,
    StoreError, Submitted, Token, Vote, done,
};

/// Runs all of it. `open` opens the same store each time: what was answered is there again.
pub(crate) async fn run<S: Store>(open: impl Fn() -> S) {
    let store = open();
    tasks_and_their_keys(&store).await;
    runs_have_one_end(&store).await;
    runs_that_were_given_up_go_on(&store).await;
    the_pool_gives_and_takes_back(&store).await;
    runners_and_tokens(&store).await;
    sessions(&store).await;
    approvals_are_answered_once(&store).await;
    a_yes_for_a_time_ends(&store).await;
    writes_are_made_in_order(&store).await;
    lists_are_filtered(&store).await;
    drop(store);
    what_was_answered_is_there_again(&open()).await;
    what_is_forgotten_is_gone(&open()).await;
}

fn task(id: &str, scope: Scope, key: Option<&str>) -> NewTask {
    NewTask {
        id: id.into(),
        operation: if scope == Scope::Pool { "agent" } else { "bash" }.into(),
        args: format!(r#"{{"command":"{id}"}}"#),
        brief: "{}".into(),
        selection: r#"{"runner":"a"}"#.into(),
        timeout_s: 120,
        created_by: "admin".into(),
        token_id: "tok_1".into(),
        created_at_ms: 1000,
        expires_at_ms: 2000,
        idempotency_key: key.map(str::to_owned),
        body_hash: format!("hash of {id}"),
        scope,
        session_id: None,
        reason: Some("because".into()),
    }
}

fn new_run(id: &str, ordinal: u32, state: State) -> NewRun {
    NewRun {
        id: id.into(),
        ordinal,
        runner_id: "wn_1".into(),
        runner_name: "a".into(),
        state,
        delivered_boot: "boot".into(),
    }
}

fn end(state: State) -> End {
    End {
        state,
        exit_code: None,
        error: None,
        suggestion: None,
        code: None,
        usage: None,
        result: None,
        unconfirmed: false,
    }
}

async fn submit(store: &impl Store, task: NewTask, runs: Vec<NewRun>) -> Submitted {
    done(|then| store.submit(task, runs, then)).await.expect("submit")
}

async fn finish(store: &impl Store, id: &str, end: End) -> bool {
    done(|then| store.finish(id.into(), end, 5000, then)).await.expect("finish")
}

async fn state(store: &impl Store, task: &str) -> State {
    store.task(task.into()).await.expect("task").expect("known").runs[0].state
}

async fn tasks_and_their_keys(store: &impl Store) {
    let one = task("tsk_1", Scope::Runners, Some("key"));
    let runs = vec![new_run("run_1a", 0, State::Delivered), new_run("run_1b", 1, State::Queued)];
    assert_eq!(submit(store, one.clone(), runs.clone()).await, Submitted::New(None));
    let known = Keyed { id: "tsk_1".into(), number: None, body_hash: "hash of tsk_1".into() };
    let again = NewTask { id: "tsk_2".into(), ..one.clone() };
    assert_eq!(submit(store, again, Vec::new()).await, Submitted::Known(known.clone()));
    assert_eq!(store.find_key(Scope::Runners, "key".into()).await.expect("find"), Some(known));
    // The pool has keys of its own.
    assert_eq!(store.find_key(Scope::Pool, "key".into()).await.expect("find"), None);
    let twice = done(|then| store.submit(NewTask { idempotency_key: None, ..one }, runs, then)).await;
    assert!(twice.is_err(), "an id is used once");

    let found = store.task("tsk_1".into()).await.expect("task").expect("known");
    assert_eq!((found.args.as_str(), found.runs.len()), (r#"{"command":"tsk_1"}"#, 2));
    assert_eq!((found.runs[0].state, found.runs[0].delivered_at_ms), (State::Delivered, Some(1000)));
    assert_eq!((found.runs[1].state, found.runs[1].delivered_at_ms), (State::Queued, None));
    assert!(store.task("tsk_2".into()).await.expect("task").is_none());

    let large = "x".repeat(3 * crate::LARGE);
    let args = format!(r#"{{"content":"{large}"}}"#);
    submit(store, NewTask { args: args.clone(), ..task("tsk_3", Scope::Runners, None) }, Vec::new()).await;
    assert_eq!(store.arguments("tsk_3".into()).await.expect("arguments"), args);
    assert_eq!(store.task("tsk_3".into()).await.expect("task").expect("known").args, args);
    assert!(store.arguments("tsk_none".into()).await.is_err());

    let list = |filter: Filter| async { store.list(filter).await.expect("list") };
    let ids = |tasks: &[crate::Task]| tasks.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    let all = list(Filter { limit: 10, ..Filter::default() }).await;
    assert_eq!(ids(&all), ["tsk_3", "tsk_1"]);
    assert!(all.iter().all(|t| t.args == "{}"), "a list shows short arguments");
    assert_eq!(ids(&list(Filter { limit: 1, ..Filter::default() }).await), ["tsk_3"]);
    assert_eq!(
        ids(&list(Filter { limit: 9, before: Some("tsk_3".into()), ..Filter::default() }).await),
        ["tsk_1"]
    );
    for runner in ["a", "wn_1"] {
        let of = list(Filter { limit: 9, runner: Some(runner.into()), ..Filter::default() }).await;
        assert_eq!(ids(&of), ["tsk_1"]);
    }
    assert!(list(Filter { limit: 9, runner: Some("b".into()), ..Filter::default() }).await.is_empty());
}

fn approval(id: &str, run: &str) -> Approval {
    Approval {
        id: id.into(),
        kind: ApprovalKind::Command,
        state: ApprovalState::Waiting,
        task_id: format!("tsk_{run}"),
        run_id: run.into(),
        runner_id: "wn_1".into(),
        runner_name: "a".into(),
        command: "'reboot'".into(),
        line: "reboot".into(),
        workdir: String::new(),
        timeout_s: 120,
        part: "reboot".into(),
        rule: "reboot".into(),
        digest: "d".into(),
        ticket: "t".into(),
        persons: 1,
        reason: Some("because".into()),
        asked_by: "agent".into(),
        asked_by_token: "tok_agent".into(),
        refused: None,
        votes: Vec::new(),
        note: None,
        edited: None,
        grant_until_ms: None,
        created_at_ms: 1000,
        expires_at_ms: 9000,
        decided_at_ms: None,
    }
}

/// A task with one run that is delivered, and held.
async fn held(store: &impl Store, run: &str, approval: Approval) -> Option<Approval> {
    submit(store, task(&format!("tsk_{run}"), Scope::Runners, None), vec![new_run(run, 0, State::Delivered)])
        .await;
    done(|then| store.hold(approval, then)).await.expect("hold")
}

async fn say(store: &impl Store, id: &str, by: &str, yes: bool, grant_until_ms: Option<u64>) -> Decided {
    let vote = Vote { by: by.into(), by_token: format!("tok_{by}").as_str().into(), yes, at_ms: 2000 };
    let decision = Decision { id: id.into(), vote, note: Some("note".into()), grant_until_ms, edited: None };
    store.decide(decision).await.expect("decide")
}

fn counts(decided: Decided) -> ApprovalState {
    match decided {
        Decided::Counts(approval) => approval.state,
        other => panic!("it does not count: {other:?}"),
    }
}

async fn approvals_are_answered_once(store: &impl Store) {
    let one = approval("apr_1", "run_h1");
    assert_eq!(held(store, "run_h1", one.clone()).await, Some(one.clone()));
    assert_eq!(state(store, "tsk_run_h1").await, State::Held);
    assert_eq!(store.approval("apr_1".into()).await.expect("approval"), Some(one));
    // What is held is not held again, and nothing is kept of what was not.
    let again = done(|then| store.hold(approval("apr_1b", "run_h1"), then)).await.expect("hold");
    assert_eq!((again, store.approval("apr_1b".into()).await.expect("approval")), (None, None));
    let open = store.open_runs().await.expect("open").into_iter().find(|r| r.id == "run_h1").expect("open");
    let known = open.approval.expect("an approval");
    assert_eq!((known.id.as_str(), known.state, known.until_ms), ("apr_1", ApprovalState::Waiting, 9000));
    assert_eq!((open.state, open.reason.as_deref()), (Some(State::Held), Some("because")));
    // The first counts, and the run may go on.
    assert_eq!(counts(say(store, "apr_1", "alice", true, None).await), ApprovalState::Approved);
    assert_eq!(state(store, "tsk_run_h1").await, State::Queued);
    for (by, yes) in [("alice", true), ("bob", true), ("bob", false)] {
        let late = say(store, "apr_1", by, yes, None).await;
        assert!(matches!(late, Decided::Late(a) if a.votes.len() == 1 && a.state == ApprovalState::Approved));
    }
    assert_eq!(say(store, "apr_none", "alice", true, None).await, Decided::Unknown);

    // Two people, of whom one cannot be both; a no is one person's.
    held(store, "run_h2", Approval { persons: 2, ..approval("apr_2", "run_h2") }).await;
    assert_eq!(counts(say(store, "apr_2", "alice", true, None).await), ApprovalState::Waiting);
    assert!(matches!(say(store, "apr_2", "alice", true, None).await, Decided::Late(_)));
    assert_eq!(state(store, "tsk_run_h2").await, State::Held);
    assert_eq!(counts(say(store, "apr_2", "bob", true, None).await), ApprovalState::Approved);
    held(store, "run_h3", Approval { persons: 2, ..approval("apr_3", "run_h3") }).await;
    assert_eq!(counts(say(store, "apr_3", "alice", false, None).await), ApprovalState::Denied);
    assert_eq!(state(store, "tsk_run_h3").await, State::Held);

    // Another line stands for it.
    held(store, "run_h4", approval("apr_4", "run_h4")).await;
    let vote = Vote { by: "alice".into(), by_token: "tok_alice".into(), yes: true, at_ms: 2000 };
    let decision = Decision {
        id: "apr_4".into(),
        vote,
        note: None,
        grant_until_ms: None,
        edited: Some("uptime".into()),
    };
    assert_eq!(counts(store.decide(decision).await.expect("decide")), ApprovalState::Edited);
    let edited = store.approval("apr_4".into()).await.expect("approval").expect("known");
    assert_eq!((edited.edited.as_deref(), state(store, "tsk_run_h4").await), (Some("uptime"), State::Queued));

    // What ends takes what waits for it along.
    for (id, run, end_state, then) in [
        ("apr_5", "run_h5", State::Cancelled, ApprovalState::Closed),
        ("apr_6", "run_h6", State::Expired, ApprovalState::Expired),
    ] {
        held(store, run, approval(id, run)).await;
        assert!(finish(store, run, end(end_state)).await);
        assert_eq!(store.approval(id.into()).await.expect("approval").expect("known").state, then);
        assert!(matches!(say(store, id, "alice", true, None).await, Decided::Late(_)));
    }
    held(store, "run_h7", approval("apr_7", "run_h7")).await;
    let ids = |found: Vec<Approval>| found.into_iter().map(|a| a.id).collect::<Vec<_>>();
    let waiting =
        ApprovalFilter { state: Some(ApprovalState::Waiting), limit: 9, ..ApprovalFilter::default() };
    assert_eq!(ids(store.approvals(waiting).await.expect("list")), ["apr_7"]);
    let page = ApprovalFilter { before: Some("apr_7".into()), limit: 2, ..ApprovalFilter::default() };
    assert_eq!(ids(store.approvals(page).await.expect("list")), ["apr_6", "apr_5"]);
    let of = ApprovalFilter { task: Some("tsk_run_h2".into()), limit: 9, ..ApprovalFilter::default() };
    assert_eq!(ids(store.approvals(of).await.expect("list")), ["apr_2"]);
    let shown = store.task("tsk_run_h7".into()).await.expect("task").expect("known");
    assert_eq!(
        (shown.runs[0].approval.as_deref(), shown.reason.as_deref()),
        (Some("apr_7"), Some("because"))
    );
    assert!(finish(store, "run_h7", end(State::Cancelled)).await);
    let closed = store.close("apr_7".into(), ApprovalState::Expired, 1).await.expect("close");
    assert_eq!(closed, None, "it was closed before");
    store.forget(vec!["tsk_run_h7".into()]).await.expect("forget");
    assert_eq!(store.approval("apr_7".into()).await.expect("approval"), None);
}

async fn a_yes_for_a_time_ends(store: &impl Store) {
    held(store, "run_g1", approval("apr_g1", "run_g1")).await;
    assert_eq!(counts(say(store, "apr_g1", "alice", true, Some(5000)).await), ApprovalState::Approved);
    let next = |id: &str, run: &str| approval(id, run);
    // The same line of the same asker on the same runner, in time.
    let granted = held(store, "run_g2", next("apr_g2", "run_g2")).await.expect("held");
    assert_eq!((granted.state, granted.votes[0].by.as_str()), (ApprovalState::Approved, "alice"));
    assert_eq!((granted.grant_until_ms, state(store, "tsk_run_g2").await), (Some(5000), State::Queued));
    for (run, other) in [
        ("run_g3", Approval { digest: "e".into(), ..next("apr_g3", "run_g3") }),
        ("run_g4", Approval { asked_by_token: "tok_other".into(), ..next("apr_g4", "run_g4") }),
        ("run_g5", Approval { runner_id: "wn_2".into(), ..next("apr_g5", "run_g5") }),
        ("run_g6", Approval { created_at_ms: 5000, ..next("apr_g6", "run_g6") }),
        ("run_g7", Approval { persons: 2, ..next("apr_g7", "run_g7") }),
    ] {
        let held = held(store, run, other).await.expect("held");
        assert_eq!(held.state, ApprovalState::Waiting, "{run}");
        assert!(finish(store, run, end(State::Cancelled)).await);
    }
    // It ends with the token by which it was said.
    store.revoke_token("tok_alice".into(), 1).await.expect("revoke");
    let held = held(store, "run_g8", next("apr_g8", "run_g8")).await.expect("held");
    assert_eq!(held.state, ApprovalState::Waiting);
    // What is counted below is that of others.
    for (name, last) in [("g", 8), ("h", 6)] {
        for i in 1..=last {
            finish(store, &format!("run_{name}{i}"), end(State::Cancelled)).await;
            store.forget(vec![format!("tsk_run_{name}{i}")]).await.expect("forget");
        }
    }
}

/// Lists by runner and state, page by page. Run last but one: it counts what the others left.
async fn lists_are_filtered(store: &impl Store) {
    // Of every third task a run has failed, every fifth is of runner b, and every second still waits.
    for i in 0..60 {
        let runner = if i % 5 == 0 { "b" } else { "a" };
        let run = |ordinal, state| NewRun {
            runner_name: runner.into(),
            runner_id: format!("wn_{runner}"),
            ..new_run(&format!("run_f{i:02}{ordinal}"), ordinal, state)
        };
        let runs = vec![run(0, State::Delivered), run(1, State::Queued)];
        submit(store, task(&format!("tsk_f{i:02}"), Scope::Runners, None), runs).await;
        if i % 3 == 0 {
            assert!(finish(store, &format!("run_f{i:02}0"), end(State::Failed)).await);
        }
        if i % 2 == 0 {
            assert!(finish(store, &format!("run_f{i:02}1"), end(State::Expired)).await);
        }
    }
    let b = Some("b".to_owned());
    for (runner, state, every) in [
        (None, Some(State::Failed), 3),
        (None, Some(State::Expired), 2),
        (b.clone(), None, 5),
        (Some("wn_b".to_owned()), Some(State::Failed), 15),
        (b.clone(), Some(State::Expired), 10),
    ] {
        let want: Vec<String> =
            (0..60).rev().filter(|i| i % every == 0).map(|i| format!("tsk_f{i:02}")).collect();
        let (mut got, mut before) = (Vec::new(), None);
        loop {
            let filter = Filter { before: before.clone(), runner: runner.clone(), state, limit: 3 };
            let page = store.list(filter).await.expect("list");
            let new = page.iter().map(|t| t.id.clone()).filter(|id| id.starts_with("tsk_f"));
            got.extend(new);
            match page.last() {
                Some(last) => before = Some(last.id.clone()),
                None => break,
            }
        }
        assert_eq!(got, want, "{runner:?} {state:?}");
    }
    let nothing = Filter { state: Some(State::Running), runner: b, limit: 9, ..Filter::default() };
    assert!(store.list(nothing).await.expect("list").is_empty());
    store.forget((0..60).map(|i| format!("tsk_f{i:02}")).collect()).await.expect("forget");
}

async fn runs_have_one_end(store: &impl Store) {
    store.deliver(vec!["run_1b".into()], "boot-2".into(), 3000).await.expect("deliver");
    done(|then| store.accept("run_1b".into(), false, 3500, then)).await.expect("accept");
    store.cancel(vec!["run_1b".into()]).await.expect("cancel");
    let open = store.open_runs().await.expect("open");
    let open: Vec<_> = open.iter().map(|r| (r.id.as_str(), r.state, r.cancel_requested)).collect();
    assert_eq!(open, [("run_1a", Some(State::Delivered), false), ("run_1b", Some(State::Running), true)]);
    assert!(store.open_runs().await.expect("open").iter().all(|run| !run.others_over));
    let result = "y".repeat(2 * crate::LARGE);
    let failed = End {
        exit_code: Some(3),
        error: Some("why".into()),
        suggestion: Some("ls".into()),
        result: Some(result.clone()),
        ..end(State::Failed)
    };
    assert!(finish(store, "run_1b", failed).await);
    assert!(!finish(store, "run_1b", end(State::Succeeded)).await, "the first end counts");
    assert!(store.open_runs().await.expect("open")[0].others_over);
    assert!(!finish(store, "run_none", end(State::Succeeded)).await);
    // What comes late changes nothing.
    store.deliver(vec!["run_1b".into()], "boot-3".into(), 6000).await.expect("deliver");
    done(|then| store.accept("run_1b".into(), true, 6000, then)).await.expect("accept");
    let run = store.task("tsk_1".into()).await.expect("task").expect("known").runs.remove(1);
    assert_eq!((run.state, run.exit_code, run.error.as_deref()), (State::Failed, Some(3), Some("why")));
    assert_eq!(run.suggestion.as_deref(), Some("ls"));
    assert_eq!(run.result.as_deref(), Some(result.as_str()));
    assert_eq!(
        (run.delivered_at_ms, run.started_at_ms, run.finished_at_ms),
        (Some(3000), Some(3500), Some(5000))
    );
    assert!(
        store.list(Filter { limit: 9, ..Filter::default() }).await.expect("list")[1].runs[1].result.is_none()
    );
}

async fn runs_that_were_given_up_go_on(store: &impl Store) {
    let given_up = || End { unconfirmed: true, error: Some("silent".into()), ..end(State::Lost) };
    assert!(finish(store, "run_1a", given_up()).await);
    assert!(store.open_runs().await.expect("open").is_empty());
    assert_eq!(store.given_up_of("wn_1".into(), 4000).await.expect("given up").len(), 1);
    assert!(store.given_up_of("wn_1".into(), 9000).await.expect("given up").is_empty());
    assert!(store.given_up("run_1a".into(), "wn_2".into()).await.expect("given up").is_none());
    let found = store.given_up("run_1a".into(), "wn_1".into()).await.expect("given up").expect("known");
    assert_eq!(
        (found.task_id.as_str(), found.delivered_boot.as_str(), found.cancel_requested),
        ("tsk_1", "boot", false)
    );
    assert_eq!(found.state, State::Lost);
    let cancelled = store.cancel_given_up("tsk_1".into()).await.expect("cancel");
    assert_eq!(cancelled, [("run_1a".to_owned(), "wn_1".to_owned())]);
    assert!(store.revive("run_1a".into()).await.expect("revive"));
    assert!(!store.revive("run_1a".into()).await.expect("revive"), "it goes on already");
    assert!(!store.revive("run_1b".into()).await.expect("revive"), "its runner said so");
    assert_eq!(state(store, "tsk_1").await, State::Running);
    assert!(finish(store, "run_1a", end(State::Succeeded)).await);
    assert!(store.cancel_given_up("tsk_1".into()).await.expect("cancel").is_empty());
}

async fn the_pool_gives_and_takes_back(store: &impl Store) {
    let mut one = task("tsk_5", Scope::Pool, Some("key"));
    one.session_id = Some("ses".into());
    let nobody = |id: &str| NewRun {
        runner_id: String::new(),
        runner_name: String::new(),
        ..new_run(id, 0, State::Queued)
    };
    let Submitted::New(Some(number)) = submit(store, one.clone(), vec![nobody("run_5")]).await else {
        panic!("a task of the pool has a number");
    };
    let Submitted::Known(known) = submit(store, one, Vec::new()).await else { panic!("its key is known") };
    assert_eq!(known.number, Some(number));
    let second = submit(store, task("tsk_6", Scope::Pool, None), vec![nobody("run_6")]).await;
    assert_eq!(second, Submitted::New(Some(number + 1)));
    let to = |attempts| Assignment {
        runner: "pod-a".into(),
        key: "key hash".into(),
        attempts,
        at_ms: 3000,
        session: Some((format!("token hash {attempts}"), "ses".into(), 9000)),
    };
    let args = store.assign("run_5".into(), to(1)).await.expect("assign");
    assert_eq!(args, r#"{"command":"tsk_5"}"#);
    assert_eq!(store.session_of("token hash 1".into(), 8999).await.expect("session").as_deref(), Some("ses"));
    assert_eq!(store.session_of("token hash 1".into(), 9000).await.expect("session"), None);
    store.requeue("run_5".into()).await.expect("requeue");
    let open = store.open_runs().await.expect("open").remove(0);
    assert_eq!(
        (open.state, open.key, open.runner_name.as_str(), open.attempts),
        (Some(State::Queued), None, "", 1)
    );
    store.assign("run_5".into(), to(2)).await.expect("assign");
    done(|then| store.accept("run_5".into(), true, 3500, then)).await.expect("accept");
    done(|then| store.accept("run_5".into(), false, 3600, then)).await.expect("accept");
    let open = store.open_runs().await.expect("open").remove(0);
    assert_eq!((open.state, open.key.as_deref()), (Some(State::Running), Some("key hash")));
    assert!(open.has_effects, "what may have happened stays so");
    assert_eq!((open.number, open.attempts, open.session_id.as_deref()), (Some(number), 2, Some("ses")));
    let spent = End { code: Some("c".into()), usage: Some("{}".into()), ..end(State::Succeeded) };
    assert!(finish(store, "run_5", spent).await);
    assert!(store.assign("run_5".into(), to(3)).await.is_err(), "what is over is given to nobody");
    let found = store.numbered(number).await.expect("task").expect("known");
    assert_eq!((found.id.as_str(), found.runs[0].runner_name.as_str()), ("tsk_5", "pod-a"));
    assert_eq!((found.runs[0].code.as_deref(), found.runs[0].usage.as_deref()), (Some("c"), Some("{}")));
    let list = store.list_numbered(None, 9).await.expect("list");
    assert_eq!(list.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["tsk_6", "tsk_5"]);
    assert_eq!(store.list_numbered(Some(number + 1), 9).await.expect("list").len(), 1);
    // All tasks are one list.
    let all = store.list(Filter { limit: 2, ..Filter::default() }).await.expect("list");
    assert_eq!(all.iter().map(|t| t.number).collect::<Vec<_>>(), [Some(number + 1), Some(number)]);

    let runner = |ip: &str| PoolRunner {
        id: 0,
        name: "pod-a".into(),
        ip: ip.into(),
        version: "1".into(),
        capabilities: vec!["agent".into()],
        seen_at_ms: 5,
    };
    let id = store.keep_pool_runner(runner("10.0.0.1")).await.expect("keep");
    assert_eq!(store.keep_pool_runner(runner("10.0.0.2")).await.expect("keep"), id);
    assert_eq!(store.pool_runners().await.expect("runners"), [PoolRunner { id, ..runner("10.0.0.2") }]);
    let name = runner("10.0.0.2").name;
    store.forget_pool_runners(vec!["nobody".into()]).await.expect("forget nobody");
    assert_eq!(store.pool_runners().await.expect("runners").len(), 1);
    store.forget_pool_runners(vec![name]).await.expect("forget");
    assert!(store.pool_runners().await.expect("runners").is_empty());
}

fn token(id: &str) -> Token {
    Token {
        id: id.into(),
        name: "web-1".into(),
        role: Role::Runner,
        runner_id: Some("wn_9".into()),
        created_at_ms: 7,
        expires_at_ms: Some(8),
        revoked: false,
    }
}

fn runner() -> RunnerRow {
    RunnerRow {
        id: "wn_9".into(),
        name: "box".into(),
        labels: vec!["os:linux".into()],
        token_id: "tok_9".into(),
        created_at_ms: 7,
        ..RunnerRow::default()
    }
}

async fn runners_and_tokens(store: &impl Store) {
    store.keep_token("hash".into(), token("tok_9"), Some(runner())).await.expect("keep");
    let twice =
        store.keep_token("hash".into(), token("tok_10"), Some(RunnerRow { id: "wn_10".into(), ..runner() }));
    assert!(twice.await.is_err(), "a secret belongs to one token");
    let known = RunnerRow { given_name: "web-1".into(), ..runner() };
    assert_eq!(store.runners().await.expect("runners"), std::slice::from_ref(&known), "nothing is half made");
    let changed = RunnerRow {
        name: "db".into(),
        set_labels: vec!["x".into()],
        drained: true,
        environment: Some("{}".into()),
        display_name: Some("D".into()),
        boot_id: "b".into(),
        last_seen_ms: 9,
        version: "1".into(),
        ..known
    };
    let other_owner = RunnerRow { token_id: "tok_other".into(), ..changed.clone() };
    done(|then| store.keep_runner(other_owner, then)).await.expect("keep");
    assert_eq!(store.runners().await.expect("runners"), [changed], "to whom it belongs stays");
    assert!(store.revoke_token("tok_9".into(), 10).await.expect("revoke"));
    assert!(!store.revoke_token("tok_9".into(), 11).await.expect("revoke"));
    let tokens = store.tokens().await.expect("tokens");
    assert_eq!(tokens, [("hash".to_owned(), Token { revoked: true, ..token("tok_9") })]);
}

async fn sessions(store: &impl Store) {
    let message = Message {
        id: "msg_1".into(),
        role: "assistant".into(),
        status: "pending".into(),
        thinking_text: None,
        error_message: None,
        created_at_ms: 5,
        completed_at_ms: None,
        parts: Vec::new(),
    };
    store.add_message("ses".into(), message.clone()).await.expect("add");
    let part =
        |id: &str, sort_order| Part { id: id.into(), kind: "text".into(), sort_order, ..Part::default() };
    assert!(store.add_part("ses".into(), "msg_1".into(), part("part_2", 2)).await.expect("add"));
    assert!(store.add_part("ses".into(), "msg_1".into(), part("part_1", 1)).await.expect("add"));
    assert!(!store.add_part("other".into(), "msg_1".into(), part("part_3", 3)).await.expect("add"));
    let complete = MessageChange {
        status: Some("completed".into()),
        completed_at_ms: Some(6),
        ..MessageChange::default()
    };
    assert!(store.change_message("ses".into(), "msg_1".into(), complete.clone()).await.expect("change"));
    assert!(!store.change_message("other".into(), "msg_1".into(), complete).await.expect("change"));
    let want = Message {
        status: "completed".into(),
        completed_at_ms: Some(6),
        parts: vec![part("part_1", 1), part("part_2", 2)],
        ..message
    };
    assert_eq!(store.messages("ses".into()).await.expect("messages"), [want]);
    assert!(store.messages("other".into()).await.expect("messages").is_empty());
}

async fn writes_are_made_in_order(store: &impl Store) {
    submit(store, task("tsk_7", Scope::Runners, None), vec![new_run("run_7", 0, State::Delivered)]).await;
    let (tell, told) = std::sync::mpsc::channel();
    for i in 0..50u32 {
        let tell = tell.clone();
        let then = move |result: Result<bool, StoreError>| {
            tell.send((i, result.expect("finish"))).expect("send");
        };
        store
            .finish("run_7".into(), End { exit_code: Some(1), ..end(State::Failed) }, 1, Box::new(then))
            .await;
    }
    drop(tell);
    store.check().await.expect("check");
    let told: Vec<(u32, bool)> = told.iter().collect();
    assert_eq!(told, (0..50).map(|i| (i, i == 0)).collect::<Vec<_>>());
}

async fn what_was_answered_is_there_again(store: &impl Store) {
    assert_eq!(state(store, "tsk_1").await, State::Succeeded);
    assert_eq!(store.messages("ses".into()).await.expect("messages").len(), 1);
    let next =
        submit(store, task("tsk_8", Scope::Pool, None), vec![new_run("run_8", 0, State::Queued)]).await;
    assert!(matches!(next, Submitted::New(Some(3))), "numbers go on: {next:?}");
}

async fn what_is_forgotten_is_gone(store: &impl Store) {
    let over = store.over_before(u64::MAX, 99).await.expect("over");
    assert_eq!(over, ["tsk_1", "tsk_3", "tsk_5", "tsk_7"], "what is not over stays");
    assert!(store.over_before(1000, 99).await.expect("over").is_empty());
    assert_eq!(store.over_before(u64::MAX, 1).await.expect("over"), ["tsk_1"]);
    store.forget(over.clone()).await.expect("forget");
    assert_eq!(store.kept([over, vec!["tsk_6".into()]].concat()).await.expect("kept"), ["tsk_6"]);
    assert!(store.task("tsk_1".into()).await.expect("task").is_none());
    assert!(store.arguments("tsk_3".into()).await.is_err());
    // A key is free again, and a number is not.
    let again = submit(store, task("tsk_9", Scope::Pool, Some("key")), Vec::new()).await;
    assert_eq!(again, Submitted::New(Some(4)));
}
