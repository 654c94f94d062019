//! The files that a command in namespaces sees: a root of its own, put together from
//! pieces of the machine's.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use crate::enter::Kernel;
use crate::paths::DEVICES;
use crate::plan::Plan;

/// What a mount may not be used for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// Not written to.
    pub read_only: bool,
    /// Nothing of it executed, nor mapped as code.
    pub no_exec: bool,
    /// Device files in it are dead.
    pub no_dev: bool,
}

/// Where a root that is to be entered is built: over a folder that nothing is to be
/// taken from.
const OVER: &str = "/proc";

/// Builds the plan's root and makes it this process's. To be called by the first
/// process of new mount and process namespaces.
pub(crate) fn enter_root(plan: &Plan, kernel: &dyn Kernel) -> Result<(), String> {
    let builder = assemble(plan, kernel, Path::new(OVER), true)?;
    // Read-only: user 0 may write /proc/sys without any capability.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let proc = builder.place(Path::new("/proc"), true)?;
    mount("proc", &proc, "proc", flags, None).map_err(|e| format!("mount /proc: {e}"))?;
    builder.finish()
}

/// Builds the plan's root in a folder, for another kernel to enter. Its /dev, /proc and
/// /tmp are that kernel's own.
pub(crate) fn build_root(plan: &Plan, kernel: &dyn Kernel, base: &Path) -> Result<(), String> {
    let builder = assemble(plan, kernel, base, false)?;
    for own in ["/dev", "/proc", "/sys", "/tmp"] {
        builder.place(Path::new(own), true)?;
    }
    builder.seal(base)
}

/// The files of the machine and of the workspace.
/// `tmp`: with devices and temporary folders of its own.
fn assemble<'a>(plan: &Plan, kernel: &'a dyn Kernel, base: &Path, tmp: bool) -> Result<Builder<'a>, String> {
    let at = |what: &str, path: &Path| {
        let text = format!("{what} {}", path.display());
        move |e: rustix::io::Errno| format!("{text}: {e}")
    };
    let root = Path::new("/");
    mount_change(root, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(at("unshare", root))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", base, "tmpfs", flags, c"mode=0755,size=8m").map_err(at("mount a root over", base))?;
    let builder = Builder { kernel, base: base.to_owned(), named_only: plan.exec.is_some() };
    let read = Attributes { read_only: true, no_exec: builder.named_only, no_dev: true };
    let own = Attributes { read_only: false, no_exec: builder.named_only, no_dev: true };
    for path in plan.read.iter().filter(|p| !["/proc", "/dev"].iter().any(|own| p.starts_with(own))) {
        builder.bind(path, path, read)?;
    }
    if tmp {
        builder.devices()?;
        for dir in ["/tmp", "/var/tmp"] {
            builder.fresh(dir, &format!("mode=1777,size={}", plan.limits.tmp), own)?;
        }
    }
    // After the temporary folders: the workspace may lie in one.
    for path in plan.write.iter().chain([&plan.workspace]) {
        builder.bind(path, path, own)?;
    }
    for path in plan.exec.iter().flatten() {
        builder.bind(path, path, Attributes { read_only: true, no_exec: false, no_dev: true })?;
    }
    for path in &plan.hide {
        builder.cover(path)?;
    }
    Ok(builder)
}

struct Builder<'a> {
    kernel: &'a dyn Kernel,
    base: PathBuf,
    named_only: bool,
}

impl Builder<'_> {
    /// Makes the place where `path` is to be in the new root.
    fn place(&self, path: &Path, is_dir: bool) -> Result<PathBuf, String> {
        let target = self.base.join(path.strip_prefix("/").unwrap_or(path));
        if target.symlink_metadata().is_ok() {
            return Ok(target);
        }
        let failed = |e: io::Error| format!("make {}: {e}", target.display());
        let dir = if is_dir { Some(target.as_path()) } else { target.parent() };
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        if !is_dir {
            std::fs::File::create(&target).map_err(failed)?;
        }
        Ok(target)
    }

    /// Shows a path of the machine's root at the same path of the new one.
    fn bind(&self, source: &Path, seen: &Path, attributes: Attributes) -> Result<(), String> {
        let Ok(meta) = source.symlink_metadata() else { return Ok(()) };
        if meta.is_symlink() {
            let to = std::fs::read_link(source).map_err(|e| e.to_string())?;
            let target = self.base.join(seen.strip_prefix("/").unwrap_or(seen));
            if let Some(dir) = target.parent() {
                std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
            }
            return match std::os::unix::fs::symlink(to, &target) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    Err(format!("{}: {e}", target.display()))
                }
                _ => Ok(()),
            };
        }
        let failed = |e: rustix::io::Errno| format!("show {}: {e}", source.display());
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, source, flags).map_err(failed)?;
        self.kernel
            .set_mount(tree.as_fd(), attributes)
            .map_err(|e| format!("show {}: {e}", source.display()))?;
        let target = self.place(seen, meta.is_dir())?;
        move_mount(tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed)
    }

    /// A new, empty file system.
    fn fresh(&self, seen: &str, options: &str, attributes: Attributes) -> Result<(), String> {
        let target = self.place(Path::new(seen), true)?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::NOEXEC, attributes.no_exec);
        let options = std::ffi::CString::new(options).map_err(|e| e.to_string())?;
        mount("tmpfs", &target, "tmpfs", flags, options.as_c_str()).map_err(|e| format!("mount {seen}: {e}"))
    }

    fn devices(&self) -> Result<(), String> {
        self.fresh("/dev", "mode=0755,size=64k", Attributes { no_exec: true, ..Attributes::default() })?;
        for device in DEVICES {
            let device = Path::new(device);
            self.bind(device, device, Attributes { read_only: false, no_exec: true, no_dev: false })?;
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            std::os::unix::fs::symlink(to, self.base.join("dev").join(name)).map_err(|e| e.to_string())?;
        }
        self.fresh("/dev/shm", "mode=1777,size=64m", Attributes { no_exec: true, ..Attributes::default() })?;
        let pts = self.place(Path::new("/dev/pts"), true)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("devpts", &pts, "devpts", flags, c"newinstance,ptmxmode=0666,mode=0620")
            .map_err(|e| format!("mount /dev/pts: {e}"))
    }

    /// Puts something empty over a secret.
    fn cover(&self, path: &Path) -> Result<(), String> {
        let target = self.base.join(path.strip_prefix("/").unwrap_or(path));
        let Ok(meta) = target.symlink_metadata() else { return Ok(()) };
        if meta.is_dir() {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
            return mount("tmpfs", &target, "tmpfs", flags, c"mode=0000,size=4k")
                .map_err(|e| format!("hide {}: {e}", path.display()));
        }
        self.cover_by_null(&target, path)
    }

    fn cover_by_null(&self, target: &Path, path: &Path) -> Result<(), String> {
        let failed = |e: rustix::io::Errno| format!("hide {}: {e}", path.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, "/dev/null", flags).map_err(failed)?;
        let dead = Attributes { read_only: true, no_exec: true, no_dev: true };
        self.kernel.set_mount(tree.as_fd(), dead).map_err(|e| format!("hide {}: {e}", path.display()))?;
        move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed)
    }

    /// Makes the new root the root, and lets go of the old one.
    fn finish(&self) -> Result<(), String> {
        let failed = |e: rustix::io::Errno| format!("change the root: {e}");
        rustix::process::chdir(&self.base).map_err(failed)?;
        rustix::process::pivot_root(".", ".").map_err(failed)?;
        unmount(".", UnmountFlags::DETACH).map_err(failed)?;
        rustix::process::chdir("/").map_err(failed)?;
        self.seal(Path::new("/"))
    }

    /// Nothing more is put into the root itself.
    fn seal(&self, root: &Path) -> Result<(), String> {
        let root =
            rustix::fs::open(root, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| format!("seal the root: {e}"))?;
        let attributes = Attributes { read_only: true, no_exec: true, no_dev: false };
        self.kernel.set_mount_alone(root.as_fd(), attributes).map_err(|e| format!("seal the root: {e}"))
    }
}
