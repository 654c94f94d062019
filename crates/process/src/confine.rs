//! What a wall needs beside the child's own part.

use std::io;

use legwork_sandbox::Profile;

use crate::spec::Spec;

/// A command that another program carries out for its plan.
pub(crate) fn through(spec: &Spec) -> io::Result<Option<Vec<String>>> {
    match &spec.sandbox {
        Some(plan) if plan.profile == Profile::Gvisor => {
            legwork_sandbox::bundle(plan, &spec.argv, &spec.env).map(Some)
        }
        _ => Ok(None),
    }
}

/// Removes what a wall has left on the machine.
pub(crate) fn tidy(spec: &Spec) {
    if let Some(plan) = &spec.sandbox {
        let _ = std::fs::remove_dir_all(&plan.tmp);
    }
    spec.group.remove();
}
