//! The reading against bash itself: lines made of quotes, expansions and what bash evaluates.
//! What the policy allows is run as it is; `evil` must never be executed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use legwork_policy::{Decision, Policy};
use serde_json::{Value, json};

use crate::lines::Dice;

/// What `evil` leaves behind: it is a script that makes this file.
pub(crate) const MARK: &str = "/tmp/evil-was-here";
/// What a line may take.
const PATIENCE: Duration = Duration::from_secs(2);

const RULES: &[(&str, &str)] = &[
    ("*", "deny"),
    ("echo *", "allow"),
    ("printf *", "allow"),
    ("true *", "allow"),
    (": *", "allow"),
    ("cat *", "allow"),
    ("read *", "allow"),
    ("export *", "allow"),
    ("declare *", "allow"),
    ("local *", "allow"),
    ("test *", "allow"),
    ("[ *", "allow"),
    ("eval *", "allow"),
    ("sh -c *", "allow"),
    ("dash -c *", "allow"),
    ("bash -c *", "allow"),
    ("env *", "allow"),
    ("f *", "allow"),
    ("mapfile *", "allow"),
    ("set *", "allow"),
    ("trap *", "allow"),
    ("LC_ALL=* echo *", "allow"),
];

/// Tries `count` lines of a seed, from number `from` on: `{"allowed": N, "failures": […]}`.
pub(crate) fn try_lines(seed: u64, from: u64, count: u64) -> Value {
    let policy = Policy::from_pairs(RULES.iter().copied()).unwrap();
    let policy = policy.with_env_names(["PATH", "HOME", "LANG"].map(String::from));
    let mut allowed = 0;
    let mut failures = Vec::new();
    // The control: what must not happen is seen where it does.
    bash("evil");
    if std::fs::remove_file(MARK).is_err() {
        return json!({"allowed": 0, "failures": ["evil leaves no mark here: nothing is proved"]});
    }
    for number in from..from + count {
        let line = line(&mut Dice::of(seed, number));
        let verdict = policy.judge(&line);
        let Some(run) = verdict.run.filter(|_| verdict.decision == Decision::Allow) else { continue };
        allowed += 1;
        bash(&run.text);
        if Path::new(MARK).exists() {
            let _ = std::fs::remove_file(MARK);
            failures.push(format!("seed {seed} line {number}: {line:?} runs evil as {:?}", run.text));
        }
    }
    json!({"allowed": allowed, "failures": failures})
}

fn bash(text: &str) {
    let child = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", text])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return };
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A line: mostly one of the forms in which text is expanded twice or read by two rules.
fn line(dice: &mut Dice) -> String {
    let mut text = String::new();
    if dice.chance(12) {
        text.push_str(dice.pick(&[
            "LC_ALL=zh_CN.gbk\n",
            "LC_ALL=ja_JP.sjis; ",
            "export LC_CTYPE=zh_CN.gbk\n",
            "LANG=ja_JP.sjis\n",
            "LC_ALL=C\n",
            "set -o posix\n",
        ]));
    }
    for part in 0..=dice.below(2) {
        if part > 0 {
            text.push_str(dice.pick(&["; ", "\n", " && ", " | "]));
        }
        text.push_str(&command(dice));
    }
    text
}

fn command(dice: &mut Dice) -> String {
    let name = dice.pick(INTEGERS).to_owned();
    let word = word(dice, 3);
    match dice.below(30) {
        0..=7 => format!("echo {word}"),
        8 => format!("x={word}"),
        9 => format!("{name}={word}"),
        10 => format!("{name}+={word}"),
        11 => format!("for {name} in {word}; do true; done"),
        12 => format!("read {name} <<< {word}"),
        13 => format!("printf -v {name} %s {word}"),
        14 => format!("export {name}={word}"),
        15 => format!("declare {name}={word}"),
        16 => format!("cat <<E\n{}\nE", inner(dice, 3)),
        17 => format!("cat <<'E'\n{}\nE", inner(dice, 2)),
        18 => format!("cat <<< {word}"),
        19 => format!("case {word} in {}) true;; esac", self::word(dice, 1)),
        20 => format!("[[ {word} {} {} ]]", dice.pick(&["==", "-eq", "=~", "<"]), self::word(dice, 1)),
        21 => format!("echo $(( {} ))", inner(dice, 2)),
        22 => format!("a=({word} [{}]={word}); echo ${{a[0]}}", inner(dice, 1)),
        23 => format!("{} -c {word}", dice.pick(&["sh", "dash", "bash"])),
        24 => format!("eval echo {word}"),
        25 => format!("mapfile -t {name} <<< {word}"),
        26 => format!("f() {{ echo {word}; }}; f {}", self::word(dice, 1)),
        27 => format!("test {} {word}", dice.pick(&["-v", "-n", "1 -eq", "a ="])),
        28 => format!("trap {word} EXIT"),
        _ => format!("echo $[ {} ]", inner(dice, 1)),
    }
}

const INTEGERS: &[&str] =
    &["RANDOM", "SRANDOM", "BASHPID", "SECONDS", "LINENO", "OPTIND", "HISTCMD", "x", "UID", "a[0]"];

/// A word in some quotes.
fn word(dice: &mut Dice, depth: usize) -> String {
    let inside = inner(dice, depth);
    match dice.below(8) {
        0 => format!("'{inside}'"),
        1..=3 => format!("\"{inside}\""),
        4 => format!("$'{inside}'"),
        5 => format!("$\"{inside}\""),
        _ => inside,
    }
}

/// What runs if it is read by the rules of another kind of quotes.
const EVIL: &[&str] = &[
    "$(evil)",
    "`evil`",
    "\\x24(evil)",
    "\\044(evil)",
    "\\u0024(evil)",
    "a[$(evil)]",
    "${ evil; }",
    "${| evil; }",
    ";evil;",
    "; evil #",
    "\nevil\n",
    "<(evil)",
    "$(evil",
    "'; evil #",
    "\\'; evil #",
    "\"; evil #",
    "\\\"; evil #",
    "丁\"; evil #",
    "表\\\"; evil #",
    "丁\\'; evil #",
];

/// What changes how the text beside it is read.
const PIECES: &[&str] = &[
    "a",
    "1",
    "\\",
    "\\\\",
    "'",
    "\"",
    "\\'",
    "\\\"",
    "\\`",
    "$",
    "`",
    "}",
    "{",
    ")",
    "(",
    "\n",
    " ",
    "丁\\",
    "表\\",
    "丁",
    "\\n",
    "\\c",
    "$x",
    "${x}",
    "\\$(evil)",
    "!",
    "#",
    "&",
    "\\x27",
    "\\47",
    "\\x22",
    "%s",
    "*",
    "~",
    "[",
    "]",
    "\\u4e01\\",
];

/// Text that means one thing in one kind of quotes and another elsewhere.
fn inner(dice: &mut Dice, depth: usize) -> String {
    let mut text = String::new();
    let pieces = if dice.chance(65) { 1 } else { 1 + dice.below(3) };
    for _ in 0..pieces {
        if depth > 0 && dice.chance(60) {
            let deeper = if dice.chance(65) { word(dice, depth - 1) } else { inner(dice, depth - 1) };
            let op = dice
                .pick(&[":-", "-", ":-", ":=", "=", ":+", "+", ":?", "#", "%", "/a/", "//", "^", ":", "@"]);
            let var = dice.pick(&["x", "y", "x", "1", "a[0]", "PATH", "@", "!x", "#x"]);
            text.push_str(&match dice.below(11) {
                0..=6 => format!("${{{var}{op}{deeper}}}"),
                7 => format!("'{deeper}'"),
                8 => format!("\"{deeper}\""),
                9 => format!("$'{deeper}'"),
                _ => format!("$(({deeper}))"),
            });
        } else {
            let pieces = if dice.chance(45) { EVIL } else { PIECES };
            text.push_str(dice.pick(pieces));
        }
    }
    text
}
