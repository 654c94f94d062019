//! The subcommands.

mod audit;
mod doctor;
mod exec;
mod init;
mod lists;
mod policy;
mod serve;
mod token;
mod up;

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
        Command::Exec(args) => exec::run(args).await,
        Command::Runners(args) => lists::runners(args).await,
        Command::Tasks(args) => lists::tasks(args).await,
        Command::Logs(args) => exec::logs(args).await,
        Command::Token(command) => token::run(command).await,
        Command::Policy(command) => policy::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Doctor(args) => doctor::run(args),
        Command::Version => {
            println!("legwork {}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "legwork", &mut std::io::stdout());
            Ok(0)
        }
    }
}
