//! `legwork release`: for those who publish releases.

use anyhow::{Context as _, Result, bail};
use legwork_release::SecretKey;

use crate::args::ReleaseCommand;
use crate::context;

pub(crate) fn run(command: ReleaseCommand) -> Result<u8> {
    match command {
        ReleaseCommand::Keygen { out } => {
            if out.exists() {
                bail!(
                    "{} exists already: a lost key can't be replaced in the field, so it is not overwritten",
                    out.display()
                );
            }
            let key = SecretKey::generate()?;
            context::write_private(&out, &format!("{}\n", key.expose()))?;
            println!("wrote the secret key to {}: keep it off the machines that are updated", out.display());
            println!("update_public_key: \"{}\"", key.public());
            Ok(0)
        }
        ReleaseCommand::Sign { key, version, folder } => {
            let text =
                std::fs::read_to_string(&key).with_context(|| format!("failed to read {}", key.display()))?;
            let key = SecretKey::parse(&text).with_context(|| key.display().to_string())?;
            let version = version.unwrap_or_else(|| legwork_release::version().to_owned());
            let manifest = legwork_release::make(&folder, &version, &key)?;
            for archive in &manifest.archives {
                println!("{}  {}  {} bytes", archive.sha256, archive.name, archive.size);
            }
            println!("signed {version} in {} for update_public_key: \"{}\"", folder.display(), key.public());
            Ok(0)
        }
    }
}
