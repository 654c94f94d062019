//! The helper alone, for this crate's own tests.
fn main() {
    legwork_process::helper_main();
}
