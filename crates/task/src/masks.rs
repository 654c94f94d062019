//! What must not be told, in the forms in which it may appear.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use legwork_proto::task::{Body, Step};
use memchr::memmem::Finder;
use serde_json::{Map, Value};

/// What stands for a secret.
const MASK: &str = "***";
/// The shortest line that is masked: a shorter one stands in every other word.
const SHORTEST: usize = 4;
/// The shortest secret whose other forms are masked as well.
const ENCODED: usize = 6;

/// The shortest secret that has a name: a shorter one is refused, as it could not be masked without
/// every other word.
const NAMED: usize = 4;

/// Whether a secret that has a name can be masked: one of its lines is long enough.
pub(crate) fn can_be_masked(secret: &str) -> bool {
    secret.lines().any(|line| line.trim().chars().count() >= NAMED)
}

/// Secrets that must not be told.
#[derive(Debug, Default)]
pub struct Masks(RwLock<Vec<String>>);

impl Masks {
    /// Masks of what is known at the start: keys and tokens. Real ones are long; a short one
    /// is somebody's trial, and stands in many words.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Arc<Self> {
        const LEAST: usize = 6;
        let masks = Self::default();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= LEAST) {
            masks.add(&secret);
        }
        Arc::new(masks)
    }

    /// From now on this is a secret, line by line, and as other programs write it. False if it
    /// is too short to be one.
    pub(crate) fn add(&self, secret: &str) -> bool {
        let long = |text: &str| text.chars().count() >= SHORTEST;
        let lines: Vec<String> =
            secret.lines().map(str::trim).filter(|l| long(l)).map(str::to_owned).collect();
        if lines.is_empty() {
            return false;
        }
        let encoded: Vec<String> =
            lines.iter().map(String::as_str).chain([secret.trim()]).flat_map(other_forms).collect();
        let mut masks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for mask in lines.into_iter().chain(encoded) {
            if !masks.contains(&mask) {
                masks.push(mask);
            }
        }
        // A secret that holds another one goes first.
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
        true
    }

    /// What an `::add-mask::` says: with `%25`, `%0D` and `%0A` for what a line can't hold. What
    /// is not written so is masked as it stands.
    pub(crate) fn add_said(&self, said: &str) -> bool {
        let decoded = said.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%");
        let added = self.add(&decoded);
        self.add(said) || added
    }

    /// The text without secrets.
    pub(crate) fn apply(&self, text: String) -> String {
        let masks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text;
        for mask in masks.iter() {
            if text.contains(mask.as_str()) {
                text = text.replace(mask.as_str(), MASK);
            }
        }
        text
    }

    /// Bytes of the longest mask.
    pub(crate) fn longest(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).first().map_or(0, String::len)
    }

    /// The last place at or before `at` that is not within a secret.
    pub(crate) fn cut(&self, bytes: &[u8], at: usize) -> usize {
        let masks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = at;
        loop {
            let within = masks.iter().filter_map(|mask| {
                let from = at.saturating_sub(mask.len().saturating_sub(1));
                (from..at).find(|i| bytes[*i..].starts_with(mask.as_bytes()))
            });
            match within.min() {
                // What starts with a secret is cut after it, whatever that makes of its length.
                Some(0) | None => return at,
                Some(start) => at = start,
            }
        }
    }

    /// Looks for secrets in bytes that must stay as they are.
    pub(crate) fn search(&self) -> Search {
        let masks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let finders = masks.iter().map(|mask| Finder::new(mask.as_bytes()).into_owned()).collect();
        let longest = masks.first().map_or(0, String::len);
        Search { finders, longest, kept: Vec::new(), found: false }
    }

    fn apply_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.apply(text)),
            Value::Array(list) => Value::Array(list.into_iter().map(|v| self.apply_value(v)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(k, v)| (self.apply(k), self.apply_value(v))).collect())
            }
            other => other,
        }
    }

    pub(crate) fn mask_step(&self, step: Step) -> Step {
        Step {
            step_name: self.apply(step.step_name),
            step_index: step.step_index,
            job_id: step.job_id.map(|text| self.apply(text)),
            step_key: step.step_key.map(|text| self.apply(text)),
        }
    }

    fn apply_args(&self, args: Option<Map<String, Value>>) -> Option<Map<String, Value>> {
        args.map(|map| map.into_iter().map(|(k, v)| (self.apply(k), self.apply_value(v))).collect())
    }

    pub(crate) fn mask(&self, body: Body) -> Body {
        match body {
            Body::Token { message_id, text, token_index } => {
                let message_id = self.apply(message_id);
                Body::Token { message_id, text: self.apply(text), token_index }
            }
            Body::ToolStart { message_id, tool_id, tool_name, args } => Body::ToolStart {
                message_id: self.apply(message_id),
                tool_id: self.apply(tool_id),
                tool_name: self.apply(tool_name),
                args: self.apply_args(args),
            },
            Body::Ask { tool_id, tool_name, args, expires_s } => Body::Ask {
                tool_id: self.apply(tool_id),
                tool_name: self.apply(tool_name),
                args: self.apply_args(args),
                expires_s,
            },
            Body::ToolEnd { tool_id, tool_state, output } => Body::ToolEnd {
                tool_id: self.apply(tool_id),
                tool_state,
                output: output.map(|text| self.apply(text)),
            },
            Body::StepEnd { step_state, output, exit_code, duration_ms } => Body::StepEnd {
                step_state,
                output: output.map(|text| self.apply(text)),
                exit_code,
                duration_ms,
            },
            Body::Log { level, message } => Body::Log { level, message: self.apply(message) },
            Body::Error { message, code, usage } => Body::Error { message: self.apply(message), code, usage },
            Body::Thinking { message_id, text } => {
                Body::Thinking { message_id: self.apply(message_id), text: self.apply(text) }
            }
            Body::Done { usage, output } => Body::Done { usage, output: output.map(|o| self.apply_value(o)) },
            // Byte for byte, or not at all: what holds a secret is not told.
            Body::Result { .. } => body,
            Body::TokenReset { message_id } => Body::TokenReset { message_id: self.apply(message_id) },
            Body::StepStart {} | Body::Usage { .. } => body,
        }
    }
}

/// A search for secrets in what comes piece by piece.
pub(crate) struct Search {
    finders: Vec<Finder<'static>>,
    longest: usize,
    /// The end of what came, in which a secret may have begun.
    kept: Vec<u8>,
    found: bool,
}

impl Search {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.found || self.finders.is_empty() {
            return;
        }
        self.kept.extend_from_slice(bytes);
        self.found = self.finders.iter().any(|finder| finder.find(&self.kept).is_some());
        let done = self.kept.len().saturating_sub(self.longest.saturating_sub(1));
        self.kept.drain(..done);
    }

    /// Whether there was one; what comes now is another text.
    pub(crate) fn end(&mut self) -> bool {
        self.kept.clear();
        std::mem::take(&mut self.found)
    }
}

/// The secret of a line that is an `::add-mask::`, indented or not, as it stands there.
pub(crate) fn said_in(line: &str) -> Option<&str> {
    const COMMAND: &str = "::add-mask::";
    let line = line.trim_start();
    let start = line.get(..COMMAND.len())?;
    start.eq_ignore_ascii_case(COMMAND).then(|| &line[COMMAND.len()..])
}

/// Secrets that stand in a script as they are, to be masked once it runs: it is told before.
pub(crate) fn written_in(script: &str) -> impl Iterator<Item = &str> {
    script.split("::add-mask::").skip(1).filter_map(|rest| {
        let end = rest.find(['"', '\'', '\n', ';', '\\']).unwrap_or(rest.len());
        let said = rest[..end].trim();
        (!said.contains(['$', '`'])).then_some(said)
    })
}

/// As base64 at each place within a text, in an address, and within JSON.
fn other_forms(secret: &str) -> Vec<String> {
    if secret.len() < ENCODED {
        return Vec::new();
    }
    let mut forms = Vec::new();
    for skip in 0..3 {
        let bytes = &secret.as_bytes()[skip..];
        // What stands for these bytes whatever follows them.
        let whole = bytes.len() / 3 * 3;
        forms.push(STANDARD_NO_PAD.encode(&bytes[..whole]));
        forms.push(URL_SAFE_NO_PAD.encode(&bytes[..whole]));
        forms.push(STANDARD_NO_PAD.encode(bytes));
    }
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    forms.push(secret.bytes().fold(String::new(), |mut text, byte| {
        match is_plain(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
        text
    }));
    let json = Value::String(secret.to_owned()).to_string();
    forms.push(json[1..json.len() - 1].to_owned());
    forms.retain(|form| form.len() >= ENCODED && form != secret);
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn masked(secrets: &[&str], text: &str) -> String {
        let masks = Masks::default();
        for secret in secrets {
            masks.add_said(secret);
        }
        masks.apply(text.to_owned())
    }

    #[test]
    fn a_letter_is_no_secret() {
        let masks = Masks::default();
        for short in ["", " ", "e", "ab", "{\n}\n"] {
            assert!(!masks.add_said(short), "{short:?}");
        }
        assert_eq!(masks.apply("hello { there }".into()), "hello { there }");
        // Of several lines the short ones are left alone.
        assert_eq!(masked(&["{%0A\"key\": \"topsecret\"%0A}"], "{ \"key\": \"topsecret\" }"), "{ *** }");
    }

    #[test]
    fn what_a_line_can_t_hold_is_decoded() {
        assert_eq!(masked(&["pa%25ss%0Aline2"], "pa%ss and line2"), "*** and ***");
        assert_eq!(masked(&["50%off"], "50%off"), "***");
        assert_eq!(masked(&["x%250Ay"], "x%0Ay"), "***");
        for (line, want) in [
            ("::add-mask::abc", Some("abc")),
            ("  ::add-mask::abc ", Some("abc ")),
            ("::Add-Mask::x", Some("x")),
            ("x ::add-mask::abc", None),
            ("::add-mas\u{e9}", None),
        ] {
            assert_eq!(said_in(line), want, "{line}");
        }
        let script =
            "echo \"::add-mask::first\"; echo '::add-mask::second' \necho ::add-mask::$X\n::add-mask::third";
        assert_eq!(written_in(script).collect::<Vec<_>>(), ["first", "second", "third"]);
    }

    #[test]
    fn a_secret_is_masked_as_other_programs_write_it() {
        let secret = "top/secret \"word\"";
        let text = STANDARD.encode(secret);
        assert!(!masked(&[secret], &text).contains(&text[2..12]));
        for before in ["a", "ab", "user:"] {
            let text = STANDARD.encode(format!("{before}{secret}\n"));
            let told = masked(&[secret], &text);
            assert!(told.contains("***") && told.len() < text.len() - 12, "{told}");
        }
        assert_eq!(masked(&[secret], "k=top%2Fsecret%20%22word%22&x"), "k=***&x");
        assert_eq!(masked(&[secret], r#"{"k":"top/secret \"word\""}"#), r#"{"k":"***"}"#);
    }

    #[test]
    fn a_secret_is_found_wherever_bytes_are_parted() {
        let masks = Masks::default();
        masks.add("secret-one");
        masks.add("ab!");
        let text = b"\xff\0 a secret-one in it";
        for at in 0..text.len() {
            let mut search = masks.search();
            search.take(&text[..at]);
            search.take(&text[at..]);
            assert!(search.end(), "{at}");
            // Each text stands for itself.
            search.take(b"secret-");
            assert!(!search.end());
            search.take(b"one");
            assert!(!search.end());
        }
    }

    #[test]
    fn a_cut_is_not_within_a_secret() {
        let masks = Masks::default();
        masks.add("secret");
        let text = b"xx secret yy";
        for at in 0..text.len() {
            let cut = masks.cut(text, at);
            assert!(cut <= 3 || cut >= 9, "{at}: {cut}");
            assert!(cut <= at);
        }
        assert_eq!(masks.cut(b"secret", 3), 3, "there is no other place");
    }

    proptest::proptest! {
        /// Whatever is told, in whichever field: no secret stands in it.
        #[test]
        fn no_event_holds_a_secret(
            secret in "[A-Z]{2}[ -~]{2,20}[A-Z]{2}",
            around in "[ -~]{0,12}",
            kind in 0..8,
        ) {
            let masks = Masks::default();
            proptest::prop_assume!(masks.add(&secret));
            let text = format!("{around}{secret}{around}{secret}");
            let args = serde_json::json!({&text: [&text, {"k": &text}]}).as_object().cloned();
            let id = || text.clone();
            let body = match kind {
                0 => Body::Token { message_id: id(), text: id(), token_index: 1 },
                1 => Body::ToolStart { message_id: id(), tool_id: id(), tool_name: id(), args },
                2 => Body::Ask { tool_id: id(), tool_name: id(), args, expires_s: 1 },
                3 => Body::ToolEnd { tool_id: id(), tool_state: legwork_proto::task::ToolState::Error, output: Some(id()) },
                4 => Body::Log { level: legwork_proto::task::Level::Stdout, message: id() },
                5 => Body::Error { message: id(), code: None, usage: None },
                6 => Body::Thinking { message_id: id(), text: id() },
                _ => Body::Done { usage: None, output: args.map(Value::Object) },
            };
            let told = masks.mask(body);
            let step = masks.mask_step(Step {
                step_name: id(), step_index: 0, job_id: Some(id()), step_key: Some(id()),
            });
            let event = legwork_proto::task::Event {
                body: told, task_id: legwork_proto::task::TaskId::Number(1), step: Some(step), parent_tool_id: None,
            };
            let json = serde_json::to_string(&event).expect("json");
            let written = Value::String(secret.clone()).to_string();
            proptest::prop_assert!(!json.contains(&written[1..written.len() - 1]), "{json}");
        }
    }
}
