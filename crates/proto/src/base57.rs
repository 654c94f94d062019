//! Short ids: a UUID's 128 bits in an alphabet without look-alikes
//! (docs/protocols/dialout.md §2).

const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Writes a number in base 57 with at least `width` digits.
pub fn encode(mut number: u128, width: usize) -> String {
    let mut digits = Vec::with_capacity(width);
    while number > 0 || digits.len() < width {
        let digit = usize::try_from(number % 57).unwrap_or(0);
        digits.push(char::from(ALPHABET[digit]));
        number /= 57;
    }
    digits.into_iter().rev().collect()
}

/// A message id for 128 random bits: `msg_` and 22 characters.
pub fn message_id(random: u128) -> String {
    format!("msg_{}", encode(random, 22))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_protocols_shape() {
        for random in [0, 1, 56, 57, u128::MAX, 0x1234_5678_9abc_def0] {
            let id = message_id(random);
            assert_eq!(id.len(), 26, "{id}");
            assert!(id[4..].bytes().all(|b| ALPHABET.contains(&b)), "{id}");
        }
        assert_eq!(encode(57, 1), "32");
    }
}
