//! Subscribe here, publish there: a publication that begins after the subscriber got its answer arrives, always.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use skein::client::Event;

use crate::harness::{Plan, Ws, count, http};

/// Pairs under way at once, for each pair of connections.
const WINDOW: usize = 100;
/// After that a publication is lost.
const LOST: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    WebSocket,
    Http,
}

enum Publisher {
    WebSocket(Box<Ws>),
    Http(http::Connection),
}

impl Publisher {
    fn open(by: By, node: SocketAddr) -> Publisher {
        match by {
            By::WebSocket => Publisher::WebSocket(Box::new(Ws::connect(node))),
            By::Http => Publisher::Http(http::Connection::open(node).expect("the node answers")),
        }
    }

    fn publish(&mut self, channel: &str, data: &str) {
        match self {
            Publisher::WebSocket(ws) => {
                ws.ask_publish(channel, data);
                ws.flush();
            }
            Publisher::Http(connection) => connection.ask_publish(channel, data).expect("the node reads"),
        }
    }

    fn all_went_well(&mut self, asked: usize) {
        for _ in 0..asked {
            match self {
                Publisher::WebSocket(ws) => {
                    let event = ws.next();
                    assert!(matches!(event, Event::Published { .. }), "{event:?}");
                }
                Publisher::Http(connection) => {
                    let (status, body) = connection.answer().expect("the node answers");
                    assert_eq!((status, body.contains("\"result\"")), (200, true), "{body}");
                }
            }
        }
    }
}

/// Subscribes at one node to a fresh channel and publishes to it at the other as soon as that is answered, again and
/// again. How many publications did not arrive.
pub fn exchange(subscribe_at: SocketAddr, publish_at: SocketAddr, by: By, prefix: &str, pairs: usize) -> usize {
    let mut subscriber = Ws::connect(subscribe_at);
    let mut publisher = Publisher::open(by, publish_at);
    let mut lost = 0;
    for begin in (0..pairs).step_by(WINDOW) {
        let channels = (begin..pairs.min(begin + WINDOW)).map(|number| format!("{prefix}-{number}"));
        let mut missing: BTreeSet<String> = channels.collect();
        let asked = missing.len();
        missing.iter().for_each(|channel| subscriber.ask_subscribe(channel));
        let mut deadline = Instant::now() + LOST;
        while !missing.is_empty() {
            match subscriber.event(deadline) {
                Some(Event::Subscribed { channel }) => {
                    publisher.publish(&channel, &format!("\"{channel}\""));
                    deadline = Instant::now() + LOST;
                }
                Some(Event::Publication { channel, data, .. }) => {
                    assert_eq!(data, format!("\"{channel}\"").into_bytes());
                    assert!(missing.remove(&channel), "{channel} came twice");
                    subscriber.ask_unsubscribe(&channel);
                }
                Some(Event::Unsubscribed { code: 0, .. }) => {}
                Some(other) => panic!("{other:?}"),
                None => {
                    eprintln!("{prefix}: lost {missing:?}");
                    lost += missing.len();
                    break;
                }
            }
        }
        publisher.all_went_well(asked);
    }
    lost
}

#[test]
fn a_hundred_thousand_times_what_is_published_there_after_the_answer_here_arrives() {
    let cluster = Plan::nodes(3).start();
    let pairs = count("SKEIN_CLUSTER_PAIRS", 100_000);
    let ways = [
        (0, 1, By::WebSocket),
        (1, 2, By::WebSocket),
        (2, 0, By::WebSocket),
        (1, 0, By::Http),
        (0, 2, By::Http),
        (2, 1, By::WebSocket),
    ];
    let each = pairs.div_ceil(ways.len());
    let began = Instant::now();
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.client).collect();
    let lost: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = ways
            .iter()
            .enumerate()
            .map(|(number, &(here, there, by))| {
                let (here, there) = (nodes[here], nodes[there]);
                scope.spawn(move || exchange(here, there, by, &format!("way{number}"), each))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no surprises")).sum()
    });
    eprintln!("{} pairs in {:?}", each * ways.len(), began.elapsed());
    assert_eq!(lost, 0);
    // Nobody was out of view meanwhile, which would have been told but lost all the same.
    for node in &cluster.nodes {
        assert_eq!(node.metric("skein_views_lost_total"), 0.0, "{}", node.name);
    }
}
