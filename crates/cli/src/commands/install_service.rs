//! `legwork install-service`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::args::InstallServiceArgs;
use crate::context;

/// The unit, with its placeholders; documented in itself.
const UNIT: &str = include_str!("../../../../deploy/legwork.service");

const DEFAULT_WORKSPACE: &str = "/var/lib/legwork/workspace";

pub(crate) fn run(args: InstallServiceArgs) -> Result<u8> {
    let program = crate::update::program()?;
    let workspace = workspace(&args)?;
    let unit = unit(&program, &args, &workspace)?;
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

/// Where the service's tasks work: as the config says, unless we are told otherwise. A unit
/// overrides the config, so that the two must not differ without a word.
fn workspace(args: &InstallServiceArgs) -> Result<PathBuf> {
    let configured = match args.config.exists() {
        true => super::serve::load(Some(&args.config))?
            .settings
            .into_iter()
            .find(|setting| setting.key == "workspace_root" && setting.source != "default")
            .map(|setting| PathBuf::from(setting.value)),
        false => None,
    };
    match (&args.workspace, configured) {
        (Some(given), Some(configured)) if *given != configured => bail!(
            "--workspace {} and the workspace_root {} of {} differ: keep one of them",
            given.display(),
            configured.display(),
            args.config.display()
        ),
        (Some(given), _) => Ok(given.clone()),
        (None, Some(configured)) if configured.is_absolute() => Ok(configured),
        (None, Some(configured)) => bail!(
            "the workspace_root {} of {} depends on who runs the service: give an absolute path",
            configured.display(),
            args.config.display()
        ),
        (None, None) => Ok(DEFAULT_WORKSPACE.into()),
    }
}

fn unit(program: &Path, args: &InstallServiceArgs, workspace: &Path) -> Result<String> {
    let user = match &args.user {
        Some(user) => format!("User={}", word(user)?),
        None => "DynamicUser=yes".into(),
    };
    Ok(UNIT
        .replace("@USER@", &user)
        .replace("@PROGRAM@", word(&program.to_string_lossy())?)
        .replace("@CONFIG@", word(&args.config.to_string_lossy())?)
        .replace("@WORKSPACE@", word(&workspace.to_string_lossy())?))
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
            workspace: None,
            unit: "/tmp/x".into(),
            print: true,
        };
        let text = unit(Path::new("/usr/local/bin/legwork"), &args, Path::new("/srv/ws")).expect("unit");
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
        assert!(unit(Path::new("/usr/local/bin/legwork"), &args, Path::new("/srv/ws")).is_err());
    }

    #[test]
    fn the_config_says_where_the_service_works() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = dir.path().join("config.yaml");
        let mut args = InstallServiceArgs {
            user: None,
            config: config.clone(),
            workspace: None,
            unit: "/tmp/x".into(),
            print: true,
        };
        assert_eq!(workspace(&args).expect("no config yet"), Path::new(DEFAULT_WORKSPACE));
        std::fs::write(&config, "token: t\nworkspace_root: /srv/work\n").expect("write");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&config, private).expect("private");
        assert_eq!(workspace(&args).expect("configured"), Path::new("/srv/work"));
        args.workspace = Some("/srv/work".into());
        assert_eq!(workspace(&args).expect("the same"), Path::new("/srv/work"));
        args.workspace = Some("/elsewhere".into());
        assert!(workspace(&args).is_err_and(|e| e.to_string().contains("differ")));
    }
}
