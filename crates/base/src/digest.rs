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

/// HMAC-SHA-256 of some bytes under a key, in lower-case hex: nobody makes it who lacks the key.
pub fn seal(key: &[u8; 32], bytes: impl AsRef<[u8]>) -> String {
    const BLOCK: usize = 64;
    let padded =
        |pad: u8| -> Vec<u8> { (0..BLOCK).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect() };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(bytes).finalize();
    hex(Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize())
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub fn same(one: &str, other: &str) -> bool {
    let differ = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differ) == 0
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
        // RFC 4231, test case 1, whose key is shorter: zeros behind it change nothing.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        assert_eq!(
            seal(&key, "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "abcd"));
        assert_eq!(of_stream(&b"abc"[..]).expect("read"), (3, whole.to_owned()));
    }
}
