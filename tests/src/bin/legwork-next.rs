//! The same program as the next version, for the tests of updates.

fn main() -> std::process::ExitCode {
    legwork_release::set_version("99.0.0");
    legwork_cli::main()
}
