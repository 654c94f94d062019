//! SQL given on a command line: its statements may look, not write or run (point 19).
//!
//! The text is split into tokens as far as it takes to tell words from strings, quoted
//! names and comments. Where a server could read it otherwise, it is refused. A statement
//! may begin with the words that look, may hold none of those that write, and may call
//! only functions that are known to be harmless.

mod meta;

/// The functions that may be called, as a file of words.
const FUNCTIONS: &str = include_str!("../../tables/sql-functions.txt");

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Mysql,
    Sqlite,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A bare word, in small letters.
    Word(String),
    /// A name in quotes.
    Name,
    /// A string, a number or a parameter.
    Value,
    Sign(char),
}

/// Says what is wrong with a text, if it does more than look.
pub(super) fn check(dialect: Dialect, text: &str) -> Result<(), String> {
    let trimmed = text.trim_start();
    if trimmed.starts_with(['\\', '.']) && dialect != Dialect::Mysql {
        return meta::check(dialect, trimmed);
    }
    let tokens = tokens(dialect, text)?;
    tokens
        .split(|token| *token == Token::Sign(';'))
        .try_for_each(|statement| check_statement(dialect, statement))
}

const UNCLEAR: &str = "can't be read surely; write it more plainly";

fn unclear<T>() -> Result<T, String> {
    Err(UNCLEAR.to_owned())
}

fn tokens(dialect: Dialect, text: &str) -> Result<Vec<Token>, String> {
    let mut lexer = Lexer { dialect, chars: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    while let Some(c) = lexer.next() {
        match c {
            c if c.is_ascii_whitespace() => {}
            '-' if lexer.peek() == Some('-') => lexer.line_comment()?,
            '#' if dialect == Dialect::Mysql => lexer.skip_line(),
            '/' if lexer.peek() == Some('*') => lexer.block_comment()?,
            '\'' => {
                // Postgres: `E'…'` takes backslashes to mean something, `U&'…'` too.
                let escapes = matches!(tokens.last(), Some(Token::Word(w)) if w == "e" || w == "u");
                lexer.quoted('\'', escapes)?;
                tokens.push(Token::Value);
            }
            '"' => {
                lexer.quoted('"', false)?;
                // For MySQL it is a string, for the others a name.
                tokens.push(if dialect == Dialect::Mysql { Token::Value } else { Token::Name });
            }
            '`' if dialect != Dialect::Postgres => {
                lexer.quoted('`', false)?;
                tokens.push(Token::Name);
            }
            '[' if dialect == Dialect::Sqlite => {
                lexer.until(']')?;
                tokens.push(Token::Name);
            }
            '$' if dialect == Dialect::Postgres => {
                lexer.dollar_quoted()?;
                tokens.push(Token::Value);
            }
            '\\' if dialect == Dialect::Mysql && matches!(lexer.peek(), Some('G' | 'g')) => {
                lexer.at += 1;
                tokens.push(Token::Sign(';'));
            }
            '\\' => return Err("holds a backslash command".into()),
            c if c.is_ascii_digit() => {
                lexer.while_is(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                tokens.push(Token::Value);
            }
            c if is_word(c) => {
                let start = lexer.at - 1;
                lexer.while_is(|c| is_word(c) || c.is_ascii_digit());
                let word: String = lexer.chars[start..lexer.at].iter().collect();
                tokens.push(Token::Word(word.to_lowercase()));
            }
            c if c.is_ascii_control() => return unclear(),
            c if c.is_ascii() => tokens.push(Token::Sign(c)),
            _ => return unclear(),
        }
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c.is_alphabetic()
}

struct Lexer {
    dialect: Dialect,
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn while_is(&mut self, is: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&is) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        self.while_is(|c| c != '\n');
    }

    fn until(&mut self, end: char) -> Result<(), String> {
        self.while_is(|c| c != end);
        if self.next().is_some() { Ok(()) } else { unclear() }
    }

    fn line_comment(&mut self) -> Result<(), String> {
        self.at += 1;
        // MySQL wants a blank after it, and reads two signs otherwise.
        if self.dialect == Dialect::Mysql && self.peek().is_some_and(|c| !c.is_ascii_whitespace()) {
            return unclear();
        }
        self.skip_line();
        Ok(())
    }

    /// Comments nest for some and not for others; MySQL runs what stands in `/*! … */`.
    fn block_comment(&mut self) -> Result<(), String> {
        self.at += 1;
        if matches!(self.peek(), Some('!' | 'M' | '+')) {
            return unclear();
        }
        loop {
            match (self.next(), self.peek()) {
                (Some('*'), Some('/')) => break,
                (Some('/'), Some('*')) | (None, _) => return unclear(),
                _ => {}
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Up to the closing quote; a doubled one is a character. Whether a backslash before a
    /// quote means something is for the server's settings to say.
    fn quoted(&mut self, quote: char, escapes: bool) -> Result<(), String> {
        loop {
            match self.next() {
                None => return unclear(),
                Some('\\') if escapes || matches!(self.peek(), Some('\\' | '\'' | '"' | '`') | None) => {
                    return unclear();
                }
                Some(c) if c == quote => {
                    if self.peek() != Some(quote) {
                        return Ok(());
                    }
                    self.at += 1;
                }
                Some(_) => {}
            }
        }
    }

    /// `$tag$ … $tag$`, or `$1`.
    fn dollar_quoted(&mut self) -> Result<(), String> {
        let start = self.at;
        if self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.while_is(|c| c.is_ascii_digit());
            return if self.peek().is_some_and(|c| is_word(c) || c == '$') { unclear() } else { Ok(()) };
        }
        // Glued to a word it would be a part of that.
        if start >= 2 && (is_word(self.chars[start - 2]) || self.chars[start - 2].is_ascii_digit()) {
            return unclear();
        }
        self.while_is(|c| c.is_ascii_alphanumeric() || c == '_');
        if self.next() != Some('$') {
            return unclear();
        }
        let tag: Vec<char> = self.chars[start - 1..self.at].to_vec();
        let rest = &self.chars[self.at..];
        let end = rest.windows(tag.len()).position(|window| window == tag).ok_or(UNCLEAR)?;
        self.at += end + tag.len();
        Ok(())
    }
}

/// Words that no statement that looks may hold.
const WRITES: &[&str] =
    &["insert", "update", "delete", "merge", "into", "outfile", "dumpfile", "replace", "share"];

/// Words that may stand between EXPLAIN and what is explained.
const EXPLAINS: &[&str] = &[
    "explain",
    "describe",
    "desc",
    "analyze",
    "analyse",
    "verbose",
    "format",
    "json",
    "text",
    "xml",
    "yaml",
    "tree",
    "traditional",
    "buffers",
    "costs",
    "settings",
    "timing",
    "summary",
    "wal",
    "on",
    "off",
    "true",
    "false",
    "memory",
    "generic_plan",
    "extended",
    "partitions",
];

/// Words that a bracket may follow although they are no function.
const KEYWORDS: &[&str] = &[
    "in",
    "and",
    "or",
    "not",
    "values",
    "as",
    "from",
    "exists",
    "any",
    "all",
    "some",
    "over",
    "filter",
    "using",
    "on",
    "where",
    "join",
    "select",
    "by",
    "having",
    "when",
    "then",
    "else",
    "case",
    "limit",
    "offset",
    "union",
    "except",
    "intersect",
    "distinct",
    "lateral",
    "partition",
    "with",
    "recursive",
    "between",
    "is",
    "like",
    "ilike",
    "explain",
    "materialized",
    "group",
    "within",
    "sets",
    "rollup",
    "cube",
    "window",
    "row",
    "array",
    "interval",
    "table",
    "return",
    "end",
    "key",
    "index",
    "varchar",
    "char",
    "character",
    "varying",
    "numeric",
    "decimal",
    "float",
    "timestamp",
    "time",
    "bit",
    "int",
    "integer",
    "bigint",
    "binary",
    "only",
    "div",
    "mod",
    "xor",
    "rlike",
    "regexp",
    "collate",
    "desc",
    "asc",
    "escape",
];

fn check_statement(dialect: Dialect, statement: &[Token]) -> Result<(), String> {
    let Some(first) = statement.first() else { return Ok(()) };
    let word = |index: usize| match statement.get(index) {
        Some(Token::Word(word)) => word.as_str(),
        _ => "",
    };
    if *first == Token::Sign('(') {
        return check_query(statement);
    }
    match word(0) {
        "select" | "with" | "table" | "values" => check_query(statement),
        "explain" | "desc" | "describe" => check_explain(statement),
        "show" if dialect != Dialect::Sqlite => check_functions(statement),
        "use" if dialect == Dialect::Mysql && statement.len() == 2 => Ok(()),
        "pragma" if dialect == Dialect::Sqlite => {
            meta::pragma(&statement[1..].iter().map(spelt).collect::<String>())
        }
        "" => unclear(),
        other => Err(format!("holds '{other}', which is not known to look only")),
    }
}

fn spelt(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Name | Token::Value => "x".to_owned(),
        Token::Sign(sign) => sign.to_string(),
    }
}

/// What is explained is not done, unless it is analysed; the executor of MySQL shows only.
fn check_explain(statement: &[Token]) -> Result<(), String> {
    let analyses =
        |token: &Token| matches!(token, Token::Word(word) if word == "analyze" || word == "analyse");
    if statement.iter().any(analyses) {
        // Options may stand before it, in brackets or bare.
        let query = statement.iter().position(
            |token| matches!(token, Token::Word(word) if matches!(word.as_str(), "select" | "with" | "table" | "values")),
        );
        let Some(at) = query else { return Err("analyses a statement that may write, which runs it".into()) };
        let explains = |token: &Token| match token {
            Token::Word(word) => EXPLAINS.contains(&word.as_str()),
            Token::Sign(sign) => "(),=".contains(*sign),
            Token::Name | Token::Value => false,
        };
        if !statement[..at].iter().all(explains) {
            return Err("analyses a statement that may write, which runs it".into());
        }
        return check_query(&statement[at..]);
    }
    check_functions(statement)
}

fn check_query(statement: &[Token]) -> Result<(), String> {
    let word = |index: usize| match statement.get(index) {
        Some(Token::Word(word)) => word.as_str(),
        _ => "",
    };
    for index in 0..statement.len() {
        let found = word(index);
        let before = index.checked_sub(1).map(|at| &statement[at]);
        let is_column = before == Some(&Token::Sign('.'));
        let does = match found {
            // `replace(a, b, c)` is a function, `REPLACE INTO` is none.
            "replace" => statement.get(index + 1) != Some(&Token::Sign('(')),
            // A sequence goes on.
            "next" => word(index + 1) == "value" && word(index + 2) == "for",
            "share" => index > 0 && matches!(word(index - 1), "for" | "key" | "in"),
            _ => WRITES.contains(&found),
        };
        if does && !is_column {
            return Err(format!("holds '{found}', which can write or lock something"));
        }
    }
    check_functions(statement)
}

fn check_functions(statement: &[Token]) -> Result<(), String> {
    for (index, token) in statement.iter().enumerate() {
        if statement.get(index + 1) != Some(&Token::Sign('(')) {
            continue;
        }
        let before = index.checked_sub(1).and_then(|i| statement.get(i));
        // `WITH x (a, b)` and `AS x (a, b)` name columns.
        let names_columns = matches!(before, Some(Token::Word(word)) if word == "as" || word == "with");
        match token {
            Token::Name if !names_columns => return Err("calls a function by a name in quotes".into()),
            Token::Word(word) if KEYWORDS.contains(&word.as_str()) || names_columns => {}
            Token::Word(word) => {
                let qualified = before == Some(&Token::Sign('.'));
                let by_system = qualified
                    && matches!(statement.get(index.wrapping_sub(2)), Some(Token::Word(w)) if w == "pg_catalog");
                if qualified && !by_system || !is_harmless(word) {
                    return Err(format!("calls '{word}', a function that is not known to look only"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_harmless(function: &str) -> bool {
    let lines = FUNCTIONS.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).any(|known| known == function)
}

#[cfg(test)]
mod tests;
