//! What shells and programs in the workspace inherit.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// What shells and the user's program inherit: all but the server's own secrets.
pub(crate) fn inherited(
    all: impl IntoIterator<Item = (OsString, OsString)>,
    from_file: &[String],
    workspace: &str,
    user_port: u16,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("AWS_") && !name.starts_with("LEGWORK_"))
        .filter(|(name, _)| !from_file.contains(name))
        .collect();
    env.insert("PORT".into(), user_port.to_string());
    env.insert("PWD".into(), workspace.to_owned());
    env.insert("TERM".into(), "xterm-256color".to_owned());
    env.remove("OLDPWD");
    env
}
