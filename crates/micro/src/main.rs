//! `legwork-micro`: the whole program is in the library, so that tests and fuzzers reach it.

fn main() -> std::process::ExitCode {
    legwork_micro::main()
}
