//! Networks that are cut or lose packets, by the kernel's packet filter in a network namespace of the test's own. Each
//! node has a loopback address of its own, so that the filter can tell them apart.

use std::time::{Duration, Instant};

use crate::harness::isolated::{Own, isolated, run};
use crate::harness::{Cluster, Node, PATIENCE, Plan, Ws, eventually};
use crate::pairs::{By, exchange};

const TABLE: &str = "table inet skein";

/// Replaces all rules. They stand where packets arrive: a sender must not be told.
fn rules(rules: &[&str]) {
    let rules = rules.join("\n    ");
    let text = format!(
        "{TABLE}\ndelete {TABLE}\n{TABLE} {{\n  chain arriving {{\n    type filter hook input priority 0;\n    {rules}\n  }}\n}}\n"
    );
    let file = std::env::temp_dir().join(format!("skein-cluster-{}.nft", std::process::id()));
    std::fs::write(&file, text).unwrap();
    run("nft", &["-f", crate::harness::path(&file)]);
    std::fs::remove_file(&file).unwrap();
}

fn four_nodes() -> Cluster {
    Plan { own_addresses: true, ..Plan::nodes(4) }.start()
}

fn sees(node: &Node, others: &[&str]) -> bool {
    let status = node.status().expect("it answers");
    let view: Vec<&str> =
        status.members.iter().filter(|member| member.in_view).map(|member| member.name.as_str()).collect();
    view == others
}

fn hears(here: &Node, there: &Node, channel: &str) {
    let mut client = Ws::connect(here.client);
    client.subscribe(channel);
    Ws::connect(there.client).publish(channel, "1");
    let heard = client.publication(Instant::now() + PATIENCE);
    assert_eq!(heard.as_deref(), Some("1"), "{} hears {}", here.name, there.name);
}

const LEFT: &str = "{ 127.0.0.1, 127.0.0.2 }";
const RIGHT: &str = "{ 127.0.0.3, 127.0.0.4 }";

#[test]
fn two_halves_go_on_by_themselves_and_find_each_other_again() {
    if !isolated("split::two_halves_go_on_by_themselves_and_find_each_other_again", Own::Network) {
        return;
    }
    let cluster = four_nodes();
    let [n1, n2, n3, n4] = &cluster.nodes[..] else { unreachable!("four") };
    // Short, so that membership has hardly noticed; and long, so that each half has buried the other.
    for length in [Duration::from_secs(2), Duration::from_secs(15)] {
        let cut = Instant::now();
        rules(&[
            &format!("ip saddr {LEFT} ip daddr {RIGHT} udp dport > 0 drop"),
            &format!("ip saddr {RIGHT} ip daddr {LEFT} udp dport > 0 drop"),
        ]);
        let seen = eventually(Duration::from_secs(3), "each half sees itself", || {
            sees(n1, &["n2"]) && sees(n2, &["n1"]) && sees(n3, &["n4"]) && sees(n4, &["n3"])
        });
        hears(n1, n2, &format!("left-{length:?}"));
        hears(n3, n4, &format!("right-{length:?}"));
        std::thread::sleep(length.saturating_sub(cut.elapsed()));
        rules(&[]);
        let healed = cluster.together();
        eprintln!("cut for {length:?}: seen after {seen:?}, whole again after {healed:?}");
        // Both sides were told what they missed.
        assert!(n1.status().unwrap().gaps("n3") > 0);
        assert!(n3.status().unwrap().gaps("n1") > 0);
        for (here, there) in [(n1, n3), (n4, n2)] {
            assert_eq!(exchange(here.client, there.client, By::WebSocket, &format!("healed-{length:?}"), 200), 0);
        }
    }
}

#[test]
fn a_cut_in_one_direction_is_a_cut_for_both_and_heals() {
    if !isolated("split::a_cut_in_one_direction_is_a_cut_for_both_and_heals", Own::Network) {
        return;
    }
    let cluster = four_nodes();
    let [n1, n2, n3, n4] = &cluster.nodes[..] else { unreachable!("four") };
    rules(&["ip saddr 127.0.0.1 ip daddr 127.0.0.2 udp dport > 0 drop"]);
    eventually(Duration::from_secs(3), "neither has the other in view", || {
        sees(n1, &["n3", "n4"]) && sees(n2, &["n3", "n4"])
    });
    // Others are not confused: both live, and everybody else sees both.
    std::thread::sleep(Duration::from_secs(6));
    for node in [n3, n4] {
        assert!(node.status().unwrap().in_view("n1") && node.status().unwrap().in_view("n2"), "{}", node.name);
    }
    hears(n3, n1, "one-way-1");
    hears(n3, n2, "one-way-2");
    rules(&[]);
    let healed = cluster.together();
    eprintln!("whole again after {healed:?}");
    // A dial that was under way during the cut may still come through and take the place of the lane that is up: a second,
    // short gap, counted like the first. What was lost in it is not looked for.
    std::thread::sleep(Duration::from_secs(3));
    cluster.together();
    assert_eq!(exchange(n1.client, n2.client, By::WebSocket, "one-way", 200), 0);
}

#[test]
fn one_packet_in_a_hundred_lost_costs_time_but_no_publication() {
    if !isolated("split::one_packet_in_a_hundred_lost_costs_time_but_no_publication", Own::Network) {
        return;
    }
    let cluster = four_nodes();
    let [n1, n2, n3, n4] = &cluster.nodes[..] else { unreachable!("four") };
    rules(&["meta l4proto udp numgen random mod 100 < 1 drop"]);
    let began = Instant::now();
    for (here, there, by) in [(n1, n2, By::WebSocket), (n3, n4, By::Http), (n4, n1, By::WebSocket)] {
        let prefix = format!("{}-{}", here.name, there.name);
        assert_eq!(exchange(here.client, there.client, by, &prefix, 1000), 0, "{prefix}");
    }
    eprintln!("3000 pairs in {:?}", began.elapsed());
    for node in &cluster.nodes {
        assert_eq!(node.metric("skein_views_lost_total"), 0.0, "{}", node.name);
    }
    // Lanes are measured once a second.
    eventually(Duration::from_secs(5), "packets were lost", || {
        cluster.nodes.iter().map(|node| node.metric("skein_lane_lost_packets_total")).sum::<f64>() > 0.0
    });
}
