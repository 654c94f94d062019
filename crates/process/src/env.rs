//! The clean environment that commands of a dial-out runner see.

use std::collections::BTreeMap;

/// Variables that pass from the runner to its commands without being asked for.
const PASSED: &[&str] = &[
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TERM",
    "PATH",
    "KUBECONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// Names that hold the runner's own secrets: never passed, even when asked for.
const SECRETS: &[&str] = &["FLASHDUTY_RUNNER_TOKEN", "FLASHDUTY_RUNNER_API_KEY"];

/// What a PATH is where the operator's environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the environment of commands: the allow-list, `LC_*`, and what the
/// operator names in `pass`. Values that are no UTF-8 are left out.
pub fn clean(
    all: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    pass: &[String],
) -> BTreeMap<String, String> {
    let mut kept: BTreeMap<String, String> = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| PASSED.contains(&name.as_str()) || name.starts_with("LC_") || pass.contains(name))
        .filter(|(name, _)| !SECRETS.contains(&name.as_str()) && !name.starts_with("LEGWORK_"))
        .collect();
    kept.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_or_asked_for_passes() {
        let all = [
            ("HOME", "/h"),
            ("LC_ALL", "C"),
            ("AWS_SECRET", "s"),
            ("MINE", "1"),
            ("LEGWORK_TOKEN", "t"),
            ("FLASHDUTY_RUNNER_TOKEN", "t"),
            ("BASH_ENV", "x"),
        ];
        let pass = ["MINE", "LEGWORK_TOKEN", "FLASHDUTY_RUNNER_TOKEN"].map(String::from);
        let env = clean(all.map(|(a, b)| (a.into(), b.into())), &pass);
        let names: Vec<&str> = env.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "LC_ALL", "MINE", "PATH"]);
        assert_eq!(env["PATH"], DEFAULT_PATH);
    }
}
