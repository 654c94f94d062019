//! Ed25519 keys, as base64 of their 32 bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::Error;

/// Signs nothing but manifests: a signature made for something else is none for one.
const CONTEXT: &[u8] = b"legwork release manifest v1\n";

fn bytes_of(text: &str) -> Result<[u8; 32], Error> {
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::new("a key is 32 bytes in base64, as `legwork release keygen` prints it"))
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

/// The half that everybody may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let key = VerifyingKey::from_bytes(&bytes_of(text)?)
            .map_err(|_| Error::new("the key is no point of the curve: it is damaged"))?;
        if key.is_weak() {
            return Err(Error::new("the key is weak: anybody could sign for it"));
        }
        Ok(Self(key))
    }

    /// Checks a manifest's signature, in base64.
    pub fn verify(&self, manifest: &[u8], signature: &str) -> Result<(), Error> {
        let bytes: Option<[u8; 64]> =
            STANDARD.decode(signature.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = Signature::from_bytes(
            &bytes.ok_or_else(|| Error::new("the signature is not 64 bytes in base64"))?,
        );
        self.0.verify_strict(&message(manifest), &signature).map_err(|_| {
            Error::new("the manifest's signature does not fit the configured key: it is not used")
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

/// The half that signs.
pub struct SecretKey(SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl SecretKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|e| Error::new(format!("no randomness: {e}")))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(SigningKey::from_bytes(&bytes_of(text)?)))
    }

    /// The key in the form that [`SecretKey::parse`] reads: for a file, never for a log.
    pub fn expose(&self) -> String {
        STANDARD.encode(self.0.to_bytes())
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a manifest.
    pub fn sign(&self, manifest: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&message(manifest)).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_over_the_right_text_verifies() {
        let key = SecretKey::generate().expect("key");
        let again = SecretKey::parse(&key.expose()).expect("key");
        let signature = again.sign(b"manifest");
        let public = PublicKey::parse(&key.public().to_string()).expect("key");
        assert!(public.verify(b"manifest", &format!("{signature}\n")).is_ok());
        assert!(public.verify(b"manifesT", &signature).is_err());
        assert!(public.verify(b"manifest", "AAAA").is_err());
        let other = SecretKey::generate().expect("key");
        assert!(public.verify(b"manifest", &other.sign(b"manifest")).is_err());
        // Signed by the right key, but not as a manifest.
        let raw = STANDARD.encode(key.0.sign(b"manifest").to_bytes());
        assert!(public.verify(b"manifest", &raw).is_err());
        assert!(!format!("{key:?}").contains(&key.expose()));
    }

    #[test]
    fn bad_keys_are_refused() {
        for text in ["", "AAAA", "not base64", &STANDARD.encode([0u8; 32]), &STANDARD.encode([1u8; 31])] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }
}
