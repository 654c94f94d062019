//! Expressions in pieces.

use super::Malformed;
use crate::value::number_of;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    Number(f64),
    /// A name.
    Word(String),
    Sign(&'static str),
}

pub(super) fn shown(token: &Token) -> String {
    match token {
        Token::Text(text) => format!("'{text}'"),
        Token::Number(number) => number.to_string(),
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => format!("'{sign}'"),
    }
}

const SIGNS: &[&str] =
    &["||", "&&", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "*"];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Malformed> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // After a dot a digit begins no number, and neither does one after a name.
        let after_name = matches!(tokens.last(), Some(Token::Word(_) | Token::Sign("]" | ")" | "*")));
        if let Some((number, len)) = number(rest).filter(|_| !after_name) {
            tokens.push(Token::Number(number));
            rest = &rest[len..];
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if let Some(inner) = rest.strip_prefix('\'') {
            let (value, tail) = quoted(inner).ok_or(Malformed::OpenText)?;
            tokens.push(Token::Text(value));
            rest = tail;
        } else {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            if len == 0 {
                let sign = rest.chars().next().unwrap_or_default();
                let is_double = sign == '"';
                return Err(if is_double { Malformed::DoubleQuotes } else { Malformed::Sign(sign) });
            }
            tokens.push(Token::Word(rest[..len].to_owned()));
            rest = &rest[len..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// The text up to its closing quote, in which two stand for one, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut tail) = (String::new(), text);
    loop {
        let end = tail.find('\'')?;
        value.push_str(&tail[..end]);
        tail = &tail[end + 1..];
        match tail.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                tail = more;
            }
            None => return Some((value, tail)),
        }
    }
}

fn number(text: &str) -> Option<(f64, usize)> {
    let first = text.trim_start_matches(['-', '+']);
    let digits = first.strip_prefix('.').unwrap_or(first);
    if text.len() - first.len() > 1 || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut before = ' ';
    let len = text
        .char_indices()
        .find(|(at, c)| {
            let goes_on = c.is_ascii_alphanumeric()
                || *c == '.'
                || (matches!(c, '-' | '+') && (*at == 0 || matches!(before, 'e' | 'E')));
            before = *c;
            !goes_on
        })
        .map_or(text.len(), |(at, _)| at);
    number_of(&text[..len]).map(|number| (number, len))
}
