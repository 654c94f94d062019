//! Everything that is asked over plain HTTP.

mod archives;
mod body;
mod files;
mod page;
mod preview;
pub(crate) mod reply;
mod routes;
mod storage;
mod uploads;

pub(crate) use routes::serve;
pub(crate) use uploads::Uploads;
