//! The replayed Messages API as a program, for clients in other languages. Prints its address
//! and the names of its scenarios; `ADDRESS/scenario/NAME` is a base address.
#![allow(clippy::print_stdout, reason = "a program of the tests")]

use legwork_e2e::model::{Answer, Model, SCENARIOS};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let model = Model::start([Answer::new().text(&["Hello."]).scene()]).await;
    println!("{} {}", model.url, SCENARIOS.join(","));
    std::future::pending::<()>().await;
}
