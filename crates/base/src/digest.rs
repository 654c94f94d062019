//! Digests as text.

use std::fmt::Write;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Bytes in lower-case hex.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The SHA-256 of some bytes, in lower-case hex.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// How long a stream is, and its SHA-256 in lower-case hex.
pub fn of_stream(mut stream: impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(hash.finalize()))),
            Ok(len) => {
                hash.update(&buffer[..len]);
                size += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A short name for something long, a path or an address: the first 16 digits of its SHA-256.
/// Nobody meets another one by accident, and whoever seeks one on purpose has 2^64 to try.
pub fn name(bytes: impl AsRef<[u8]>) -> String {
    let mut text = sha256(bytes);
    text.truncate(16);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum() {
        let whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256("abc"), whole);
        assert_eq!(name("abc"), &whole[..16]);
        assert_eq!(hex([0, 10, 255]), "000aff");
        assert_eq!(of_stream(&b"abc"[..]).expect("read"), (3, whole.to_owned()));
    }
}
