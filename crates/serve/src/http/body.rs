//! Bodies that are streamed between blocking files and connections.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

/// How much is read or written at once.
pub(crate) const PIECE: usize = 256 * 1024;
/// How many pieces are under way.
const UNDER_WAY: usize = 4;

/// A part of a file as a body: read off the async threads, no faster than it is taken.
pub(crate) fn of_file(file: File, from: u64, len: u64) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(UNDER_WAY);
    tokio::task::spawn_blocking(move || {
        let (mut at, mut left) = (from, len);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let mut buffer = vec![0u8; want];
            let piece = match file.read_at(&mut buffer, at) {
                // It was cut meanwhile: the connection must not look complete.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    buffer.truncate(len);
                    at += len as u64;
                    left -= len as u64;
                    Ok(Bytes::from(buffer))
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Body::from_stream(stream(receiver))
}

/// What a blocking writer writes, as a body.
pub(crate) fn of_writer(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(UNDER_WAY);
    tokio::task::spawn_blocking(move || {
        let mut sink = io::BufWriter::with_capacity(PIECE, Sink(sender.clone()));
        let result = write(&mut sink).and_then(|()| sink.flush());
        if let Err(error) = result {
            let _ = sender.blocking_send(Err(error));
        }
    });
    Body::from_stream(stream(receiver))
}

struct Sink(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(data))).map_err(gone)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}

/// How long a body is, as its headers tell.
pub(crate) fn told(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Writes all that can be read; returns how much that was.
pub(crate) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0u8; PIECE];
    let mut size = 0u64;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(size),
            len => {
                to.write_all(&buffer[..len])?;
                size += len as u64;
            }
        }
    }
}

/// Why a body was not taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke.
    Cut,
    /// It could not be written.
    Write(io::Error),
}

/// Gives a body's pieces to a blocking writer. Returns the writer's result, and how the
/// body ended.
pub(crate) async fn take<T: Send + 'static>(
    body: Body,
    most: u64,
    write: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
) -> Result<T, TakeError> {
    let (sender, receiver) = mpsc::channel::<Bytes>(UNDER_WAY);
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = broken.clone();
    let writing = tokio::task::spawn_blocking(move || {
        write(&mut Pieces { receiver, current: Bytes::new(), broken: seen })
    });
    let mut stream = body.into_data_stream();
    let mut total = 0u64;
    let mut failed = None;
    while let Some(piece) = stream.next().await {
        let Ok(piece) = piece else {
            failed = Some(TakeError::Cut);
            break;
        };
        total += piece.len() as u64;
        if total > most {
            failed = Some(TakeError::TooLarge);
            break;
        }
        if sender.send(piece).await.is_err() {
            break; // the writer says why
        }
    }
    if failed.is_some() {
        broken.store(true, std::sync::atomic::Ordering::Release);
    }
    drop(sender);
    let written = writing.await.unwrap_or_else(|_| Err(io::Error::other("internal error")));
    match failed {
        Some(error) => Err(error),
        None => written.map_err(TakeError::Write),
    }
}

/// The pieces of a body, as a reader.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None if self.broken.load(std::sync::atomic::Ordering::Acquire) => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => return Ok(0),
            }
        }
        let len = self.current.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.current.split_to(len));
        Ok(len)
    }
}
