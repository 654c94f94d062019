//! Attacks: each line exits with 0 if it got what it wanted.

use std::io::Write;

use legwork_process::sandbox::Profile;

use crate::kit::{Yard, abilities, is_root, walls};

struct Attack {
    name: &'static str,
    /// `@` stands for the folder around the workspace, `%` for the id of a process of
    /// the same user outside, which stands for the runner.
    line: &'static str,
    /// The walls it is held by; all but those listed here.
    not_held_by: &'static [Profile],
    /// Why the control can't be run as a plain user, where it can't.
    root_only: bool,
}

const fn attack(name: &'static str, line: &'static str) -> Attack {
    Attack { name, line, not_held_by: &[], root_only: false }
}

const fn as_root(name: &'static str, line: &'static str) -> Attack {
    Attack { name, line, not_held_by: &[], root_only: true }
}

/// `landlock` leaves the machine's network as it is; it says so.
const fn by_network(name: &'static str, line: &'static str) -> Attack {
    Attack { name, line, not_held_by: &[Profile::Landlock], root_only: false }
}

const ATTACKS: &[Attack] = &[
    // Files.
    attack("write outside by path", "echo x > @/secret/new && test -s @/secret/new"),
    attack("write outside by ..", "echo x > ../secret/new2 && test -s @/secret/new2"),
    attack("write outside by a link", "ln -s @/secret l && echo x > l/new3"),
    attack("write outside by a hard link", "ln @/secret/key h && echo x >> h"),
    attack("write outside by rename", "echo x > m && mv m @/secret/moved && test -s @/secret/moved"),
    attack("truncate outside", "truncate -s 0 @/secret/key"),
    attack("delete outside", "rm @/secret/key"),
    attack("change modes outside", "echo x > /tmp/lw-mode-$$ ; chmod 777 @/secret && touch @/secret/x1"),
    attack("read a secret", "grep -q s3cret @/secret/key"),
    attack("read a secret by a link", "ln -s @/secret/key k && grep -q s3cret k"),
    attack("read a secret by /proc/self/root", "grep -q s3cret /proc/self/root@/secret/key"),
    attack("read a secret by /proc/self/cwd", "grep -q s3cret /proc/self/cwd/../secret/key"),
    attack("read a secret by another's root", "grep -q s3cret /proc/%/root@/secret/key"),
    attack(
        "read a secret in a race of links",
        "mkdir -p d e; echo no > d/key; ln -sfn @/secret e2; for i in $(seq 300); do ln -sfn d s; ln -sfn @/secret s; \
         grep -q s3cret s/key 2>/dev/null && exit 0; done; exit 1",
    ),
    attack("list the runner's state", "ls @/state > /dev/null"),
    as_root("read /etc/shadow", "grep -q root /etc/shadow"),
    as_root("list root's home", "ls /root > /dev/null"),
    as_root(
        "read a raw disk",
        "head -c 1 $(ls /dev/vd[a-z] /dev/sd[a-z] /dev/nvme*n1 2>/dev/null | head -1) | grep -qc .",
    ),
    as_root(
        "change a setting of the kernel",
        "v=$(cat /proc/sys/kernel/core_pattern) && echo \"$v\" > /proc/sys/kernel/core_pattern",
    ),
    as_root("make a device", "mknod dev c 1 3 && echo x > dev"),
    as_root("mount", "mkdir -p mnt && mount -t tmpfs none mnt && umount mnt"),
    as_root("change the root", "chroot / true"),
    as_root("change another's file", "chown nobody file && find file -uid 65534 | grep -q ."),
    // Processes.
    attack("signal the runner", "kill -0 %"),
    attack(
        "trace the runner",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.ptrace(16,%,0,0)==0 else 1)'",
    ),
    attack(
        "read the runner's memory",
        "head -c 0 /proc/%/mem && test -r /proc/%/maps && head -1 /proc/%/maps | grep -q .",
    ),
    attack("read the runner's environment", "tr '\\0' '\\n' < /proc/%/environ | grep -q SECRET_OF_RUNNER"),
    attack(
        "read by process_vm_readv",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); b=ctypes.create_string_buffer(8); v=(ctypes.c_size_t*2)(ctypes.addressof(b),0); sys.exit(0 if l.process_vm_readv(%,v,1,v,1,0)==0 else 1)'",
    ),
    attack("make a user namespace", "unshare -Ur true"),
    attack(
        "make a user namespace by clone",
        "python3 -c 'import ctypes,os,sys; l=ctypes.CDLL(None); r=l.syscall(56,0x10000000|17,0,0,0,0)\nif r==0: os._exit(0)\nsys.exit(0 if r>0 else 1)'",
    ),
    attack(
        "make a user namespace by clone3",
        "python3 -c 'import ctypes,os,sys; l=ctypes.CDLL(None,use_errno=True); a=(ctypes.c_uint64*11)(0x10000000,0,0,0,17); r=l.syscall(435,a,64)\nif r==0: os._exit(0)\nsys.exit(0 if r>0 else 1)'",
    ),
    attack(
        "use io_uring",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); p=ctypes.create_string_buffer(256); sys.exit(0 if l.syscall(425,4,p)>=0 else 1)'",
    ),
    attack(
        "use keys",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(250,0,-3,1)>=0 else 1)'",
    ),
    attack(
        "use bpf",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None,use_errno=True); a=(ctypes.c_uint32*16)(1,4,4,1); r=l.syscall(321,0,a,48); sys.exit(0 if r>=0 or ctypes.get_errno()==22 else 1)'",
    ),
    attack(
        "use userfaultfd",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(323,1)>=0 else 1)'",
    ),
    attack(
        "use perf events",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None,use_errno=True); b=(ctypes.c_uint32*32)(1,128); b[2]=0; r=l.syscall(298,b,0,-1,-1,0); sys.exit(0 if r>=0 or ctypes.get_errno() in (2,19,22,95) else 1)'",
    ),
    attack(
        "type into a terminal",
        "python3 -c 'import pty,fcntl,termios,os,sys\nm,s=pty.openpty()\npid=os.fork()\nif pid==0:\n os.setsid(); fcntl.ioctl(s,termios.TIOCSCTTY,0)\n try: fcntl.ioctl(s,termios.TIOCSTI,b\"x\"); os._exit(0)\n except OSError: os._exit(1)\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))'",
    ),
    attack("make a setuid program work", "test -u /usr/bin/su && grep -q 'NoNewPrivs:.0' /proc/self/status"),
    as_root("keep capabilities", "test $(awk '/CapPrm/{print $2}' /proc/self/status) != 0000000000000000"),
    // Network.
    attack(
        "open a path socket",
        "python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect(\"@/secret/sock\")'",
    ),
    attack(
        "open an abstract socket",
        "python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect(\"\\0lw-test-%\")'",
    ),
    attack(
        "open D-Bus or docker.sock",
        "python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.bind(\"u\"); s.listen()'",
    ),
    by_network("reach a port of this machine", "echo > /dev/tcp/127.0.0.1/#"),
    by_network(
        "reach a port by python",
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", #), 2)'",
    ),
    as_root(
        "open a raw socket",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    ),
    as_root(
        "open a packet socket",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)'",
    ),
    attack(
        "use the kernel's ciphers",
        "python3 -c 'import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)'",
    ),
    // Control groups.
    as_root(
        "leave the control group",
        "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo $$ > $f && exit 0; done 2>/dev/null; exit 1",
    ),
];

/// A process of the same user, a listener and two sockets outside.
struct Outside {
    child: std::process::Child,
    port: u16,
    _listeners: (std::net::TcpListener, std::os::unix::net::UnixListener, std::os::unix::net::UnixListener),
}

impl Outside {
    fn new(yard: &Yard) -> Self {
        use std::os::linux::net::SocketAddrExt;
        let child =
            std::process::Command::new("sleep").arg("600").env("SECRET_OF_RUNNER", "x").spawn().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let path = std::os::unix::net::UnixListener::bind(yard.path("secret/sock")).unwrap();
        let name = format!("lw-test-{}", child.id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let name = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        Self { port: tcp.local_addr().unwrap().port(), child, _listeners: (tcp, path, name) }
    }

    fn line(&self, yard: &Yard, attack: &Attack) -> String {
        attack
            .line
            .replace('@', &yard.dir.path().to_string_lossy())
            .replace("/%", &format!("/{}", self.child.id()))
            .replace("-%", &format!("-{}", self.child.id()))
            .replace(" %", &format!(" {}", self.child.id()))
            .replace(",%", &format!(",{}", self.child.id()))
            .replace("(%", &format!("({}", self.child.id()))
            .replace("/#", &format!("/{}", self.port))
            .replace(" #)", &format!(" {})", self.port))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn succeeds(profile: Profile, attack: &Attack) -> (bool, String) {
    let mut yard = Yard::new(profile);
    if is_root() && profile != Profile::Gvisor {
        // The strongest case: user 0 within as without.
        yard.settings.run_as = None;
    }
    let outside = Outside::new(&yard);
    let outcome = yard.run(&outside.line(&yard, attack)).await;
    (outcome.ok(), outcome.all())
}

async fn hold(profile: Profile) {
    if !walls().contains(&profile) {
        return;
    }
    let (mut broken, mut no_control, mut held) = (Vec::new(), Vec::new(), 0);
    for attack in ATTACKS {
        if attack.root_only && !is_root() {
            no_control.push(format!("{} (needs root)", attack.name));
            continue;
        }
        // In gVisor most of these reach a kernel that is the guest's own: what counts is
        // whether they reach the machine.
        if profile == Profile::Gvisor && GUEST_ONLY.contains(&attack.name) {
            continue;
        }
        let (controlled, how) = succeeds(Profile::Off, attack).await;
        if !controlled {
            no_control.push(format!("{} ({how})", attack.name));
        }
        let (through, how) = succeeds(profile, attack).await;
        match (through, attack.not_held_by.contains(&profile)) {
            (true, false) => broken.push(format!("{}: {how}", attack.name)),
            (false, true) => broken.push(format!("{} is held, but said not to be", attack.name)),
            _ => held += 1,
        }
    }
    for name in &no_control {
        eprintln!("NO CONTROL HERE: {name}");
    }
    let _ = std::io::stderr().flush();
    assert!(broken.is_empty(), "{profile} does not hold against:\n{}", broken.join("\n"));
    assert!(
        held > 25 && no_control.len() < ATTACKS.len() / 3,
        "{held} held, {} without control",
        no_control.len()
    );
}

/// What an attack reaches in gVisor is the guest's kernel, not the machine's.
const GUEST_ONLY: &[&str] = &[
    "read the runner's memory",
    "make a user namespace",
    "make a user namespace by clone",
    "open D-Bus or docker.sock",
    "make a setuid program work",
    "change a setting of the kernel",
    "signal the runner",
    "keep capabilities",
    "use io_uring",
    "use perf events",
    "type into a terminal",
    "leave the control group",
    "change another's file",
    "list root's home",
];

#[tokio::test]
async fn landlock_holds() {
    hold(Profile::Landlock).await;
}

#[tokio::test]
async fn namespaces_hold() {
    hold(Profile::Namespaces).await;
}

#[tokio::test]
async fn gvisor_holds() {
    hold(Profile::Gvisor).await;
}

#[tokio::test]
async fn bombs_are_contained() {
    let groups = &abilities().groups;
    for profile in walls().iter().filter(|p| **p != Profile::Gvisor) {
        let mut yard = Yard::new(*profile);
        yard.settings.limits.memory = Some(64 << 20);
        yard.settings.limits.processes = Some(50);
        yard.settings.limits.file_size = Some(1 << 20);
        yard.settings.limits.tmp = 1 << 20;
        if groups.controllers.contains(&"memory") {
            let eat = "python3 -c 'x = bytearray(300 << 20); print(len(x))'";
            assert!(Yard::new(Profile::Off).run(eat).await.ok());
            let outcome = yard.run(eat).await;
            assert!(!outcome.ok() && outcome.status.out_of_memory, "{profile}: {}", outcome.all());
        } else {
            eprintln!("NOT TESTED HERE: memory limits: no control group can be made");
        }
        if groups.controllers.contains(&"pids") || !is_root() {
            let fork = "for i in $(seq 200); do sleep 5 & done; sleep 0.2; jobs -p | wc -l; exit 0";
            let outcome = yard.run_for(fork, 4).await;
            assert!(outcome.stderr.contains("fork"), "{profile}: {}", outcome.all());
        } else {
            eprintln!("NOT TESTED HERE: process limits: no control group can be made");
        }
        let disk = "head -c 20000000 /dev/zero > big; [ $(stat -c %s big) -gt 2000000 ]";
        assert!(Yard::new(Profile::Off).run(disk).await.ok());
        let outcome = yard.run(disk).await;
        assert!(!outcome.ok(), "{profile}: {}", outcome.all());
    }
}

#[tokio::test]
async fn a_repository_can_t_reach_the_shell_by_its_files() {
    for profile in [Profile::Off].iter().chain(walls()) {
        let yard = Yard::new(*profile);
        for name in [".bashrc", ".bash_profile", ".profile", ".inputrc", ".legwork.yaml", "BASH_ENV", ".env"]
        {
            std::fs::write(yard.path(&format!("work/{name}")), "echo TAKEN\n").unwrap();
        }
        let outcome = yard.run("echo $HOME $BASH_ENV; bash -c true").await;
        assert!(outcome.ok() && !outcome.stdout.contains("TAKEN"), "{profile}: {}", outcome.all());
    }
}

#[tokio::test]
async fn no_descriptor_of_the_supervisor_reaches_the_command() {
    for profile in [Profile::Off].iter().chain(walls()) {
        let outcome = Yard::new(*profile).run("echo /proc/self/fd/* >&2; : | cat").await;
        // stdin, stdout, stderr, and the folder that bash reads.
        let count = outcome.stderr.split_whitespace().count();
        assert!(outcome.ok() && count <= 4, "{profile}: {}", outcome.all());
    }
}
