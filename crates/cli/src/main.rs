//! `legwork`: the one binary.

fn main() -> std::process::ExitCode {
    legwork_cli::main()
}
