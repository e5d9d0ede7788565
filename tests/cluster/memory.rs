//! What the interest of one node costs the others.

use crate::harness::{PATIENCE, Plan, Ws, count, eventually};
use skein::client::Event;

const MIB: u64 = 1024 * 1024;
/// Of one client.
const EACH: usize = 2000;

#[test]
fn a_million_channels_of_one_node_cost_its_peer_no_more_than_forty_megabytes() {
    let channels = count("SKEIN_CLUSTER_CHANNELS", 1_000_000);
    // Clients that are done with subscribing answer no pings.
    let flags = [&format!("--client.channel_limit={EACH}"), "--client.ping_interval=0s", "--client.pong_timeout=0s"];
    let mut cluster = Plan::nodes(2).flags(&flags).start();
    let peer = &cluster.nodes[1];
    let before = peer.memory();
    let mut clients = Vec::new();
    let mut left = channels;
    let began = std::time::Instant::now();
    while left > 0 {
        let mut client = Ws::connect(cluster.nodes[0].client);
        let all = left.min(EACH);
        let mut asked = 0;
        let mut answered = 0;
        while answered < all {
            while asked < all && asked - answered < 500 {
                client.ask_subscribe(&format!("channel-{}", left - asked));
                asked += 1;
            }
            match client.next() {
                Event::Subscribed { .. } => answered += 1,
                other => panic!("{other:?}"),
            }
        }
        left -= all;
        clients.push(client);
    }
    eventually(PATIENCE, "the peer knows all of it", || peer.status().expect("it answers").interest("n1") == channels);
    let grown = peer.memory().saturating_sub(before);
    eprintln!("{channels} channels cost {:.1} MiB, after {:?}", grown as f64 / MIB as f64, began.elapsed());
    let allowed = 40_000_000 * channels as u64 / 1_000_000;
    assert!(grown <= allowed.max(8 * MIB), "{grown} bytes for {channels} channels");

    // A peer that comes back hears of all of it again, and is not out of view for it.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    eventually(PATIENCE, "the peer knows all of it again", || {
        cluster.nodes[1].status().is_some_and(|status| status.interest("n1") == channels)
    });
    cluster.together();

    // And it is let go when nobody wants them any more.
    drop(clients);
    let peer = &cluster.nodes[1];
    eventually(PATIENCE, "the peer has forgotten", || peer.status().expect("it answers").interest("n1") == 0);
}
