//! Situations that a seed found once, told as stories: a seed means something else as soon as anything is drawn otherwise.

use skein::base::rng::Rng;

use crate::plan::{MILLI, Plan, SECOND};
use crate::trace::Detail;
use crate::world::{Phase, World};

/// Nodes that have each other in view.
fn cluster(workers: &[u16]) -> World {
    let mut world = World::with(Plan::quiet(workers), Rng::seeded(1), Detail::Hash, None);
    world.phase = Phase::Exam;
    for node in 0..workers.len() {
        world.start(node);
    }
    assert!(heals_within(&mut world, SECOND) > 0);
    world
}

/// How long it took.
fn heals_within(world: &mut World, time: u64) -> u64 {
    let began = world.now;
    world.run_while(began + time, |world| !world.why_not_healthy().is_empty());
    assert_eq!(world.why_not_healthy(), "");
    world.now - began
}

#[test]
fn a_node_that_is_started_again_at_once_is_in_view_at_once() {
    for workers in [[1, 1], [2, 1], [1, 2], [3, 4]] {
        let mut world = cluster(&workers);
        world.crash(1);
        world.run_until(world.now + 20 * MILLI);
        world.start(1);
        let healed = heals_within(&mut world, SECOND);
        assert!(healed < 300 * MILLI, "{workers:?}: {} ms", healed / MILLI);
    }
}

#[test]
fn two_nodes_that_could_not_reach_each_other_have_all_lanes_again_soon() {
    for workers in [[1, 1], [2, 1], [1, 2], [3, 4]] {
        let mut world = cluster(&workers);
        for length in [500 * MILLI, 3 * SECOND, 10 * SECOND] {
            world.net.cut(0, 1);
            world.net.cut(1, 0);
            world.run_until(world.now + length);
            world.heal_all();
            heals_within(&mut world, 10 * SECOND);
        }
    }
}

#[test]
fn a_node_that_was_stopped_for_a_while_is_in_view_again_soon() {
    for workers in [[1, 1], [2, 1], [1, 2], [3, 4]] {
        let mut world = cluster(&workers);
        for length in [500 * MILLI, 2 * SECOND, 6 * SECOND] {
            world.pause(1, length);
            world.run_until(world.now + length + MILLI);
            heals_within(&mut world, 10 * SECOND);
        }
    }
}
