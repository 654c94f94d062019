//! Putting a command behind its wall.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use legwork_sandbox::{Plan, Profile};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::spec::Spec;
use crate::sys;

/// Most bytes of what the child says about itself.
const MAX_REPORT: usize = 1024;

/// The end of what a child says before it becomes the command.
#[derive(Debug)]
pub(crate) struct Report(OwnedFd);

/// What the child said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Why the wall could not be built.
    pub(crate) error: Option<String>,
    /// The door to the proxy.
    pub(crate) door: Option<OwnedFd>,
}

/// Makes `command` build the spec's wall around itself before it is executed.
/// `own_session`: unless something else makes a session for it.
pub(crate) fn confine(
    command: &mut Command,
    spec: &Spec,
    plan: &Plan,
    own_session: bool,
) -> io::Result<Report> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let (plan, group) = (plan.clone(), spec.group.clone());
    sys::before_exec(command, move |kernel| {
        let mut ready = |ready: legwork_sandbox::Ready| match ready.proxy {
            Some(door) => send_door(&theirs, &door),
            None => Ok(()),
        };
        legwork_sandbox::enter(&plan, &group, own_session, kernel, &mut ready).map_err(|text| {
            let mut bytes = text.into_bytes();
            bytes.truncate(MAX_REPORT);
            let _ = rustix::net::send(&theirs, &bytes, SendFlags::NOSIGNAL);
            io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error())
        })
    })?;
    Ok(Report(ours))
}

/// A command that another program carries out for its plan.
pub(crate) fn through(spec: &Spec) -> io::Result<Option<Vec<String>>> {
    match &spec.sandbox {
        Some(plan) if plan.profile == Profile::Gvisor => {
            legwork_sandbox::bundle(plan, &spec.argv, &spec.env).map(Some)
        }
        _ => Ok(None),
    }
}

fn send_door(socket: &OwnedFd, door: &TcpListener) -> io::Result<()> {
    let fds = [door.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"D")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

impl Report {
    /// What was said until the command was executed, or was not.
    pub(crate) fn read(&self) -> Said {
        let mut said = Said::default();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut text = [0u8; MAX_REPORT];
            let message = rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut text)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            );
            let Some(message) = message.ok().filter(|m| m.bytes > 0) else { return said };
            let door = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            match door {
                Some(door) => said.door = Some(door),
                None => said.error = Some(String::from_utf8_lossy(&text[..message.bytes]).into_owned()),
            }
        }
    }
}

/// Removes what a wall has left on the machine.
pub(crate) fn tidy(spec: &Spec) {
    if let Some(plan) = &spec.sandbox {
        let _ = std::fs::remove_dir_all(&plan.tmp);
    }
    spec.group.remove();
}
