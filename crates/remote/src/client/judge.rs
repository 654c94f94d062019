//! A policy's word on an `exec`, before it is sent.

use legwork_policy::{Decision, Policy};

use crate::{Error, Exec};

/// Has bash on the host check each text by itself, then run the first: the very shell that
/// runs a line has the last word on its syntax.
const CHECKED: &str = "for t in \"$@\"; do bash --noprofile --norc -n -c \"$t\" || exit 126; done; exec bash --noprofile --norc -c \"$1\"";

/// The command as it may be sent: the policy judges bash, and so bash runs it, whatever
/// `/bin/sh` is there.
pub(super) fn judge(policy: &Policy, exec: &Exec) -> Result<Exec, Error> {
    let denied = |text: String| Err(Error::Denied(text));
    if !exec.env.is_empty() {
        return denied("command denied: an environment of its own can't be judged".into());
    }
    let mut allowed = exec.clone();
    if exec.args.is_empty() {
        if !matches!(exec.shell.as_str(), "" | "/bin/sh" | "/bin/bash" | "bash" | "sh") {
            return denied(format!("command denied: {:?} is not a shell that can be judged", exec.shell));
        }
        let verdict = policy.judge_and_repair(&exec.command);
        let Some(run) = verdict.run.clone().filter(|_| verdict.decision == Decision::Allow) else {
            return denied(verdict.message().unwrap_or_else(|| "command denied".into()));
        };
        allowed.shell = String::new();
        allowed.command = "bash".to_owned();
        let mut args: Vec<String> = ["--noprofile", "--norc", "-c"].map(str::to_owned).into();
        if run.check_syntax || !run.scripts.is_empty() {
            args.extend([CHECKED.to_owned(), "bash".to_owned(), run.text]);
            args.extend(run.scripts);
        } else {
            args.push(run.text);
        }
        allowed.args = args;
        return Ok(allowed);
    }
    let mut words = vec![exec.command.clone()];
    words.extend(exec.args.iter().cloned());
    let verdict = policy.judge_argv(&words);
    if verdict.decision == Decision::Allow {
        return Ok(allowed);
    }
    denied(verdict.message().unwrap_or_else(|| "command denied".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_allows_is_not_sent() {
        let policy = Policy::from_pairs([("uptime", "allow"), ("ls *", "allow")]).unwrap();
        let exec = |command: &str, args: &[&str]| Exec {
            command: command.into(),
            args: args.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        };
        for (command, args, expected) in [
            ("uptime", &[][..], true),
            ("uptime; id", &[], false),
            ("ls $(id)", &[], false),
            ("ls", &["-l"], true),
            ("rm", &["-rf", "/"], false),
        ] {
            assert_eq!(judge(&policy, &exec(command, args)).is_ok(), expected, "{command} {args:?}");
        }
        let other = Exec { shell: "/usr/bin/python3".into(), ..exec("uptime", &[]) };
        assert!(judge(&policy, &other).is_err());
        let sent = judge(&policy, &exec("uptime", &[])).unwrap();
        assert_eq!((sent.command.as_str(), sent.args.last().unwrap().contains("uptime")), ("bash", true));
    }
}
