//! The subcommands.

mod approvals;
mod audit;
mod checkout;
mod config;
mod doctor;
mod exec;
mod follow;
mod init;
mod install_service;
mod lists;
mod mcp;
mod pod_events;
mod pods;
mod policy;
mod pool;
mod release;
mod secret;
mod serve;
mod ssh;
mod stdin;
mod steer;
pub(crate) mod task;
mod task_slips;
mod token;
mod up;
mod update;
mod workflow_import;
mod workspace;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Args, Command};

/// Carries out a command; returns the exit status.
pub(crate) async fn run(args: Args) -> Result<u8> {
    match args.command {
        Command::Up(args) => up::run(args).await,
        Command::Init(args) => init::run(args).await,
        Command::Hub(args) => serve::hub(args).await,
        Command::Run(args) => serve::runner(args).await,
        Command::Serve(args) => workspace::run(args).await,
        Command::Task(args) => task::run(args).await,
        Command::Pool(args) => pool::run(args).await,
        Command::Agent(args) => pods::agent(args).await,
        Command::Workflow(command) => pods::workflow(command).await,
        Command::Pods(command) => pods::run(command).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Ssh(args) => ssh::run(*args).await,
        Command::Runners(args) => lists::runners(args).await,
        Command::Tasks(args) => lists::tasks(args).await,
        Command::Logs(args) => exec::logs(args).await,
        Command::Secret(command) => secret::run(command).await,
        Command::Approvals(args) => approvals::run(args).await,
        Command::Mcp { hub } => mcp::run(&hub).await,
        Command::Token(command) => token::run(command).await,
        Command::Policy(command) => policy::run(command).await,
        Command::Audit(command) => audit::run(command),
        Command::Config(command) => config::run(command),
        Command::Update(args) => update::run(args).await,
        Command::Release(command) => release::run(command),
        Command::InstallService(args) => install_service::run(args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Version => {
            version();
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "legwork", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(0)
        }
    }
}

/// Under the original's name it answers in the original's form.
fn version() {
    let version = legwork_release::version();
    if crate::context::called_as_original() {
        println!("flashduty-runner {version}\n  Build Time: unknown\n  Git Commit: unknown");
    } else {
        println!("legwork {version}");
    }
}
