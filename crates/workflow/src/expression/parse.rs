//! From text to an expression.

use super::token::{Token, shown, tokens};
use super::{CONTEXTS, Compare, Expr, Function, Malformed};
use crate::near::nearest;
use crate::value::Item;

/// Most bytes of an expression, and the deepest it nests.
const MAX_LENGTH: usize = 16 << 10;
const MAX_DEPTH: usize = 50;

pub(super) fn parse(text: &str) -> Result<Expr, Malformed> {
    if text.len() > MAX_LENGTH {
        return Err(Malformed::TooLong(MAX_LENGTH));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let expr = parser.or()?;
    match parser.tokens.first() {
        None => Ok(expr),
        Some(token) => Err(Malformed::Unexpected(shown(token))),
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

    fn or(&mut self) -> Result<Expr, Malformed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Malformed::TooDeep);
        }
        let mut left = self.and()?;
        while self.take("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, Malformed> {
        let mut left = self.compare()?;
        while self.take("&&") {
            left = Expr::And(Box::new(left), Box::new(self.compare()?));
        }
        Ok(left)
    }

    fn compare(&mut self) -> Result<Expr, Malformed> {
        use Compare::{AtLeast, AtMost, Equal, Less, More, Unequal};
        let mut left = self.unary()?;
        'more: loop {
            for (sign, how) in
                [("==", Equal), ("!=", Unequal), ("<=", AtMost), (">=", AtLeast), ("<", Less), (">", More)]
            {
                if self.take(sign) {
                    left = Expr::Compare(how, Box::new(left), Box::new(self.unary()?));
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    fn unary(&mut self) -> Result<Expr, Malformed> {
        let mut signs = 0;
        while self.take("!") {
            signs += 1;
        }
        let inner = self.postfix()?;
        Ok(match signs {
            0 => inner,
            // Two of them make a boolean of it.
            n => (0..2 - n % 2).fold(inner, |inner, _| Expr::Not(Box::new(inner))),
        })
    }

    fn postfix(&mut self) -> Result<Expr, Malformed> {
        let mut expr = self.primary()?;
        loop {
            if self.take(".") {
                let (first, rest) = self.tokens.split_first().ok_or(Malformed::EndsEarly)?;
                self.tokens = rest;
                expr = match first {
                    Token::Sign("*") => Expr::All(Box::new(expr)),
                    Token::Word(word) => {
                        Expr::Member(Box::new(expr), Box::new(Expr::Item(word.as_str().into())))
                    }
                    Token::Number(number) => {
                        let name = Item::Number(*number).text();
                        Expr::Member(Box::new(expr), Box::new(Expr::Item(name.into())))
                    }
                    other => return Err(Malformed::Unexpected(shown(other))),
                };
            } else if self.take("[") {
                expr = if self.take("*") {
                    Expr::All(Box::new(expr))
                } else {
                    Expr::Member(Box::new(expr), Box::new(self.or()?))
                };
                if !self.take("]") {
                    return Err(Malformed::Open("["));
                }
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Malformed> {
        if self.take("(") {
            let inner = self.or()?;
            return if self.take(")") { Ok(inner) } else { Err(Malformed::Open("(")) };
        }
        let (first, rest) = self.tokens.split_first().ok_or(Malformed::EndsEarly)?;
        self.tokens = rest;
        let word = match first {
            Token::Text(text) => return Ok(Expr::Item(text.as_str().into())),
            Token::Number(number) => return Ok(Expr::Item(Item::Number(*number))),
            Token::Sign(_) => return Err(Malformed::Unexpected(shown(first))),
            Token::Word(word) => word,
        };
        if self.take("(") {
            return self.call(word);
        }
        Ok(match word.to_ascii_lowercase().as_str() {
            "true" => Expr::Item(true.into()),
            "false" => Expr::Item(false.into()),
            "null" => Expr::Item(Item::Null),
            "nan" => Expr::Item(Item::Number(f64::NAN)),
            "infinity" => Expr::Item(Item::Number(f64::INFINITY)),
            name => match CONTEXTS.iter().find(|known| **known == name) {
                Some(context) => Expr::Context(context),
                None => {
                    return Err(Malformed::NoContext { name: word.clone(), near: nearest(name, CONTEXTS) });
                }
            },
        })
    }

    fn call(&mut self, word: &str) -> Result<Expr, Malformed> {
        let (function, least, most) = Function::named(word).ok_or_else(|| {
            let near = nearest(&word.to_lowercase(), Function::NAMES);
            Malformed::NoFunction { name: word.to_owned(), near }
        })?;
        let mut args = Vec::new();
        while !self.take(")") {
            if !args.is_empty() && !self.take(",") {
                return Err(Malformed::Open("("));
            }
            args.push(self.or()?);
        }
        match (least..=most).contains(&args.len()) {
            true => Ok(Expr::Call(function, args)),
            false => Err(Malformed::Arguments { name: word.to_owned(), least, most }),
        }
    }
}
