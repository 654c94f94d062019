//! Stands for a program that a machine lacks: says its name and its words, and ends well. What
//! it was called with is seen by the tracer.
#![allow(clippy::print_stdout, reason = "its only job")]

fn main() {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned()).collect();
    println!("{}", words.join(" "));
}
