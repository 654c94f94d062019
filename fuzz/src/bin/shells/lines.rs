//! Lines made of what shells and parsers have disagreed about: quotes within expansions,
//! `$'…'`, integers, here-documents, letters beyond ASCII, bash 5.3's `${ …; }`.

/// A small generator (xorshift64*): runs must be repeatable.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const NAMES: &[&str] = &["x", "y", "z", "a", "i"];
const INTEGERS: &[&str] = &["RANDOM", "SRANDOM", "SECONDS", "OPTIND", "HISTCMD", "BASHPID"];

/// One line, of a few statements.
pub(crate) fn line(random: &mut Random) -> String {
    let mut maker = Maker { random, documents: Vec::new() };
    let mut out = String::new();
    for index in 0..=maker.random.below(3) {
        if index > 0 {
            out.push_str(if maker.documents.is_empty() {
                maker.random.pick(&["; ", "\n", " && ", " || ", "; "])
            } else {
                "\n"
            });
            maker.flush(&mut out);
        }
        let statement = maker.statement(2);
        out.push_str(&statement);
    }
    if !maker.documents.is_empty() {
        out.push('\n');
        maker.flush(&mut out);
    }
    if random.below(4) == 0 { mutated(random, &out) } else { out }
}

/// The line with a few characters put in, taken out or doubled.
fn mutated(random: &mut Random, line: &str) -> String {
    const PIECES: &[&str] = &[
        "'", "\"", "\\", "$", "`", "(", ")", "{", "}", "\n", " ", "#", "!", "é", "丁", "$(owned)", "`owned`",
        ";", "|", "<", ">", "&",
    ];
    let mut chars: Vec<String> = line.chars().map(String::from).collect();
    for _ in 0..=random.below(2) {
        let at = random.below(chars.len() + 1);
        match random.below(3) {
            0 => chars.insert(at, random.pick(PIECES).to_owned()),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ if at < chars.len() => chars.insert(at, chars[at].clone()),
            _ => {}
        }
    }
    chars.concat()
}

struct Maker<'a> {
    random: &'a mut Random,
    /// Here-documents whose bodies still have to be written.
    documents: Vec<String>,
}

impl Maker<'_> {
    fn flush(&mut self, out: &mut String) {
        for body in self.documents.drain(..) {
            out.push_str(&body);
        }
    }

    fn statement(&mut self, depth: usize) -> String {
        let kind = if depth == 0 { self.random.below(8) } else { self.random.below(22) };
        match kind {
            0..=3 => self.echo(),
            4 => {
                let name = self.random.pick(NAMES);
                format!("{name}={}", self.word(depth))
            }
            5 => {
                let name = self.random.pick(INTEGERS);
                let sign = self.random.pick(&["=", "+="]);
                format!("{name}{sign}{}", self.word(depth))
            }
            6 => self.document(depth),
            7 => format!("echo {} <<< {}", self.word(0), self.word(depth)),
            8 => {
                let (name, words) = (self.random.pick(NAMES), self.words(depth - 1));
                format!("for {name} in {words}; do {}; done", self.inner(depth))
            }
            9 => format!("if {}; then {}; fi", self.test(depth), self.inner(depth)),
            10 => {
                let (word, pattern) = (self.word(depth - 1), self.pattern(depth - 1));
                format!("case {word} in {pattern}) {};; *) {};; esac", self.inner(depth), self.inner(depth))
            }
            11 => format!("{{ {}; }}", self.inner(depth)),
            12 => format!("( {} )", self.inner(depth)),
            13 => format!("{} | {}", self.inner(depth), self.inner(depth)),
            14 => format!("! {}", self.inner(depth)),
            15 => format!("f() {{ {}; }}; f {}", self.inner(depth), self.words(depth - 1)),
            16 => format!("[[ {} ]] && echo t", self.condition(depth)),
            17 => format!("(( {} )) && echo n", self.arithmetic(depth)),
            18 => {
                let array = format!("a=({})", self.words(depth - 1));
                format!("{array}; echo \"${{a[@]}}\" ${{a[{}]}} ${{#a[@]}}", self.random.below(3))
            }
            19 => {
                let how = self.random.pick(&["export", "declare", "readonly", "local", "read", "printf -v"]);
                let name = if self.random.below(2) == 0 {
                    self.random.pick(NAMES)
                } else {
                    self.random.pick(INTEGERS)
                };
                match how {
                    "read" => format!("read {name} <<< {}", self.word(depth - 1)),
                    "printf -v" => format!("printf -v {name} %s {}", self.word(depth - 1)),
                    how => format!("{how} {name}={}", self.word(depth - 1)),
                }
            }
            20 => format!(
                "for {} in {}; do {}; done",
                self.random.pick(INTEGERS),
                self.words(depth - 1),
                self.inner(depth)
            ),
            _ => format!("while {}; do {}; break; done", self.test(depth), self.inner(depth)),
        }
    }

    fn inner(&mut self, depth: usize) -> String {
        // A here-document within a construct would have to be written amid it.
        loop {
            let statement = self.statement(depth - 1);
            if self.documents.is_empty() {
                return statement;
            }
            self.documents.clear();
        }
    }

    fn echo(&mut self) -> String {
        let command = self.random.pick(&["echo", "printf '<%s>'", "echo -n", "printf '%q|'"]);
        format!("{command} {}", self.words(2))
    }

    fn document(&mut self, depth: usize) -> String {
        let quoted = self.random.below(4) == 0;
        let mut body = String::new();
        for _ in 0..self.random.below(3) {
            let part = match self.random.below(5) {
                0 => self.expansion(depth, true),
                1 => "\\$x \\` \\\\ \\q 'a' \"b\"".to_owned(),
                2 => "丁\\$(owned) é".to_owned(),
                3 => self.operation(depth, true),
                _ => "plain text".to_owned(),
            };
            body.push_str(&part.replace('\n', " "));
            body.push('\n');
        }
        self.documents.push(format!("{body}E\n"));
        format!("while read -r l; do echo \"$l\"; done <<{}", if quoted { "'E'" } else { "E" })
    }

    fn words(&mut self, depth: usize) -> String {
        let count = 1 + self.random.below(3);
        (0..count).map(|_| self.word(depth)).collect::<Vec<_>>().join(" ")
    }

    fn word(&mut self, depth: usize) -> String {
        (0..=self.random.below(2)).map(|_| self.piece(depth)).collect()
    }

    fn piece(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 8 } else { 13 }) {
            0..=2 => {
                self.random.pick(&["a", "b1", "-n", "a.b", "x=y", "é", "丁", "%", "+", ":", "a,b"]).to_owned()
            }
            3 => self.single(),
            4 => self.ansi(),
            5 => self.random.pick(&["\\$", "\\ ", "\\'", "\\\"", "\\\\", "\\a", "\\`", "\\\n"]).to_owned(),
            6 => self
                .random
                .pick(&["*", "?", "[a-c]", "{a,b}", "{1..3}", "{}", "~", "{$x,b}", "a=~"])
                .to_owned(),
            7 => self
                .random
                .pick(&["$x", "${y}", "$@", "$#", "$?", "\"$@\"", "\"$*\"", "\"\"", "''", "$"])
                .to_owned(),
            8 => self.expansion(depth, false),
            9 => self.operation(depth, false),
            _ => self.double(depth),
        }
    }

    fn single(&mut self) -> String {
        format!(
            "'{}'",
            self.random.pick(&[
                "a b",
                "$(owned)",
                "`owned`",
                "\\",
                "\"",
                "${x}",
                "丁\\",
                "é",
                "a[$(owned)]",
                "5",
                ""
            ])
        )
    }

    fn ansi(&mut self) -> String {
        let inner = self.random.pick(&[
            "a\\'b",
            "\\x24(owned)",
            "\\u0024(owned)",
            "\\n",
            "\\\\",
            "\\\"",
            "\\044(owned)",
            "\\e",
            "a\\\\'; owned #",
            "\\cA",
            "\\x41",
        ]);
        format!("$'{inner}'")
    }

    fn double(&mut self, depth: usize) -> String {
        let mut out = String::from("\"");
        for _ in 0..=self.random.below(2) {
            let part = match self.random.below(6) {
                0 => self
                    .random
                    .pick(&[
                        "a b", "'", "it's", "\\$", "\\`", "\\\"", "\\\\", "\\a", "*", "丁\\\"", "é", "~", "$",
                    ])
                    .to_owned(),
                1 => self.random.pick(&["$x", "${y}", "$?", "$1"]).to_owned(),
                2 => self.expansion(depth, true),
                _ => self.operation(depth, true),
            };
            out.push_str(&part);
        }
        out.push('"');
        out
    }

    fn expansion(&mut self, depth: usize, quoted: bool) -> String {
        let depth = depth.saturating_sub(1);
        match self.random.below(7) {
            0 => format!("$({})", self.command(depth)),
            1 if !quoted => format!("`{}`", self.random.pick(&["owned", "echo a", "echo 'b c'", ":"])),
            2 => format!("$(({}))", self.arithmetic(depth)),
            3 => self
                .random
                .pick(&["${ owned; }", "${| owned; }", "${\nowned\n}", "${\towned; }", "$[1+1]", "${#x}"])
                .to_owned(),
            4 => format!("${{x:{}}}", self.random.below(3)),
            5 => self
                .random
                .pick(&["${x@Q}", "${x^^}", "${y,}", "${!x}", "${x@P}", "${a[0]}", "${a[@]}"])
                .to_owned(),
            _ => format!("$(echo {})", self.word(depth)),
        }
    }

    fn command(&mut self, depth: usize) -> String {
        match self.random.below(4) {
            0 => "owned".to_owned(),
            1 => ":".to_owned(),
            _ => format!("echo {}", self.word(depth.saturating_sub(1))),
        }
    }

    /// `${x:-…}` and its like, with anything in it.
    fn operation(&mut self, depth: usize, quoted: bool) -> String {
        let name = self.random.pick(&["x", "y", "q", "a", "1"]);
        let operator =
            self.random.pick(&[":-", "-", ":=", "+", ":+", "#", "%", "##", "%%", "/", "//", "/#", "/%"]);
        let operand = match self.random.below(7) {
            0 => self.single(),
            1 => self.ansi(),
            2 => self.random.pick(&["a b", "a\\}b", "*", "丁", "it's", "{", "{}", "~", "&", "a*"]).to_owned(),
            3 if depth > 0 => self.double(depth - 1),
            4 if depth > 0 => self.expansion(depth - 1, quoted),
            5 if depth > 0 => self.operation(depth - 1, quoted),
            _ => self.random.pick(&["a", "$y", "\"$y\"", "'$(owned)'", "'`owned`'", "\\$(owned)"]).to_owned(),
        };
        let name = if operator == ":=" && name == "1" { "q" } else { name };
        if operator.starts_with('/') {
            let replacement = self.random.pick(&[
                "",
                "/",
                "/b",
                "/&",
                "/'&'",
                "/\"$y\"",
                "/'$(owned)'",
                "/ c",
                "/\\&",
                "/丁\\\\",
            ]);
            return format!("${{{name}{operator}{operand}{replacement}}}");
        }
        format!("${{{name}{operator}{operand}}}")
    }

    fn pattern(&mut self, depth: usize) -> String {
        match self.random.below(4) {
            0 => self.random.pick(&["a*", "[a-c]", "?", "*b", "a|b", "[!x]", "é", "[é]", "~"]).to_owned(),
            _ => self.word(depth),
        }
    }

    fn test(&mut self, depth: usize) -> String {
        match self.random.below(4) {
            0 => format!("[ {} = {} ]", self.word(0), self.word(0)),
            1 => format!("[[ {} ]]", self.condition(depth.saturating_sub(1))),
            2 => "true".to_owned(),
            _ => format!("(( {} ))", self.arithmetic(depth.saturating_sub(1))),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        let (left, depth) = (self.word(0), depth.saturating_sub(1));
        match self.random.below(6) {
            0 => format!("{left} == {}", self.pattern(depth)),
            1 => format!(
                "{left} =~ {}",
                self.random.pick(&["^a", "a.b", "(a|b)", "[0-9]+$", "'a.b'", "a\\.b", "^$x$", "\"$y\""])
            ),
            2 => format!("-n {left} && {left} != {}", self.word(depth)),
            3 => format!("{} -eq {}", self.number(), self.number()),
            4 => format!("! ( -z {left} || {left} < b )"),
            _ => left,
        }
    }

    fn number(&mut self) -> String {
        self.random.pick(&["1", "$i", "2", "$x", "'a[$(owned)]'", "${#x}", "i", "010"]).to_owned()
    }

    fn arithmetic(&mut self, depth: usize) -> String {
        if depth == 0 {
            // Of a variable that holds nothing, `$i` leaves nothing: another expression.
            return self.random.pick(&["1", "i", "2", "x", "'a[$(owned)]'", "${#x}", "010", "$#"]).to_owned();
        }
        let (left, right) = (self.arithmetic(depth - 1), self.arithmetic(depth - 1));
        let sign = self
            .random
            .pick(&["+", "-", "*", "**", "<", "==", "&&", "||", "&", ">>", ",", "? 3 :", "^", "- -"]);
        match self.random.below(6) {
            0 => format!("({left}) {sign} {right}"),
            1 => "i++".to_owned(),
            2 => format!("i = {left}"),
            3 => format!("!{left} {sign} ~{right}"),
            _ => format!("{left} {sign} {right}"),
        }
    }
}
