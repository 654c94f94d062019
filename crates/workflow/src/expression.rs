//! Expressions: what `if` holds, and what stands in `${{ }}`.
//!
//! ```text
//! or:      and ('||' and)*
//! and:     compare ('&&' compare)*
//! compare: not (('==' | '!=') not)?
//! not:     '!' not | '(' or ')' | 'text' | number | true | false | null | path | name '(' args ')'
//! ```

/// Most bytes of an expression, and the deepest it nests.
const MAX_LENGTH: usize = 4096;
const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "as named")]
pub enum Item {
    Null,
    Bool(bool),
    Text(String),
}

impl Item {
    /// Whether a condition that comes to this holds.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Text(text) => !text.is_empty(),
        }
    }

    /// As it stands in a text.
    pub fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Item(Item),
    /// `steps.build.outputs.tag`
    Path(Vec<String>),
    Call(Function, Vec<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Equal(Box<Expr>, Box<Expr>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Success,
    Failure,
    Always,
    Contains,
    StartsWith,
    EndsWith,
}

impl Function {
    fn named(name: &str) -> Option<(Self, usize)> {
        Some(match name {
            "success" => (Self::Success, 0),
            "failure" => (Self::Failure, 0),
            "always" => (Self::Always, 0),
            "contains" => (Self::Contains, 2),
            "startsWith" => (Self::StartsWith, 2),
            "endsWith" => (Self::EndsWith, 2),
            _ => return None,
        })
    }
}

/// What expressions ask about.
pub trait Lookup {
    /// Whether all that counts went well so far.
    fn is_good(&self) -> bool;
    /// What a path names, if anything.
    fn find(&self, path: &[String]) -> Option<String>;
}

/// When something runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    expr: Expr,
    /// As it is written.
    pub text: String,
}

impl Condition {
    /// Reads what stands at `if`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix("${{").and_then(|t| t.strip_suffix("}}")).unwrap_or(inner);
        Ok(Self { expr: parse(inner)?, text: text.trim().to_owned() })
    }

    /// Without a word about the status, it holds only while all is well.
    pub fn holds(&self, lookup: &dyn Lookup) -> bool {
        (asks_status(&self.expr) || lookup.is_good()) && eval(&self.expr, lookup).is_true()
    }
}

/// Text with `${{ }}` in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Expr(Expr),
}

impl Template {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find("${{") {
            let end = rest[at..].find("}}").ok_or("'${{' without '}}'")? + at;
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            parts.push(Part::Expr(parse(&rest[at + 3..end])?));
            rest = &rest[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Text as it is.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// With what its expressions come to.
    pub fn fill(&self, lookup: &dyn Lookup) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Expr(expr) => eval(expr, lookup).text(),
        };
        self.0.iter().map(part).collect()
    }
}

fn asks_status(expr: &Expr) -> bool {
    match expr {
        Expr::Call(function, args) => {
            matches!(function, Function::Success | Function::Failure | Function::Always)
                || args.iter().any(asks_status)
        }
        Expr::Not(a) => asks_status(a),
        Expr::And(a, b) | Expr::Or(a, b) | Expr::Equal(a, b, _) => asks_status(a) || asks_status(b),
        Expr::Item(_) | Expr::Path(_) => false,
    }
}

fn eval(expr: &Expr, lookup: &dyn Lookup) -> Item {
    match expr {
        Expr::Item(item) => item.clone(),
        Expr::Path(path) => lookup.find(path).map_or(Item::Null, Item::Text),
        Expr::Not(a) => Item::Bool(!eval(a, lookup).is_true()),
        Expr::And(a, b) => {
            let first = eval(a, lookup);
            if first.is_true() { eval(b, lookup) } else { first }
        }
        Expr::Or(a, b) => {
            let first = eval(a, lookup);
            if first.is_true() { first } else { eval(b, lookup) }
        }
        Expr::Equal(a, b, wanted) => {
            let same = eval(a, lookup).text().eq_ignore_ascii_case(&eval(b, lookup).text());
            Item::Bool(same == *wanted)
        }
        Expr::Call(function, args) => {
            let text =
                |i: usize| args.get(i).map(|a| eval(a, lookup).text().to_lowercase()).unwrap_or_default();
            Item::Bool(match function {
                Function::Success => lookup.is_good(),
                Function::Failure => !lookup.is_good(),
                Function::Always => true,
                Function::Contains => text(0).contains(&text(1)),
                Function::StartsWith => text(0).starts_with(&text(1)),
                Function::EndsWith => text(0).ends_with(&text(1)),
            })
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Text(String),
    /// A name, a number, a path.
    Word(String),
    Sign(&'static str),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const SIGNS: &[&str] = &["||", "&&", "==", "!=", "!", "(", ")", ","];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if let Some(inner) = rest.strip_prefix('\'') {
            // '' within stands for one '.
            let mut value = String::new();
            let mut tail = inner;
            loop {
                let end = tail.find('\'').ok_or("a text without its closing '")?;
                value.push_str(&tail[..end]);
                tail = &tail[end + 1..];
                match tail.strip_prefix('\'') {
                    Some(more) => {
                        value.push('\'');
                        tail = more;
                    }
                    None => break,
                }
            }
            tokens.push(Token::Text(value));
            rest = tail;
        } else {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            if len == 0 {
                let sign = rest.chars().next().unwrap_or_default();
                return Err(format!("'{sign}' is no part of an expression"));
            }
            tokens.push(Token::Word(rest[..len].to_owned()));
            rest = &rest[len..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("an expression may be {MAX_LENGTH} bytes long"));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let expr = parser.or()?;
    match parser.tokens.first() {
        None => Ok(expr),
        Some(token) => Err(format!("unexpected {}", shown(token))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Text(text) => format!("'{text}'"),
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => format!("'{sign}'"),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Sign(s)) if *s == sign);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn or(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the expression nests too deep".into());
        }
        let mut left = self.and()?;
        while self.take("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut left = self.compare()?;
        while self.take("&&") {
            left = Expr::And(Box::new(left), Box::new(self.compare()?));
        }
        Ok(left)
    }

    fn compare(&mut self) -> Result<Expr, String> {
        let left = self.unary()?;
        for (sign, wanted) in [("==", true), ("!=", false)] {
            if self.take(sign) {
                return Ok(Expr::Equal(Box::new(left), Box::new(self.unary()?), wanted));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let inner = self.primary()?;
        Ok(if negated { Expr::Not(Box::new(inner)) } else { inner })
    }

    fn primary(&mut self) -> Result<Expr, String> {
        if self.take("(") {
            let inner = self.or()?;
            return if self.take(")") { Ok(inner) } else { Err("a '(' without its ')'".into()) };
        }
        let (first, rest) = self.tokens.split_first().ok_or("the expression ends too early")?;
        self.tokens = rest;
        let word = match first {
            Token::Text(text) => return Ok(Expr::Item(Item::Text(text.clone()))),
            Token::Sign(_) => return Err(format!("unexpected {}", shown(first))),
            Token::Word(word) => word,
        };
        if self.take("(") {
            let (function, wanted) =
                Function::named(word).ok_or_else(|| format!("there is no function {word}()"))?;
            let mut args = Vec::new();
            while !self.take(")") {
                if !args.is_empty() && !self.take(",") {
                    return Err(format!("{word}(: ',' or ')' is missing"));
                }
                args.push(self.or()?);
            }
            return match args.len() == wanted {
                true => Ok(Expr::Call(function, args)),
                false => Err(format!("{word}() takes {wanted} arguments")),
            };
        }
        Ok(match word.as_str() {
            "true" => Expr::Item(Item::Bool(true)),
            "false" => Expr::Item(Item::Bool(false)),
            "null" => Expr::Item(Item::Null),
            _ if word.starts_with(|c: char| c.is_ascii_digit()) => Expr::Item(Item::Text(word.clone())),
            _ => return path(word),
        })
    }
}

/// What can be named: a misspelt name would only ever be nothing.
fn path(word: &str) -> Result<Expr, String> {
    let parts: Vec<String> = word.split('.').map(str::to_owned).collect();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    match names[..] {
        ["env", _]
        | ["steps", _, "outputs", _]
        | ["steps", _, "outcome" | "conclusion"]
        | ["needs", _, "outputs", _]
        | ["needs", _, "result"] => Ok(Expr::Path(parts)),
        _ => Err(format!(
            "'{word}' is none of env.NAME, steps.ID.outputs.NAME, steps.ID.outcome, steps.ID.conclusion, needs.JOB.outputs.NAME, needs.JOB.result"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(bool);

    impl Lookup for World {
        fn is_good(&self) -> bool {
            self.0
        }

        fn find(&self, path: &[String]) -> Option<String> {
            match path.join(".").as_str() {
                "env.STAGE" => Some("prod".into()),
                "steps.a.outputs.tag" => Some("v1".into()),
                "steps.a.outcome" => Some("failure".into()),
                _ => None,
            }
        }
    }

    #[test]
    fn conditions_hold_as_they_should() {
        for (text, good, bad) in [
            ("true", true, false),
            ("always()", true, true),
            ("failure()", false, true),
            ("success()", true, false),
            ("!success()", false, true),
            ("env.STAGE == 'prod'", true, false),
            ("${{ env.STAGE == 'PROD' }}", true, false),
            ("env.STAGE != 'prod'", false, false),
            ("env.NOTHING", false, false),
            ("!env.NOTHING", true, false),
            ("always() && steps.a.outcome == 'failure'", true, true),
            ("failure() || env.STAGE == 'prod' && true", true, true),
            ("(failure() || true) && false", false, false),
            ("startsWith(steps.a.outputs.tag, 'v') && contains('abc', 'B')", true, false),
            ("endsWith('it''s', 's')", true, false),
            ("steps.a.outputs.none == null", true, false),
            ("steps.a.outputs.none == ''", true, false),
        ] {
            let condition = Condition::parse(text).expect(text);
            assert_eq!(
                (condition.holds(&World(true)), condition.holds(&World(false))),
                (good, bad),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let deep = "(".repeat(100);
        for text in [
            "",
            "env",
            "github.ref == 'x'",
            "a b",
            "contains('a')",
            "nope()",
            "'x",
            "(true",
            "true)",
            "$x",
            &deep,
        ] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn templates_are_filled() {
        let template = Template::parse("a-${{ steps.a.outputs.tag }}-${{env.NOTHING}}.").expect("valid");
        assert_eq!(template.fill(&World(true)), "a-v1-.");
        assert_eq!(Template::parse("$x {{ }}").expect("valid").fill(&World(true)), "$x {{ }}");
        assert!(Template::parse("${{ env.A").is_err());
    }
}
