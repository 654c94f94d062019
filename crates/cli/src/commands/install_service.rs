//! `legwork install-service`

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::args::InstallServiceArgs;
use crate::context;

/// The unit, with its placeholders; documented in itself.
const UNIT: &str = include_str!("../../../../deploy/legwork.service");

pub(crate) fn run(args: InstallServiceArgs) -> Result<u8> {
    let program = crate::update::program()?;
    let unit = unit(&program, &args)?;
    if args.print {
        print!("{unit}");
        return Ok(0);
    }
    if !args.config.exists() {
        bail!(
            "{} does not exist: write it first, with `legwork init --config {} …`",
            args.config.display(),
            args.config.display()
        );
    }
    context::write_private(&args.unit, &unit)?;
    // A unit holds no secret, and others read it.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&args.unit, std::fs::Permissions::from_mode(0o644))
        .with_context(|| args.unit.display().to_string())?;
    println!("wrote {}", args.unit.display());
    println!("next: systemctl daemon-reload && systemctl enable --now legwork");
    Ok(0)
}

fn unit(program: &Path, args: &InstallServiceArgs) -> Result<String> {
    let user = match &args.user {
        Some(user) => format!("User={}", word(user)?),
        None => "DynamicUser=yes".into(),
    };
    Ok(UNIT
        .replace("@USER@", &user)
        .replace("@PROGRAM@", word(&program.to_string_lossy())?)
        .replace("@CONFIG@", word(&args.config.to_string_lossy())?)
        .replace("@WORKSPACE@", word(&args.workspace.to_string_lossy())?))
}

/// A value that a unit can hold as it is.
fn word(text: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        bail!("'{text}' holds a character that means something else in a unit: use a plainer name");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_filled_in_and_holds_no_surprises() {
        let mut args = InstallServiceArgs {
            user: Some("legwork".into()),
            config: "/etc/legwork/config.yaml".into(),
            workspace: "/srv/ws".into(),
            unit: "/tmp/x".into(),
            print: true,
        };
        let text = unit(Path::new("/usr/local/bin/legwork"), &args).expect("unit");
        assert!(!text.contains('@'), "{text}");
        for line in [
            "ExecStart=/usr/local/bin/legwork run --config %d/config.yaml --workspace /srv/ws",
            "LoadCredential=config.yaml:/etc/legwork/config.yaml",
            "User=legwork",
            "KillMode=process",
            "Delegate=yes",
            "RestartKillSignal=SIGUSR2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        args.config = "/etc/a b\nExecStartPre=/bin/evil".into();
        assert!(unit(Path::new("/usr/local/bin/legwork"), &args).is_err());
    }
}
