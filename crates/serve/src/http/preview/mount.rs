//! Where an application appears.

/// How an application is reached.
#[derive(Debug)]
pub(crate) enum Mount<'a> {
    /// What its paths have in front here.
    Path(&'a str),
    /// Its own host, as it was asked for.
    Host(&'a str),
}
