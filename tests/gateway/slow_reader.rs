//! A client that does not read: it is closed with 3008 at its bound, nobody else waits for it, and memory stays flat.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Encoding, Message, Node, slow};

const PAYLOAD_BYTES: usize = 4096;

/// Publishes so often, and the witness hears each. The slowest round and the sizes of the process meanwhile.
fn flood(node: &Node, publisher: &mut Client, witness: &mut Client, count: usize) -> (Duration, Vec<usize>) {
    let text = "x".repeat(PAYLOAD_BYTES);
    let (mut slowest, mut sizes) = (Duration::ZERO, Vec::new());
    for n in 0..count {
        let begin = Instant::now();
        publisher.publish("room", json!([n, text]));
        assert_eq!(witness.publication("room")["data"][0], n);
        slowest = slowest.max(begin.elapsed());
        if n % 64 == 0 {
            sizes.push(node.resident_bytes());
        }
    }
    (slowest, sizes)
}

/// Once the stuck reader is gone and everything that is reused has been used, nothing is added but what the allocator
/// takes at once. Together it stays within what one worker or two and
/// the queue of one client may hold.
fn assert_flat(before: usize, sizes: &[usize]) {
    let (warm, rest) = sizes.split_at(sizes.len() / 2);
    let (settled, most) = (warm.last().expect("sizes"), rest.iter().max().expect("sizes"));
    assert!(*most < settled + (4 << 20), "{sizes:?}");
    assert!(*most < before + (24 << 20), "{before} and then {sizes:?}");
}

#[test]
fn a_reader_that_stopped_is_closed_as_slow_and_delays_nobody() {
    let node = Node::start(&["--client.insecure"]);
    let (mut publisher, mut witness) = (node.connected(Encoding::Json), node.connected(Encoding::Protobuf));
    witness.subscribe("room");
    let mut stuck = node.connected(Encoding::Json);
    stuck.subscribe("room");
    let before = node.resident_bytes();

    // Far more than the sockets' buffers and the bound of 1 MiB hold.
    let count = if slow() { 20_000 } else { 4_000 };
    let (slowest, sizes) = flood(&node, &mut publisher, &mut witness, count);
    assert!(slowest < Duration::from_secs(2), "the others waited for it: {slowest:?}");
    assert_flat(before, &sizes);

    let metrics = node.metrics();
    assert_eq!(metrics.labelled("skein_disconnects_total", "code=\"3008\""), 1);
    assert!(metrics.labelled("skein_drops_total", "reason=\"outbox_slow\"") > 0);
    let high = metrics.get("skein_outbox_bytes_high");
    assert!(high <= (1 << 20) + 2 * PAYLOAD_BYTES as u64, "{high}");
    assert_eq!(metrics.get("skein_subscriptions"), 1);

    // When it reads at last it finds the first publications, in order, and nothing cut.
    let Some(first) = stuck.push_within(Duration::from_secs(5)) else { return };
    assert_eq!(first["pub"]["data"][0], 0);
}

#[test]
fn who_reads_in_time_gets_everything_that_waited_and_then_the_code() {
    let node = Node::start(&["--client.insecure", "--client.queue_max_size=200000"]);
    let (mut publisher, mut witness) = (node.connected(Encoding::Json), node.connected(Encoding::Json));
    witness.subscribe("room");
    let mut late = node.connected(Encoding::Json);
    late.subscribe("room");
    let text = "x".repeat(PAYLOAD_BYTES);
    let mut sent = 0;
    while node.metrics().labelled("skein_disconnects_total", "code=\"3008\"") == 0 {
        for _ in 0..20 {
            publisher.publish("room", json!([sent, text]));
            assert_eq!(witness.publication("room")["data"][0], sent);
            sent += 1;
        }
        assert!(sent < 100_000, "it is never too slow");
    }
    let mut heard = 0;
    let end = loop {
        match late.socket.receive() {
            Message::Text(lines) => {
                for line in lines.lines() {
                    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    assert_eq!(value["push"]["pub"]["data"][0], heard, "in order, without a hole");
                    heard += 1;
                }
            }
            other => break other,
        }
    };
    assert!(heard > 0);
    assert_eq!(end, Message::Close(3008, "slow".into()));
}

#[test]
fn a_client_that_asks_without_reading_is_slow_too() {
    let node = Node::start(&["--client.insecure"]);
    let files = node.open_files();
    let mut client = node.connected(Encoding::Json);
    let before = node.resident_bytes();
    let long = "x".repeat(200);
    let stream = client.socket.stream.try_clone().expect("a socket can be cloned");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket takes options");
    // Errors echo nothing, so they have to be many: until the node reads no more or has ended it.
    let commands: Vec<_> = (1..=256).map(|id| json!({ "id": id, "rpc": { "method": long } })).collect();
    let mut sizes = Vec::new();
    for round in 0..4_000 {
        client.send(&commands);
        if round % 20 == 0 {
            sizes.push(node.resident_bytes());
            if node.metrics().labelled("skein_disconnects_total", "code=\"3008\"") == 1 {
                break;
            }
        }
    }
    assert_eq!(node.metrics().labelled("skein_disconnects_total", "code=\"3008\""), 1);
    sizes.push(node.resident_bytes());
    assert!(sizes.iter().all(|size| *size < before + (24 << 20)), "{before} and then {sizes:?}");
    drop((client, stream));
    node.is_clean(files);
}
