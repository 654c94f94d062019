//! Our standard input on its way to a command on a host, as ssh has it.

use std::io::Read;

use legwork_remote::{Client, Error};
use tokio::sync::{Mutex, mpsc, watch};

/// Read at once; in base64 it is a line of 64 KiB.
const CHUNK: usize = 48 * 1024;
/// Pieces that wait for the host.
const AHEAD: usize = 4;

/// Standard input, read as it comes by a thread of its own: the read can't be broken off, and
/// ends with the program.
pub(crate) struct Input(Mutex<mpsc::Receiver<Vec<u8>>>);

impl Input {
    /// Opens it; `None` if there is none to give: a terminal that is another program's.
    pub(crate) fn open() -> Option<Self> {
        let terminal = rustix::termios::isatty(std::io::stdin());
        let ours =
            rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|pid| pid == rustix::process::getpgrp());
        if terminal && !ours {
            return None;
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let read = move || {
            let mut chunk = vec![0u8; CHUNK];
            while let Ok(n @ 1..) = std::io::stdin().lock().read(&mut chunk) {
                if sender.blocking_send(chunk[..n].to_vec()).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("stdin".into()).spawn(read).ok()?;
        Some(Self(Mutex::new(receiver)))
    }

    /// Sends it to a command, to its end or till the command has ended. What is on its way
    /// then is sent whole.
    pub(crate) async fn give(
        &self,
        client: &Client,
        id: &str,
        mut over: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut pieces = self.0.lock().await;
        loop {
            let piece = tokio::select! {
                _ = over.wait_for(|over| *over) => return Ok(()),
                piece = pieces.recv() => piece,
            };
            let end = piece.is_none();
            client.feed(id, &piece.unwrap_or_default(), end).await?;
            if end {
                return Ok(());
            }
        }
    }
}
