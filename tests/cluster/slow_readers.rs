//! A client that does not read: bounded, told, and nobody else's trouble.

use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Plan, Ws, eventually};

const MIB: u64 = 1024 * 1024;

#[test]
fn a_slow_reader_keeps_memory_flat_and_delays_nobody() {
    let cluster = Plan::nodes(2).start();
    let node = &cluster.nodes[0];
    let mut quick = Ws::connect(node.client);
    quick.subscribe("news");
    let mut publisher = Ws::connect(cluster.nodes[1].client);
    let data = format!("\"{}\"", "x".repeat(30_000));
    // Once as it will be, so that buffers that are kept are there already.
    for _ in 0..20 {
        publisher.publish("news", &data);
        assert!(quick.publication(Instant::now() + PATIENCE).is_some());
    }
    let before = node.memory();
    let mut stuck: Vec<Ws> = (0..4).map(|_| Ws::connect(node.client)).collect();
    stuck.iter_mut().for_each(|ws| _ = ws.subscribe("news"));
    let mut high = 0;
    let mut slowest = Duration::ZERO;
    // 30 MB to each, of which an outbox takes one.
    for _ in 0..1000 {
        publisher.publish("news", &data);
        let began = Instant::now();
        assert!(quick.publication(began + PATIENCE).is_some(), "who reads hears everything");
        slowest = slowest.max(began.elapsed());
        high = high.max(node.memory());
    }
    let grown = high.saturating_sub(before);
    eprintln!("grown by {:.1} MiB, slowest delivery {slowest:?}", grown as f64 / MIB as f64);
    assert!(grown < 4 * 2 * MIB + 4 * MIB, "{grown} bytes for four outboxes");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    eventually(PATIENCE, "all of them are closed, and counted", || {
        node.metric("skein_disconnects_total{code=\"3008\"") == 4.0
    });
    assert!(node.metric("skein_outbox_bytes_high") <= 1.1 * 1_048_576.0);
}
