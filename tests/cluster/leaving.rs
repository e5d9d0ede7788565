//! A node that is told to stop: the others know at once, its clients are told to go elsewhere, and it ends in time.

use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Plan, Ws, eventually};

#[test]
fn a_planned_leave_is_seen_at_once_and_clients_are_sent_elsewhere() {
    let mut cluster = Plan::nodes(3).start();
    let mut client = Ws::connect(cluster.nodes[0].client);
    client.subscribe("news");
    cluster.nodes[0].signal("TERM");
    let seen = eventually(Duration::from_secs(2), "the others know that n1 has left", || {
        cluster.nodes[1..].iter().all(|node| {
            let status = node.status().expect("it answers");
            !status.in_view("n1") && status.member("n1").is_none_or(|member| member.state == "left")
        })
    });
    assert!(seen < Duration::from_millis(1000), "{seen:?}");
    assert_eq!(client.disconnected(Instant::now() + PATIENCE), Some(3001));
    let (status, took) = cluster.nodes[0].wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(3), "{took:?}");

    // Nobody waits for it: a subscription is answered without delay.
    let mut client = Ws::connect(cluster.nodes[1].client);
    let took = client.subscribe("news");
    assert!(took < Duration::from_millis(400), "{took:?}");
}

#[test]
fn a_reader_that_is_stuck_does_not_keep_a_node_from_stopping() {
    let mut cluster = Plan::nodes(2).flags(&["--shutdown.timeout=2s"]).start();
    let mut stuck = Ws::connect(cluster.nodes[0].client);
    stuck.subscribe("news");
    let mut publisher = Ws::connect(cluster.nodes[1].client);
    // More than the sockets' buffers hold, less than would close the connection.
    let data = format!("\"{}\"", "x".repeat(50_000));
    let outbox = |cluster: &crate::harness::Cluster| cluster.nodes[0].metric("skein_outbox_bytes_high");
    for _ in 0..400 {
        publisher.publish("news", &data);
        if outbox(&cluster) > 200_000.0 {
            break;
        }
    }
    assert!(outbox(&cluster) > 200_000.0, "the reader is stuck");
    assert_eq!(cluster.nodes[0].metric("skein_connections"), 1.0, "and still there");
    cluster.nodes[0].signal("TERM");
    let (status, took) = cluster.nodes[0].wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
