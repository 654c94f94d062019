//! A simulation of the hub's engine and store with runners, clients, a network, a clock, disks and
//! crashes, in which everything that happens follows from a seed. Each world is disturbed for a while, then left
//! in peace; after that every task must have come to its one end, nothing may be lost, nothing done twice, and
//! output must be what was written, or say where it is not.
//!
//! `SIM_SEEDS` says how many worlds (CI: 100), `SIM_SEED` plays a single one and tells what happens in it.

mod runner;
mod world;

use std::time::Instant;

use crate::clock::seeded;
use world::World;

fn play(seed: u64, loud: bool) -> world::Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        seeded::begin(seed);
        let mut world = World::new(seed, loud).await;
        world.disturb().await;
        world.settle().await;
        let seen = world.check().await;
        seeded::end();
        seen
    })
}

#[test]
fn nothing_is_lost_or_done_twice_whatever_fails() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SIM_SEED") {
        play(seed, true);
        return;
    }
    let begun = Instant::now();
    let mut all = world::Seen::default();
    let count = number("SIM_SEEDS").unwrap_or(100);
    for seed in 0..count {
        let result = std::panic::catch_unwind(|| play(seed, false));
        all += result.unwrap_or_else(|_| panic!("seed {seed}: play it again with SIM_SEED={seed}"));
    }
    println!("{count} worlds in {:?}: {all:?}", begun.elapsed());
    // A simulation in which nothing goes wrong shows nothing.
    assert!(
        all.crashes > count / 4 && all.cuts > count && all.reboots > count / 20 && all.gave_up > 0,
        "{all:?}"
    );
    assert!(all.succeeded > all.runs / 3, "{all:?}");
    assert!(all.held > all.runs / 20 && all.said > all.held / 2, "{all:?}");
}

#[test]
fn output_goes_past_the_store() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        seeded::begin(1);
        let costs = World::new(1, false).await.output_costs(100).await;
        seeded::end();
        assert_eq!(costs, (0, 100), "writes to the store and to the log");
    });
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 10] {
        assert_eq!(play(seed, false), play(seed, false));
    }
}
