//! The command line.

pub(crate) mod ssh;
pub(crate) mod task;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Hands for remote brains: run commands on machines you don't sit at, under a
/// policy you can read.
#[derive(Debug, Parser)]
#[command(name = "legwork", version, propagate_version = false, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the hub is, and who we are to it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HubArgs {
    /// The hub's address [default: the context `legwork up` wrote]
    #[arg(long, env = "LEGWORK_HUB_URL", value_name = "URL")]
    pub(crate) hub_url: Option<String>,
    /// File that holds the token (LEGWORK_TOKEN holds the token itself)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authority of the hub, in PEM [env: LEGWORK_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a hub with a local runner, and say what to type next
    Up(UpArgs),
    /// Enrol this machine with a hub and write the runner's config
    Init(InitArgs),
    /// Run a hub, or make an admin's token on its machine
    Hub(HubArgsOrToken),
    /// Run a runner: dial out to a hub and take tasks
    Run(RunArgs),
    /// Serve a folder to a browser IDE: terminals, files, preview
    Serve(ServeArgs),
    /// Run an agent or a workflow: the program of a pod, or for yourself
    Task(task::TaskArgs),
    /// Keep task runners ready on this machine
    Pool(task::PoolArgs),
    /// Run an agent on a task runner and watch it
    Agent(task::AgentArgs),
    /// Run a workflow on a task runner
    #[command(subcommand)]
    Workflow(task::WorkflowCommand),
    /// Look after task runners and what they run
    #[command(subcommand)]
    Pods(task::PodsCommand),
    /// Run a command on runners and stream its output
    Exec(ExecArgs),
    /// Work on hosts where nothing is installed, over ssh
    Ssh(Box<ssh::SshArgs>),
    /// List runners, or set what people decide about one
    Runners(RunnersArgs),
    /// List tasks, or show one
    Tasks(TasksArgs),
    /// Show a task's output
    Logs(LogsArgs),
    /// See what waits for a person's yes, and say yes or no
    Approvals(ApprovalsArgs),
    /// Serve the hub's tools by MCP over standard input and output
    Mcp {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Keep secrets for tasks
    #[command(subcommand)]
    Secret(task::SecretCommand),
    /// Try out a command policy
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check audit files
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check a runner's config, or show every value with its source
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Replace this program by a newer signed release
    Update(UpdateArgs),
    /// Make and sign releases
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Write the systemd unit of a service that runs the runner
    InstallService(InstallServiceArgs),
    /// Check what this machine can do
    Doctor(DoctorArgs),
    /// Print the version
    Version,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Where hub and runner keep their data [default: ~/.local/share/legwork]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The hub's address
    #[arg(long, default_value = "127.0.0.1:7440")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The hub's address
    #[arg(long, env = "LEGWORK_HUB_URL", value_name = "URL")]
    pub(crate) hub_url: String,
    /// File with the one-time enrolment token [default: LEGWORK_ENROLL_TOKEN, else stdin]
    #[arg(long, value_name = "FILE")]
    pub(crate) enroll_token_file: Option<PathBuf>,
    /// The runner's name [default: what the enrolment token is called]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Config file to write [default: ~/.legwork/config.yaml]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Certificate authority of the hub, in PEM [env: LEGWORK_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "All settings are environment variables, as a pod has them: docs/workspace.md lists them. \
                        A token comes by LEGWORK_WORKSPACE_TOKEN, never as an argument."
)]
pub(crate) struct ServeArgs {
    /// The folder to serve; it must exist [env: WORKSPACE] [default: /workspace]
    pub(crate) workspace: Option<PathBuf>,
    /// Address to listen on [env: HOST] [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Port to listen on; 0 for any [env: PORT] [default: 3001]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Port of the user's application, for the preview [env: USER_PORT] [default: 3000]
    #[arg(long, value_name = "PORT")]
    pub(crate) user_port: Option<u16>,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct HubArgsOrToken {
    #[command(subcommand)]
    pub(crate) command: Option<HubCommand>,
    #[command(flatten)]
    pub(crate) serve: Option<HubServeArgs>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HubCommand {
    /// Make an admin's token, for who may write to the data folder; a running hub takes it in
    /// within a second
    Token {
        /// The hub's data folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// What it is called
        #[arg(long, default_value = "local-admin")]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct HubServeArgs {
    /// Address to listen on; off loopback only with TLS
    #[arg(long, default_value = "127.0.0.1:7440")]
    pub(crate) listen: SocketAddr,
    /// Data folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where others reach this hub; task runners send their events there
    #[arg(long, env = "LEGWORK_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Seconds that a runner may be away before what it has is lost
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub(crate) grace: u64,
    /// Most bytes that are kept of a stream of a run's output
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub(crate) max_output: u64,
    /// Forget tasks that are over after so many days [default: never]
    #[arg(long, value_name = "DAYS")]
    pub(crate) keep_days: Option<u64>,
    /// Forget the oldest tasks that are over while there are more bytes of events [default: never]
    #[arg(long, value_name = "BYTES")]
    pub(crate) keep_bytes: Option<u64>,
    /// Seconds that people have to say yes or no to what a rule asks about; 0: nobody is asked, and
    /// it is denied
    #[arg(long, default_value_t = 900, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=43_200))]
    pub(crate) approval_wait: u64,
    /// Certificate chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Config file [default: ~/.legwork/config.yaml, else ~/.flashduty-runner/config.yaml]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Token; visible in the process list, so prefer the config or LEGWORK_RUNNER_TOKEN
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// The hub's WebSocket address (ws:// or wss://)
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Folder that tasks work in
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// debug, info, warn or error
    #[arg(long)]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Only runners with this label; may be given several times
    #[arg(long, short, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// This runner, by name or id
    #[arg(long, short, value_name = "RUNNER")]
    pub(crate) runner: Option<String>,
    /// On all that match
    #[arg(long, conflicts_with = "count")]
    pub(crate) all: bool,
    /// On so many that match
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) count: Option<u32>,
    /// Only on runners that are connected now
    #[arg(long)]
    pub(crate) online: bool,
    /// Seconds to wait for a runner that is away [default: a day]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires: Option<u64>,
    /// Pass the standard input, however long its first byte takes
    #[arg(long, conflicts_with = "no_stdin")]
    pub(crate) stdin: bool,
    /// Leave the standard input alone
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Seconds the command may take
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Folder beneath the workspace
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Why, for people who are asked for their yes
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Print the task as JSON when it is over, instead of its output
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the task's id and do not wait
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// The command: one argument is a line of shell, several are quoted as given
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RunnersArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RunnersCommand>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunnersCommand {
    /// Set a runner's labels or the name that people see, or give it no new work
    Set {
        /// Its name or id
        runner: String,
        /// A label beside its own; may be given several times, and replaces those set before
        #[arg(long, short, value_name = "LABEL")]
        label: Vec<String>,
        /// Take away the labels that were set
        #[arg(long, conflicts_with = "label")]
        no_labels: bool,
        /// What people see; empty for none
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Give it no new work
        #[arg(long, conflicts_with = "undrain")]
        drain: bool,
        /// Give it work again
        #[arg(long)]
        undrain: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Forget a runner: its credential, its connection and what waits for it
    Remove {
        /// Its name or id
        runner: String,
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TasksArgs {
    /// Show this task, with its results
    pub(crate) task: Option<String>,
    /// Cancel it
    #[arg(long, requires = "task")]
    pub(crate) cancel: bool,
    /// Only those of this runner, by name or id
    #[arg(long, short, value_name = "RUNNER")]
    pub(crate) runner: Option<String>,
    /// Only those in this state, such as running, failed or lost
    #[arg(long, short, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only those that this operation was asked of, such as bash or write
    #[arg(long, value_name = "OPERATION")]
    pub(crate) operation: Option<String>,
    /// Only those that are younger, such as 30m, 12h or 7d
    #[arg(long, value_name = "AGE", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, allow_negative_numbers = true)]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// The task
    pub(crate) task: String,
    /// Wait for more until the task is over
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ApprovalsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ApprovalsCommand>,
    #[command(flatten)]
    pub(crate) list: ApprovalsListArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApprovalsListArgs {
    /// Those that were decided as well
    #[arg(long)]
    pub(crate) all: bool,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// List what waits for a person's yes
    List(ApprovalsListArgs),
    /// Show one: what would run, where, who asks, and why
    Show {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Say yes
    Approve {
        /// Its id
        id: String,
        /// The digest that was shown, or its first 16 digits: a yes to anything else is refused
        #[arg(long, value_name = "HEX")]
        digest: Option<String>,
        /// What there is to say about it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// For so long the same line of the same asker on the same runner needs no further yes, such as 1h
        #[arg(long = "for", value_name = "TIME", conflicts_with = "edit")]
        for_time: Option<String>,
        /// This line instead, which is judged anew
        #[arg(long, value_name = "LINE")]
        edit: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Say no
    Deny {
        /// Its id
        id: String,
        /// What there is to say about it: who asked reads it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown this once
    Create {
        /// What it is for
        name: String,
        /// viewer, operator, approver, admin, runner, fleet or enroll
        #[arg(long)]
        role: String,
        /// Seconds that it is good for [default: until it is revoked]
        #[arg(long, value_name = "SECONDS")]
        expires: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke a token
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        hub: HubArgs,
    },
}

/// By what a line is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GateWord {
    /// By its text, and each exec of it by its real arguments
    Exec,
    /// By its text alone
    Reading,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Judge a line: exit 0 allow, 1 deny, 3 ask, 2 config error
    Check {
        /// Config file with the rules
        #[arg(long, short, value_name = "FILE", required_unless_present = "stdin_json")]
        config: Option<PathBuf>,
        /// Print the whole verdict as JSON
        #[arg(long)]
        json: bool,
        /// Read one JSON object a line, {"id","policy":[["PATTERN","allow"],…],"command"}
        #[arg(long, conflicts_with_all = ["config", "json"])]
        stdin_json: bool,
        /// Answer as where each exec is judged, or only the text [default: as on this machine]
        #[arg(long, value_name = "BY")]
        gate: Option<GateWord>,
        /// The line
        #[arg(last = true, value_name = "LINE", required_unless_present = "stdin_json")]
        line: Vec<String>,
    },
    /// Show what a line would run, part by part, each with its verdict
    Explain {
        /// Config file with the rules
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Answer as where each exec is judged, or only the text [default: as on this machine]
        #[arg(long, value_name = "BY")]
        gate: Option<GateWord>,
        /// The line
        #[arg(last = true, value_name = "LINE", required = true)]
        line: Vec<String>,
    },
    /// Find dead, dangerous and ineffective rules: exit 0 none, 1 some, 2 config error
    Lint {
        /// Config file with the rules
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
        /// Try known attacks against the rules instead, and print what passes; nothing is run
        #[arg(long)]
        attack: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Propose rules for what was asked for and denied
    Suggest {
        /// Config file with the rules there are
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Audit file [default: every audit file of this user's runners]
        #[arg(long, value_name = "FILE")]
        audit: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Propose rules for lines that ran elsewhere, with the share of them that would pass
    ///
    /// The file holds lines of shell (a history, a script), an audit, or a transcript of an agent: JSON, one object a
    /// line, in which every text named command or cmd counts.
    ///
    /// Example: legwork policy learn ~/.bash_history
    #[command(verbatim_doc_comment)]
    Learn {
        /// The file; - for standard input
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the presets, or print one as a config's lines
    Preset {
        /// Its name
        name: Option<String>,
    },
    /// Show what is known of programs that run others
    Tables,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check the chain of an audit file
    Verify {
        /// The file [default: every audit file of this user's runners]
        file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the config can be used: exit 0, or 2 with the place and the reason
    Check(ConfigArgs),
    /// Show every value with its source; secrets are masked
    Show(ConfigArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Config file [default: the one `legwork run` reads]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    /// Only say whether there is a newer version
    #[arg(long)]
    pub(crate) check: bool,
    /// This version instead of the newest
    #[arg(long, value_name = "V")]
    pub(crate) version: Option<String>,
    /// It may be older than this one
    #[arg(long, requires = "version")]
    pub(crate) allow_downgrade: bool,
    /// Config file [default: the one `legwork run` reads]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Make a key that signs releases
    Keygen {
        /// File for the secret key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write checksums.txt, manifest.json and its signature for a folder of archives
    Sign {
        /// File with the secret key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The release's version [default: this program's]
        #[arg(long, value_name = "V")]
        version: Option<String>,
        /// The folder with legwork_TARGET.tar.gz
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstallServiceArgs {
    /// The user that the runner runs as
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Config file
    #[arg(long, short, value_name = "FILE", default_value = "/etc/legwork/config.yaml")]
    pub(crate) config: PathBuf,
    /// Folder that tasks work in; the service may write there and to its state only [default: the
    /// config's workspace_root, else /var/lib/legwork/workspace]
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Where the unit goes
    #[arg(long, value_name = "FILE", default_value = "/etc/systemd/system/legwork.service")]
    pub(crate) unit: PathBuf,
    /// Print the unit and change nothing
    #[arg(long)]
    pub(crate) print: bool,
}
