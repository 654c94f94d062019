use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct World {
    dir: tempfile::TempDir,
    root: Root,
}

fn world() -> World {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = Root::open(dir.path()).expect("root");
    World { dir, root }
}

impl World {
    fn unpack(&self, to: &str, format: Format, bytes: &[u8]) -> Result<Packed, ArchiveError> {
        self.root.unpack(to, format, Cursor::new(bytes), bytes.len() as u64, Bounds::default())
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).expect(path)
    }
}

#[test]
fn what_is_packed_comes_out_the_same() {
    for format in [Format::TarZst, Format::Zip] {
        let world = world();
        let at = |name: &str| world.dir.path().join(name);
        std::fs::create_dir_all(at("p/a/b")).expect("dir");
        std::fs::create_dir_all(at("p/empty")).expect("dir");
        std::fs::create_dir_all(at("p/node_modules/x")).expect("dir");
        std::fs::write(at("p/a/b/f"), "äöü").expect("file");
        std::fs::write(at("p/big"), vec![7u8; 3 << 20]).expect("file");
        std::fs::write(at("p/run"), "#!").expect("file");
        std::fs::set_permissions(at("p/run"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        symlink("a/b/f", at("p/link")).expect("link");
        let mut bytes = Vec::new();
        let packed = world.root.pack("p", format, &["node_modules".into()], &mut bytes).expect("packed");
        assert_eq!(packed.bytes, 6 + 2 + (3 << 20));
        let got = world.unpack("q", format, &bytes).expect("unpacked");
        assert_eq!(got, packed, "{format:?}");
        assert_eq!(world.text("q/a/b/f"), "äöü");
        assert_eq!(world.text("q/link"), "äöü");
        assert!(at("q/link").symlink_metadata().expect("link").is_symlink());
        assert!(at("q/empty").is_dir() && !at("q/node_modules").exists());
        assert_eq!(at("q/run").metadata().expect("run").permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read(at("q/big")).expect("big"), vec![7u8; 3 << 20]);
        // Once more over what is there.
        world.unpack("q", format, &bytes).expect("again");
    }
}

fn tar(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).expect("encoder"));
    for (kind, name, data) in entries {
        let mut header = tar::Header::new_gnu();
        // By hand, as the library refuses such names.
        let raw = header.as_gnu_mut().expect("gnu");
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        let is_file = *kind == tar::EntryType::Regular;
        if !is_file && !data.is_empty() {
            header.as_gnu_mut().expect("gnu").linkname[..data.len()].copy_from_slice(data.as_bytes());
        }
        header.set_size(if is_file { data.len() as u64 } else { 0 });
        header.set_cksum();
        builder.append(&header, if is_file { data.as_bytes() } else { b"" }).expect("entry");
    }
    builder.into_inner().expect("tar").finish().expect("zstd")
}

#[test]
fn nothing_gets_out_of_the_folder() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let outside = tempfile::tempdir().expect("tempdir");
    let target = outside.path().to_str().expect("text");
    for entries in [
        vec![(Regular, "../evil", "x")],
        vec![(Regular, "/tmp/evil", "x")],
        vec![(Regular, "a/../../evil", "x")],
        vec![(Regular, "..\\evil", "x")],
        vec![(Symlink, "out", target), (Regular, "out/evil", "x")],
        vec![(Symlink, "out", "../.."), (Regular, "out/evil", "x")],
        vec![(Symlink, "a/out", "../../x")],
        vec![(Link, "hard", "/etc/passwd")],
        vec![(Link, "hard", "../../etc/passwd")],
        vec![(Link, "hard", "before")],
        vec![(Char, "device", "")],
        vec![(Fifo, "fifo", "")],
    ] {
        let world = world();
        std::fs::create_dir(world.dir.path().join("into")).expect("dir");
        let error = world.unpack("into", Format::TarZst, &tar(&entries)).expect_err("refused");
        assert!(!error.to_string().is_empty());
        let left: Vec<_> = std::fs::read_dir(world.dir.path()).expect("dir").flatten().collect();
        assert_eq!(left.len(), 1, "{entries:?}");
        assert_eq!(std::fs::read_dir(outside.path()).expect("dir").count(), 0, "{entries:?}");
    }
    // A link that was there before leads nowhere, either.
    let world = world();
    symlink(outside.path(), world.dir.path().join("out")).expect("link");
    let bytes = tar(&[(Regular, "out/evil", "x")]);
    world.unpack("", Format::TarZst, &bytes).expect_err("escapes");
    world.unpack("out", Format::TarZst, &bytes).expect_err("escapes");
    assert_eq!(std::fs::read_dir(outside.path()).expect("dir").count(), 0);
    // A file in the place of a link replaces it.
    std::fs::write(outside.path().join("kept"), "kept").expect("file");
    symlink(outside.path().join("kept"), world.dir.path().join("f")).expect("link");
    world.unpack("", Format::TarZst, &tar(&[(Regular, "f", "new")])).expect("unpacked");
    assert_eq!(world.text("f"), "new");
    assert_eq!(std::fs::read_to_string(outside.path().join("kept")).expect("kept"), "kept");
    let mode = world.dir.path().join("f").metadata().expect("f").permissions().mode();
    assert_eq!(mode & 0o7000, 0, "no set-user-id");
}

#[test]
fn an_archive_with_hard_links_is_unpacked_as_tar_does() {
    use std::os::unix::fs::MetadataExt;
    use tar::EntryType::{Link, Regular, Symlink};
    let world = world();
    std::fs::create_dir(world.dir.path().join("into")).expect("dir");
    std::fs::write(world.dir.path().join("into/c"), "in the way").expect("file");
    // What is not of the archive can't be named, be it in the workspace.
    std::fs::write(world.dir.path().join("into/before"), "x").expect("file");
    let entries = [(Regular, "a/f", "one"), (Link, "b/f", "a/f"), (Link, "c", "b/f"), (Link, "a/f", "a/f")];
    world.unpack("into", Format::TarZst, &tar(&entries)).expect("unpacked");
    for path in ["into/a/f", "into/b/f", "into/c"] {
        assert_eq!(world.text(path), "one", "{path}");
        assert_eq!(world.dir.path().join(path).metadata().expect(path).nlink(), 3, "{path}");
    }
    for bad in [vec![(Link, "h", "before")], vec![(Symlink, "s", "before"), (Link, "h", "s")]] {
        world.unpack("into", Format::TarZst, &tar(&bad)).expect_err("not of the archive");
    }
}

#[test]
fn a_zip_with_bad_names_is_refused() {
    use std::io::Write as _;
    for name in ["../evil", "/evil", "a/../../evil"] {
        let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file(name, ::zip::write::SimpleFileOptions::default()).expect("file");
        writer.write_all(b"x").expect("data");
        let bytes = writer.finish().expect("zip").into_inner();
        let error = world().unpack("", Format::Zip, &bytes).expect_err(name);
        assert!(matches!(error, ArchiveError::Escapes(_)), "{name}: {error}");
    }
}

#[test]
fn bombs_are_stopped() {
    let zeros = "\0".repeat(64 << 20);
    let bytes = tar(&[(tar::EntryType::Regular, "zeros", &zeros)]);
    assert!(bytes.len() < 1 << 20);
    let bombed = world();
    let error = bombed.unpack("", Format::TarZst, &bytes).expect_err("bomb");
    assert!(matches!(error, ArchiveError::TooMuch(_)), "{error}");
    assert_eq!(std::fs::read_dir(bombed.dir.path()).expect("dir").count(), 0, "nothing half written");
    let many: Vec<_> = (0..100).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = many.iter().map(|n| (tar::EntryType::Regular, n.as_str(), "")).collect();
    let bytes = tar(&entries);
    let bounds = Bounds { entries: 50, ..Bounds::default() };
    let error = world()
        .root
        .unpack("", Format::TarZst, Cursor::new(&bytes), bytes.len() as u64, bounds)
        .expect_err("many");
    assert!(error.to_string().contains("more than 50 entries"), "{error}");
    for junk in [&b""[..], b"junk", &bytes[..bytes.len() / 2]] {
        world().unpack("", Format::TarZst, junk).expect_err("junk");
        world().unpack("", Format::Zip, junk).expect_err("junk");
    }
}
