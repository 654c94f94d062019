//! Packs the micro-runners that `make micro` has built, so that the program brings each along
//! once and compressed. Without any it is built all the same, and says so when it needs one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = std::env::var("CARGO_MANIFEST_DIR")?;
    let out = std::env::var("OUT_DIR")?;
    let dist = Path::new(&here).join("../../dist");
    // Functions that are the same to the byte stand once. The linker of this one target is the
    // toolchain's own, which can do so.
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    if is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
    let mut table = String::from("&[");
    println!("cargo:rerun-if-changed=build.rs");
    for processor in ["x86_64", "aarch64"] {
        let file = dist.join(format!("legwork-micro-{processor}-linux"));
        // A path that is not there is looked for at each build, until there is something.
        println!("cargo:rerun-if-changed={}", file.display());
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let packed = Path::new(&out).join(format!("{processor}.gz"));
        let mut gzip =
            flate2::write::GzEncoder::new(std::fs::File::create(&packed)?, flate2::Compression::best());
        gzip.write_all(&bytes)?;
        gzip.finish()?;
        let (size, digest) = (bytes.len(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        write!(
            table,
            "({processor:?}, legwork_remote::Packed {{ gzip: include_bytes!({packed:?}), size: {size}, digest: {digest:?} }}),"
        )?;
    }
    table.push(']');
    std::fs::write(Path::new(&out).join("micro.rs"), table)?;
    Ok(())
}
