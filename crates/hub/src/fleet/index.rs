//! How runners are found: by name, and by label in the order in which they are chosen. What
//! a search costs depends on what it finds, not on how many runners are known.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Runner;

/// Where a runner stands among those of a label: connected ones first, the least busy first.
type Place = (bool, usize, Arc<str>);

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Named<'a> {
    None,
    One(&'a Runner),
    /// Several have it: their ids.
    Many(Vec<String>),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Ids by name, and by the name that the credential was made for.
    names: HashMap<String, BTreeSet<Arc<str>>>,
    labels: HashMap<String, BTreeSet<Place>>,
}

fn place(runner: &Runner) -> Place {
    (runner.link.is_none(), runner.open.len(), runner.id.as_str().into())
}

impl Index {
    pub(super) fn add(&mut self, runner: &Runner) {
        let place = place(runner);
        for name in [&runner.name, &runner.given_name].into_iter().filter(|name| !name.is_empty()) {
            self.names.entry(name.clone()).or_default().insert(place.2.clone());
        }
        for label in &runner.labels {
            match self.labels.get_mut(label) {
                Some(places) => places.insert(place.clone()),
                None => self.labels.entry(label.clone()).or_default().insert(place.clone()),
            };
        }
    }

    pub(super) fn remove(&mut self, runner: &Runner) {
        let place = place(runner);
        for name in [&runner.name, &runner.given_name] {
            if let Some(ids) = self.names.get_mut(name)
                && ids.remove(&place.2)
                && ids.is_empty()
            {
                self.names.remove(name);
            }
        }
        for label in &runner.labels {
            if let Some(places) = self.labels.get_mut(label)
                && places.remove(&place)
                && places.is_empty()
            {
                self.labels.remove(label);
            }
        }
    }

    /// Runners that have a name, or may have it.
    pub(super) fn holders<'a>(
        &'a self,
        runners: &'a HashMap<String, Runner>,
        name: &str,
    ) -> impl Iterator<Item = &'a Runner> {
        self.names.get(name).into_iter().flatten().filter_map(|id| runners.get(&**id))
    }

    pub(super) fn named<'a>(&'a self, runners: &'a HashMap<String, Runner>, name: &str) -> Named<'a> {
        let holders: Vec<&Runner> = self.holders(runners, name).collect();
        // One that is called so comes before one that might be; one that is good before one
        // whose credential was revoked.
        let ranks: [fn(&Runner, &str) -> bool; 4] = [
            |runner, name| runner.name == name && !runner.revoked,
            |runner, _| !runner.revoked,
            |runner, name| runner.name == name,
            |_, _| true,
        ];
        for rank in ranks {
            let found: Vec<&Runner> = holders.iter().copied().filter(|runner| rank(runner, name)).collect();
            match found.as_slice() {
                [] => {}
                [one] => return Named::One(one),
                many => return Named::Many(many.iter().map(|runner| runner.id.clone()).collect()),
            }
        }
        Named::None
    }

    pub(super) fn labelled<'a>(
        &'a self,
        runners: &'a HashMap<String, Runner>,
        labels: &'a [String],
    ) -> impl Iterator<Item = &'a Runner> {
        let sets: Option<Vec<_>> = labels.iter().map(|label| self.labels.get(label)).collect();
        let rarest = sets.and_then(|sets| sets.into_iter().min_by_key(|places| places.len()));
        rarest
            .into_iter()
            .flatten()
            .filter_map(|(_, _, id)| runners.get(&**id))
            .filter(move |runner| labels.iter().all(|label| runner.labels.contains(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::FleetState;
    use super::*;

    fn runner(id: &str, name: &str, labels: &[&str]) -> Runner {
        let mut runner = Runner::new(id.into(), name.into(), format!("tok_{id}"));
        runner.own_labels = labels.iter().map(|l| (*l).to_owned()).collect();
        runner.join_labels();
        runner
    }

    #[test]
    fn a_search_finds_what_is_there_after_every_change() {
        let mut fleet = FleetState::default();
        fleet.add_runner(runner("wn_1", "a", &["os:linux", "web"]));
        fleet.add_runner(runner("wn_2", "b", &["os:linux"]));
        let ids = |fleet: &FleetState, labels: &[&str]| -> Vec<String> {
            let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
            fleet.labelled(&labels).map(|r| r.id.clone()).collect()
        };
        assert_eq!(ids(&fleet, &["os:linux"]), ["wn_1", "wn_2"]);
        assert_eq!(ids(&fleet, &["os:linux", "web"]), ["wn_1"]);
        assert_eq!(ids(&fleet, &["none"]), Vec::<String>::new());
        fleet.change("wn_1", |r| r.open.insert("run".into()));
        assert_eq!(ids(&fleet, &["os:linux"]), ["wn_2", "wn_1"]);
        fleet.change("wn_2", |r| r.name = "a".into());
        assert!(matches!(fleet.named("a"), Named::Many(ids) if ids == ["wn_1", "wn_2"]));
        assert!(matches!(fleet.named("wn_2"), Named::One(r) if r.id == "wn_2"));
        fleet.remove_runner("wn_1");
        assert!(matches!(fleet.named("a"), Named::One(r) if r.id == "wn_2"));
        assert!(matches!(fleet.named("b"), Named::None));
        assert_eq!(ids(&fleet, &["web"]), Vec::<String>::new());
    }

    #[test]
    fn a_name_is_held_by_who_was_made_for_it_until_it_is_revoked() {
        let mut fleet = FleetState::default();
        let mut db1 = runner("wn_1", "box", &[]);
        db1.given_name = "db1".into();
        fleet.add_runner(db1);
        assert_eq!(fleet.holder_of("db1", "wn_2").map(|r| r.id.as_str()), Some("wn_1"));
        assert!(fleet.holder_of("db1", "wn_1").is_none());
        assert!(matches!(fleet.named("db1"), Named::One(r) if r.id == "wn_1"));
        fleet.change("wn_1", |r| r.revoked = true);
        assert!(fleet.holder_of("db1", "wn_2").is_none());
    }
}
