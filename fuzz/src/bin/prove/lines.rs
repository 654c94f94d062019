//! Lines of shell: from a grammar, from real scripts, from tricks.

use std::collections::HashSet;

use crate::{NAMED, UNNAMED, WRAPPERS};

/// A small generator of numbers (splitmix64): the same on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    /// The numbers that a line of a seed is made from.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x1000_0000_01b3).wrapping_add(number.wrapping_mul(0x9e37)));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap()
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub(crate) struct Generator {
    seed: u64,
    /// Lines of the scripts that are on this machine.
    real: Vec<String>,
    /// Names of programs, to be replaced in them.
    programs: HashSet<String>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut real = Vec::new();
        for dir in [
            "/etc/init.d",
            "/usr/bin",
            "/usr/sbin",
            "/var/lib/dpkg/info",
            "/etc/cron.daily",
            "/usr/share/bash-completion/completions",
        ] {
            let mut files: Vec<_> =
                std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
            files.sort();
            for file in files {
                if real.len() > 60_000 || file.metadata().map_or(true, |m| !m.is_file() || m.len() > 200_000)
                {
                    continue;
                }
                let Ok(text) = std::fs::read_to_string(&file) else { continue };
                let is_script = text.starts_with("#!/bin/sh")
                    || text.starts_with("#!/bin/bash")
                    || dir.contains("completion");
                if is_script {
                    real.extend(
                        text.lines()
                            .map(str::trim)
                            .filter(|l| l.len() > 3 && l.len() < 300 && !l.starts_with('#'))
                            .map(String::from),
                    );
                }
            }
        }
        let programs = ["/usr/bin", "/usr/sbin"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|name| name.len() > 1)
            .collect();
        Self { seed, real, programs }
    }

    /// The line of a number.
    pub(crate) fn line(&self, number: u64) -> String {
        let mut dice = Dice::of(self.seed, number);
        let line = match dice.below(10) {
            0..=4 => grammar(&mut dice, 3),
            5..=6 if !self.real.is_empty() => self.mutated(&mut dice),
            _ => tricks(&mut dice),
        };
        if dice.chance(8) { scramble(&mut dice, &line) } else { line }
    }

    /// A line of a real script in which programs are replaced by ours.
    fn mutated(&self, dice: &mut Dice) -> String {
        let mut line = self.real[dice.below(self.real.len())].clone();
        if dice.chance(30) {
            line.push_str(dice.pick(&["; ", " && ", " | ", "\n"]));
            line.push_str(&self.real[dice.below(self.real.len())]);
        }
        let mut out = String::new();
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' || c == '-' {
                word.push(c);
                continue;
            }
            if self.programs.contains(&word) || dice.chance(15) && !word.is_empty() && !is_keyword(&word) {
                out.push_str(&name(dice, 3));
            } else {
                out.push_str(&word);
            }
            word.clear();
            out.push(c);
        }
        out
    }
}

fn is_keyword(word: &str) -> bool {
    [
        "if", "then", "else", "elif", "fi", "for", "in", "do", "done", "while", "until", "case", "esac",
        "function",
    ]
    .contains(&word)
}

/// A program: mostly one that rules name, sometimes not.
fn name(dice: &mut Dice, percent_unnamed: usize) -> String {
    if dice.chance(percent_unnamed) {
        return dice.pick(UNNAMED).to_owned();
    }
    if dice.chance(30) { dice.pick(&["echo", "printf", ":", "true", "test", "cd"]) } else { dice.pick(NAMED) }
        .to_owned()
}

fn word(dice: &mut Dice, depth: usize) -> String {
    match dice.below(26) {
        0 => format!("'{}'", dice.pick(&["a b", "evil", "$(evil)", "; evil", "`id`", "\\", "|", "{}"])),
        1 => format!("\"{}\"", dice.pick(&["a b", "$x", "\\$(evil)", "; evil", "${x:-y}", "\\\"", "'"])),
        2 if depth > 0 => format!("$({})", grammar(dice, depth - 1)),
        3 if depth > 0 => format!("\"$({})\"", grammar(dice, depth - 1)),
        4 if depth > 0 => format!("`{}`", simple(dice, 0)),
        5 => dice
            .pick(&[
                "$x", "${x}", "$1", "$@", "$#", "$?", "$$", "${x:-a}", "${x:+b}", "${#x}", "${x%.*}",
                "${x/a/b}",
            ])
            .to_owned(),
        6 => dice.pick(&["*.c", "?", "[ab]", "~", "{a,b}", "{1..3}", "a{b,c}d", "./*"]).to_owned(),
        7 => format!("$(({}))", dice.pick(&["1", "1+2", "x", "x=5", "1<<2", "2>1"])),
        8 if depth > 0 => format!("<({})", simple(dice, 0)),
        9 => dice
            .pick(&["-n", "-e", "-c", "-i", "-exec", "--", "-o", "-f", "-v", "-I{}", "+", "\\;", "-x", "-u"])
            .to_owned(),
        10 => dice.pick(&["$'a\\tb'", "$'\\x65vil'", "e\\vil", "ev\"\"il", "'ev'il", "\\ls"]).to_owned(),
        11 => dice.pick(&["x=1", "FOO=a", "PATH=.", "LANG=C", "a[0]=1"]).to_owned(),
        _ => dice
            .pick(&["a", "b", "d", "d/c", "1", "2", "foo", "-la", ".", "out/x", "script", "payload", "evil"])
            .to_owned(),
    }
}

fn words(dice: &mut Dice, depth: usize) -> String {
    let count = dice.below(4);
    (0..count).map(|_| format!(" {}", word(dice, depth))).collect()
}

fn simple(dice: &mut Dice, depth: usize) -> String {
    let mut line = String::new();
    if dice.chance(8) {
        line.push_str(dice.pick(&["FOO=1 ", "LANG=C ", "LC_ALL=C TZ=UTC ", "x=1 ", "PATH=. ", "IFS=x "]));
    }
    line.push_str(&match dice.below(12) {
        0..=2 => wrapped(dice, depth),
        3 => dice
            .pick(&[
                "./payload",
                "d/../payload",
                "$x",
                "evil",
                "\"l\"s",
                "l''s",
                "\\ls",
                "{ls,evil}",
                "l?",
                "$(echo evil)",
            ])
            .to_owned(),
        _ => format!("{}{}", name(dice, 6), words(dice, depth)),
    });
    if dice.chance(15) {
        line.push(' ');
        line.push_str(dice.pick(&[
            "> out/x",
            ">> out/y",
            "2>&1",
            "> /dev/null",
            "< a",
            "2>/dev/null",
            ">&2",
            "> evil",
            "&> out/z",
            "<<< b",
            ">| out/q",
            "3> out/three",
            "<> a",
            "{fd}> out/v",
            "> out/../e",
            "2>&-",
            "> \"out/s\"",
            "<<E\n$(ls)\nE\n",
            "<<'E'\n$(evil)\nE\n",
        ]));
    }
    line
}

/// A wrapper around a command.
fn wrapped(dice: &mut Dice, depth: usize) -> String {
    let inner = if depth > 0 && dice.chance(25) {
        wrapped(dice, depth - 1)
    } else {
        format!("{}{}", name(dice, 8), words(dice, 0))
    };
    let quoted = inner.replace('\'', "'\\''");
    match dice.below(34) {
        0 => format!("env {inner}"),
        1 => format!("env -i FOO=1 {inner}"),
        2 => format!("env -u x LANG=C {inner}"),
        3 => format!("xargs {inner} < a"),
        4 => format!("xargs -n 1 {inner} < a"),
        5 => format!("xargs -I{{}} {inner} {{}} < a"),
        6 => format!("timeout 2 {inner}"),
        7 => format!("nice -n 1 {inner}"),
        8 => format!("nohup {inner}"),
        9 => format!("setsid -w {inner}"),
        10 => format!("stdbuf -oL {inner}"),
        11 => format!("find . -name a -exec {inner} {{}} \\;"),
        12 => format!("find d -type f -exec {inner} {{}} +"),
        13 => format!("sh -c '{quoted}'"),
        14 => format!("bash -c '{quoted}'"),
        15 => format!("bash -c '{quoted}' x {}", word(dice, 0)),
        16 => format!("eval {inner}"),
        17 => format!("eval '{quoted}'"),
        18 => format!("command {inner}"),
        19 => format!("exec {inner}"),
        20 => format!("trap '{quoted}' EXIT"),
        21 => format!("dash -c '{quoted}'"),
        22 => format!("flock a {inner}"),
        23 => format!("flock a -c '{quoted}'"),
        24 => format!("taskset 1 {inner}"),
        25 => format!("time -p {inner}"),
        26 => format!("ionice -c 3 {inner}"),
        27 => format!("echo {} | xargs {inner}", word(dice, 0)),
        28 => format!("bash {}", word(dice, 0)),
        29 => format!(
            "echo {inner} | {}",
            dice.pick(&["bash", "sh", "xargs", "source /dev/stdin", "xargs -I{} sh -c {}", "cat"])
        ),
        30 => format!(
            "{} {}",
            dice.pick(&["awk", "sed", "sort", "tar", "git", "find", "split"]),
            words(dice, 0)
        ),
        31 => format!("{}{}", dice.pick(WRAPPERS), words(dice, 0)),
        32 => format!("builtin {inner}"),
        _ => format!("time {inner}"),
    }
}

fn grammar(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        return simple(dice, 0);
    }
    let d = depth - 1;
    match dice.below(30) {
        0 => format!("{}; {}", grammar(dice, d), grammar(dice, d)),
        1 => format!("{} && {}", grammar(dice, d), simple(dice, d)),
        2 => format!("{} || {}", grammar(dice, d), simple(dice, d)),
        3 => format!("{} | {}", simple(dice, d), simple(dice, d)),
        4 => format!("{} & {}", simple(dice, d), simple(dice, d)),
        5 => format!("({})", grammar(dice, d)),
        6 => format!("{{ {}; }}", grammar(dice, d)),
        7 => format!("if {}; then {}; else {}; fi", simple(dice, d), grammar(dice, d), simple(dice, d)),
        8 => format!("for i in {}; do {}; done", words(dice, d), grammar(dice, d)),
        9 => format!("while read x; do {}; done < a", simple(dice, d)),
        10 => format!(
            "case {} in {}) {};; *) {};; esac",
            word(dice, d),
            dice.pick(&["a", "*", "a|b", "[a-c]"]),
            simple(dice, d),
            simple(dice, d)
        ),
        11 => format!("f() {{ {}; }}; f{}", grammar(dice, d), words(dice, d)),
        12 => format!("! {}", simple(dice, d)),
        13 => format!("[[ {} == {} ]] && {}", word(dice, 0), word(dice, 0), simple(dice, d)),
        14 => format!("x={}; {}", word(dice, d), simple(dice, d)),
        15 => format!("{}\n{}", grammar(dice, d), simple(dice, d)),
        16 => format!("cat <<E\n{}\nE", word(dice, d)),
        17 => format!("until {}; do break; done", simple(dice, d)),
        18 => format!("(( {} )) || {}", dice.pick(&["1", "x", "x=2", "1>2", "a[0]"]), simple(dice, d)),
        19 => format!("coproc {}", simple(dice, d)),
        20 => format!("{} # {}", simple(dice, d), simple(dice, 0)),
        21 => format!("{} |& {}", simple(dice, d), simple(dice, d)),
        _ => simple(dice, d),
    }
}

/// What is known to have got past others.
const TRICKS: &[&str] = &[
    "ls; evil",
    "ls\nevil",
    "ls & evil",
    "ls | evil",
    "ls `evil`",
    "ls $(evil)",
    "ls <(evil)",
    "ls > >(evil)",
    "ls ${x:-$(evil)}",
    "ls ${IFS}evil",
    "e''vil",
    "e\\vil",
    "$'evil'",
    "\"evil\"",
    "ev$@il",
    "ev${x}il",
    "$(echo evil)",
    "x=evil; $x",
    "eval evil",
    "command evil",
    "builtin evil",
    "exec evil",
    "env evil",
    "env -S 'evil'",
    "xargs evil < b",
    "find . -exec evil \\;",
    "find . -okdir evil \\;",
    "bash -c evil",
    "sh -c 'ls; evil'",
    "bash <<< evil",
    "bash < a",
    "cat a | bash",
    "cat a | xargs",
    "xargs -a a evil",
    "source a",
    ". a",
    "trap evil EXIT",
    "trap evil DEBUG; ls",
    "PATH=. ls",
    "BASH_ENV=a bash -c ls",
    "ENV=a sh -c ls",
    "alias ls=evil; ls",
    "hash -p ./payload ls; ls",
    "ls() { evil; }; ls",
    "function ls { evil; }; ls",
    "enable -f ./x y",
    "printf -v PATH .; ls",
    "read PATH <<< .; ls",
    "export PATH=.; ls",
    "declare PATH=.; ls",
    "unset PATH; evil",
    "awk 'BEGIN{system(\"evil\")}'",
    "awk '{print | \"evil\"}' a",
    "awk '{print > \"made\"}' a",
    "awk -f a",
    "sed '1e evil' a",
    "sed 's/x/evil/e' a",
    "sed -n 'w made' a",
    "sed -i s/a/b/ a",
    "sort -o made a",
    "sort --compress-program=evil a",
    "tar cf out/t a --checkpoint=1 --checkpoint-action=exec=evil",
    "tar cf made a",
    "tar xf out/t --to-command=evil",
    "tar -I evil -cf out/t a",
    "git -c alias.x='!evil' x",
    "git --exec-path=. log",
    "git config alias.x '!evil'",
    "git grep -Oevil x",
    "split --filter=evil a",
    "split a made",
    "timeout 1 evil",
    "timeout -s KILL 1 evil",
    "nice evil",
    "setsid evil",
    "stdbuf -o0 evil",
    "nohup evil",
    "flock a evil",
    "flock a -c evil",
    "cat <<E\n$(evil)\nE",
    "cat <<E\n`evil`\nE",
    "echo $((x[$(evil)]))",
    "test -v 'x[$(evil)]'",
    "[[ -v x[$(evil)] ]]",
    "[[ 'x[$(evil)]' -eq 1 ]]",
    "echo ${!x}",
    "x='a[$(evil)]'; echo $((x))",
    "let 'x[$(evil)]=1'",
    "declare -n r=x; r=1",
    "unset 'x[$(evil)]'",
    "read 'x[$(evil)]' < a",
    "printf -v 'x[$(evil)]' a",
    "mapfile -C evil -c 1 x < a",
    "compgen -W '$(evil)'",
    "jobs -x evil",
    "set -- evil; \"$@\"",
    "cd d; ../payload",
    "./payload",
    "payload",
    "/bin/true",
    "ls > made",
    "ls >> made",
    "ls >| made",
    "ls &> made",
    "ls 2> made",
    "ls <> made",
    "ls {fd}> made",
    "ls > out/../made",
    "ls > $x",
    "ls >&made",
    "exec > made; ls",
    ": > made",
    "cat a > out/ok",
    "echo evil > out/s; bash out/s",
    "x=$(ls) evil",
    "if evil; then ls; fi",
    "while evil; do ls; done",
    "case $(evil) in *) ls;; esac",
    "for i in $(evil); do ls; done",
    "[[ $(evil) ]]",
    "(evil)",
    "{ evil; }",
    "! evil",
    "time evil",
    "coproc evil",
    "select x in $(evil); do ls; done <<< 1",
    "ls \\\n; evil",
    "ls #\nevil",
    "ls '#'; evil",
    "echo '\n'; evil",
    "find . -fprint made",
    "find . -fprintf made x",
    "find . -name a -delete",
    "find -files0-from a",
    "xargs -I{} sh -c '{}' < a",
    "xargs -I{} {} < a",
    "echo a | while read x; do evil; done",
    "ls -la; (cd d && evil)",
    "\\evil",
    "'evil'",
    "l\\s; \\e\\v\\i\\l",
    "echo $(< a)",
    "echo \"${x/a/$(evil)}\"",
    "echo ${x@P}",
    "PS4='$(evil)'; set -x; ls",
    "PROMPT_COMMAND=evil ls",
    "IFS=l; x=lsl; $x",
    "ls ~$(evil)",
    "echo {a,$(evil)}",
    "echo \"$(ls \"$(evil)\")\"",
    "chrt -o 0 evil",
    "taskset 1 evil",
    "ionice -c3 evil",
    "watch -n 1 evil",
    "env -i evil",
    "env - evil",
    "env -- evil",
    "env x=1 evil",
    "env PATH=. ls",
    "bash -O extglob -c evil",
    "bash --rcfile a -i -c ls",
    "bash -s < a",
    "bash -x script",
    "bash script",
    "sh script",
    "sh -c 'x() { evil; }; x'",
    "sh -c 'ls $(evil)'",
];

fn tricks(dice: &mut Dice) -> String {
    let mut line = dice.pick(TRICKS).to_owned();
    // The allowed in the place of the forbidden shows that the trick itself is read well.
    if dice.chance(55) {
        line = line.replace("evil", dice.pick(NAMED));
    }
    for _ in 0..dice.below(3) {
        let other = dice.pick(TRICKS).replace("evil", if dice.chance(70) { "ls" } else { "id" });
        line = match dice.below(6) {
            0 => format!("{line}; {other}"),
            1 => format!("{other} && {line}"),
            2 => format!("{line} | {other}"),
            3 => format!("({line}); {other}"),
            4 => format!("if ls; then {line}\nfi; {other}"),
            _ => format!("bash -c '{}'", line.replace('\'', "'\\''")),
        };
    }
    line
}

/// Changes some characters.
fn scramble(dice: &mut Dice, line: &str) -> String {
    let mut chars: Vec<char> = line.chars().collect();
    for _ in 0..=dice.below(3) {
        let at = dice.below(chars.len() + 1);
        match dice.below(3) {
            0 if at < chars.len() => {
                chars.remove(at);
            }
            1 if at < chars.len() => chars.insert(at, chars[dice.below(chars.len())]),
            _ => {
                let piece = dice.pick(&[
                    "'", "\"", "\\", "$", "`", "(", ")", "{", "}", ";", "&", "|", "<", ">", "\n", " ", "#",
                    "=", "!",
                ]);
                chars.insert(at.min(chars.len()), piece.chars().next().unwrap());
            }
        }
    }
    chars.into_iter().collect()
}
