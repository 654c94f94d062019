use crate::{Problem, Workflow};

fn problems(text: &str) -> String {
    let node = legwork_yaml::parse(text).expect("yaml");
    let told =
        |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
    Workflow::of_file(&node).err().map(told).unwrap_or_default()
}

/// What is wrong is said with its line, before anything runs.
#[test]
fn what_is_wrong_is_said_with_its_line() {
    let job = |more: &str| format!("jobs:\n  a:\n    {more}\n    steps:\n      - run: x\n");
    for (text, want) in [
        (job("runs-on: x\n    needs: b"), "line 4: jobs.a.needs: there is no job 'b'"),
        (job("needs: a"), "jobs need one another in a circle: a"),
        (job("neds: b"), "line 3: jobs.a.neds: not supported; did you mean 'needs'?"),
        (job("services: {}"), "line 3: jobs.a.services: no container engine"),
        (job("if: githb.ref"), "line 3: jobs.a.if: there is no context 'githb'; did you mean 'github'?"),
        (job("timeout-minutes: 0"), "line 3: jobs.a.timeout-minutes must be a number of minutes above 0"),
        (job("strategy: {matrix: {a: [1], b: x}}"), "line 3: jobs.a.strategy.matrix: a matrix is"),
        (job("strategy: {matrix: [1]}"), "a matrix is a dictionary"),
        (job("strategy: {matrx: {}}"), "did you mean 'matrix'?"),
        (job("defaults: {run: {shel: sh}}"), "did you mean 'shell'?"),
        (job("continue-on-error: 3"), "must be true or false"),
        ("jobs:\n  \"a\\nb\":\n    steps: [{run: x}]\n".into(), "a job's name begins with a letter"),
        ("jobs:\n  a:\n    steps: [{id: \"x\\e[2J\", run: x}]\n".into(), "an id begins with a letter"),
        ("jobs: {a: {steps: [{id: x, run: x}, {id: x, run: x}]}}".into(), "two steps have the id 'x'"),
        ("jobs: {a: {steps: [{run: x, uses: ./a}]}}".into(), "has both run and uses"),
        ("jobs: {a: {steps: [{name: x}]}}".into(), "has nothing to run"),
        ("jobs: {a: {steps: [{uses: ./../x}]}}".into(), "leads out of the workspace"),
        ("jobs: {a: {steps: [{uses: a/../b@v1}]}}".into(), "is no action"),
        ("jobs: {a: {steps: [{uses: 'docker://x'}]}}".into(), "is an image of Docker"),
        ("jobs: {a: {steps: [{run: x, shell: fish}]}}".into(), "'fish' is none of bash"),
        ("jobs: {a: {steps: [{run: 'echo ${{ x', shell: bash}]}}".into(), "without '}}'"),
        ("jobs: {a: {steps: [{run: 'p ${{ 1 }}', shell: 'perl {0}'}]}}".into(), "for this shell"),
        ("jobs: {a: {name: x}}".into(), "has no steps"),
        ("jobs: {a: {uses: o/r/w.yml@v1}}".into(), "of another repository"),
        ("jobs: [a]".into(), "jobs must be a dictionary"),
        ("permission: {}\njobs: {a: {steps: [{run: x}]}}".into(), "did you mean 'permissions'?"),
    ] {
        let told = problems(&text);
        assert!(told.contains(want), "{text}: {told}");
    }
    let many = (0..1001).map(|i| format!("  j{i}: {{steps: [{{run: x}}]}}\n")).collect::<String>();
    assert!(problems(&format!("jobs:\n{many}")).contains("may have 1000 jobs"));
}

/// What only GitHub has a use for is noted once.
#[test]
fn what_differs_is_noted_once() {
    let text = "permissions: read-all\nconcurrency: x\njobs:\n  a: {permissions: {}, runs-on: macos-14, environment: e, steps: [{uses: actions/setup-go@v5}]}\n  b: {permissions: {}, steps: [{uses: actions/setup-go@v5}]}\n";
    let workflow = Workflow::of_file(&legwork_yaml::parse(text).expect("yaml")).expect("workflow");
    let starts: Vec<&str> =
        workflow.notes.iter().map(|n| n.text.split([':', ' ']).next().unwrap_or("")).collect();
    assert_eq!(starts, ["permissions", "concurrency", "runs-on", "environment", "actions/setup-go@v5"]);
}
