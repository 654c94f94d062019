//! `exec`: a program, or a line of shell.

use std::path::Path;
use std::time::Instant;

use legwork_proto::micro::{MAX_CAPTURE, MAX_LINE, Metadata, result};

use crate::elevate;
use crate::fields::Fields;
use crate::output::{Text, length_of};
use crate::process::{self, Broken, Captured, Ended, Job, Keep, Streamer};
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
    "use_sudo",
    "sudo_password",
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
    let stream = fields.boolean("stream_lines")?;
    let sudo = fields.boolean("use_sudo")? && !elevate::is_root();
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
    let mut words: Vec<&str> = if args.is_empty() {
        vec![&shell, "-c", &command]
    } else {
        std::iter::once(command.as_str()).chain(args.iter().map(String::as_str)).collect()
    };
    if sudo {
        elevate::authenticate(context, &password)?;
        words.splice(0..0, ["sudo", "-n", "--"]);
    }
    let keep = |captured| if captured { Keep::Capture(MAX_CAPTURE) } else { Keep::Nothing };
    let job = Job {
        env: (!env.is_empty()).then_some(&env),
        dir: (!dir.is_empty()).then(|| Path::new(&dir)),
        out: keep(out),
        err: keep(err),
        by_sudo: sudo,
        ..Job::new(words[0], &words[1..])
    };
    let mut streamer = stream.then(|| Streamer::new(&request.id));
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
        Err(Broken::Stopped) => Err(Trouble::Stopped),
    }
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
}
