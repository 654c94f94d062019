//! The filter that hands every exec to whoever judges it, and the list of programs that
//! goes with it.

use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
};
use libc::{c_long, sock_filter};
use rustix::fs::{FileType, Mode, OFlags};

/// From here on Landlock can let files change their folder, which before is always denied.
const LIST_ABI: u32 = 2;

/// What the filter is to do beside handing on execs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// Hand on what makes files in memory, which have no path that could be judged.
    pub no_memfd: bool,
    /// Hand on what opens a file for writing, too.
    pub writes: bool,
}

/// `offsetof(struct seccomp_data, …)`.
const NR: u32 = 0;
const ARCH: u32 = 4;

const fn low_half(argument: u32) -> u32 {
    16 + argument * 8 + if cfg!(target_endian = "big") { 4 } else { 0 }
}

/// What ends a program: how the kernel goes on with the call.
#[derive(Debug, Clone, Copy)]
enum Then {
    Allow,
    Ask,
    Refuse(i32),
}

impl Then {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Ask => libc::SECCOMP_RET_USER_NOTIF,
            Self::Refuse(errno) => libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(),
        }
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..statement(libc::BPF_JMP | test | libc::BPF_K, k) }
}

fn load(at: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

fn end(then: Then) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, then.value())
}

/// `if number == nr then …`, with the number loaded.
fn on_call(nr: c_long, then: Then) -> [sock_filter; 2] {
    [jump(libc::BPF_JEQ, u32::try_from(nr).unwrap_or(u32::MAX), 0, 1), end(then)]
}

/// `if number == nr then, if the argument has one of the bits, …, else …`.
fn on_bits(nr: c_long, argument: u32, bits: u32, with: Then, without: Then) -> [sock_filter; 5] {
    [
        jump(libc::BPF_JEQ, u32::try_from(nr).unwrap_or(u32::MAX), 0, 4),
        load(low_half(argument)),
        jump(libc::BPF_JSET, bits, 0, 1),
        end(with),
        end(without),
    ]
}

/// The architecture whose calls this program makes (`AUDIT_ARCH_…`, linux/audit.h).
const fn own_arch() -> u32 {
    if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else if cfg!(target_arch = "aarch64") {
        0xc000_00b7
    } else if cfg!(target_arch = "riscv64") {
        0xc000_00f3
    } else {
        0
    }
}

/// A second table of calls that the same processor has, with the numbers in it of what is
/// handed on: its architecture, execve, execveat, memfd_create.
const fn other_arch() -> Option<(u32, [c_long; 3])> {
    if cfg!(target_arch = "x86_64") {
        Some((0x4000_0003, [11, 358, 356]))
    } else if cfg!(target_arch = "aarch64") {
        Some((0x4000_0028, [11, 387, 385]))
    } else {
        None
    }
}

/// Whether a call that was handed on is one of this program's own architecture.
pub fn is_own_arch(arch: u32) -> bool {
    arch == own_arch()
}

/// The filter: execs are handed on, those of the processor's other table included, everything
/// else is let through. `None` where this architecture is not known.
pub fn exec_filter(judged: Judged) -> Option<Vec<sock_filter>> {
    /// Calls of x32, a second table of numbers of the same architecture.
    const X32: u32 = 0x4000_0000;
    if own_arch() == 0 {
        return None;
    }
    let refused = Then::Refuse(libc::EACCES);
    let mut other = Vec::new();
    if let Some((arch, [execve, execveat, memfd_create])) = other_arch() {
        other.push(load(NR));
        other.extend(on_call(execve, Then::Ask));
        other.extend(on_call(execveat, Then::Ask));
        if judged.no_memfd {
            other.extend(on_call(memfd_create, Then::Ask));
        }
        other.push(end(Then::Allow));
        let length = u8::try_from(other.len()).unwrap_or(u8::MAX);
        other.insert(0, jump(libc::BPF_JEQ, arch, 0, length));
    }
    let own = u8::try_from(other.len() + 1).unwrap_or(u8::MAX);
    let mut filter = vec![load(ARCH), jump(libc::BPF_JEQ, own_arch(), own, 0)];
    filter.extend(other);
    filter.extend([end(refused), load(NR)]);
    if cfg!(target_arch = "x86_64") {
        filter.extend([jump(libc::BPF_JGE, X32, 0, 1), end(refused)]);
    }
    filter.extend(on_call(libc::SYS_execve, Then::Ask));
    filter.extend(on_call(libc::SYS_execveat, Then::Ask));
    if judged.no_memfd {
        filter.extend(on_call(libc::SYS_memfd_create, Then::Ask));
    }
    if judged.writes {
        let write = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC).cast_unsigned();
        filter.extend(on_bits(libc::SYS_openat, 2, write, Then::Ask, Then::Allow));
        #[cfg(target_arch = "x86_64")]
        {
            filter.extend(on_bits(libc::SYS_open, 1, write, Then::Ask, Then::Allow));
            filter.extend(on_call(libc::SYS_creat, Then::Ask));
        }
        filter.extend(on_call(libc::SYS_openat2, Then::Ask));
    }
    filter.push(end(Then::Allow));
    Some(filter)
}

/// Whether Landlock of this version can hold a list of programs and nothing else.
pub fn can_list(landlock_abi: u32) -> bool {
    landlock_abi >= LIST_ABI
}

/// Lets only these files, and what lies beneath these folders, be executed from now on.
/// `privileged`: without giving up that setuid programs get their rights.
pub fn only_programs(programs: &[PathBuf], privileged: bool) -> Result<(), String> {
    let handled = AccessFs::Execute | AccessFs::Refer;
    let text = |e: landlock::RulesetError| e.to_string();
    let mut created = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)
        .map_err(text)?
        .create()
        .map_err(text)?
        .no_new_privs(!privileged);
    let mut allow = |path: &Path, rights: BitFlags<AccessFs>| -> Result<(), String> {
        let Ok(fd) = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| e.to_string())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !kind.is_dir() && rights.contains(AccessFs::Refer) {
            return Ok(());
        }
        (&mut created)
            .add_rule(PathBeneath::new(fd, rights))
            .map(|_| ())
            .map_err(|e| format!("{}: {e}", path.display()))
    };
    allow(Path::new("/"), AccessFs::Refer.into())?;
    for path in programs {
        allow(path, AccessFs::Execute.into())?;
    }
    created.restrict_self().map_err(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says to a call: a small machine for the few instructions it is made of.
    fn says(filter: &[sock_filter], arch: u32, nr: c_long, args: [u64; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0u32);
        loop {
            let step = filter[at];
            let code = u32::from(step.code);
            at += 1;
            if code == libc::BPF_RET | libc::BPF_K {
                return step.k;
            } else if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                loaded = match step.k {
                    NR => u32::try_from(nr).unwrap(),
                    ARCH => arch,
                    k => u32::try_from(args[((k - 16) / 8) as usize] & 0xffff_ffff).unwrap(),
                };
            } else {
                let holds = match code & 0xf0 {
                    libc::BPF_JEQ => loaded == step.k,
                    libc::BPF_JGE => loaded >= step.k,
                    _ => loaded & step.k != 0,
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    #[test]
    fn what_executes_or_makes_what_has_no_path_is_handed_on() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES.unsigned_abs();
        let (ask, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let filter = exec_filter(Judged { no_memfd: true, writes: true }).expect("a known architecture");
        let call = |nr, args| says(&filter, own_arch(), nr, args);
        assert_eq!(call(libc::SYS_execve, [0; 6]), ask);
        assert_eq!(call(libc::SYS_execveat, [0; 6]), ask);
        assert_eq!(call(libc::SYS_execveat, [0, 0, 0, 0, 0x1100, 0]), ask);
        assert_eq!(call(libc::SYS_memfd_create, [0; 6]), ask);
        assert_eq!(call(libc::SYS_openat, [0; 6]), allow);
        assert_eq!(call(libc::SYS_openat, [0, 0, 1, 0, 0, 0]), ask);
        assert_eq!(call(libc::SYS_openat2, [0; 6]), ask);
        assert_eq!(call(libc::SYS_read, [0; 6]), allow);
        // Of calls that no processor of this kind makes, none passes.
        assert_eq!(says(&filter, 0x8000_0001, 11, [0; 6]), refused);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(call(libc::SYS_execve | 0x4000_0000, [0; 6]), refused);
            let other = |nr| says(&filter, 0x4000_0003, nr, [0; 6]);
            assert_eq!([11, 358, 356, 3].map(other), [ask, ask, ask, allow]);
        }
        let mild = exec_filter(Judged::default()).expect("a known architecture");
        assert_eq!(says(&mild, own_arch(), libc::SYS_memfd_create, [0; 6]), allow);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(says(&mild, 0x4000_0003, 356, [0; 6]), allow);
        assert_eq!(says(&mild, own_arch(), libc::SYS_openat, [0, 0, 1, 0, 0, 0]), allow);
    }
}
