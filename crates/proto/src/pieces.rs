//! Pieces of trees of files on their way: several in one body, each with its SHA-256, its length as
//! four bytes, big-endian, and itself.

/// The largest body of pieces.
pub const MAX_BODY: usize = 40 << 20;
/// A body is sent when it has so many bytes.
pub const FULL: usize = 8 << 20;
/// Most digests of a question.
pub const MAX_ASKED: usize = 4096;
const HEAD: usize = 36;

/// Adds a piece to a body.
pub fn put(body: &mut Vec<u8>, digest: &[u8; 32], piece: &[u8]) {
    body.extend_from_slice(digest);
    body.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(piece);
}

/// The pieces of a body, in order.
#[derive(Debug, Clone)]
pub struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    /// Those of a body.
    pub fn of(body: &'a [u8]) -> Self {
        Self(body)
    }
}

/// A body that ends within a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<([u8; 32], &'a [u8]), Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let piece = (|| {
            let (head, rest) = (self.0.get(..HEAD)?, self.0.get(HEAD..)?);
            let (digest, len) = head.split_at(32);
            let len = u32::from_be_bytes(len.try_into().ok()?) as usize;
            let piece = rest.get(..len)?;
            self.0 = &rest[len..];
            Some((digest.try_into().ok()?, piece))
        })();
        if piece.is_none() {
            self.0 = &[];
        }
        Some(piece.ok_or(Cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_went() {
        let mut body = Vec::new();
        for (n, piece) in [&b"one"[..], b"", b"three"].into_iter().enumerate() {
            put(&mut body, &[n as u8; 32], piece);
        }
        let back: Vec<_> = Pieces::of(&body).map(|piece| piece.expect("whole")).collect();
        assert_eq!(back, [([0; 32], &b"one"[..]), ([1; 32], b""), ([2; 32], b"three")]);
        for len in 1..body.len() {
            let whole = [39, 75].contains(&len);
            assert_eq!(Pieces::of(&body[..len]).any(|piece| piece == Err(Cut)), !whole, "{len}");
        }
    }
}
