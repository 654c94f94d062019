//! `exec`: a program, or a line of shell.

use std::path::Path;
use std::time::Instant;

use legwork_proto::micro::{MAX_CAPTURE, MAX_LINE, Metadata, result};

use crate::elevate::{self, Method, Sudo, Whom};
use crate::fields::Fields;
use crate::output::{Text, length_of};
use crate::process::{self, Broken, Captured, Ended, Job, Keep, Streamer, look_up};
use crate::request::{Context, Request, Trouble};

/// What surrounds a result in its line, with a long id.
const ENVELOPE: usize = 32 * 1024;

const PARAMS: &[&str] = &[
    "command",
    "args",
    "shell",
    "work_dir",
    "env",
    "capture_out",
    "capture_err",
    "stream_lines",
    "stream_chunks",
    "stdin",
    "use_sudo",
    "sudo_password",
    "become_method",
    "become_user",
];

/// How it ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    ended: Ended,
    seconds: f64,
}

impl Outcome {
    pub(crate) fn timed_out(&self) -> bool {
        self.ended.timed_out
    }

    pub(crate) fn result(&self) -> result::Exec<Text<'_>> {
        let ended = &self.ended;
        let mut metadata = Metadata::new();
        let mut note = |name: &str, value: String| drop(metadata.insert(name.to_owned(), value));
        if ended.timed_out {
            note("timed_out", "true".into());
        } else if let Some(signal) = ended.signal {
            note("signal", signal.to_string());
        }
        if ended.stdout.truncated {
            note("stdout_truncated", "true".into());
        }
        if ended.stderr.truncated {
            note("stderr_truncated", "true".into());
        }
        result::Exec {
            exit_code: ended.code.unwrap_or(-1),
            stdout: text(&ended.stdout),
            stderr: text(&ended.stderr),
            stdout_base64: base64(&ended.stdout),
            stderr_base64: base64(&ended.stderr),
            duration: self.seconds,
            metadata: (!metadata.is_empty()).then_some(metadata),
        }
    }

    /// Drops the end of what was captured until the line is below its bound.
    fn fit(&mut self) {
        loop {
            let length = length_of(&self.result());
            if length + ENVELOPE < MAX_LINE {
                return;
            }
            for captured in [&mut self.ended.stdout, &mut self.ended.stderr] {
                let keep = captured.bytes.len().saturating_mul(MAX_LINE - 2 * ENVELOPE) / length;
                shorten(captured, keep);
            }
        }
    }
}

/// Cuts at a character's border, so that text stays text.
fn shorten(captured: &mut Captured, length: usize) {
    if length < captured.bytes.len() {
        let border = (length.saturating_sub(3)..=length).rev().find(|at| captured.bytes[*at] & 0xc0 != 0x80);
        captured.bytes.truncate(border.unwrap_or(length));
        captured.truncated = true;
    }
}

fn text(captured: &Captured) -> Option<Text<'_>> {
    (!captured.bytes.is_empty()).then_some(Text::Lossy(&captured.bytes))
}

fn base64(captured: &Captured) -> Option<Text<'_>> {
    std::str::from_utf8(&captured.bytes).is_err().then_some(Text::Base64(&captured.bytes))
}

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<Outcome, Trouble> {
    let fields = Fields::parse(&request.params, PARAMS)?;
    let command = fields.string("command")?;
    let args = fields.strings("args")?;
    let mut shell = fields.string("shell")?;
    let dir = fields.string("work_dir")?;
    let env = fields.map("env")?;
    let (out, err) = (fields.boolean("capture_out")?, fields.boolean("capture_err")?);
    let (stream, chunks) = (fields.boolean("stream_lines")?, fields.boolean("stream_chunks")?);
    let stdin = fields.boolean("stdin")?;
    if stdin && context.signed {
        return Err("stdin: where commands are signed, their input can't be".into());
    }
    let whom = Whom::read(&fields)?;
    let password = fields.string("sudo_password")?;
    if command.is_empty() {
        return Err("command is required".into());
    }
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(format!("env: {name:?} is not the name of a variable").into());
    }
    let strings = [&command, &shell, &dir].into_iter().chain(&args).chain(env.keys()).chain(env.values());
    if strings.into_iter().any(|text| text.contains('\0')) {
        return Err("failed to execute command: a parameter has a zero byte".into());
    }
    if shell.is_empty() {
        shell = "/bin/sh".to_owned();
    }
    let by = whom.map(|whom| elevate::authenticate(context, whom, &password)).transpose()?;
    let direct = match &by {
        Some(sudo) if args.is_empty() => by_itself(context, sudo, &shell, &command)?,
        _ => None,
    };
    let mut words: Vec<&str> = match &direct {
        Some(direct) => direct.iter().map(String::as_str).collect(),
        None if args.is_empty() => vec![&shell, "-c", &command],
        None => std::iter::once(command.as_str()).chain(args.iter().map(String::as_str)).collect(),
    };
    if let Some(sudo) = &by {
        words.splice(0..0, sudo.words());
    }
    let variables = by.as_ref().map(Sudo::variables).unwrap_or_default();
    let first = by.as_ref().map_or("", |sudo| sudo.first.as_str());
    let keep = |captured| if captured { Keep::Capture(MAX_CAPTURE) } else { Keep::Nothing };
    let job = Job {
        env: (!env.is_empty()).then_some(&env),
        dir: (!dir.is_empty()).then(|| Path::new(&dir)),
        out: keep(out),
        err: keep(err),
        set: &variables,
        input: first.as_bytes(),
        more: stdin.then_some(request.id.as_str()),
        sudo: by.as_ref(),
        ..Job::new(words[0], &words[1..])
    };
    let mut streamer = stream.then(|| Streamer::new(&request.id, chunks));
    let begun = Instant::now();
    match process::run(context.port, &job, context.deadline, streamer.as_mut()) {
        Ok(ended) => {
            let mut outcome = Outcome { ended, seconds: begun.elapsed().as_secs_f64() };
            // Even if each byte took twelve, less than this would fit.
            if outcome.ended.stdout.bytes.len() + outcome.ended.stderr.bytes.len() > MAX_LINE / 16 {
                outcome.fit();
            }
            Ok(outcome)
        }
        Err(Broken::Start(why)) => Err(format!("failed to execute command: {why}").into()),
        Err(Broken::Stopped | Broken::Left) => Err(Trouble::Stopped),
    }
}

/// Only a shell has these; where programs of the names exist, they do nothing of use.
const SHELLS_OWN: &[&str] = &[
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "fg",
    "getopts", "hash", "jobs", "read", "readonly", "return", "set", "shift", "source", "times", "trap",
    "type", "ulimit", "umask", "unalias", "unset", "wait",
];

/// The words of a line that starts one program and is nothing to a shell, if sudo may run
/// that program but not the shell: a rule for a single program must be of use.
fn by_itself(
    context: &mut Context<'_>,
    sudo: &Sudo,
    shell: &str,
    line: &str,
) -> Result<Option<Vec<String>>, Trouble> {
    let Some(words) = words_of(line) else { return Ok(None) };
    let is_program = words.first().is_some_and(|program| {
        !program.contains('=') && !SHELLS_OWN.contains(&program.as_str()) && look_up(program).is_ok()
    });
    if !is_program {
        return Ok(None);
    }
    match sudo.method() {
        Method::Sudo => {}
        // It can't be asked.
        Method::Doas => return Ok(Some(words)),
        Method::Su => return Ok(None),
    }
    let mut ask = sudo.words();
    ask.insert(ask.len() - 1, "-l");
    ask.extend([shell, "-c", line]);
    let variables = sudo.variables();
    let may = context.run(&Job { set: &variables, ..Job::new(ask[0], &ask[1..]) })?;
    Ok((may.code != Some(0)).then_some(words))
}

/// The words of a line in which no character but quotes means anything to a shell.
fn words_of(line: &str) -> Option<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' if std::mem::take(&mut open) => words.push(std::mem::take(&mut word)),
            ' ' | '\t' => continue,
            '\'' => loop {
                match rest.next()? {
                    '\'' => break,
                    c => word.push(c),
                }
            },
            '\\' => word.push(rest.next().filter(|c| *c != '\n')?),
            c if plain(c) => word.push(c),
            _ => return None,
        }
        open = !matches!(c, ' ' | '\t');
    }
    if open {
        words.push(word);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_output_fits_its_line() {
        for byte in [0u8, 0xff, b'x', b'"'] {
            let full = || Captured { bytes: vec![byte; MAX_CAPTURE], truncated: false };
            let ended =
                Ended { code: Some(0), signal: None, timed_out: false, stdout: full(), stderr: full() };
            let mut outcome = Outcome { ended, seconds: 1.0 };
            outcome.fit();
            let length = length_of(&outcome.result());
            assert!(length + ENVELOPE < MAX_LINE, "{byte}: {length}");
            assert!(length > MAX_LINE / 2, "{byte}: {length} is too little");
            let truncated = outcome.result().metadata.is_some_and(|m| m.contains_key("stdout_truncated"));
            assert_eq!(truncated, byte != b'x', "{byte}");
        }
    }

    #[test]
    fn a_line_of_one_program_has_words() {
        let words = |line: &str| words_of(line).map(|words| words.join("|"));
        for (line, expected) in [
            ("systemctl  restart nginx ", Some("systemctl|restart|nginx")),
            ("grep 'a b' '' x'y'", Some("grep|a b||xy")),
            (r"echo 'it'\''s'", Some("echo|it's")),
            ("ls | wc", None),
            ("ls $HOME", None),
            ("ls *", None),
            ("ls ~", None),
            ("a; b", None),
            ("a\nb", None),
            ("echo 'open", None),
            ("echo \"x\"", None),
        ] {
            assert_eq!(words(line).as_deref(), expected, "{line}");
        }
    }
}
