//! Commands that only the holder of a key may give (§9).

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use legwork_proto::micro::signed_text;
use sha2::{Digest, Sha256};

use crate::request::Request;

/// The bytes before the key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The bytes before the key in OpenSSH's form: two strings with their lengths.
const OPENSSH: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

/// Reads a public key: base64 or hex of its 32 bytes, PEM, or a line of OpenSSH's.
pub(crate) fn read_key(path: &Path) -> Result<VerifyingKey, String> {
    let text = std::fs::read_to_string(path).map_err(|error| crate::os::cause(&error))?;
    let bytes = key_bytes(&text).ok_or("no Ed25519 public key (base64, hex, PEM or OpenSSH)")?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| "the key is no point of the curve")?;
    if key.is_weak() { Err("the key is weak: anybody could sign for it".into()) } else { Ok(key) }
}

fn key_bytes(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let decoded = if let Some(body) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
        let body: String = body.split("-----").next()?.split_whitespace().collect();
        STANDARD.decode(body).ok()?.strip_prefix(SPKI)?.to_vec()
    } else if let Some(rest) = text.strip_prefix("ssh-ed25519 ") {
        STANDARD.decode(rest.split_whitespace().next()?).ok()?.strip_prefix(OPENSSH)?.to_vec()
    } else if text.len() == 64 {
        (0..32).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect::<Option<_>>()?
    } else {
        STANDARD.decode(text).ok()?
    };
    decoded.try_into().ok()
}

/// Whether a command is signed by the key's holder; if not, why.
pub(crate) fn check(key: &VerifyingKey, request: &Request) -> Result<(), &'static str> {
    let signature =
        request.signature.as_deref().filter(|text| !text.is_empty()).ok_or("signature required")?;
    let bytes = STANDARD.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let signature = Signature::from_bytes(&bytes.ok_or("bad signature")?);
    let digest = hex(&Sha256::digest(request.params.as_bytes()));
    let text = signed_text(&request.id, request.kind.name(), request.timeout, &digest);
    key.verify_strict(text.as_bytes(), &signature).map_err(|_| "bad signature")
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8032's first test, in the forms of base64, hex, openssl and ssh-keygen.
    #[test]
    fn a_key_is_read_in_each_form() {
        let hex_form = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&hex_form[2 * i..2 * i + 2], 16).unwrap()).collect();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode([SPKI, &bytes].concat())
        );
        let openssh = format!("ssh-ed25519 {} me@here\n", STANDARD.encode([OPENSSH, &bytes].concat()));
        for form in [hex_form, &STANDARD.encode(&bytes), &pem, &openssh] {
            assert_eq!(key_bytes(form).unwrap().to_vec(), bytes, "{form}");
        }
        for bad in ["", "ssh-rsa AAAA", "zz", "-----BEGIN PUBLIC KEY-----", &"g".repeat(64)] {
            assert_eq!(key_bytes(bad), None, "{bad}");
        }
    }
}
