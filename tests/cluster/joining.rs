//! Nodes that are told of each other, or only of one, become one cluster.

use std::time::Duration;

use crate::harness::{Node, PATIENCE, Plan, eventually};

fn agree(nodes: &[Node]) {
    eventually(PATIENCE, "all nodes say that the picture is complete, and agree", || {
        nodes.iter().all(|node| {
            let status = node.status().expect("it answers");
            status.complete && status.disagreements.is_empty() && status.members.len() == nodes.len() - 1
        })
    });
}

#[test]
fn three_nodes_find_each_other_on_all_lanes() {
    let cluster = Plan::nodes(3).start();
    agree(&cluster.nodes);
    for node in &cluster.nodes {
        assert_eq!(node.metric("skein_members"), 3.0);
        assert_eq!(node.metric("skein_members_in_view"), 3.0);
    }
}

#[test]
fn five_nodes_find_each_other_on_all_lanes() {
    let cluster = Plan::nodes(5).start();
    agree(&cluster.nodes);
    // Nobody was lost on the way there.
    for node in &cluster.nodes {
        assert!(node.status().unwrap().flows.iter().all(|flow| !flow.gap_open), "{}", node.name);
    }
}

#[test]
fn two_nodes_that_join_at_once_through_a_third_are_not_ready_before_they_know_each_other() {
    for _ in 0..3 {
        let mut cluster = Plan::nodes(3).prepare();
        let first = cluster.nodes[0].mesh.to_string();
        cluster.nodes[0].seeds.clear();
        cluster.nodes[1].seeds = vec![first.clone()];
        cluster.nodes[2].seeds = vec![first];
        cluster.nodes[0].start();
        eventually(PATIENCE, "the first is ready", || cluster.nodes[0].status().is_some_and(|status| status.ready));
        cluster.nodes[1].start();
        cluster.nodes[2].start();
        let mut seen_alone = 0;
        eventually(PATIENCE, "the joiners are ready", || {
            let statuses = [1, 2].map(|index| cluster.nodes[index].status());
            let ready = statuses.each_ref().map(|status| status.as_ref().is_some_and(|status| status.ready));
            for (status, other) in statuses.iter().zip(["n3", "n2"]) {
                let both = ready == [true, true];
                seen_alone += usize::from(both && !status.as_ref().unwrap().in_view(other));
            }
            ready == [true, true]
        });
        assert_eq!(seen_alone, 0, "both were ready, and did not know each other");
        cluster.together();
    }
}

#[test]
fn a_node_whose_seeds_are_silent_serves_alone_and_says_so() {
    let mut cluster = Plan::nodes(2).flags(&["--mesh.join_timeout=500ms"]).prepare();
    cluster.nodes[0].start();
    let took = eventually(PATIENCE, "it is ready", || cluster.nodes[0].status().is_some_and(|status| status.ready));
    assert!(took >= Duration::from_millis(400), "it waited for its seeds: {took:?}");
    assert!(cluster.nodes[0].log_text().contains("alone"), "{}", cluster.nodes[0].log_text());
    // And takes the other in when it comes.
    cluster.nodes[1].start();
    cluster.together();
}
