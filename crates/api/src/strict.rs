//! Requests are read strictly: what an operation does not know is an error that names what it
//! knows, and the nearest of that. Answers are read tolerantly (`open.rs`).

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};

use crate::problem::{Code, Problem};

/// Longest part of a name that is repeated to who sent it.
const SHOWN: usize = 80;
/// Most names that an error lists.
const LISTED: usize = 30;

/// Reads the body of a request, whatever its content type claims.
///
/// # Errors
/// If the body is not JSON, not of the type, or has a field that the type does not know.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<Problem>> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json);
    let error = match read {
        Ok(value) => match json.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(bad_json(&error).into()),
        },
        Err(error) => error,
    };
    let path = error.path().to_string();
    let inner = error.into_inner();
    if !inner.is_data() {
        return Err(bad_json(&inner).into());
    }
    let message = inner.to_string();
    if let Some((name, known)) = unknown(&message) {
        let text = format!("there is no field {}{}", shown(name), instead(name, &known));
        return Err(Problem::new(Code::UnknownField, text).about(cut(&path)).into());
    }
    let problem =
        Problem::new(Code::BadBody, format!("the body is not as expected: {}", at(&path, &message)));
    Err(if path == "." { problem } else { problem.about(cut(&path)) }.into())
}

/// Reads the query of a request.
///
/// # Errors
/// If a parameter is unknown, comes twice, or has a value that it cannot have.
pub fn query<T: DeserializeOwned>(text: &str) -> Result<T, Box<Problem>> {
    let pairs = serde_urlencoded::Deserializer::new(form(text));
    let error = match serde_path_to_error::deserialize(pairs) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let path = error.path().to_string();
    let message = error.into_inner().to_string();
    if let Some((name, known)) = unknown(&message) {
        let text = format!("there is no parameter {}{}", shown(name), instead(name, &known));
        return Err(Problem::new(Code::UnknownParameter, text).about(cut(name)).into());
    }
    let problem =
        Problem::new(Code::BadQuery, format!("the query is not as expected: {}", at(&path, &message)));
    Err(if path == "." { problem } else { problem.about(cut(&path)) }.into())
}

/// Reads a whole number, also one that is written as `60.0`: to JSON these are the same.
///
/// # Errors
/// If it is no whole number, or none of the type's.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15);
    let read = number.as_i64().or_else(|| format!("{:.0}", float()?).parse().ok());
    let of_type = read.and_then(|number| T::try_from(number).ok());
    of_type
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("{number} is not a whole number that it can be")))
}

fn form(text: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(text.as_bytes())
}

fn bad_json(error: &serde_json::Error) -> Problem {
    Problem::new(Code::BadJson, format!("the body is not JSON: {error}"))
}

/// A message of serde in the words of JSON: what it expected is a type of ours to it.
fn in_words(message: &str) -> String {
    if message.starts_with("invalid digit") || message.starts_with("number too") {
        return "must be a whole number, and not too large".into();
    }
    // What was sent comes first, and may say the same.
    let Some(at) = message.rfind(", expected ") else { return message.to_owned() };
    let (found, expected) = (&message[..at], &message[at + ", expected ".len()..]);
    let wanted = match expected.split(' ').next().unwrap_or_default() {
        "struct" | "map" => "an object",
        "a" if expected.starts_with("a map") => "an object",
        "a" if expected.starts_with("a sequence") => "a list",
        "tuple" => "a list",
        "enum" => "one of its words",
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ => return message.to_owned(),
    };
    let found = if found.starts_with("invalid length") { "invalid type: a list" } else { found };
    format!("{}, expected {wanted}", found.replace("invalid type: sequence", "invalid type: a list"))
}

/// Where in the body, and what.
fn at(path: &str, message: &str) -> String {
    let message: String = in_words(message).chars().take(4 * SHOWN).collect();
    if path == "." { message } else { format!("{}: {message}", cut(path)) }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn shown(name: &str) -> String {
    format!("'{}'", cut(name).escape_debug())
}

/// The unknown name and the known ones, out of serde's message: the name is the sender's, the
/// rest is serde's, so that it is read from its end.
fn unknown(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (none, some) = (rest.rfind("`, there are no fields"), rest.rfind("`, expected "));
    if none > some {
        return Some((&rest[..none?], Vec::new()));
    }
    let known = rest[some?..].split('`').skip(2).step_by(2).collect();
    Some((&rest[..some?], known))
}

/// What could have been meant.
fn instead(name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return "; this operation has none".into();
    }
    let distance = |word: &&&str| strsim::damerau_levenshtein(&cut(name), word);
    let near = known.iter().min_by_key(distance).filter(|word| distance(word) <= word.len().div_ceil(2));
    let hint = near.map(|word| format!("; did you mean '{word}'?")).unwrap_or_default();
    let listed: Vec<String> = known.iter().take(LISTED).map(|word| format!("'{word}'")).collect();
    format!("{hint}{} there {} {}", if hint.is_empty() { ";" } else { "" }, verb(known), listed.join(", "))
}

fn verb(known: &[&str]) -> &'static str {
    if known.len() == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewPodTask, NewTask, NewToken, NoQuery, TaskFilter, Wait};

    fn of_body<T: DeserializeOwned>(text: &str) -> (&'static str, Option<String>, String) {
        let problem = *body::<T>(text.as_bytes()).err().expect("a bad body");
        (problem.code.known().expect("ours").as_str(), problem.field, problem.detail)
    }

    fn of_query<T: DeserializeOwned>(text: &str) -> (&'static str, Option<String>, String) {
        let problem = *query::<T>(text).err().expect("a bad query");
        (problem.code.known().expect("ours").as_str(), problem.field, problem.detail)
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_known_one() {
        for (text, field, near) in [
            (r#"{"select":{},"operation":"bash","timout_s":5}"#, "timout_s", "timeout_s"),
            (r#"{"select":{"lable":["x"]},"operation":"bash"}"#, "select.lable", "labels"),
            (r#"{"selection":{},"operation":"bash"}"#, "selection", "select"),
        ] {
            let (code, named, detail) = of_body::<NewTask>(text);
            assert_eq!((code, named.as_deref()), ("unknown_field", Some(field)));
            assert!(detail.contains(&format!("did you mean '{near}'?")), "{detail}");
        }
        let (code, field, detail) = of_query::<TaskFilter>("limit=5&runer=web-1");
        assert_eq!((code, field.as_deref()), ("unknown_parameter", Some("runer")));
        assert!(detail.contains("did you mean 'runner'?"), "{detail}");
        let (_, _, detail) = of_query::<TaskFilter>("zzzzzzzzzzz=1");
        assert!(!detail.contains("did you mean") && detail.contains("there are 'limit'"), "{detail}");
        assert_eq!(of_query::<NoQuery>("x=1").0, "unknown_parameter");
        assert!(of_query::<Wait>("wait=1").2.ends_with("there is 'wait_s'"));
    }

    /// The name is the sender's: it must not be taken for a part of our own sentence.
    #[test]
    fn a_name_that_looks_like_an_error_is_only_a_name() {
        for name in ["a`, expected `b", "`, there are no fields", "\u{1b}[31m", &"x".repeat(10_000)] {
            let text = serde_json::json!({ "name": "n", "role": "viewer", name: 1 }).to_string();
            let (code, _, detail) = of_body::<NewToken>(&text);
            assert_eq!(code, "unknown_field", "{detail}");
            assert!(detail.contains("'expires_s'") && detail.len() < 1000, "{detail}");
            assert!(!detail.contains('\u{1b}'), "{detail}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        for (text, code) in [
            ("{\"select\": nonsense", "bad_json"),
            ("", "bad_json"),
            ("{\"select\":{},\"operation\":\"bash\"} x", "bad_json"),
            ("[]", "bad_body"),
            ("null", "bad_body"),
            (r#"{"select":{},"operation":"bash","timeout_s":"long"}"#, "bad_body"),
            (r#"{"select":{}}"#, "bad_body"),
        ] {
            assert_eq!(of_body::<NewTask>(text).0, code, "{text}");
        }
        assert_eq!(
            of_body::<NewTask>(r#"{"select":{"labels":[1]},"operation":"x"}"#).1.as_deref(),
            Some("select.labels[0]")
        );
        for text in ["limit=many", "limit=-1", "limit=", "limit=1&limit=2"] {
            assert_eq!(of_query::<TaskFilter>(text).0, "bad_query", "{text}");
        }
    }

    /// Who writes a client does not know what our types are called.
    #[test]
    fn what_was_expected_is_said_in_the_words_of_json() {
        let detail = |text: &str| of_body::<NewTask>(text).2;
        let told = [
            detail("[]"),
            detail("7"),
            detail(r#"{"select":7,"operation":"bash"}"#),
            detail(r#"{"select":"struct u32","operation":"bash"}"#),
            of_query::<TaskFilter>("limit=x").2,
            of_query::<TaskFilter>("limit=-1").2,
        ];
        for (told, wanted) in
            told.iter().zip(["an object", "an object", "an object", "an object", "whole", "whole"])
        {
            assert!(told.contains(wanted) && !told.contains("NewTask") && !told.contains("digit"), "{told}");
        }
    }

    /// Programs of many languages write whole numbers with a point.
    #[test]
    fn a_whole_number_may_have_a_point() {
        let timeout = |number: &str| {
            let text = format!(r#"{{"select":{{}},"operation":"bash","timeout_s":{number}}}"#);
            body::<NewTask>(text.as_bytes()).map(|new| new.timeout_s).map_err(|problem| problem.field)
        };
        assert_eq!(
            [timeout("60"), timeout("60.0"), timeout("6e1")],
            [Ok(Some(60)), Ok(Some(60)), Ok(Some(60))]
        );
        assert_eq!([timeout("null"), timeout("-3.0")], [Ok(None), Ok(Some(-3))]);
        for number in ["1.5", "1e300", "\"60\"", "18446744073709551616"] {
            assert_eq!(timeout(number), Err(Some("timeout_s".into())), "{number}");
        }
    }

    #[test]
    fn what_is_passed_on_keeps_its_order() {
        let text = r#"{"config":{"z":1,  "a":2}}"#;
        let new: NewPodTask = body(text.as_bytes()).expect("a body");
        assert_eq!(new.config.0.get(), r#"{"z":1,  "a":2}"#);
    }
}
