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
pub(crate) struct AgentArgs {
    /// What it is to do
    pub(crate) prompt: String,
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
    #[command(flatten)]
    pub(crate) pod: PodArgs,
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
}

#[derive(Debug, Subcommand)]
pub(crate) enum PodsCommand {
    /// List task runners
    Runners(super::ListArgs),
    /// List tasks of pods, or show one
    Tasks {
        /// Show this task
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
        task: u32,
        /// Print events as JSON lines
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Print the address at which task runners register; it holds a key
    Url {
        #[command(flatten)]
        hub: HubArgs,
    },
}
