//! `legwork ssh harden`: a change of sshd's settings counts once a new login has worked, and
//! once what it is to put an end to has been tried in vain.
//!
//! Till then the host itself holds a timer that takes the change back, so that nothing that
//! happens to us or to the connection locks anybody out.

use std::time::Duration;

use super::connected::Connected;
use legwork_remote::{Binaries, Call, Client, Error, Exec, Login, Options, Ssh, SshdHarden, result};

/// How long the host waits for us.
const CONFIRM_WITHIN: u64 = 90;
/// How long a daemon that has just been told may go on with its old settings.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// How a host is reached anew.
pub(crate) struct Way<'a> {
    pub(crate) ssh: &'a Ssh,
    pub(crate) binaries: &'a Binaries,
    pub(crate) options: &'a Options,
}

/// Changes the settings, and proves the change.
pub(crate) async fn run(
    settings: &SshdHarden,
    on: &Connected<'_>,
    way: &Way<'_>,
) -> Result<result::SshdHarden, Error> {
    let asked = SshdHarden { confirm_within: CONFIRM_WITHIN, ..settings.clone() };
    let result = on.call(asked).await?;
    if result.pending.is_empty() {
        return Ok(result);
    }
    let order = |confirm: &str, undo: &str| SshdHarden {
        confirm: confirm.to_owned(),
        undo: undo.to_owned(),
        ..Default::default()
    };
    if let Err(why) = prove(settings, way, on.timeout).await {
        let undone = on.call(order("", &result.pending)).await;
        let state = match undone {
            Ok(_) => "the former settings are back".to_owned(),
            Err(error) => {
                format!("the host takes the change back within {CONFIRM_WITHIN} s by itself ({error})")
            }
        };
        return Err(Error::InvalidCommand(format!("{why}; {state}")));
    }
    on.call(order(&result.pending, "")).await?;
    Ok(result)
}

async fn prove(settings: &SshdHarden, way: &Way<'_>, timeout: Duration) -> Result<(), String> {
    let mut ssh = way.ssh.clone().apart();
    if let Some(port) = settings.port.and_then(|port| u16::try_from(port).ok()) {
        ssh = ssh.on_port(port).await.map_err(|error| error.to_string())?;
    }
    // The very thing that must go on working: a runner, by the same way.
    let client = Client::start(&ssh, way.binaries, way.options.clone()).await;
    let client = client.map_err(|error| format!("with the new settings no login works: {error}"))?;
    let nothing = Exec { command: "exit 0".into(), ..Default::default() };
    let allowed = client.run(&nothing, Call::within(timeout)).await;
    client.close().await;
    match allowed {
        Ok(result) if result.exit_code == 0 => {}
        // A policy may forbid it; that a runner answered is enough.
        Ok(_) | Err(Error::Denied(_)) => {}
        Err(error) => return Err(format!("with the new settings a login does not work: {error}")),
    }
    for attempt in 1.. {
        match still_on(settings, &ssh).await {
            Ok(None) => break,
            Ok(Some(what)) | Err(what) if attempt == ATTEMPTS => return Err(what),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    Ok(())
}

/// What was to be off and is not; an error if that could not be found out.
async fn still_on(settings: &SshdHarden, ssh: &Ssh) -> Result<Option<String>, String> {
    let attempt = async |user, ask_only| match ssh.try_login(user, ask_only).await {
        Ok(Login::Broken(said)) => Err(format!("it could not be tried whether all is off: {said}")),
        Ok(login) => Ok(login),
        Err(error) => Err(error.to_string()),
    };
    if settings.disable_password_auth {
        for user in [None, Some("root")] {
            let offered = match attempt(user, true).await? {
                Login::In => Some("a login without any proof".to_owned()),
                Login::Refused(methods) => methods
                    .into_iter()
                    .find(|method| matches!(method.as_str(), "password" | "keyboard-interactive")),
                Login::Broken(_) => None,
            };
            if let Some(method) = offered {
                let whom = user.map(|user| format!(" to {user}")).unwrap_or_default();
                return Ok(Some(format!("sshd still offers {method}{whom}")));
            }
        }
    }
    let shut_out = settings.disable_root_login
        || !(settings.allow_users.is_empty() || settings.allow_users.iter().any(|user| may_be_root(user)));
    if shut_out && attempt(Some("root"), false).await? == Login::In {
        return Ok(Some("root can still log in".to_owned()));
    }
    Ok(None)
}

/// Whether a pattern of AllowUsers may let root in.
fn may_be_root(pattern: &str) -> bool {
    let user = pattern.split('@').next().unwrap_or_default();
    user == "root" || user.contains(['*', '?', '!'])
}
