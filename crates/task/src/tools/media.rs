//! Pictures and documents, for a model that sees them.

use std::io::{Read, Seek};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The API's bounds: of a picture in base64, and of a request, of which a document may be a part.
const MAX_IMAGE: u64 = (5 << 20) / 4 * 3;
const MAX_DOCUMENT: u64 = 20 << 20;
/// Bytes that tell what a file is.
const HEAD: usize = 16;

/// What a file is, by its first bytes; `None` for text, and for what no model sees.
pub(super) fn kind(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ => None,
    }
}

/// A file as a block of the API, and a line about it; `None` if it is neither a picture nor a
/// document. The file is read on from its beginning then.
pub(super) fn block(mut file: impl Read + Seek, size: u64) -> Result<Option<(Value, String)>, String> {
    let failed = |e: std::io::Error| e.to_string();
    let mut head = Vec::new();
    (&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let Some(kind) = kind(&head) else { return Ok(None) };
    let is_image = kind.starts_with("image/");
    let most = if is_image { MAX_IMAGE } else { MAX_DOCUMENT };
    if size > most {
        return Err(format!("the file is {kind} of {size} bytes; at most {most} can be shown"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let source = json!({"type": "base64", "media_type": kind, "data": STANDARD.encode(&bytes)});
    let block = json!({"type": if is_image { "image" } else { "document" }, "source": source});
    Ok(Some((block, format!("{kind}, {} bytes", bytes.len()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_begins_with() {
        let png = b"\x89PNG\r\n\x1a\n rest";
        let (shown, line) = block(std::io::Cursor::new(png), 13).expect("read").expect("a picture");
        assert_eq!((&shown["type"], line.as_str()), (&json!("image"), "image/png, 13 bytes"));
        assert_eq!(shown["source"]["data"], "iVBORw0KGgogcmVzdA==");
        let pdf = block(std::io::Cursor::new(b"%PDF-1.7"), 8).expect("read").expect("a document");
        assert_eq!(pdf.0["type"], "document");
        for text in [&b"plain"[..], b"", b"PNG", b"GIF8", b"RIFF1234WAVE"] {
            assert_eq!(block(std::io::Cursor::new(text), 5), Ok(None));
        }
        assert!(block(std::io::Cursor::new(png), 9 << 20).is_err_and(|e| e.contains("at most")));
    }
}
