//! Everything that is asked over plain HTTP.

mod archives;
mod body;
mod files;
mod git;
mod page;
mod preview;
pub(crate) mod reply;
mod routes;
mod site;
mod storage;
mod terminals;
mod uploads;

pub(crate) use routes::serve;
pub(crate) use site::Site;

/// Reads a page of an application, for the fuzzer.
pub(crate) fn fuzz_page(data: &[u8]) {
    preview::rewrite::fuzz(data);
}

/// Reads what stands in headers and paths, for the fuzzer.
pub(crate) fn fuzz(text: &str) {
    files::fuzz(text);
    if let Some(path) = routes::percent_decode(text) {
        let _ = files::disposition(&path);
    }
}
