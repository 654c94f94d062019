//! A tree of files by its content: what it consists of is named by digests, so that only what the
//! other side has not got is sent, and a tree that has not changed costs nothing.
//!
//! Files are cut into pieces of a fixed size. A manifest lists files, links and the digests of their
//! pieces; packed it is a piece like others, and its digest names the whole tree. Folders that hold
//! nothing are left out, as git leaves them out.

mod cache;
mod manifest;
mod plant;
mod take;

use std::fmt;

pub use cache::StatCache;
pub use manifest::{Manifest, ManifestError};
pub use plant::PlantError;
pub use take::Taken;

/// The size of a piece; the last one of a file is shorter.
pub const PIECE: usize = 4 << 20;
/// Most files and links of a tree.
pub const MAX_ENTRIES: usize = 500_000;
/// Most bytes of a packed manifest, and of one that is unpacked.
pub const MAX_MANIFEST: usize = 32 << 20;
const MAX_UNPACKED: u64 = 512 << 20;

/// The SHA-256 of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        Self(digest)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        (Self(digest).to_string() == text).then_some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{Bounds, Root};

    fn tree(dir: &Path) -> Vec<PathBuf> {
        let write = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
            std::fs::write(path, content).expect("write");
        };
        write("a", b"hello");
        write("deep/er/b", b"hello");
        write("empty", b"");
        write("large", &vec![7u8; PIECE + 3]);
        write("odd\n\"name", b"x");
        std::fs::set_permissions(dir.join("a"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        std::os::unix::fs::symlink("deep/er/b", dir.join("link")).expect("link");
        std::os::unix::fs::symlink("/etc/passwd", dir.join("out")).expect("link");
        ["a", "deep/er/b", "empty", "large", "odd\n\"name", "link", "out", "gone"].map(PathBuf::from).to_vec()
    }

    fn store(root: &Root, taken: &Taken) -> HashMap<Digest, Vec<u8>> {
        let mut pieces = HashMap::from([(taken.digest, taken.packed.clone())]);
        for digest in taken.pieces() {
            let bytes = taken.read(root, digest).expect("read").expect("as it was");
            assert_eq!(Digest::of(&bytes), digest);
            pieces.insert(digest, bytes);
        }
        pieces
    }

    #[test]
    fn a_tree_is_the_same_elsewhere_and_only_what_changed_is_new() {
        let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let files = tree(from.path());
        let root = Root::open(from.path()).expect("root");
        let mut cache = StatCache::default();
        let taken = root.take_tree(&files, &mut cache).expect("taken");
        assert_eq!((taken.files, taken.links, taken.left_out), (5, 1, 1), "what leads out is left out");
        let pieces = store(&root, &taken);
        // The two files of the same content, and the two whole pieces of nothing new, are one each.
        assert_eq!(pieces.len(), 1 + 5 - 1);
        let there = Root::open(to.path()).expect("root");
        let manifest = Manifest::unpack(&taken.packed).expect("manifest");
        let planted = there
            .plant(&manifest, Bounds::default(), |asked| {
                Ok(asked.iter().map(|d| pieces[d].clone()).collect())
            })
            .expect("planted");
        assert_eq!(planted.entries, 6);
        for name in ["a", "deep/er/b", "empty", "large", "odd\n\"name"] {
            let (one, other) = (from.path().join(name), to.path().join(name));
            assert_eq!(std::fs::read(&one).expect("one"), std::fs::read(&other).expect("other"), "{name}");
            let mode = |path: &Path| path.metadata().expect("meta").mode() & 0o111;
            assert_eq!(mode(&one), mode(&other), "{name}");
        }
        assert_eq!(std::fs::read_link(to.path().join("link")).expect("link"), Path::new("deep/er/b"));
        // The copy has the same name.
        let again = there.take_tree(&files, &mut StatCache::default()).expect("taken");
        assert_eq!(again.digest, taken.digest);
        // A change is one new piece, and the manifest.
        std::fs::write(from.path().join("a"), "other").expect("write");
        let changed = root.take_tree(&files, &mut cache).expect("taken");
        let new: Vec<Digest> = changed.pieces().filter(|d| !pieces.contains_key(d)).collect();
        assert_eq!(new, [Digest::of(b"other")]);
        assert_ne!(changed.digest, taken.digest);
    }

    #[test]
    fn what_has_not_changed_is_not_read_and_what_has_is() {
        let dir = tempfile::tempdir().expect("dir");
        let files = tree(dir.path());
        let root = Root::open(dir.path()).expect("root");
        // Written long enough ago that no further change can have the same time.
        let mut cache = StatCache::default().trusting_all();
        let first = root.take_tree(&files, &mut cache).expect("taken");
        assert!(first.hashed > 0);
        let kept = dir.path().join("cache");
        cache.save(&kept).expect("saved");
        let mut cache = StatCache::load(&kept).trusting_all();
        let second = root.take_tree(&files, &mut cache).expect("taken");
        // But for the name of two lines, which is not kept.
        assert_eq!((second.hashed, second.digest), (1, first.digest));
        // The same size and time of change, as who unpacks archives sets it.
        let path = dir.path().join("a");
        let before = path.metadata().expect("meta").modified().expect("time");
        std::fs::write(&path, "HELLO").expect("write");
        std::fs::File::options().write(true).open(&path).expect("open").set_modified(before).expect("time");
        let third = root.take_tree(&files, &mut cache).expect("taken");
        assert_eq!(third.hashed, 5);
        assert_ne!(third.digest, first.digest);
        // A cache that is damaged, or of another kind, is none.
        std::fs::write(&kept, b"legwork-stat 1\ngarbage\n\xFF").expect("write");
        assert_eq!(root.take_tree(&files, &mut StatCache::load(&kept)).expect("taken").digest, third.digest);
    }

    #[test]
    fn a_file_that_was_written_just_now_is_read_again() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("a"), "one").expect("write");
        let root = Root::open(dir.path()).expect("root");
        let mut cache = StatCache::default();
        let files = [PathBuf::from("a")];
        assert_eq!(root.take_tree(&files, &mut cache).expect("taken").hashed, 3);
        assert_eq!(root.take_tree(&files, &mut cache).expect("taken").hashed, 3);
    }

    #[test]
    fn a_hostile_manifest_plants_nothing_outside() {
        let piece = Digest::of(b"x");
        for (text, problem) in [
            (format!("F 644 1 {piece} ../x\n"), "leads out"),
            (format!("F 644 1 {piece} /x\n"), "leads out"),
            (format!("F 644 1 {piece} a/../../x\n"), "leads out"),
            ("F 644 1 - a\n".to_owned(), "pieces"),
            (format!("F 644 99999999999 {piece} a\n"), "pieces"),
            ("L ../../etc a/l\n".to_owned(), "leads out"),
            ("L /etc l\n".to_owned(), "leads out"),
            (format!("F 644 1 {piece} a\nF 644 1 {piece} a\n"), "twice"),
            ("X\n".to_owned(), "line 2"),
            (format!("F 4755 1 {piece} a\n"), "mode"),
        ] {
            let packed = Manifest::pack_text(&format!("legwork-tree 1\n{text}")).expect("packed");
            let read = Manifest::unpack(&packed);
            assert!(read.as_ref().is_err_and(|e| e.to_string().contains(problem)), "{text}: {read:?}");
        }
        assert!(Manifest::unpack(b"garbage").is_err());
        // A link that is planted leads nobody's file elsewhere.
        let dir = tempfile::tempdir().expect("dir");
        let root = Root::open(dir.path()).expect("root");
        std::fs::create_dir(dir.path().join("d")).expect("dir");
        std::os::unix::fs::symlink("/tmp", dir.path().join("s")).expect("link");
        let packed = Manifest::pack_text(&format!("legwork-tree 1\nF 644 1 {piece} s/x\n")).expect("packed");
        let manifest = Manifest::unpack(&packed).expect("manifest");
        assert!(root.plant(&manifest, Bounds::default(), |_| Ok(vec![b"x".to_vec()])).is_err());
        // Pieces that are not what they are called, or too few.
        let packed = Manifest::pack_text(&format!("legwork-tree 1\nF 644 1 {piece} y\n")).expect("packed");
        let manifest = Manifest::unpack(&packed).expect("manifest");
        for answer in [vec![b"z".to_vec()], vec![], vec![b"xx".to_vec()]] {
            assert!(root.plant(&manifest, Bounds::default(), |_| Ok(answer.clone())).is_err());
        }
        assert!(!dir.path().join("y").exists());
    }
}
