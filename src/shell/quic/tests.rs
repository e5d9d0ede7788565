//! Endpoints over loopback, driven in one thread: real sockets, time that the test moves.

use std::net::{Ipv4Addr, UdpSocket};

use super::*;
use crate::app::cert::Authority;
use crate::base::id::NodeId;

const STEP: Duration = Duration::from_micros(200);

fn identity(authority: &Authority, name: &str) -> Identity {
    let name = NodeId::parse(name).expect("a node's name");
    Identity::parse(&authority.node(&name).expect("a bundle")).expect("an identity")
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

struct World {
    now: Instant,
    nodes: Vec<Option<Node>>,
}

struct Node {
    quic: Quic,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        World { now: Instant::START, nodes: Vec::new() }
    }

    fn add(&mut self, identity: &Identity, options: Options) -> usize {
        let quic = Quic::bind(loopback(), identity, options, self.now).expect("a loopback socket");
        self.nodes.push(Some(Node { quic, events: Vec::new() }));
        self.nodes.len() - 1
    }

    /// Two nodes of one cluster.
    fn pair(options: Options) -> (World, usize, usize) {
        let authority = Authority::generate().expect("a CA");
        let mut world = World::new();
        let a = world.add(&identity(&authority, "a"), options.clone());
        let b = world.add(&identity(&authority, "b"), options);
        (world, a, b)
    }

    fn node(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().expect("the node lives")
    }

    fn address(&mut self, index: usize) -> SocketAddr {
        self.node(index).quic.local_addr()
    }

    /// One turn of one node.
    fn turn(&mut self, index: usize) {
        let now = self.now;
        let Some(node) = self.nodes[index].as_mut() else { return };
        while node.quic.on_readable(now, 64) == More::Maybe {}
        if node.quic.poll_timeout().is_some_and(|due| due <= now) {
            node.quic.on_timeout(now);
        }
        while let Some(event) = node.quic.poll_event() {
            node.events.push(event);
        }
        node.quic.flush(now);
        assert!(node.quic.poll_timeout().is_none_or(|due| due > now), "nothing is due after a turn");
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        for index in 0..self.nodes.len() {
            self.turn(index);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) {
        for _ in 0..50_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("it never came: {what}");
    }

    fn take(&mut self, index: usize, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut found = None;
        self.run_until(what, |world| {
            let events = &mut world.node(index).events;
            found = events.iter().position(&wanted).map(|at| events.remove(at));
            found.is_some()
        });
        found.expect("found above")
    }

    fn take_up(&mut self, index: usize) -> (LaneKey, Vec<String>, Option<u64>, SocketAddr) {
        match self.take(index, "up", |event| matches!(event, Event::Up { .. })) {
            Event::Up { lane, names, dial, remote } => (lane, names, dial, remote),
            _ => unreachable!("taken as up"),
        }
    }

    fn take_down(&mut self, index: usize, lane: LaneKey) -> Down {
        match self.take(index, "down", |event| matches!(event, Event::Down { lane: down, .. } if *down == lane)) {
            Event::Down { why, .. } => why,
            _ => unreachable!("taken as down"),
        }
    }

    fn take_dial_failed(&mut self, index: usize) -> String {
        match self.take(index, "a failed dial", |event| matches!(event, Event::DialFailed { .. })) {
            Event::DialFailed { why, .. } => why,
            _ => unreachable!("taken as failed"),
        }
    }

    /// A lane from `a` to `b`, by its key on each side.
    fn join(&mut self, a: usize, b: usize) -> (LaneKey, LaneKey) {
        let (now, remote) = (self.now, self.address(b));
        self.node(a).quic.dial(now, remote, 7);
        let (lane_a, ..) = self.take_up(a);
        let (lane_b, ..) = self.take_up(b);
        // The acceptor's control stream opens with the dialer's first byte, as the HELLO does.
        assert_eq!(self.node(a).quic.write(lane_a, LaneStream::Control, b"hello"), 5);
        assert_eq!(self.received(b, lane_b, LaneStream::Control, 5), b"hello");
        (lane_a, lane_b)
    }

    /// Runs until that many bytes came.
    fn received(&mut self, index: usize, lane: LaneKey, stream: LaneStream, wanted: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.run_until("bytes", |world| {
            world.node(index).events.retain(|event| match event {
                Event::Bytes { lane: of, stream: on, bytes } if *of == lane && *on == stream => {
                    all.extend_from_slice(bytes);
                    false
                }
                _ => true,
            });
            all.len() >= wanted
        });
        all
    }
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = crate::base::rng::Rng::seeded(seed);
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

#[test]
fn a_lane_comes_up_on_both_sides_with_the_names_of_the_peer() {
    let (mut world, a, b) = World::pair(Options::default());
    let (address_a, address_b) = (world.address(a), world.address(b));
    let now = world.now;
    world.node(a).quic.dial(now, address_b, 7);
    let (_, names, dial, remote) = world.take_up(a);
    assert_eq!((names, dial, remote), (vec!["b".to_owned()], Some(7), address_b));
    let (_, names, dial, remote) = world.take_up(b);
    assert_eq!((names, dial, remote), (vec!["a".to_owned()], None, address_a));
    let counters = *world.node(b).quic.counters();
    assert_eq!((counters.retries, counters.lanes_up), (1, 1), "the address was proved first");
}

#[test]
fn an_ipv6_socket_takes_ipv4_peers_under_their_own_address() {
    let authority = Authority::generate().expect("a CA");
    let mut world = World::new();
    let a = world.add(&identity(&authority, "a"), Options::default());
    let b = identity(&authority, "b");
    let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
    let Ok(quic) = Quic::bind(any, &b, Options::default(), world.now) else {
        return; // no IPv6 on this machine
    };
    world.nodes.push(Some(Node { quic, events: Vec::new() }));
    let (now, remote) = (world.now, world.address(a));
    world.node(1).quic.dial(now, remote, 1);
    assert_eq!(world.take_up(1).3, remote);
    let (_, _, _, seen) = world.take_up(a);
    assert!(seen.is_ipv4());
}

#[test]
fn ten_megabytes_arrive_intact_and_in_order_both_ways() {
    const TOTAL: usize = 10 * 1024 * 1024;
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, lane_b) = world.join(a, b);
    let sent = [pattern(1, TOTAL), pattern(2, TOTAL)];
    let (mut written, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
    world.run_until("all bytes", |world| {
        for (i, (node, lane)) in [(a, lane_a), (b, lane_b)].into_iter().enumerate() {
            // Batches of odd sizes, some small enough to be staged and some to pass by.
            let end = TOTAL.min(written[i] + [700, 9_001, 100_003][written[i] % 3]);
            written[i] += world.node(node).quic.write(lane, LaneStream::Publications, &sent[i][written[i]..end]);
            for event in world.node(node).events.drain(..) {
                if let Event::Bytes { stream: LaneStream::Publications, bytes, .. } = event {
                    got[1 - i].extend_from_slice(&bytes);
                }
            }
        }
        got.iter().all(|got| got.len() >= TOTAL)
    });
    assert!(got == sent, "the bytes are those that were sent");
    let stats = world.node(a).quic.stats(lane_a);
    assert!(stats.sent_bytes > TOTAL as u64);
    assert!(stats.mtu > 1232, "path discovery raised the MTU: {}", stats.mtu);
}

#[test]
fn the_acceptor_may_write_control_before_the_stream_is_open() {
    let (mut world, a, b) = World::pair(Options::default());
    let (now, remote) = (world.now, world.address(b));
    world.node(a).quic.dial(now, remote, 1);
    let (lane_a, ..) = world.take_up(a);
    let (lane_b, ..) = world.take_up(b);
    assert_eq!(world.node(b).quic.write(lane_b, LaneStream::Control, b"welcome"), 7);
    world.run(Duration::from_millis(50));
    assert_eq!(world.node(a).quic.write(lane_a, LaneStream::Control, b"hello"), 5);
    assert_eq!(world.received(a, lane_a, LaneStream::Control, 7), b"welcome");
}

#[test]
fn datagrams_arrive_and_too_long_ones_are_refused() {
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, lane_b) = world.join(a, b);
    assert!(world.node(a).quic.datagram_bytes_max(lane_a) >= 1_180);
    assert!(world.node(a).quic.datagram(lane_a, b"ping"));
    assert!(!world.node(a).quic.datagram(lane_a, &[0; 20_000]));
    let event = world.take(b, "a datagram", |event| matches!(event, Event::Datagram { .. }));
    assert!(matches!(event, Event::Datagram { lane, bytes } if lane == lane_b && bytes == b"ping"[..]));
}

#[test]
fn a_full_datagram_queue_refuses_and_empties() {
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, _) = world.join(a, b);
    let queued = (0..1_000).take_while(|_| world.node(a).quic.datagram(lane_a, &[1; 1_000])).count();
    assert!((32..=64).contains(&queued), "{queued} datagrams fit 64 KiB");
    world.run(Duration::from_millis(100));
    assert!(world.node(a).quic.datagram(lane_a, &[1; 1_000]));
    assert!(world.node(b).events.iter().filter(|event| matches!(event, Event::Datagram { .. })).count() >= queued);
}

#[test]
fn the_peer_sees_the_close_code_after_the_bytes_before_it() {
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, lane_b) = world.join(a, b);
    world.node(a).quic.write(lane_a, LaneStream::Publications, b"last words");
    world.turn(a);
    let now = world.now;
    world.node(a).quic.close(now, lane_a, 42, "bye");
    assert_eq!(world.node(a).quic.write(lane_a, LaneStream::Control, b"x"), 0, "a closed lane takes nothing");
    assert_eq!(world.take_down(a, lane_a), Down::Local);
    assert_eq!(world.received(b, lane_b, LaneStream::Publications, 10), b"last words");
    assert_eq!(world.take_down(b, lane_b), Down::Closed { code: 42, reason: "bye".into() });
    world.run(Duration::from_secs(2));
    for node in [a, b] {
        assert_eq!(world.node(node).quic.len(), 0, "nothing of the lane is left");
        assert_eq!(world.node(node).quic.poll_timeout(), None);
    }
}

#[test]
fn a_vanished_peer_is_noticed_by_the_idle_timeout() {
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, _) = world.join(a, b);
    world.run(Duration::from_secs(3));
    assert!(world.node(a).events.is_empty(), "keep-alives keep an idle lane up");
    let since = world.now;
    world.nodes[b] = None;
    assert_eq!(world.take_down(a, lane_a), Down::IdleTimeout);
    let took = world.now.since(since);
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(1_400), "{took:?}");
    assert_eq!(world.node(a).quic.len(), 0);
}

#[test]
fn a_dial_to_nobody_fails_in_time() {
    let (mut world, a, _) = World::pair(Options::default());
    let silent = UdpSocket::bind(loopback()).expect("a socket");
    let (now, since) = (world.now, world.now);
    world.node(a).quic.dial(now, silent.local_addr().expect("bound"), 3);
    assert_eq!(world.take_dial_failed(a), "no answer");
    assert!(world.now.since(since) < Duration::from_secs(4));
    assert_eq!(world.node(a).quic.len(), 0);
}

#[test]
fn a_peer_of_another_ca_is_refused_by_both_sides() {
    let (ours, theirs) = (Authority::generate().expect("a CA"), Authority::generate().expect("a CA"));
    let mut world = World::new();
    let a = world.add(&identity(&ours, "a"), Options::default());
    let b = world.add(&identity(&theirs, "b"), Options::default());
    let (now, remote) = (world.now, world.address(b));
    world.node(a).quic.dial(now, remote, 1);
    let why = world.take_dial_failed(a);
    assert!(why.contains("did not prove"), "{why}");
    world.run(Duration::from_secs(1));
    assert_eq!(world.node(b).quic.counters().refused_by_dialer, 1);
    assert!(world.node(b).events.is_empty());
}

/// A dialer that shows what it is told to, and trusts the CA of `trusted`.
fn impostor(world: &mut World, trusted: &Identity, shown: Option<&Identity>, alpn: &[u8]) -> usize {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(tls::verifier(trusted));
    let mut client = match shown {
        Some(shown) => builder
            .with_client_auth_cert(vec![shown.certificate.clone()], shown.key.clone_key())
            .expect("a usable pair"),
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = vec![alpn.to_vec()];
    let at = world.add(trusted, Options::default());
    world.node(at).quic.dialer = tls::dialer(client, &Options::default());
    at
}

/// Dials as an impostor; what the dialer hears, however far it believed to have come, and the acceptor's counters.
fn refused(shown: impl FnOnce(&Authority) -> Option<Identity>, alpn: &[u8]) -> (String, Counters) {
    let authority = Authority::generate().expect("a CA");
    let mut world = World::new();
    let b = world.add(&identity(&authority, "b"), Options::default());
    let a = impostor(&mut world, &identity(&authority, "a"), shown(&authority).as_ref(), alpn);
    let (now, remote) = (world.now, world.address(b));
    world.node(a).quic.dial(now, remote, 1);
    world.run_until("a refusal", |world| {
        let counters = world.node(b).quic.counters();
        counters.refused_no_certificate + counters.refused_certificate + counters.refused_alpn > 0
    });
    assert_eq!(world.node(b).quic.len(), 0, "a stranger is forgotten in the turn that refused it");
    let event = world.take(a, "refusal", |event| {
        matches!(event, Event::DialFailed { .. } | Event::Down { why: Down::Transport(_), .. })
    });
    let why = match event {
        Event::DialFailed { why, .. } | Event::Down { why: Down::Transport(why), .. } => why,
        _ => unreachable!("taken as one of these"),
    };
    world.run(Duration::from_millis(10));
    assert!(world.node(b).events.is_empty(), "the acceptor never saw a lane");
    (why, *world.node(b).quic.counters())
}

#[test]
fn a_dialer_without_a_certificate_is_refused_told_and_counted() {
    let (why, counters) = refused(|_| None, ALPN);
    assert!(why.contains("asks for a certificate"), "{why}");
    assert_eq!(counters.refused_no_certificate, 1);
}

#[test]
fn a_dialer_of_another_ca_is_refused_told_and_counted() {
    let other = |_: &Authority| Some(identity(&Authority::generate().expect("a CA"), "a"));
    let (why, counters) = refused(other, ALPN);
    assert!(why.contains("does not accept this node's certificate"), "{why}");
    assert_eq!(counters.refused_certificate, 1);
}

#[test]
fn a_dialer_of_another_protocol_is_refused_told_and_counted() {
    let (why, counters) = refused(|ours| Some(identity(ours, "a")), b"skein/2");
    assert!(why.contains("another major version"), "{why}");
    assert_eq!(counters.refused_alpn, 1);
}

#[test]
fn garbage_is_counted_and_leaves_nothing() {
    let (mut world, a, b) = World::pair(Options::default());
    let (lane_a, lane_b) = world.join(a, b);
    let noise = UdpSocket::bind(loopback()).expect("a socket");
    let (target, mut rng) = (world.address(b), crate::base::rng::Rng::seeded(5));
    let before = (world.node(b).quic.len(), world.node(b).quic.events.len());
    let sent = 5_000;
    for i in 0..sent {
        let mut bytes = pattern(i, 1 + (rng.next_u64() % 1_400) as usize);
        if i % 4 == 0 {
            // Looks like the first packet of a handshake.
            bytes.resize(1_200, 0);
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        noise.send_to(&bytes, target).expect("loopback takes it");
        if i % 50 == 0 {
            world.step();
        }
    }
    world.run(Duration::from_millis(20));
    let quic = &world.node(b).quic;
    let counters = quic.counters();
    assert!(counters.dropped_datagrams >= sent / 2, "{counters:?}");
    assert_eq!((quic.len(), quic.events.len()), before);
    assert!(quic.strangers.is_empty() && quic.by_handle.len() <= 2);
    assert_eq!(quic.endpoint.open_connections(), 1);
    assert_eq!(world.node(a).quic.write(lane_a, LaneStream::Publications, b"still here"), 10);
    assert_eq!(world.received(b, lane_b, LaneStream::Publications, 10), b"still here");
}

#[test]
fn a_flood_costs_no_more_than_the_budget() {
    let (mut world, _, b) = World::pair(Options::default());
    let noise = UdpSocket::bind(loopback()).expect("a socket");
    let target = world.address(b);
    for _ in 0..500 {
        noise.send_to(&[0; 100], target).expect("loopback takes it");
    }
    let now = world.now;
    let quic = &mut world.node(b).quic;
    assert_eq!(quic.on_readable(now, 20), More::Maybe);
    let seen = quic.counters().received_datagrams;
    assert!((20..=28).contains(&seen), "{seen} datagrams were looked at");
    while quic.on_readable(now, 20) == More::Maybe {}
    assert!(quic.counters().received_datagrams > 100);
}

#[test]
fn strangers_hold_a_bounded_number_of_handshakes_and_members_still_get_in() {
    let options = Options { handshakes_max: 8, ..Options::default() };
    let (mut world, a, b) = World::pair(options);
    let target = world.address(b);
    // An impostor that begins handshakes and never goes on.
    let authority = Authority::generate().expect("a CA");
    let stranger = world.add(&identity(&authority, "x"), Options::default());
    let now = world.now;
    for token in 0..100 {
        world.node(stranger).quic.dial(now, target, token);
    }
    world.node(stranger).quic.flush(now);
    for _ in 0..4 {
        // Only so far that its addresses are proved: the answers to a handshake are read but not answered.
        world.turn(b);
        let node = world.node(stranger);
        node.quic.on_readable(now, 10_000);
        node.quic.flush(now);
    }
    let quic = &world.node(b).quic;
    assert!(quic.strangers.len() <= 4, "one address holds half of the places");
    assert!(quic.counters().refused_busy > 0);
    world.nodes[stranger] = None;
    let (lane_a, _) = world.join(a, b);
    world.run(Duration::from_secs(4));
    assert_eq!(world.node(b).quic.len(), 1, "strangers are forgotten in time");
    assert_eq!(world.node(a).quic.write(lane_a, LaneStream::Control, b"x"), 1);
}

#[test]
fn a_peer_that_does_not_read_cuts_writes_short_and_memory_stays_bounded() {
    let options = Options::default();
    let bound = options.staged_bytes_max + options.lane_window as usize + options.send_window as usize;
    let (mut world, a, b) = World::pair(options);
    let (lane_a, lane_b) = world.join(a, b);
    let mut written = 0;
    let chunk = pattern(9, 50_000);
    // b lives, acknowledges, but never takes events out.
    for _ in 0..2_000 {
        world.now = world.now + STEP;
        let now = world.now;
        written += world.node(a).quic.write(lane_a, LaneStream::Publications, &chunk);
        world.turn(a);
        let quic = &mut world.node(b).quic;
        quic.on_readable(now, 1_000);
        quic.on_timeout(now);
        quic.flush(now);
    }
    assert!(written <= bound, "{written} bytes were taken, {bound} at most");
    assert!(written >= 256 * 1024, "{written} bytes were taken");
    assert_eq!(world.node(a).quic.write(lane_a, LaneStream::Publications, &chunk), 0);
    assert!(!world.node(a).events.iter().any(|event| matches!(event, Event::Writable { .. })));
    let control = world.node(a).quic.write(lane_a, LaneStream::Control, b"not stuck behind it");
    assert_eq!(control, 19);
    assert_eq!(world.received(b, lane_b, LaneStream::Control, 19), b"not stuck behind it");
    // It took events out above: the rest flows.
    let writable =
        |event: &Event| matches!(event, Event::Writable { lane, stream: LaneStream::Publications } if *lane == lane_a);
    world.take(a, "writable", writable);
    assert_eq!(world.received(b, lane_b, LaneStream::Publications, written).len(), written);
    assert_eq!(world.node(a).quic.stats(lane_a).staged_bytes, 0);
}

#[test]
fn a_peer_that_was_restarted_on_its_port_is_noticed_and_dialled_anew() {
    let authority = Authority::generate().expect("a CA");
    let mut world = World::new();
    let a = world.add(&identity(&authority, "a"), Options::default());
    let reborn = identity(&authority, "b");
    let b = world.add(&reborn, Options::default());
    let (old, _) = world.join(a, b);
    let address = world.address(b);
    world.nodes[b] = None;
    let quic = Quic::bind(address, &reborn, Options::default(), world.now).expect("the port is free again");
    world.nodes[b] = Some(Node { quic, events: Vec::new() });
    let since = world.now;
    let why = world.take_down(a, old);
    assert!(matches!(&why, Down::Transport(why) if why.contains("restarted")), "{why:?}");
    assert!(world.now.since(since) < Duration::from_millis(400), "told by a reset at the next keep-alive");
    let (new, _) = world.join(a, b);
    assert_ne!(new, old);
    assert_eq!(world.node(a).quic.write(old, LaneStream::Control, b"x"), 0, "the old key finds nothing");
}

#[test]
fn a_peer_that_ends_a_stream_is_closed_with_a_code() {
    for misuse in ["finish", "reset", "second stream"] {
        let (mut world, a, b) = World::pair(Options::default());
        let (lane_a, lane_b) = world.join(a, b);
        let connection = &mut world.node(a).quic.lanes.get_mut(lane_a.0).expect("up").connection;
        let publications = quinn_proto::StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Uni, 0);
        match misuse {
            "finish" => connection.send_stream(publications).finish().expect("open"),
            "reset" => connection.send_stream(publications).reset(0u32.into()).expect("open"),
            _ => assert_eq!(connection.streams().open(quinn_proto::Dir::Bi), None, "the peer's limit forbids it"),
        }
        if misuse == "second stream" {
            continue;
        }
        world.node(a).quic.mark_dirty(lane_a.0);
        assert!(matches!(world.take_down(b, lane_b), Down::Transport(_)));
        let why = world.take_down(a, lane_a);
        assert!(matches!(why, Down::Closed { code: CLOSE_STREAM_MISUSED, .. }), "{misuse}: {why:?}");
    }
}

#[test]
fn idle_lanes_are_not_touched() {
    let (mut world, a, b) = World::pair(Options::default());
    let lanes: Vec<_> = (0..20).map(|_| world.join(a, b)).collect();
    world.run(Duration::from_millis(20));
    let now = world.now;
    let node = world.node(a);
    node.quic.write(lanes[3].0, LaneStream::Publications, b"x");
    assert_eq!(node.quic.dirty, [lanes[3].0.0]);
    node.quic.flush(now);
    assert!(node.quic.dirty.is_empty() && node.quic.listed.is_empty() && node.quic.touched.is_empty());
    assert_eq!(node.quic.len(), 20);
}

#[test]
fn an_identity_of_a_foreign_key_is_refused_at_bind() {
    let authority = Authority::generate().expect("a CA");
    let mut mixed = identity(&authority, "a");
    mixed.key = identity(&authority, "b").key;
    let error = Quic::bind(loopback(), &mixed, Options::default(), Instant::START).err().expect("refused");
    assert!(error.to_string().contains("bundle"), "{error}");
}
