//! Variable names with a meaning of their own (points 13 and 14).

/// Assigning one of these steers what later commands do or run.
pub fn is_steering(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "PATH",
        "BASH_ENV",
        "ENV",
        "IFS",
        "PS4",
        "PS0",
        "PROMPT_COMMAND",
        "SHELLOPTS",
        "BASHOPTS",
        "EDITOR",
        "VISUAL",
        "HOME",
        "KUBECONFIG",
        "SHELL",
        "CDPATH",
        "GLOBIGNORE",
        "TMPDIR",
        "BROWSER",
        "MAKEFLAGS",
        "MAKEFILES",
        "SSLKEYLOGFILE",
        "HISTFILE",
        "HISTCMD",
        "INPUTRC",
        "TERMINFO",
        "TERMINFO_DIRS",
        "TERMCAP",
        "POSIXLY_CORRECT",
        "EXECIGNORE",
        "FIGNORE",
        "CLASSPATH",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "HOSTALIASES",
        "RES_OPTIONS",
        "OPTIND",
        "FCEDIT",
        "TAR_OPTIONS",
        "GREP_OPTIONS",
        "RSYNC_RSH",
        "RSYNC_CONNECT_PROG",
        "CVS_RSH",
        "SYSTEMD_EDITOR",
        "MANOPT",
        "MANROFFOPT",
        "MANPATH",
        "TAPE",
        "ZIPOPT",
        "UNZIP",
    ];
    const PREFIXES: &[&str] = &[
        "LD_", "BASH_", "GIT_", "LESS", "PYTHON", "PERL5", "PERL_", "RUBY", "NODE_", "NPM_", "JAVA_", "JDK_",
        "_JAVA_", "GEM_", "BUNDLE_", "CARGO_", "RUST", "GO", "DOCKER_", "KUBE", "AWS_", "SSH_", "GPG_",
        "GNUPG", "XDG_", "MALLOC_", "GLIBC_", "SYSTEMD_", "DYLD_", "PHP", "LUA_", "TCL", "CC", "CXX", "PSQL",
        "PG", "MYSQL", "ANSIBLE_", "TF_",
    ];
    EXACT.contains(&name) || name.ends_with("PAGER") || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A command may be prefixed with these without a rule.
pub(crate) fn is_free_prefix(name: &str) -> bool {
    matches!(name, "LANG" | "TZ" | "TERM" | "COLUMNS" | "LINES" | "NO_COLOR") || name.starts_with("LC_")
}

/// Bash keeps these numeric whatever is assigned to other names.
pub(crate) fn is_numeric_by_itself(name: &str) -> bool {
    matches!(
        name,
        "RANDOM"
            | "SRANDOM"
            | "SECONDS"
            | "LINENO"
            | "EPOCHSECONDS"
            | "UID"
            | "EUID"
            | "PPID"
            | "BASHPID"
            | "SHLVL"
            | "?"
            | "#"
            | "$"
            | "!"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_names_are_known_and_ordinary_ones_are_not() {
        for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "GIT_SSH", "MANPAGER", "PAGER", "PYTHONPATH", "IFS"] {
            assert!(is_steering(name), "{name}");
        }
        for name in ["x", "name", "FOO", "TZ", "LANG", "i", "path", "NAMESPACE"] {
            assert!(!is_steering(name), "{name}");
        }
    }
}
