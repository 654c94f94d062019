//! Drives micro-runners: puts the binary on a host, starts it, gives it typed commands, and
//! leaves nothing behind (docs/remote.md, docs/protocols/micro.md).
//!
//! ```no_run
//! # async fn example() -> Result<(), legwork_remote::Error> {
//! use std::time::Duration;
//! use legwork_remote::{Binaries, Call, Client, Exec, Ssh};
//!
//! let binaries = Binaries::from_dir("dist")?;
//! let host = Ssh::new("web1")?;
//! let client = Client::start(&host, &binaries, Default::default()).await?;
//! let uptime = Exec { command: "uptime".into(), capture_out: true, ..Default::default() };
//! let result = client.run(&uptime, Call::within(Duration::from_secs(30))).await?;
//! println!("{}", result.stdout.unwrap_or_default());
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Commands of one client run one after the other on the host; several may be sent ahead
//! ([`Client::send`]). Many hosts at once: [`Pool`].

mod binaries;
mod client;
mod command;
mod error;
mod pool;
mod transport;

pub use binaries::{Binaries, Packed};
pub use client::{Client, Options, Pending, Signer};
pub use command::{
    Call, Command, Exec, FileRead, FileWrite, PkgEnsure, ServiceReload, SshdHarden, SudoersEnsure, Whom,
};
pub use error::Error;
pub use legwork_proto::micro::params::Secret;
pub use legwork_proto::micro::{CommandType, Event, Ready, result};
pub use pool::{Outcome, Pool};
pub use transport::command::Template;
pub use transport::local::Local;
pub use transport::ssh::{Login, Ssh};
pub use transport::{Link, Starting, Transport};
