//! Actions: those that are built in, those that are found elsewhere, and those that never run here.

use crate::expression::Template;

/// An action with what it is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Uses {
    /// As it is written.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What it is given.
    pub with: Vec<(String, Template)>,
}

/// Where an action comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From us.
    Builtin(Builtin),
    /// From a folder of the workspace.
    Local(String),
    /// From the operator's folder of actions, as `OWNER/NAME[/PATH]` and a revision.
    Mirror(String, String),
}

/// What we do ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "as named")]
pub enum Builtin {
    Checkout,
    Setup(Tool),
    Cache,
    CacheRestore,
    CacheSave,
    Upload,
    Download,
    /// A command of cargo.
    Cargo,
    /// What it would do there has no use here.
    Nothing,
}

/// What is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its folder's name.
    pub name: &'static str,
    /// What is asked for its version.
    pub program: &'static str,
    /// The inputs that name a version, the first one that is given counts.
    pub versions: &'static [&'static str],
    /// The inputs that name a file with the version.
    pub files: &'static [&'static str],
    /// The output that tells the version.
    pub output: &'static str,
}

const fn tool(
    name: &'static str,
    program: &'static str,
    versions: &'static [&'static str],
    files: &'static [&'static str],
    output: &'static str,
) -> Builtin {
    Builtin::Setup(Tool { name, program, versions, files, output })
}

const RUST: Builtin = tool("rust", "rustc", &["toolchain"], &[], "cachekey");

/// Those that we do ourselves, by their names without a revision.
const BUILTIN: &[(&str, Builtin)] = &[
    ("actions/checkout", Builtin::Checkout),
    ("actions/setup-node", tool("node", "node", &["node-version"], &["node-version-file"], "node-version")),
    (
        "actions/setup-python",
        tool("python", "python3", &["python-version"], &["python-version-file"], "python-version"),
    ),
    ("actions/setup-go", tool("go", "go", &["go-version"], &["go-version-file"], "go-version")),
    ("actions/setup-java", tool("java", "java", &["java-version"], &["java-version-file"], "version")),
    (
        "actions/setup-dotnet",
        tool("dotnet", "dotnet", &["dotnet-version"], &["global-json-file"], "dotnet-version"),
    ),
    ("actions/setup-rust", RUST),
    ("dtolnay/rust-toolchain", RUST),
    ("actions-rs/toolchain", RUST),
    ("actions-rust-lang/setup-rust-toolchain", RUST),
    ("moonrepo/setup-rust", RUST),
    ("ruby/setup-ruby", tool("ruby", "ruby", &["ruby-version"], &[], "ruby-version")),
    ("shivammathur/setup-php", tool("php", "php", &["php-version"], &["php-version-file"], "php-version")),
    ("erlef/setup-beam", tool("erlang", "erl", &["otp-version"], &["version-file"], "otp-version")),
    ("gradle/actions/setup-gradle", tool("gradle", "gradle", &["gradle-version"], &[], "gradle-version")),
    ("gradle/gradle-build-action", tool("gradle", "gradle", &["gradle-version"], &[], "gradle-version")),
    ("pnpm/action-setup", tool("pnpm", "pnpm", &["version"], &[], "version")),
    ("oven-sh/setup-bun", tool("bun", "bun", &["bun-version"], &["bun-version-file"], "bun-version")),
    ("denoland/setup-deno", tool("deno", "deno", &["deno-version"], &["deno-version-file"], "deno-version")),
    ("astral-sh/setup-uv", tool("uv", "uv", &["version"], &["version-file"], "uv-version")),
    ("extractions/setup-just", tool("just", "just", &["just-version"], &[], "just-version")),
    ("hashicorp/setup-terraform", tool("terraform", "terraform", &["terraform_version"], &[], "version")),
    ("azure/setup-helm", tool("helm", "helm", &["version"], &[], "version")),
    ("azure/setup-kubectl", tool("kubectl", "kubectl", &["version"], &[], "version")),
    ("goto-bus-stop/setup-zig", tool("zig", "zig", &["version"], &[], "version")),
    ("mlugg/setup-zig", tool("zig", "zig", &["version"], &[], "version")),
    ("arduino/setup-protoc", tool("protoc", "protoc", &["version"], &[], "version")),
    ("taiki-e/install-action", tool("", "", &["tool"], &[], "version")),
    ("actions/cache", Builtin::Cache),
    ("actions/cache/restore", Builtin::CacheRestore),
    ("actions/cache/save", Builtin::CacheSave),
    ("swatinem/rust-cache", Builtin::Nothing),
    ("actions/upload-artifact", Builtin::Upload),
    ("actions/download-artifact", Builtin::Download),
    ("actions-rs/cargo", Builtin::Cargo),
    ("step-security/harden-runner", Builtin::Nothing),
    ("jlumbroso/free-disk-space", Builtin::Nothing),
    ("mozilla-actions/sccache-action", Builtin::Nothing),
    ("hendrikmuhs/ccache-action", Builtin::Nothing),
];

/// Those that need something that is not here, and what to do instead.
const NEVER: &[(&str, &str)] = &[
    ("docker/", "needs a container engine; build images where one is"),
    ("actions/github-script", "needs GitHub's API; run `gh` or curl in a step of your own"),
    ("actions/deploy-pages", "needs GitHub Pages; upload the artifact and publish it yourself"),
    ("actions/configure-pages", "needs GitHub Pages; upload the artifact and publish it yourself"),
    ("actions/upload-pages-artifact", "needs GitHub Pages; use actions/upload-artifact"),
    ("actions/labeler", "needs GitHub's API"),
    ("actions/stale", "needs GitHub's API"),
    ("actions/create-release", "needs GitHub's API; run `gh release create` in a step of your own"),
    ("actions/dependency-review-action", "needs GitHub's API"),
    ("github/codeql-action", "needs GitHub's code scanning"),
];

/// What an action is: ours, found elsewhere, or why it never runs.
pub(crate) fn find(name: &str) -> Result<Source, String> {
    if name.starts_with("docker://") {
        return Err("is an image of Docker, and needs a container engine; run the program itself".into());
    }
    if let Some(path) = name.strip_prefix("./") {
        let escapes = path.split('/').any(|part| part == "..");
        return if escapes {
            Err("leads out of the workspace".into())
        } else {
            Ok(Source::Local(path.into()))
        };
    }
    let Some((path, revision)) = name.split_once('@') else {
        return Err("has no revision: OWNER/NAME@REVISION, or ./PATH for one of the workspace".into());
    };
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+".contains(&b))
    };
    if !is_plain(path) || !is_plain(revision) || !path.contains('/') {
        return Err("is no action: OWNER/NAME@REVISION, or ./PATH for one of the workspace".into());
    }
    let known = path.to_ascii_lowercase();
    if let Some((_, builtin)) = BUILTIN.iter().find(|(name, _)| *name == known) {
        return Ok(Source::Builtin(*builtin));
    }
    if let Some((_, why)) = NEVER.iter().find(|(name, _)| known.starts_with(name)) {
        return Err((*why).into());
    }
    Ok(Source::Mirror(path.into(), revision.into()))
}

impl Uses {
    /// What is other than at GitHub, if anything.
    pub fn difference(&self) -> Option<String> {
        let Source::Builtin(builtin) = &self.source else { return None };
        match builtin {
            Builtin::Setup(tool) if tool.name.is_empty() => {
                Some("installs nothing: what it names must be installed here".into())
            }
            Builtin::Setup(tool) => Some(format!(
                "uses the {} that is installed here, or a version folder of the operator's; the log says which",
                tool.name
            )),
            Builtin::Nothing => Some("has no use here, and does nothing".into()),
            Builtin::Cargo => Some("runs cargo".into()),
            Builtin::Checkout if self.input("repository").is_some() => {
                Some("clones the other repository from its address at GitHub, without a token".into())
            }
            _ => None,
        }
    }

    /// What it is given by a name.
    pub fn input(&self, name: &str) -> Option<&Template> {
        self.with.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
