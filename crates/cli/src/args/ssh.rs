//! The arguments of `legwork ssh`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

const HOSTS: &str = "Hosts: names that your ssh knows, [USER@]HOST, ranges (web[1-9]), @groups of the inventory, \
                     patterns (web*), @label:LABEL, @file:FILE with any of these, !HOST to leave one out, and \
                     &@GROUP for only those that are in it, too";

#[derive(Debug, clap::Args)]
#[command(
    subcommand_precedence_over_arg = true,
    subcommand_negates_reqs = true,
    after_help = "Exit status: that of the command (of several hosts the highest); 124 timed out, 126 denied by the \
                  policy, 130 interrupted, 255 not reached."
)]
pub(crate) struct SshArgs {
    #[command(subcommand)]
    pub(crate) work: Option<SshWork>,
    #[command(flatten)]
    pub(crate) common: SshCommon,
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The command: one argument is a line of shell, several are quoted as given
    #[arg(last = true, required_unless_present = "script", value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What holds for every kind of work.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SshCommon {
    /// Inventory of hosts and groups: ours, Ansible's (INI, YAML, a folder, a program that gives JSON) or a
    /// configuration of ssh [default: ~/.config/legwork/inventory.yaml, if there]
    #[arg(long, env = "LEGWORK_INVENTORY", value_name = "FILE", global = true)]
    pub(crate) inventory: Option<PathBuf>,
    /// A private key to log in with, as for ssh; a file that is none is the inventory
    #[arg(short = 'i', value_name = "FILE", global = true)]
    pub(crate) identity: Vec<PathBuf>,
    /// Port of the hosts, as for ssh
    #[arg(short = 'p', value_name = "PORT", global = true)]
    pub(crate) ssh_port: Option<u16>,
    /// User on the hosts, as for ssh
    #[arg(short = 'l', value_name = "USER", global = true)]
    pub(crate) login: Option<String>,
    /// Hosts to jump by, as for ssh
    #[arg(short = 'J', value_name = "HOST,...", global = true)]
    pub(crate) jump: Option<String>,
    /// Do not give the command our standard input
    #[arg(long, short = 'n', global = true)]
    pub(crate) no_input: bool,
    /// How often to try again where a host, or one on the way, is too busy to let us log in
    #[arg(long, default_value_t = 5, value_name = "N", global = true)]
    pub(crate) connect_retries: u32,
    /// Hosts at once
    #[arg(long, short = 'P', default_value = "16", value_name = "N", global = true)]
    pub(crate) parallel: NonZeroUsize,
    /// Try no further host after the first failure
    #[arg(long, global = true)]
    pub(crate) fail_fast: bool,
    /// Try no further host after so many failures
    #[arg(long, value_name = "N", global = true, conflicts_with = "fail_fast")]
    pub(crate) max_failures: Option<usize>,
    /// Only hosts of which this holds: an expression of their variables and facts ("facts.os.id == 'debian'")
    #[arg(long = "where", value_name = "EXPRESSION", global = true)]
    pub(crate) condition: Option<String>,
    /// Work on so many hosts, or so many in a hundred, and on the next only if all went well: 10%, or 1,10%,100%
    #[arg(long, value_name = "N[%],...", value_delimiter = ',', global = true)]
    pub(crate) serial: Vec<String>,
    /// Write the names of the hosts that did not go well to this file, one a line; @file:FILE names them again
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) failed_to: Option<PathBuf>,
    /// Seconds that a command may take
    #[arg(long, short, default_value_t = 300, value_name = "SECONDS", global = true,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Run it as root, by sudo
    #[arg(long, global = true)]
    pub(crate) sudo: bool,
    /// Run the command as this user instead of root
    #[arg(long, value_name = "USER", global = true)]
    pub(crate) become_user: Option<String>,
    /// How to become root, or that user [default: sudo]
    #[arg(long, value_name = "METHOD", global = true)]
    pub(crate) become_method: Option<BecomeMethod>,
    /// Environment variable of the command; may be repeated
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    pub(crate) env: Vec<String>,
    /// Folder that the command runs in
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) chdir: Option<String>,
    /// Shell for the command [default: /bin/sh]
    #[arg(long, value_name = "PROGRAM", global = true)]
    pub(crate) shell: Option<String>,
    /// Run this local file there, with the words after -- as its arguments; its #! line says by what
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) script: Option<PathBuf>,
    /// Ask for sudo's password, once for all hosts
    #[arg(long, short = 'K', global = true)]
    pub(crate) ask_password: bool,
    /// File with sudo's password
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "ask_password")]
    pub(crate) sudo_password_file: Option<PathBuf>,
    /// Show what changes, with --dry-run what would: lines of files, states, versions
    #[arg(long, global = true)]
    pub(crate) diff: bool,
    /// Print each host's output in one piece, once it is complete
    #[arg(long, short, global = true)]
    pub(crate) group: bool,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print JSON, an object a line, as it comes: lines of output, then each host's result, then the summary
    #[arg(long, global = true, conflicts_with_all = ["json", "group"])]
    pub(crate) json_lines: bool,
    /// Put each host's stdout, stderr and result.json into a folder of its name in this folder, too
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) output_dir: Option<PathBuf>,
    /// Take only commands that the rules of this config allow
    #[arg(long, value_name = "CONFIG", global = true)]
    pub(crate) policy: Option<PathBuf>,
    /// Seconds that the connection, and the runner on the host, stay for the next call
    /// [default: 60; with more than 20 hosts 0]
    #[arg(long, env = "LEGWORK_SSH_PERSIST", value_name = "SECONDS", global = true)]
    pub(crate) persist: Option<u64>,
    /// Configuration of ssh
    #[arg(long, short = 'F', value_name = "FILE", global = true)]
    pub(crate) ssh_config: Option<PathBuf>,
    /// Option of ssh, as in its configuration
    #[arg(long, short = 'o', value_name = "KEY=VALUE", global = true)]
    pub(crate) ssh_option: Vec<String>,
    /// Reach hosts by this program instead of ssh: 'docker exec -i {host}'
    #[arg(long, value_name = "PROGRAM", global = true)]
    pub(crate) via: Option<String>,
    /// Folder with other micro-runners than those in this program
    #[arg(long, env = "LEGWORK_MICRO_DIR", value_name = "DIR", global = true)]
    pub(crate) micro_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BecomeMethod {
    /// By sudo
    Sudo,
    /// By su, with that user's own password
    Su,
    /// By doas, where it asks for no password
    Doas,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SshWork {
    /// Copy files to hosts, or from hosts
    Cp(CpArgs),
    /// Make a folder on hosts what a folder here is, or the other way round; what is equal is not sent
    Sync(SyncArgs),
    /// Fill in a template with each host's variables, and write it there
    Template(TemplateArgs),
    /// Make sure that packages are there, or are not
    Pkg(PkgArgs),
    /// Reload, restart, start, stop, enable, disable, mask services, or tell how they are
    Service(ServiceArgs),
    /// Read or write one file, or one line or block of it
    #[command(subcommand)]
    File(FileCommand),
    /// Tell what hosts are, as JSON: system, processors, memory, addresses, disks
    Facts {
        #[arg(required = true, value_name = "HOST", help = HOSTS)]
        hosts: Vec<String>,
    },
    /// Give or take a user's right to use sudo
    Sudoers(SudoersArgs),
    /// Harden sshd: taken back, by the host itself, unless a new login works with it
    Harden(HardenArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CpArgs {
    /// Source and destination; hosts stand before a colon: cp a.conf web[1-3]:/etc/a.conf
    #[arg(required = true, num_args = 2.., value_name = "[HOST:]PATH")]
    pub(crate) paths: Vec<String>,
    /// Folders with all that is in them
    #[arg(long, short = 'r')]
    pub(crate) recursive: bool,
    /// Permissions, in octal [default: those of the file]
    #[arg(long)]
    pub(crate) mode: Option<String>,
    /// Owner, by name or number
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Group, by name or number
    #[arg(long)]
    pub(crate) group_name: Option<String>,
    /// Keep what was there as PATH.bak
    #[arg(long)]
    pub(crate) backup: bool,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SyncArgs {
    /// The folder as it is to be; HOST:PATH if it is on a host
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The folder that becomes so; hosts stand before a colon: sync site/ web[1-3]:/srv/site
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// Delete what is not in the first one
    #[arg(long)]
    pub(crate) delete: bool,
    /// Leave out, on both sides, what fits: a name, or a path from the folder on (*.tmp, .git, build/*)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Owner of what is written, by name or number
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Group of what is written, by name or number
    #[arg(long)]
    pub(crate) group_name: Option<String>,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How a file is put in place.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PutArgs {
    /// Permissions, in octal
    #[arg(long)]
    pub(crate) mode: Option<String>,
    /// Owner, by name or number
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Group, by name or number
    #[arg(long)]
    pub(crate) group_name: Option<String>,
    /// Keep what was there as PATH.bak
    #[arg(long)]
    pub(crate) backup: bool,
    /// Run this there first, with %s for a file that holds what is to be written; nothing is written if it fails
    #[arg(long, value_name = "COMMAND")]
    pub(crate) validate: Option<String>,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "legwork ssh template nginx.conf.j2 'web[1-3]:/etc/nginx/nginx.conf' --var port=8080 --diff --dry-run"
)]
pub(crate) struct TemplateArgs {
    /// The template, in Jinja's language; others beside it may be included
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// HOST:PATH
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// A variable, which wins over those of the inventory; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// A YAML or JSON file of variables, which win over those of the inventory
    #[arg(long, value_name = "FILE")]
    pub(crate) vars: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) put: PutArgs,
}

/// Where goes what is not there yet.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct PlaceArgs {
    /// Where it is not there yet: after the last line that fits [default: at the end]
    #[arg(long, value_name = "REGEX")]
    pub(crate) after: Option<String>,
    /// Where it is not there yet: before the first line that fits
    #[arg(long, value_name = "REGEX")]
    pub(crate) before: Option<String>,
    /// Where it is not there yet: at the start
    #[arg(long)]
    pub(crate) at_start: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "legwork ssh file line web1 --sudo --match '^#?PermitRootLogin\\b' --line 'PermitRootLogin no' -- /etc/ssh/sshd_config"
)]
pub(crate) struct LineArgs {
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The file
    #[arg(last = true, required = true)]
    pub(crate) path: String,
    /// The line that is to be there, once
    #[arg(long, required_unless_present = "matching")]
    pub(crate) line: Option<String>,
    /// The line takes the place of the last one that fits
    #[arg(long = "match", id = "matching", value_name = "REGEX")]
    pub(crate) matching: Option<String>,
    /// $1 or ${name} in the line are groups of what it takes the place of; where nothing fits, nothing is added
    #[arg(long, requires_all = ["matching", "line"])]
    pub(crate) expand: bool,
    /// Remove the line, and all that fit
    #[arg(long, conflicts_with_all = ["expand", "after", "before", "at_start"])]
    pub(crate) absent: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Make the file if it is not there
    #[arg(long)]
    pub(crate) create: bool,
    #[command(flatten)]
    pub(crate) put: PutArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "legwork ssh file block @web --name hosts --from hosts.txt -- /etc/hosts")]
pub(crate) struct BlockArgs {
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The file
    #[arg(last = true, required = true)]
    pub(crate) path: String,
    /// What stands in the block
    #[arg(long, conflicts_with = "from", required_unless_present_any = ["from", "absent"])]
    pub(crate) content: Option<String>,
    /// A local file with what stands in the block; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Which block: others stay as they are
    #[arg(long, default_value = "block")]
    pub(crate) name: String,
    /// The lines around it: {mark} becomes BEGIN and END, {name} the name
    #[arg(long, value_name = "LINE", default_value = "# {mark} legwork {name}")]
    pub(crate) marker: String,
    /// Remove the block
    #[arg(long, conflicts_with_all = ["content", "from", "after", "before", "at_start"])]
    pub(crate) absent: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Make the file if it is not there
    #[arg(long)]
    pub(crate) create: bool,
    #[command(flatten)]
    pub(crate) put: PutArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PkgState {
    /// It is there, in whatever version
    Present,
    /// It is not there
    Absent,
    /// It is there in the newest version
    Latest,
    /// It is not there, nor its configuration
    #[value(alias = "purge")]
    Purged,
    /// It stays in its version, whatever else is upgraded
    #[value(alias = "hold")]
    Held,
    /// It is upgraded as others are
    #[value(alias = "unhold")]
    Unheld,
    /// The lists of what there is are new; no package is named
    #[value(alias = "refresh")]
    Refreshed,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PkgArgs {
    /// What is to be so
    pub(crate) state: PkgState,
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The packages; @NAME is a group of them, where the package manager has groups
    #[arg(last = true, value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// Refresh the lists of what there is first
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Exactly this version, of one package
    #[arg(long, value_name = "VERSION")]
    pub(crate) pin: Option<String>,
    /// apt, dnf5, dnf, yum, zypper, apk or pacman [default: the first that is there]
    #[arg(long)]
    pub(crate) manager: Option<String>,
    /// Option of the package manager
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) option: Vec<String>,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceAction {
    /// Read its configuration again
    Reload,
    /// Stop and start
    Restart,
    /// Start, if it does not run
    Start,
    /// Stop, if it runs
    Stop,
    /// Start at boot
    Enable,
    /// Do not start at boot
    Disable,
    /// Can't be started, by anybody
    Mask,
    /// Can be started again
    Unmask,
    /// Tell how it is, and change nothing
    Status,
    /// Have systemd read all its units again; no service is named
    DaemonReload,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    /// What to do
    pub(crate) action: ServiceAction,
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The services
    #[arg(last = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// A command that must succeed on the host afterwards; it is tried until it does
    #[arg(long, value_name = "COMMAND")]
    pub(crate) healthy: Option<String>,
    /// Seconds that --healthy has
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "healthy")]
    pub(crate) within: u64,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Print a file
    Read {
        #[arg(required = true, value_name = "HOST", help = HOSTS)]
        hosts: Vec<String>,
        /// The file
        #[arg(last = true, required = true)]
        path: String,
    },
    /// Write a file: as a whole, or not at all
    Write {
        #[arg(required = true, value_name = "HOST", help = HOSTS)]
        hosts: Vec<String>,
        /// The file
        #[arg(last = true, required = true)]
        path: String,
        /// What to write
        #[arg(long, conflicts_with = "from", required_unless_present = "from")]
        content: Option<String>,
        /// A local file with what to write; - is standard input
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Fail if the file is not there
        #[arg(long)]
        existing: bool,
        #[command(flatten)]
        put: PutArgs,
    },
    /// Make sure that a line is in a file, or is not
    Line(Box<LineArgs>),
    /// Make sure that some lines are in a file, between two that mark them
    Block(Box<BlockArgs>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SudoersArgs {
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// The user who gets the right
    #[arg(long)]
    pub(crate) user: String,
    /// A command that the user may run: an absolute path [default: all]
    #[arg(long = "command", value_name = "PATH")]
    pub(crate) commands: Vec<String>,
    /// Without a password
    #[arg(long)]
    pub(crate) no_password: bool,
    /// Take the right away
    #[arg(long, conflicts_with_all = ["commands", "no_password"])]
    pub(crate) absent: bool,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HardenArgs {
    #[arg(required = true, value_name = "HOST", help = HOSTS)]
    pub(crate) hosts: Vec<String>,
    /// No passwords, nor keyboard-interactive, for anybody
    #[arg(long)]
    pub(crate) no_password_auth: bool,
    /// PermitRootLogin no
    #[arg(long)]
    pub(crate) no_root_login: bool,
    /// Only these users
    #[arg(long, value_name = "USER")]
    pub(crate) allow_user: Vec<String>,
    /// Listen on this port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Do not try a new login, nor whether what is to be off is off; Match blocks stay as they are
    #[arg(long)]
    pub(crate) no_test: bool,
    /// Only tell what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}
