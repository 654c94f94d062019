//! The one binary, as a library: so that it can be built under another version, too.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the crate that talks to people")]

#[macro_use]
mod output;

mod args;
mod client;
mod commands;
mod context;
mod exit;
mod health;
mod logging;
mod reload;
mod update;

use std::process::ExitCode;

use clap::Parser;

/// The whole program.
pub fn main() -> ExitCode {
    // First of all: the helper must start no thread and open nothing.
    if std::env::args_os().nth(1).is_some_and(|a| a == legwork_process::HELPER_ARG) {
        legwork_process::helper_main();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == update::TRIAL_ARG) {
        eprintln!("Error: {:#}", update::run_trial(std::env::args_os().skip(2)));
        return ExitCode::from(exit::ERROR);
    }
    // A pod's program is said by its environment. It is started for every task, and the whole
    // command line would be most of what it costs.
    if std::env::args_os().skip(1).eq(["task"]) {
        return run(tokio::runtime::Builder::new_current_thread(), commands::task::pod());
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let builder = match args.command {
        // A keystroke goes through several tasks: on one thread none has to be woken.
        args::Command::Serve(_) | args::Command::Task(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    run(builder, commands::run(args))
}

/// Says what is wrong with the command line, or what was asked for (`--help`).
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    // Where a remote command's status is passed on, ours must be none of those.
    let passes_on = std::env::args_os().nth(1).is_some_and(|name| name == "exec");
    ExitCode::from(if passes_on { exit::OWN } else { exit::USAGE })
}

fn run(mut builder: tokio::runtime::Builder, work: impl Future<Output = anyhow::Result<u8>>) -> ExitCode {
    // TLS is used from several crates: they share one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = builder.worker_threads(workers()).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: failed to start: {error}");
            return ExitCode::from(exit::ERROR);
        }
    };
    let result = runtime.block_on(work);
    // Whatever still blocks (a read from a terminal, say) must not keep us.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {}", legwork_base::cause::chain(&*error));
            ExitCode::from(exit::ERROR)
        }
    }
}

/// More threads than processors only cost memory.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 8))
}
