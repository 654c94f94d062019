//! Which runners a task goes to.

use legwork_api::Select;

use super::submit::{SubmitError, invalid};
use crate::fleet::{FleetState, Named, Runner};

/// Most runners of one task.
const MAX_TARGETS: usize = legwork_api::Count::MOST as usize;
/// Most runs that wait for, or are with, one runner.
const MAX_OPEN: usize = 100_000;

/// How many of the matching runners.
#[derive(Clone, Copy)]
pub(super) enum Count {
    All,
    Some(usize),
}

pub(super) fn check_select(select: &Select) -> Result<Count, SubmitError> {
    if select.labels.is_empty() && select.runner.is_none() {
        return Err(invalid("select", "is empty: give labels, or a runner"));
    }
    if select.labels.iter().any(String::is_empty) {
        return Err(invalid("select.labels", "a label is empty"));
    }
    match &select.count {
        None => Ok(Count::Some(1)),
        Some(count) if count.is_all() => Ok(Count::All),
        Some(count) => match count.number().map(usize::try_from) {
            Some(Ok(n)) => Ok(Count::Some(n)),
            _ => Err(invalid("select.count", format!("must be \"all\" or a number from 1 to {MAX_TARGETS}"))),
        },
    }
}

/// The ids of the chosen runners: connected ones first, the least busy first.
pub(super) fn choose(fleet: &FleetState, select: &Select, count: Count) -> Result<Vec<String>, SubmitError> {
    let wanted = match count {
        Count::All => usize::MAX,
        Count::Some(n) => n,
    };
    let may = |runner: &&Runner| {
        !runner.drained
            && !runner.revoked
            && (!select.online || runner.link.is_some())
            && select.labels.iter().all(|label| runner.labels.contains(label))
    };
    let mut chosen: Vec<&Runner> = match &select.runner {
        Some(name) => named(fleet, name)?.into_iter().filter(may).collect(),
        None => fleet.labelled(&select.labels).filter(may).take(wanted.min(MAX_TARGETS + 1)).collect(),
    };
    if chosen.is_empty() {
        return Err(invalid("select", none_matches(fleet, select)));
    }
    if chosen.len() > MAX_TARGETS {
        return Err(invalid("select", format!("matches more than {MAX_TARGETS} runners, which is the most")));
    }
    if let Count::Some(n) = count
        && chosen.len() < n
    {
        return Err(invalid("select.count", format!("asks for {n} runners, {} match", chosen.len())));
    }
    if let Some(full) = chosen.iter().find(|runner| runner.open.len() >= MAX_OPEN) {
        let text =
            format!("runner '{}' has {MAX_OPEN} tasks that are not over, which is the most", full.name);
        return Err(invalid("select", text));
    }
    chosen.truncate(wanted);
    Ok(chosen.into_iter().map(|runner| runner.id.clone()).collect())
}

fn named<'a>(fleet: &'a FleetState, name: &str) -> Result<Option<&'a Runner>, SubmitError> {
    match fleet.named(name) {
        Named::None => Ok(None),
        Named::One(runner) => Ok(Some(runner)),
        Named::Many(ids) => Err(invalid(
            "select.runner",
            format!("'{name}' is the name of {} runners; give the id: {}", ids.len(), ids.join(", ")),
        )),
    }
}

/// Why nobody matches.
fn none_matches(fleet: &FleetState, select: &Select) -> String {
    let by_name = select.runner.as_ref().and_then(|name| match fleet.named(name) {
        Named::One(runner) => Some(runner),
        _ => None,
    });
    let state = by_name.and_then(|runner| match runner {
        runner if runner.revoked => Some("its credential is good no more"),
        runner if runner.drained => Some("it is drained: it is given no new work"),
        runner if select.online && runner.link.is_none() => Some("it is not connected"),
        _ => None,
    });
    match (by_name, state) {
        (Some(runner), Some(state)) => format!("runner '{}' gets no task: {state}", runner.name),
        _ if select.online => "matches no runner that is connected; see GET /api/v1/runners".into(),
        _ => "matches no runner; see GET /api/v1/runners".into(),
    }
}
