//! What the servers of this program share, on their side of HTTP. They know each other no
//! further: what is asked and answered is theirs.

pub mod pages;
