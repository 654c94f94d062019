//! Scripts: two programs in one call.

use super::names::base_name;

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
