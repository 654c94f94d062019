//! Changes of sshd's settings that would shut out the one who makes them, and what else
//! must be said for a setting to hold.

use super::sshd::{ask, fits};
use super::sshd_config::{Config, Setting};
use crate::ids::{self, Table};
use crate::request::{Context, Trouble};

/// Of those that `Match` blocks name, so many are asked for.
const MAX_USERS: usize = 20;

/// Who is logged in: sudo tells who called it.
fn login() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|user| !user.is_empty());
    let own = rustix::process::geteuid().as_raw();
    named("SUDO_USER").or_else(|| ids::name_of(own)).unwrap_or_default()
}

/// Refuses what can be seen to shut everybody or ourselves out.
pub(super) fn check(context: &mut Context<'_>, settings: &[Setting]) -> Result<(), Trouble> {
    let login = login();
    for setting in settings {
        if setting.keyword == "PermitRootLogin" && login == "root" {
            return Err(
                "you are logged in as root, and nothing shows that there is another way in: log in as \
                        another user who may use sudo, and say it again"
                    .into(),
            );
        }
        if setting.keyword != "AllowUsers" {
            continue;
        }
        for pattern in &setting.values {
            let plain = !pattern.contains(['*', '?', '!', '@']);
            if plain && ids::find(context, Table::Users, pattern).is_none() {
                return Err(format!("allow_users: there is no user {pattern:?} on this host").into());
            }
        }
        // From where it is allowed shows when it is tried.
        let user = |pattern: &String| pattern.split('@').next().unwrap_or_default().as_bytes().to_vec();
        if !setting.values.iter().any(|pattern| fits(&user(pattern), login.as_bytes())) {
            return Err(format!(
                "allow_users: {login:?}, who is logged in, is not among them and could not come back"
            )
            .into());
        }
    }
    Ok(())
}

/// Without these, what was asked for would be half done: where passwords may be typed at
/// another prompt, they are not off.
pub(super) fn as_well(context: &mut Context<'_>, sshd: &str, settings: &[Setting]) -> Vec<Setting> {
    if !settings.iter().any(|setting| setting.keyword == "PasswordAuthentication") {
        return Vec::new();
    }
    let no = |keyword| Setting { keyword, values: vec!["no".to_owned()], adds_up: false, aliases: &[] };
    let (keyboard, challenge) = ("KbdInteractiveAuthentication", "ChallengeResponseAuthentication");
    // Before OpenSSH 8.7 they were two.
    let told = ask(context, sshd, &["-T"]).unwrap_or_default();
    if told.iter().any(|(keyword, _)| challenge.eq_ignore_ascii_case(keyword)) {
        return vec![no(keyboard), no(challenge)];
    }
    vec![Setting { aliases: &["ChallengeResponseAuthentication"], ..no(keyboard) }]
}

/// For whom the settings must hold, besides everybody.
pub(super) fn users(context: &mut Context<'_>, config: &Config) -> Vec<String> {
    let mut users = config.users_of_blocks();
    // Each is a call of sshd.
    users.truncate(MAX_USERS);
    users.push("root".to_owned());
    users.push(login());
    users.retain(|user| ids::find(context, Table::Users, user).is_some());
    users
}
