//! Everything that is asked over plain HTTP.

pub(crate) mod reply;
mod routes;

pub(crate) use routes::serve;
