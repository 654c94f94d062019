//! Runs texts in real shells that can start nothing: the PATH holds no folder, and what
//! is not a builtin lands in a function that shouts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a text did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Bash accepts its syntax.
    pub(crate) valid: bool,
    /// What it printed, and how it ended.
    pub(crate) output: String,
    /// The programs that it tried to start.
    pub(crate) started: Vec<String>,
}

impl Effect {
    /// What can be compared: where two run side by side, not the order.
    pub(crate) fn seen(&self, races: bool) -> (Vec<char>, Vec<String>) {
        let mut output: Vec<char> = self.output.chars().collect();
        let mut started = self.started.clone();
        if races {
            output.sort_unstable();
            started.sort_unstable();
        }
        (output, started)
    }
}

/// Between the parts of an answer; no line holds it.
const END: &str = "\u{1}";

/// Reads texts from its input, each ended by a NUL. Whether a text is valid is asked by
/// making it a function's body.
const DRIVER: &str = r#"
exec 9>&1
while IFS= builtin read -r -d '' t; do
    ( exec 9>/dev/null; builtin eval "v() {
$t
}" ) </dev/null >/dev/null 2>&1 && builtin printf 'valid'
    builtin printf '\1'
    ( builtin ulimit -t 1 -f 64; builtin eval "$t" ) </dev/null 2>/dev/null
    builtin printf '\1%s\1' "$?"
done
"#;

/// A place to run texts in.
pub(crate) struct Yard {
    pub(crate) folder: PathBuf,
    /// Where `localedef` put locales of other character sets, if it could.
    pub(crate) locales: Option<PathBuf>,
}

impl Yard {
    /// Runs each text in a bash of its own; `None` if the batch did not end in time.
    pub(crate) fn bash(&self, texts: &[&str], locale: &str) -> Option<Vec<Effect>> {
        let mut input = Vec::new();
        for text in texts {
            input.extend_from_slice(text.as_bytes());
            input.push(0);
        }
        let output =
            self.run(Path::new("/bin/bash"), &["--noprofile", "--norc", "-c", DRIVER], &input, locale)?;
        let parts: Vec<&str> = output.split(END).collect();
        // A text may end the driver's line of thought only by ending the driver.
        if parts.len() != texts.len() * 3 + 1 {
            return None;
        }
        let effect = |part: &[&str]| {
            let shouts =
                part[1].split("SHOUT<").skip(1).filter_map(|s| s.split('>').next().map(str::to_owned));
            Effect {
                valid: part[0].ends_with("valid"),
                output: format!("{}\n={}", part[1], part[2]),
                started: shouts.collect(),
            }
        };
        Some(parts.chunks_exact(3).map(effect).collect())
    }

    /// The programs that a text tries to start when dash reads it.
    pub(crate) fn dash(&self, text: &str) -> Option<Vec<String>> {
        let (output, errors) = self.capture(Path::new("/bin/dash"), &["-c", text], &[], "C")?;
        drop(output);
        let names = errors.lines().filter_map(|line| line.strip_suffix(": not found"));
        Some(names.filter_map(|line| line.rsplit(": ").next().map(str::to_owned)).collect())
    }

    fn run(&self, program: &Path, args: &[&str], input: &[u8], locale: &str) -> Option<String> {
        self.capture(program, args, input, locale).map(|(output, _)| output)
    }

    fn capture(&self, program: &Path, args: &[&str], input: &[u8], locale: &str) -> Option<(String, String)> {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/nonexistent")
            // A home that nothing can be made in: lines write to `~`, too.
            .env("HOME", "/nonexistent/home")
            .env("LC_ALL", locale)
            .env("BASH_FUNC_command_not_found_handle%%", "() { builtin printf 'SHOUT<%s>' \"$1\" >&9; }")
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(locales) = &self.locales {
            command.env("LOCPATH", locales);
        }
        let mut child = command.spawn().ok()?;
        let mut stdin = child.stdin.take()?;
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let output = reader(child.stdout.take().map(|p| Box::new(p) as Box<dyn std::io::Read + Send>));
        let errors = reader(child.stderr.take().map(|p| Box::new(p) as Box<dyn std::io::Read + Send>));
        let until = Instant::now() + Duration::from_secs(20);
        while child.try_wait().ok()?.is_none() {
            if Instant::now() > until {
                child.kill().ok()?;
                child.wait().ok()?;
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        writer.join().ok()?;
        Some((output.join().ok()?, errors.join().ok()?))
    }
}

/// Has `localedef` make locales in which a letter's last byte can be a sign of the shell's.
pub(crate) fn locales(folder: &Path) -> Vec<&'static str> {
    let mut found = vec!["C", "C.UTF-8"];
    for (name, input, charmap) in
        [("zh_CN.gbk", "zh_CN", "GBK"), ("zh_TW.big5", "zh_TW", "BIG5"), ("ja_JP.sjis", "ja_JP", "SHIFT_JIS")]
    {
        let made = Command::new("localedef")
            .args(["--no-warnings=ascii", "-i", input, "-f", charmap])
            .arg(folder.join(name))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if made.is_ok() && folder.join(name).join("LC_CTYPE").exists() {
            found.push(name);
        }
    }
    found
}
