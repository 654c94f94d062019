use super::*;

fn with(text: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
    let source = Source { path: "/c.yaml".into(), text: text.into(), original: false };
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    load(&source, &env, flags, Path::new("/home/me")).map_err(|e| e.to_string())
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = "token: f\napi_url: ws://file/\nworkspace_root: /f\nlog:\n  level: warn\n";
    let config = with(file, &[], &Flags::default()).expect("valid");
    assert_eq!((config.url.as_str(), config.log_level.as_str()), ("ws://file/", "warn"));
    let env =
        [("FLASHDUTY_RUNNER_URL", "ws://env/"), ("LEGWORK_RUNNER_NAME", "n"), ("LEGWORK_LOG_LEVEL", "")];
    let config = with(file, &env, &Flags::default()).expect("valid");
    assert_eq!((config.url.as_str(), config.name.as_str()), ("ws://env/", "n"));
    let flags = Flags { url: Some("wss://flag/".into()), ..Flags::default() };
    assert_eq!(with(file, &env, &flags).expect("valid").url, "wss://flag/");
    let config = with("api_key: k", &[], &Flags::default()).expect("valid");
    assert_eq!(config.url, DEFAULT_API_KEY_URL);
    assert_eq!(config.workspace, Path::new("/home/me/.legwork/workspace"));
    assert_eq!(config.max_tasks, 32);
}

#[test]
fn rules_keep_the_order_and_spelling_of_the_file() {
    let file = "token: t\npermission:\n  bash:\n    \"*\": deny\n    \"Kubectl get a.b *\": allow\n    \"a*\": Ask\n";
    let config = with(file, &[], &Flags::default()).expect("valid");
    let patterns: Vec<&str> = config.policy.rules().iter().map(|r| r.pattern()).collect();
    assert_eq!(patterns, ["*", "Kubectl get a.b *", "a*"]);
    assert!(with("token: t", &[], &Flags::default()).expect("valid").policy.rules().is_empty());
}

#[test]
fn presets_stand_before_own_rules_and_examples_hold() {
    let file = "token: t\npermission:\n  include: [read-only]\n  bash:\n    \"cat *\": deny\n    \
                \"make *\":\n      action: allow\n      match: [make test, cd x && make]\n      not_match: [cmake x]\n";
    let config = with(file, &[], &Flags::default()).expect("valid");
    let denied = |line: &str| config.policy.judge(line).message();
    assert_eq!(denied("make test | tail -n 3"), None);
    assert_eq!(denied("cat x").as_deref(), Some("command denied by rule 'cat *': cat x"));
    assert!(
        !config.shell
            && with("token: t\npermission: {bash: {\"*\": allow}}", &[], &Flags::default())
                .expect("valid")
                .shell
    );
}

#[test]
fn words_that_older_yaml_takes_for_booleans_mean_themselves() {
    let file = "token: t\nname: on\nlabels: [off, yes]\nsandbox: off\nauto_update: no\n\
                permission:\n  bash:\n    yes: allow\n    \"no *\": deny\n";
    let config = with(file, &[], &Flags::default()).expect("valid");
    assert_eq!(config.sandbox.profile, Some(legwork_runner::process::sandbox::Profile::Off));
    assert_eq!((config.name.as_str(), config.labels.join(",")), ("on", "off,yes".into()));
    let patterns: Vec<&str> = config.policy.rules().iter().map(|r| r.pattern()).collect();
    assert_eq!(patterns, ["yes", "no *"]);
    let section = with("token: t\nsandbox:\n  profile: Off\n", &[], &Flags::default()).expect("valid");
    assert_eq!(section.sandbox.profile, Some(legwork_runner::process::sandbox::Profile::Off));
}

#[test]
fn what_is_wanted_of_the_exec_gate_is_one_of_three_words() {
    use legwork_runner::Gating;
    let gate =
        |text: &str| with(&format!("token: t\n{text}"), &[], &Flags::default()).map(|c| c.sandbox.gate);
    assert_eq!(gate(""), Ok(Gating::Auto));
    assert_eq!(gate("gate: required\nsandbox: landlock\n"), Ok(Gating::Required));
    assert_eq!(gate("gate: strict\n"), Ok(Gating::Strict));
    let error = gate("gate: always\n").expect_err("refused");
    assert!(error.contains("/c.yaml:2: gate: 'always' is none of auto, required, strict"), "{error}");
}

#[test]
fn what_programs_sign_in_with_is_granted_behind_a_wall_that_says_so() {
    let home = tempfile::tempdir().expect("a home");
    std::fs::create_dir_all(home.path().join(".kube")).expect("a folder");
    std::fs::write(home.path().join(".kube/config"), "").expect("a file");
    std::fs::create_dir_all(home.path().join(".aws")).expect("a folder");
    let rules = "permission:\n  bash:\n    \"*\": deny\n    \"kubectl get *\": allow\n    \"ls *\": allow\n    \"gh *\": deny\n";
    let load = |sandbox: &str| {
        let text = format!("token: t\n{sandbox}{rules}");
        let source = Source { path: "/c.yaml".into(), text, original: false };
        super::load(&source, &BTreeMap::new(), &Flags::default(), home.path()).expect("valid").sandbox.read
    };
    let granted = load("sandbox:\n  profile: landlock\n  credentials: rules\n");
    assert_eq!(granted, [home.path().join(".kube/config")]);
    assert!(load("sandbox: landlock\n").is_empty() && load("").is_empty());
}

#[test]
fn a_rule_says_what_its_program_may_start() {
    use legwork_policy::Children;
    let file = "token: t\npermission:\n  bash:\n    \"make *\": {allow, children: any}\n    \
                \"just *\": {action: allow, children: Any}\n    \"ls *\": allow\n";
    let config = with(file, &[], &Flags::default()).expect("valid");
    let children: Vec<Children> = config.policy.rules().iter().map(|r| r.children()).collect();
    assert_eq!(children, [Children::Any, Children::Any, Children::Judged]);
    for (rule, want) in [
        ("\"a *\": {allow, children: some}", "line 4: permission.bash: rule 'a *': unknown children 'some'"),
        ("\"a *\": {deny, children: any}", "children says what an allowed program may start"),
        ("\"> a\": {allow, children: any}", "children says what an allowed program may start"),
        ("\"a *\": {children: any}", "action is missing"),
        ("\"a *\": {allow, children: [any]}", "children: expected any or judged, found a list"),
    ] {
        let error = with(&format!("token: t\npermission:\n  bash:\n    {rule}\n"), &[], &Flags::default());
        let error = error.expect_err("refused");
        assert!(error.contains(want), "{rule}: {error}");
    }
}

#[test]
fn rules_of_the_originals_file_let_builders_build_as_before_and_say_so() {
    let text = "token: t\npermission:\n  bash:\n    \"*\": deny\n    \"make *\": allow\n    \"ls *\": allow\n    \"deploy-it\": allow\n";
    let load = |original| {
        let source = Source { path: "/c.yaml".into(), text: text.into(), original };
        super::load(&source, &BTreeMap::new(), &Flags::default(), Path::new("/home/me")).expect("valid")
    };
    let freed = |config: &Config| -> Vec<String> {
        let rules = config.policy.rules().iter();
        let any = rules.filter(|r| r.children() == legwork_policy::Children::Any);
        any.map(|r| r.pattern().to_owned()).collect()
    };
    let original = load(true);
    assert_eq!(freed(&original), ["make *", "deploy-it"]);
    let warned = |text: &str| original.warnings.iter().any(|w| w.contains(text));
    assert!(
        warned("may start any other program") && warned("'make *', 'deploy-it'"),
        "{:?}",
        original.warnings
    );
    assert_eq!(freed(&load(false)), [] as [String; 0]);
}

#[test]
fn bad_files_are_refused_with_place_and_reason() {
    for (file, want) in [
        ("", "token is required: use --token flag or set FLASHDUTY_RUNNER_TOKEN environment variable"),
        ("token: t\nurl: http://x", "API_url must start with ws:// or wss://"),
        (
            "token: t\npermission:\n  bash:\n    \"ls *\": alow\n",
            "line 4: permission.bash: rule 'ls *': unknown action 'alow'",
        ),
        ("token: t\npermission:\n  bash:\n    \"ls\": allow\n    \"ls\": deny\n", "ls"),
        ("token: t\npermission:\n  shell: maybe\n", "permission.shell: 'maybe' is none of allow, deny, auto"),
        (
            "token: t\npermission:\n  include: [readonly]\n",
            "line 3: permission.include: 'readonly' is none of strict, read-only",
        ),
        (
            "permission:\n  include:\n    - strict\n    - Trusts\ntoken: t\n",
            "line 4: permission.include: 'Trusts' is none of",
        ),
        ("permission:\n  include: [Trusts]\ntoken: t\n", "(did you mean trust?)"),
        (
            "token: t\npermission:\n  bash:\n    \"ls *\": {action: allow, match: [\"cat x\"]}\n",
            "line 4: permission.bash: rule 'ls *': does not match its example 'cat x'",
        ),
        (
            "token: t\npermission:\n  bash:\n    \"ls *\": {action: allow, not_match: \"id; ls x\"}\n",
            "rule 'ls *': matches, but should not, 'id; ls x'",
        ),
        ("token: t\npermission:\n  bash:\n    \"ls\": {match: ls}\n", "rule 'ls': action is missing"),
        ("token: t\npermission:\n  bash:\n    \"ls\": {action: allow, mach: ls}\n", "unknown key mach"),
        ("token: t\nmax_task: 3\n", "/c.yaml line 2: unknown key max_task (did you mean max_tasks?)"),
        ("token: t\nsandbox: jail\n", "sandbox: 'jail' is none of off, landlock"),
        ("token: t\nsandbox:\n  profil: off\n", "unknown key sandbox.profil (did you mean sandbox.profile?)"),
        ("token: t\nsandbox:\n  read: [x]\n", "sandbox.read: 'x' is not an absolute path"),
        (
            "token: t\nsandbox:\n  profile: namespaces\n  network:\n    allow: [x]\n",
            "sandbox.network.allow: 'x' is none of",
        ),
        (
            "token: t\nsandbox:\n  profile: landlock\n  network:\n    allow: [\"x:1\"]\n",
            "only the profiles namespaces and gvisor",
        ),
        (
            "token: t\nsandbox:\n  limits:\n    memory_bytes: 5\n",
            "sandbox.limits.memory_bytes: expected 0 for no limit",
        ),
        ("token: t\nmax_tasks: 0\n", "/c.yaml line 2: max_tasks: expected a number from 1 to 100000"),
        ("token: t\nworkspace_root: /w\nstate_dir: /w/s\n", "lies within the workspace"),
        ("token: [", "failed to read config file"),
        ("token: t\nmax_tasks: many\n", "/c.yaml line 2: max_tasks: expected a number from 1"),
        (
            "token: t\npermission:\n  bahs:\n    x: allow\n",
            "line 3: unknown key permission.bahs (did you mean permission.bash?)",
        ),
        ("token: t\npermission: deny\n", "line 2: permission: expected a map, found a text"),
        (
            "token: t\npermission:\n  mcp:\n    x: 1\n",
            "line 4: permission.mcp: rule 'x': expected allow, ask or deny, found a number",
        ),
        ("token: t\nToken: u\n", "line 2: token: is given twice"),
        ("token: t\ntoken: u\n", "failed to read config file"),
        ("token: t\ntoken_file: /x\n", "token and token_file are both given"),
        ("token_file: /no/such/file\n", "token_file: /no/such/file: No such file"),
        ("- a\n", "expected a map of settings, found a list"),
        ("token: t\nlabels: x\n", "line 2: labels: expected a list, found a text"),
        ("token: t\nwebfetch:\n  deny: [10.0.0.0/99]\n", "webfetch.deny: '10.0.0.0/99' is none of"),
        ("token: t\ntls:\n  client_cert: a\n", "belong together"),
        ("token: t\nhealth:\n  listen: 7441\n", "health.listen: '7441' is no address"),
        ("token: t\nupdate_url: ftp://x\nupdate_public_key: AAAA\n", "update_public_key: a key is 32 bytes"),
        ("token: t\nretention:\n  outputs_days: 0\n", "line 3: retention.outputs_days"),
    ] {
        let error = with(file, &[], &Flags::default()).expect_err(file);
        assert!(error.contains(want), "{file:?}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = with("token: hunter2", &[], &Flags::default()).expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn every_value_says_where_it_comes_from() {
    let file = "token: t\nmax_tasks: 3\nlabels: [a, b]\n";
    let flags = Flags { url: Some("ws://flag/".into()), ..Flags::default() };
    let config = with(file, &[("LEGWORK_LOG_LEVEL", "warn")], &flags).expect("valid");
    let of = |key: &str| {
        let found = config.settings.iter().find(|s| s.key == key).expect(key);
        (found.value.as_str(), found.source.as_str())
    };
    assert_eq!(of("token"), ("[redacted]", "/c.yaml:1"));
    assert_eq!(of("max_tasks"), ("3", "/c.yaml:2"));
    assert_eq!(of("labels"), ("[a, b]", "/c.yaml:3"));
    assert_eq!(of("api_url"), ("ws://flag/", "flag --url"));
    assert_eq!(of("log.level"), ("warn", "environment LEGWORK_LOG_LEVEL"));
    assert_eq!(of("retention.outputs_days"), ("7", "default"));
}

#[test]
fn a_secret_may_be_a_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("key");
    std::fs::write(&path, "fk_secret\n").expect("write");
    let text = format!("api_key_file: {}\n", path.display());
    let config = with(&text, &[], &Flags::default()).expect("valid");
    assert!(matches!(&config.credential, Credential::ApiKey(key) if key.expose() == "fk_secret"));
    std::fs::write(&path, " \n").expect("write");
    assert!(with(&text, &[], &Flags::default()).is_err_and(|e| e.contains("is empty")));
}

#[test]
fn the_originals_file_is_read_with_more_patience_but_not_where_rules_are_concerned() {
    let original = |text: &str| {
        let source = Source { path: "/o.yaml".into(), text: text.into(), original: true };
        load(&source, &BTreeMap::new(), &Flags::default(), Path::new("/home/me")).map_err(|e| e.to_string())
    };
    let config =
        original("API_Key: k\nAPI_URL: ws://h/\nNAME: 7\nfuture_key: 1\nlog:\n  colour: x\n").expect("valid");
    assert_eq!((config.url.as_str(), config.name.as_str()), ("ws://h/", "7"));
    assert_eq!(config.workspace, Path::new("/home/me/.flashduty-runner/workspace"));
    assert!(
        config.warnings.iter().any(|w| w.contains("line 4: unknown key future_key")),
        "{:?}",
        config.warnings
    );
    assert!(config.warnings.iter().any(|w| w.contains("unknown key log.colour")), "{:?}", config.warnings);
    assert!(original("api_key: k\npermission:\n  shel: allow\n").is_err());
    assert!(
        original("name: x\n").is_err_and(|e| e.starts_with("failed to load config: api_key is required"))
    );
    // Rules whose outcome depends on the order say so.
    let rules = "api_key: k\npermission:\n  bash:\n    \"*\": deny\n    \"kubectl get *\": allow\n    \"kubectl *\": deny\n";
    let config = original(rules).expect("valid");
    assert!(
        config.warnings.iter().any(|w| w.contains("decides over 'kubectl get *'")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn updates_need_a_key_and_an_address_that_can_be_trusted() {
    let key = legwork_release::SecretKey::generate().expect("key").public();
    let at = |url: &str| {
        let text = format!(
            "token: t\nurl: wss://hub.example/runner/ws\nupdate_url: {url}\nupdate_public_key: \"{key}\"\n"
        );
        with(&text, &[], &Flags::default())
    };
    assert_eq!(at("https://r.example/x/").expect("valid").update.expect("set").url, "https://r.example/x");
    assert_eq!(at("hub").expect("valid").update.expect("set").url, "https://hub.example/releases");
    assert!(at("http://r.example").is_err_and(|e| e.contains("must start with https://")));
    let half = with("token: t\nupdate_url: https://x\n", &[], &Flags::default()).expect("valid");
    assert!(
        half.update.is_none() && half.warnings.iter().any(|w| w.contains("update_public_key is not set"))
    );
}
