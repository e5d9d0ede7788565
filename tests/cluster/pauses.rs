//! Nodes that die, return, or stand still for a while, and what their peers and clients notice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE, Plan, Ws, eventually};

/// Numbers, published one after the other until it is told to stop.
struct Numbers<'a> {
    stop: &'a AtomicBool,
    /// All below are answered.
    published: &'a AtomicU64,
}

impl Numbers<'_> {
    fn publish(&self, node: SocketAddr, channel: &str) {
        let mut publisher = Ws::connect(node);
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.published.load(Ordering::SeqCst);
            publisher.publish(channel, &number.to_string());
            self.published.store(number + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Stops the publisher also when the test fails, or nobody would see it fail.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number(ws: &mut Ws) -> u64 {
    let text = ws.publication(Instant::now() + PATIENCE).expect("a publication in time");
    text.parse().expect("a number")
}

/// The next ones are all there, in order.
fn follow(ws: &mut Ws, mut last: Option<u64>, until: u64) -> u64 {
    loop {
        let next = number(ws);
        assert!(last.is_none_or(|last| next == last + 1), "{next} came after {last:?}");
        last = Some(next);
        if next >= until {
            return next;
        }
    }
}

fn gone_everywhere(cluster: &Cluster, name: &str, within: Duration) -> Duration {
    eventually(within, &format!("{name} is out of view of the others"), || {
        let others = cluster.nodes.iter().filter(|node| node.name != name && node.is_running());
        others.into_iter().all(|node| !node.status().expect("it answers").in_view(name))
    })
}

#[test]
fn a_killed_node_is_seen_in_two_seconds_and_its_clients_go_on_at_another() {
    let mut cluster = Plan::nodes(3).start();
    let (stop, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.client).collect();
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| Numbers { stop: &stop, published: &published }.publish(nodes[1], "count"));
        let mut moving = Ws::connect(nodes[0]);
        let mut staying = Ws::connect(nodes[2]);
        moving.subscribe("count");
        staying.subscribe("count");
        let first = number(&mut staying);
        follow(&mut moving, None, first + 50);

        cluster.nodes[0].kill();
        let killed = Instant::now();
        assert!(moving.disconnected(killed + PATIENCE).is_some(), "its clients notice");
        let mut moving = Ws::connect(nodes[2]);
        // While n1 is still in view its answer is waited for, but not for long.
        let answered = moving.subscribe("count");
        let begun = published.load(Ordering::SeqCst);
        assert!(answered < Duration::from_millis(1500), "{answered:?}");
        let next = number(&mut moving);
        assert!(next <= begun + 1, "what was published after the answer was missed: {next} after {begun}");
        follow(&mut moving, Some(next), next + 100);

        let seen = gone_everywhere(
            &cluster,
            "n1",
            Duration::from_secs(2).saturating_sub(killed.elapsed()).max(Duration::from_millis(1)),
        );
        eprintln!("subscribed elsewhere in {answered:?}, out of view after {:?} ({seen:?})", killed.elapsed());
        for node in &cluster.nodes[1..] {
            assert!(node.metric("skein_views_lost_total") >= 1.0, "{} counts it", node.name);
        }
        // And those who had nothing to do with it missed nothing.
        follow(&mut staying, Some(first), next + 100);
        eventually(Duration::from_secs(10), "membership calls it dead", || {
            cluster.nodes[1..].iter().all(|node| {
                node.status().expect("it answers").member("n1").is_none_or(|member| member.state != "alive")
            })
        });
    });
}

#[test]
fn a_killed_node_is_out_of_view_in_two_seconds_every_time() {
    let mut cluster = Plan::nodes(3).start();
    for round in 0..4 {
        let victim = round % 3;
        let name = cluster.nodes[victim].name.clone();
        cluster.nodes[victim].kill();
        let took = gone_everywhere(&cluster, &name, Duration::from_secs(2));
        eprintln!("{name}: {took:?}");
        cluster.nodes[victim].start();
        cluster.together();
    }
}

#[test]
fn a_node_that_returns_under_the_same_name_is_a_new_generation_and_under_load_others_miss_nothing() {
    let mut cluster = Plan::nodes(3).start();
    let (stop, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.client).collect();
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| Numbers { stop: &stop, published: &published }.publish(nodes[0], "count"));
        let mut steady = Ws::connect(nodes[1]);
        steady.subscribe("count");
        let mut last = number(&mut steady);
        for round in 0..3 {
            let mut client = Ws::connect(nodes[2]);
            client.subscribe("count");
            let begun = published.load(Ordering::SeqCst);
            let first = number(&mut client);
            assert!(first <= begun + 1, "round {round}: {first} came first, {begun} was published after the answer");
            follow(&mut client, Some(first), first + 50);

            let before = cluster.nodes[0].status().unwrap().member("n3").expect("a member").generation;
            cluster.nodes[2].kill();
            // At once: the others may not have noticed yet.
            cluster.nodes[2].start();
            let took = cluster.together();
            eprintln!("back after {took:?}");
            let after = cluster.nodes[0].status().unwrap().member("n3").expect("a member").generation;
            assert!(after > before, "{after} after {before}");
            last = follow(&mut steady, Some(last), published.load(Ordering::SeqCst).saturating_sub(1));
        }
    });
}

#[test]
fn a_node_that_stands_still_for_five_seconds_is_gone_meanwhile_and_told_of_the_gap() {
    let cluster = Plan::nodes(3).start();
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.client).collect();
    let mut frozen = Ws::connect(nodes[2]);
    frozen.subscribe("count");
    let mut publisher = Ws::connect(nodes[0]);
    publisher.publish("count", "0");
    assert_eq!(number(&mut frozen), 0);

    cluster.nodes[2].signal("STOP");
    let stopped = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut round = 0;
    while stopped.elapsed() < Duration::from_secs(5) {
        // The others serve: a new subscription has to be acknowledged by all who are in view.
        let mut client = Ws::connect(nodes[1]);
        let channel = format!("meanwhile-{round}");
        slowest = slowest.max(client.subscribe(&channel));
        publisher.publish(&channel, "1");
        assert_eq!(number(&mut client), 1);
        publisher.publish("count", &(1000 + round).to_string());
        round += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
    for node in &cluster.nodes[..2] {
        assert!(!node.status().unwrap().in_view("n3"), "{} still sees n3", node.name);
    }
    cluster.nodes[2].signal("CONT");
    let back = cluster.together();
    eprintln!("slowest answer meanwhile {slowest:?}, back after {back:?}");

    // Who stood still knows that it missed something, and so does who could not send.
    assert!(cluster.nodes[2].status().unwrap().gaps("n1") > 0, "n3 counts a gap");
    assert!(cluster.nodes[0].status().unwrap().gaps("n3") > 0, "n1 counts a gap");
    // The client of the frozen node, if it was not sent away, hears again.
    publisher.publish("count", "7");
    eventually(PATIENCE, "the client of the node that stood still hears again", || {
        frozen.publication(Instant::now() + PATIENCE).expect("still connected") == "7"
    });
    // It has not become another life.
    assert_eq!(cluster.nodes[2].metric("skein_members_in_view"), 3.0);
}
