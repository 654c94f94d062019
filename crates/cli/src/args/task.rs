//! The arguments of `legwork task`, `pool`, `agent`, `workflow` and `pods`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::HubArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a command it is the program of a pod: MODE, TASK_ID, CALLBACK_URL, TASK_CONFIG, REGISTER_URL \
                  and the other variables of docs/task.md say what to do."
)]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    pub(crate) command: Option<TaskCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Run an agent or a workflow here and watch it
    #[command(after_help = "Exit status: 0 success, 1 failure, 2 the file can't be used, 130 interrupted.")]
    Run {
        /// Task JSON, or a workflow in YAML; - for stdin
        file: PathBuf,
        /// The folder it works in [env: WORKSPACE] [default: .]
        #[arg(long, short = 'C', value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// Print events as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Check a file and say all that is wrong with it: exit 0 nothing, 2 something
    Lint {
        /// Task JSON, or a workflow in YAML; - for stdin
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each process takes one task, in a workspace and behind walls of its own, and is replaced by a fresh \
                  one. ANTHROPIC_API_KEY and the other variables of docs/task.md are passed on."
)]
pub(crate) struct PoolArgs {
    /// Processes that are kept ready
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) size: u32,
    /// Where they register; holds a key, so prefer the variable [env: REGISTER_URL] [default: asked of the hub]
    #[arg(long, value_name = "URL")]
    pub(crate) register_url: Option<String>,
    /// The wall around each process
    #[arg(long, value_enum, default_value_t = PoolSandbox::Auto)]
    pub(crate) sandbox: PoolSandbox,
    /// Where the processes keep their workspaces [default: a folder of the user's state]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Beginning of their names [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolSandbox {
    /// The strongest that this machine has and that leaves tasks their network
    Auto,
    Off,
    Landlock,
    Gvisor,
}

/// Where a task for pods is run, and how it is watched.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PodArgs {
    /// On this task runner, by its name
    #[arg(long, value_name = "POD", conflicts_with = "pool")]
    pub(crate) runner: Option<String>,
    /// On any task runner; the default
    #[arg(long)]
    pub(crate) pool: bool,
    /// Print events as JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the task's id and do not wait
    #[arg(long)]
    pub(crate) detach: bool,
    /// Apply the changes to the checkout when they come back
    #[arg(long, conflicts_with_all = ["detach", "no_source"])]
    pub(crate) apply: bool,
    /// Do not send the checkout along
    #[arg(long)]
    pub(crate) no_source: bool,
    /// Go on with this session, or begin one of this name: its next task knows what was said
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "In a git checkout the tree goes along as it is, changes that are not committed included, and the agent's \
                  changes come back as a diff:\n\n    legwork agent \"fix the failing test\" --apply\n\nWith --local no hub is \
                  needed, only ANTHROPIC_API_KEY: the agent works here, in a copy, behind walls.\n\nExit status: 0 success, \
                  1 failure, 125 lost or not run, 130 interrupted."
)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SteerCommand>,
    /// What it is to do
    #[arg(required = true)]
    pub(crate) prompt: Option<String>,
    /// The model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Tools it may use, comma-separated; `legwork` stands for those that a checkout needs
    #[arg(long, value_delimiter = ',', default_value = "legwork")]
    pub(crate) tools: Vec<String>,
    /// Calls of the model, at most
    #[arg(long, default_value_t = 100)]
    pub(crate) max_turns: u32,
    /// Here, in a copy of the checkout and behind walls, without a hub
    #[arg(long, conflicts_with_all = ["runner", "pool", "detach"])]
    pub(crate) local: bool,
    /// What the model is told beforehand
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Begin with what was said in this session, and leave that as it is; --session names the new one
    #[arg(long, value_name = "ID", requires = "session")]
    pub(crate) fork: Option<String>,
    /// Ask a person before these tools are called, comma-separated; `mcp__*` stands for all of that beginning
    #[arg(long, value_delimiter = ',', value_name = "TOOLS", conflicts_with = "local")]
    pub(crate) ask: Vec<String>,
    #[command(flatten)]
    pub(crate) pod: PodArgs,
}

/// To an agent that is at work for a hub.
#[derive(Debug, Subcommand)]
pub(crate) enum SteerCommand {
    /// Say something to an agent at work; it hears it before it asks the model again
    Send {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        /// What to say
        text: String,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Let it make a call that it asked about
    Allow {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        /// The call, as the question names it
        call: String,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Keep it from a call that it asked about
    Deny {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        /// The call, as the question names it
        call: String,
        /// Why; the model is told
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// End it
    Stop {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        #[command(flatten)]
        hub: HubArgs,
    },
}

/// Secrets that a hub keeps for tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a secret, which is read from standard input or a file
    #[command(
        after_help = "A task asks for it by its name: \"secrets\": [\"NPM_TOKEN\"]. What is not bounded is open to all:\n\n    \
                      legwork secret set NPM_TOKEN --task workflow --runner 'build-*' < token"
    )]
    Set {
        /// Its name
        name: String,
        /// The file that holds it [default: standard input]
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only for tasks that this token submits, by its name; may be given several times
        #[arg(long, value_name = "NAME")]
        token: Vec<String>,
        /// Only for tasks of this kind: agent, workflow
        #[arg(long, value_name = "KIND")]
        task: Vec<String>,
        /// Only on this task runner; a name that ends in * stands for all that begin so
        #[arg(long, value_name = "POD")]
        runner: Vec<String>,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// List secrets, without themselves
    Ls(super::ListArgs),
    /// Remove a secret
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Run a workflow on a task runner and watch it
    #[command(
        after_help = "Exit status: 0 success, 1 failure, 2 the file can't be used, 125 lost or not run, 130 interrupted."
    )]
    Run {
        /// A workflow in YAML, or task JSON; - for stdin
        file: PathBuf,
        #[command(flatten)]
        pod: PodArgs,
    },
    /// Say of each workflow of a repository what runs here, what differs, and what is refused
    Import {
        /// A repository, a folder of workflows, or one of them
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The number of a task of pods. By its id it goes like any other task.
fn number(text: &str) -> Result<u32, String> {
    let is_id = text.starts_with("tsk_") || text.starts_with("pod-");
    text.parse().map_err(|_| match is_id {
        true => {
            format!("here it goes by its number; by its id: `legwork tasks {text}`, `legwork logs {text}`")
        }
        false => "must be the number of a task: `legwork pods tasks` lists them".to_owned(),
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum PodsCommand {
    /// List task runners
    Runners(super::ListArgs),
    /// List tasks of pods, or show one
    Tasks {
        /// Show this task
        #[arg(value_parser = number)]
        task: Option<u32>,
        /// Cancel it
        #[arg(long, requires = "task")]
        cancel: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Show a task's events again
    Logs {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        /// Print events as JSON lines
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Write what a task has brought back into a folder: its diff, its archive, its artifacts
    Result {
        /// The task
        #[arg(value_parser = number)]
        task: u32,
        /// The folder
        #[arg(long, short, default_value = ".", value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Print the address at which task runners register; it holds a key
    Url {
        #[command(flatten)]
        hub: HubArgs,
    },
}
