//! What a wall needs beside the child's own part.

use std::io;

use legwork_sandbox::{Inhabitant, Profile, World};
use rustix::process::Pid;

use crate::spec::Spec;
use crate::tree;

/// A command that another program carries out for its plan.
pub(crate) fn through(spec: &Spec) -> io::Result<Option<Vec<String>>> {
    match &spec.sandbox {
        Some(plan) if plan.profile == Profile::Gvisor => {
            legwork_sandbox::bundle(plan, &spec.argv, &spec.env).map(Some)
        }
        _ => Ok(None),
    }
}

/// By whom others find the way behind a command's wall, if they are let in: `main` is its first
/// process, outside.
pub(crate) fn inhabitant(spec: &Spec, main: Pid) -> Option<Inhabitant> {
    let plan = spec.sandbox.as_ref().filter(|plan| plan.world == World::Open)?;
    let inside = if plan.profile == Profile::Namespaces { tree::grandchild(main)? } else { main };
    Inhabitant::of(inside.as_raw_nonzero().get(), &plan.tmp)
}

/// Whether it is behind the wall of another command, whose control group is its own as well.
pub(crate) fn is_guest(spec: &Spec) -> bool {
    spec.sandbox.as_ref().is_some_and(|plan| plan.world.is_anothers())
}

/// Removes what a wall has left on the machine.
pub(crate) fn tidy(spec: &Spec) {
    if let Some(plan) = &spec.sandbox {
        let _ = std::fs::remove_dir_all(&plan.tmp);
    }
    if !is_guest(spec) {
        spec.group.remove();
    }
}
