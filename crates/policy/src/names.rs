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
    if name == "NODE_ENV" {
        return false;
    }
    EXACT.contains(&name) || name.ends_with("PAGER") || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Bash keeps these as integers, or reads what is assigned to them as arithmetic: text
/// that is no number would be evaluated, substitutions in its subscripts included.
pub(crate) fn is_integer(name: &str) -> bool {
    matches!(
        name,
        "RANDOM"
            | "SRANDOM"
            | "SECONDS"
            | "LINENO"
            | "BASHPID"
            | "EPOCHSECONDS"
            | "EPOCHREALTIME"
            | "OPTIND"
            | "HISTCMD"
            | "UID"
            | "EUID"
            | "PPID"
            | "SHLVL"
            | "DIRSTACK"
            | "GROUPS"
            | "FUNCNEST"
            | "HISTSIZE"
            | "HISTFILESIZE"
            | "TMOUT"
            | "COPROC_PID"
    ) || name.starts_with("COMP_")
}

/// Whether text may be assigned to such a variable: a number, and nothing else.
pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 19 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Exported, these change nothing but what a program prints, or are read by nothing but
/// what the line itself runs: names in lower case, one letter, and a list.
pub(crate) fn is_harmless(name: &str) -> bool {
    const HARMLESS: &[&str] = &[
        "DEBUG",
        "VERBOSE",
        "QUIET",
        "CI",
        "NO_COLOR",
        "FORCE_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "COLORTERM",
        "LOG_LEVEL",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "FOO",
        "BAR",
        "BAZ",
        "NAME",
        "FILE",
        "DIR",
        "HOST",
        "PORT",
        "TARGET",
        "VERSION",
        "TAG",
        "BRANCH",
        "REGION",
        "NAMESPACE",
        "NS",
        "POD",
        "COUNT",
        "START",
        "END",
        "DATE",
        "MSG",
        "MESSAGE",
        "RESULT",
        "OUTPUT",
        "STATUS",
        "URL",
        "KEY",
        "VALUE",
        "ID",
        "TOKEN",
        "USERNAME",
        "PASSWORD",
        "SOURCE_DATE_EPOCH",
        "DEBIAN_FRONTEND",
        "NODE_ENV",
        "RAILS_ENV",
        "RACK_ENV",
        "APP_ENV",
        "ENVIRONMENT",
        "STAGE",
        "TIMEOUT",
        "RETRIES",
        "PROJECT",
        "CLUSTER",
        "SERVICE",
    ];
    // Lower case, and read by programs all the same.
    const READ: &[&str] = &["npm_", "pnpm_", "yarn_", "rvm_", "ac_", "fish_", "zsh_"];
    let read = name.ends_with("_proxy") || READ.iter().any(|prefix| name.starts_with(prefix));
    HARMLESS.contains(&name)
        || is_free_prefix(name)
        || name.len() == 1
        || !read && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
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
        for name in ["RANDOM", "SRANDOM", "BASHPID", "OPTIND", "COMP_CWORD"] {
            assert!(is_integer(name), "{name}");
        }
        for name in ["OPENSSL_CONF", "CURL_HOME", "APT_CONFIG", "http_proxy", "DBUS_SYSTEM_BUS_ADDRESS", "CC"]
        {
            assert!(!is_harmless(name), "{name}");
        }
        for name in ["x", "name", "FOO", "TZ", "LANG", "i", "path", "NAMESPACE"] {
            assert!(!is_steering(name), "{name}");
        }
    }
}
