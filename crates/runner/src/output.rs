//! Large output: stored in a file of the workspace and replaced by a preview
//! (docs/protocols/dialout.md §10).

use std::io::{self, Read, Write};

use legwork_workspace::Root;

/// Content beyond this many bytes is stored.
pub const MAX_INLINE: u64 = 30_000;
/// Lines of a preview.
const PREVIEW_LINES: usize = 20;
/// Bytes of a preview.
const PREVIEW_BYTES: usize = 8_000;
/// What is kept of content that may not be replaced.
const MAX_EXEMPT: u64 = 10 << 20;

/// Content that may stand in a file instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Large {
    /// The content, or its preview.
    pub text: String,
    /// The text is a preview.
    pub truncated: bool,
    /// Where the whole is, relative to the root; `None` if it could not be saved.
    pub file_path: Option<String>,
    /// Bytes of the whole.
    pub total_size: u64,
}

/// Whether a command's own output is a look at stored output, and so is not stored
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Exempt {
    /// Looks at a command line as the protocol says.
    pub fn of_command(command: &str) -> Self {
        let reads = ["cat ", "head ", "tail ", "less ", "more ", "bat "];
        let stored = [".work/", ".work\\"];
        if reads.iter().any(|r| command.contains(r)) && stored.iter().any(|s| command.contains(s)) {
            Self::Yes
        } else {
            Self::No
        }
    }
}

/// Takes content in, storing and previewing it if it is large. `size` is its length.
pub fn store_large(
    root: &Root,
    prefix: &str,
    size: u64,
    mut content: impl Read,
    exempt: Exempt,
) -> io::Result<Large> {
    if size <= MAX_INLINE || exempt == Exempt::Yes {
        let mut bytes = Vec::new();
        content.take(MAX_EXEMPT).read_to_end(&mut bytes)?;
        let text =
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        return Ok(Large { text, truncated: false, file_path: None, total_size: size });
    }
    let path = new_path(prefix);
    let mut file = root.create(&path).ok();
    let mut preview = Preview::default();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let len = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        preview.take(&buffer[..len]);
        if let Some(open) = &mut file
            && open.write_all(&buffer[..len]).is_err()
        {
            file = None;
        }
    }
    let saved = file.is_some_and(|file| file.commit().is_ok());
    let file_path = saved.then_some(path);
    Ok(Large { text: preview.text(size, file_path.as_deref()), truncated: true, file_path, total_size: size })
}

fn new_path(prefix: &str) -> String {
    let id = base57(legwork_base::ids::unique() % 57u128.pow(8));
    format!(".work/outputs/{prefix}_{id}_{}.txt", legwork_base::clock::now().as_secs())
}

fn base57(mut number: u128) -> String {
    const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    (0..8)
        .map(|_| {
            let digit = usize::try_from(number % 57).unwrap_or(0);
            number /= 57;
            char::from(ALPHABET[digit])
        })
        .collect()
}

/// The first lines of content, and how many there are.
#[derive(Default)]
struct Preview {
    newlines: u64,
    head: Vec<u8>,
}

impl Preview {
    fn take(&mut self, bytes: &[u8]) {
        // One character more than is shown, so that a cut can be seen.
        let room = (PREVIEW_BYTES + 4).saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.newlines += bytes.iter().filter(|b| **b == b'\n').count() as u64;
    }

    fn text(&self, size: u64, file: Option<&str>) -> String {
        let lines = self.newlines + 1;
        let shown = lines.min(PREVIEW_LINES as u64);
        let head = String::from_utf8_lossy(&self.head);
        let mut preview = head.split('\n').take(PREVIEW_LINES).collect::<Vec<_>>().join("\n");
        if preview.len() > PREVIEW_BYTES {
            let cut = (0..=PREVIEW_BYTES).rev().find(|i| preview.is_char_boundary(*i)).unwrap_or(0);
            preview.truncate(cut);
            preview.push_str("\n... [preview truncated]");
        }
        let saved = match file {
            Some(file) => format!(" Full content saved to: {file}"),
            None => " Could not save full content.".into(),
        };
        let more = file.map_or_else(String::new, |file| {
            format!("\nTo read more: read(\"{file}\", offset={shown}, limit=100)\n")
        });
        format!(
            "<output_truncated>\nOutput too large ({size} chars, {lines} lines).{saved}\n\n\
             Preview (first {shown} lines):\n```\n{preview}\n```\n{more}</output_truncated>"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = Root::open(dir.path()).expect("root");
        (dir, root)
    }

    #[test]
    fn large_content_is_stored_and_previewed_as_the_protocol_says() {
        let (_dir, root) = root();
        let content: String = (1..=8000).map(|n| format!("{n}\n")).collect();
        let large =
            store_large(&root, "bash", content.len() as u64, content.as_bytes(), Exempt::No).expect("stored");
        let path = large.file_path.expect("saved");
        assert!(path.starts_with(".work/outputs/bash_"));
        let first: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
        assert_eq!(
            large.text,
            format!(
                "<output_truncated>\nOutput too large (38893 chars, 8001 lines). Full content saved to: {path}\n\n\
                 Preview (first 20 lines):\n```\n{}\n```\n\n\
                 To read more: read(\"{path}\", offset=20, limit=100)\n</output_truncated>",
                first.join("\n")
            )
        );
        assert_eq!(root.read(&path, 0, 0, 1 << 20).expect("read").data, content.as_bytes());
    }

    #[test]
    fn a_long_first_line_is_cut_on_a_character() {
        let (_dir, root) = root();
        let content = format!("x{}", "é".repeat(20_000));
        let large =
            store_large(&root, "p", content.len() as u64, content.as_bytes(), Exempt::No).expect("stored");
        assert!(large.text.contains("é\n... [preview truncated]\n```"));
    }

    #[test]
    fn what_fits_or_is_exempt_is_not_touched() {
        let (_dir, root) = root();
        let content = "y".repeat(30_001);
        let store = |text: &str, exempt| {
            store_large(&root, "p", text.len() as u64, text.as_bytes(), exempt).expect("stored")
        };
        assert_eq!(store(&content[..30_000], Exempt::No).text.len(), 30_000);
        assert!(store(&content, Exempt::No).truncated);
        assert!(!store(&content, Exempt::Yes).truncated);
        assert_eq!(Exempt::of_command("cat .work/outputs/x"), Exempt::Yes);
        assert_eq!(Exempt::of_command("cat x"), Exempt::No);
    }

    #[test]
    fn content_that_can_not_be_saved_says_so() {
        let (dir, root) = root();
        std::fs::write(dir.path().join(".work"), "in the way").expect("write");
        let content = "z\n".repeat(20_000);
        let large = store_large(&root, "p", 40_000, content.as_bytes(), Exempt::No).expect("previewed");
        assert_eq!(large.file_path, None);
        assert!(large.text.contains("(40000 chars, 20001 lines). Could not save full content.\n"));
        assert!(!large.text.contains("To read more"));
    }
}
