//! Scripts: two programs in one call.

use super::names::base_name;
use super::read::Texts;
use super::target::{Base, Kind};

/// The arguments that the kernel gives a script's interpreter.
pub(super) fn interpreter_argv(
    interpreter: &str,
    argument: Option<&str>,
    script: &str,
    argv: &[String],
) -> Vec<String> {
    let head = [Some(interpreter), argument, Some(script)];
    let rest = argv.iter().skip(1).cloned();
    head.into_iter().flatten().map(str::to_owned).chain(rest).collect()
}

/// The arguments, each ended by a zero byte, of the process that an exec becomes. `None` where the
/// kernel runs a handler of the operator's for it.
pub(super) fn comes_out(kind: &Kind, base: Base, path: &[u8], argv: &Texts) -> Option<Vec<u8>> {
    let (interpreter, argument) = match kind {
        Kind::Program => return Some(argv.bytes.clone()),
        Kind::Handled | Kind::Foreign => return None,
        Kind::Script { interpreter, argument } => (interpreter, argument),
    };
    let script = match base {
        Base::Fd(fd) if !path.starts_with(b"/") => [format!("/dev/fd/{fd}/").as_bytes(), path].concat(),
        _ => path.to_vec(),
    };
    let head = [Some(interpreter.as_bytes()), argument.as_ref().map(String::as_bytes), Some(&script)];
    let all = head.into_iter().flatten().chain(argv.iter().skip(1));
    Some(all.flat_map(|text| text.iter().copied().chain([0])).collect())
}

/// How the arguments end of what `env` executes as the interpreter of a script; `None` for
/// another interpreter.
pub(super) fn hop(interpreter: &str, script: &str, argv: &[String]) -> Option<Vec<String>> {
    let rest = argv.iter().skip(1).cloned();
    (base_name(interpreter) == "env").then(|| [script.to_owned()].into_iter().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_passed_to_its_interpreter_by_path() {
        let argv = ["tool", "-v", "x"].map(String::from);
        assert_eq!(
            interpreter_argv("/bin/sh", Some("-e"), "/opt/tool", &argv),
            ["/bin/sh", "-e", "/opt/tool", "-v", "x"]
        );
        assert_eq!(interpreter_argv("/bin/sh", None, "./tool", &argv[..1]), ["/bin/sh", "./tool"]);
        let hop = hop("/usr/bin/env", "/opt/tool", &argv).expect("env");
        assert_eq!(hop, ["/opt/tool", "-v", "x"]);
        assert_eq!(super::hop("/bin/sh", "/opt/tool", &argv), None);
    }
}
