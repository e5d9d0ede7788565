//! Nodes of one, two and three workers: a lane joins every worker of one to a worker of the other.

use crate::harness::Plan;
use crate::pairs::{By, exchange};

#[test]
fn nodes_whose_worker_counts_differ_lose_nothing_between_them() {
    // `start` waits for max(C, D) lanes of each pair.
    let cluster = Plan { workers: vec![1, 2, 3], ..Plan::nodes(0) }.start();
    for here in &cluster.nodes {
        for there in cluster.nodes.iter().filter(|there| there.name != here.name) {
            let by = if here.name == "n2" { By::Http } else { By::WebSocket };
            let lost = exchange(here.client, there.client, by, &format!("{}-{}", here.name, there.name), 500);
            assert_eq!(lost, 0, "{} to {}", there.name, here.name);
        }
    }
}
