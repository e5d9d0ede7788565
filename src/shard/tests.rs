//! What one node's shards do for clients, without sockets: bytes in, bytes out.

use super::outlet::{Answer, LaneKey, LaneStream, Outgoing, RequestKey, SendResult, Unsent};
use super::*;
use crate::auth::Verifier;
use crate::rules::Rules;
use crate::session;
use std::collections::BTreeMap;

/// The world as far as one node needs it: every socket takes everything, unless told otherwise.
#[derive(Default)]
struct World {
    now: u64,
    sent: BTreeMap<i32, Vec<u8>>,
    /// Room that a socket has left; none: endless.
    room: BTreeMap<i32, usize>,
    finished: Vec<(i32, Finish)>,
    mail: Vec<(WorkerIndex, Mail)>,
    answers: BTreeMap<RequestKey, Answer>,
    sends: usize,
}

impl Outlet for World {
    fn send<'a, I, S>(&mut self, batch: I, unsent: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>,
    {
        for (index, outgoing) in batch.enumerate() {
            self.sends += 1;
            let bytes: Vec<u8> = outgoing.slices.flatten().copied().collect();
            assert_eq!(bytes.len(), outgoing.bytes);
            let room = self.room.get_mut(&outgoing.socket);
            let taken = room.as_ref().map_or(bytes.len(), |room| bytes.len().min(**room));
            if let Some(room) = room {
                *room -= taken;
            }
            self.sent.entry(outgoing.socket).or_default().extend_from_slice(&bytes[..taken]);
            if taken < bytes.len() {
                unsent.push(Unsent { index, result: SendResult::Short(taken) });
            }
        }
    }

    fn finish(&mut self, _: ConnectionKey, socket: i32, how: Finish) {
        self.finished.push((socket, how));
    }

    fn mail(&mut self, to: WorkerIndex, mail: Mail) -> Result<(), Mail> {
        self.mail.push((to, mail));
        Ok(())
    }

    fn lane_write(&mut self, _: LaneKey, _: LaneStream, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn lane_datagram(&mut self, _: LaneKey, _: &[u8]) {}
    fn lane_dial(&mut self, _: SocketAddr, _: u64) {}
    fn lane_close(&mut self, _: LaneKey, _: u32, _: &str) {}
    fn lanes_written(&mut self) {}

    fn answer(&mut self, request: RequestKey, answer: Answer) {
        let before = self.answers.insert(request, answer);
        assert!(before.is_none(), "a request is answered once");
    }
}

struct Node {
    shards: Vec<Shard>,
    world: World,
    sockets: i32,
}

#[derive(Clone, Copy)]
struct Client {
    worker: usize,
    key: ConnectionKey,
    socket: i32,
}

impl Node {
    fn new(workers: u16) -> Self {
        Node::with(workers, Options::default())
    }

    fn with(workers: u16, options: Options) -> Self {
        let shard = |worker| {
            Shard::new(Setup {
                worker,
                workers,
                node: NodeId::parse("a").unwrap(),
                hash_key: HashKey::new([1; 16]),
                environment: Environment {
                    options: session::Options::default(),
                    rules: Rules::new(crate::rules::Options::open()),
                    verifier: Verifier::new(&crate::auth::Options::default()),
                },
                options: options.clone(),
                mesh: None,
                echo: false,
                rng: Rng::seeded(u64::from(worker)),
                now: Now::default(),
            })
        };
        Node { shards: (0..workers).map(shard).collect(), world: World::default(), sockets: 0 }
    }

    fn now(&self) -> Now {
        Now::simulated(Instant::from_nanos(self.world.now))
    }

    fn open(&mut self, worker: usize) -> Client {
        self.sockets += 1;
        let opened = Opened {
            socket: self.sockets,
            address: IpAddr::from([127, 0, 0, 1]),
            encoding: Encoding::Json,
            frame_pings: false,
            response: b"HTTP/1.1 101\r\n\r\n",
        };
        let now = self.now();
        let key = self.shards[worker].on_open(now, opened);
        Client { worker, key, socket: self.sockets }
    }

    fn say(&mut self, client: Client, text: &str) {
        let mut frame = client_frame(text.as_bytes());
        let now = self.now();
        self.shards[client.worker].on_bytes(now, client.key, &mut frame);
    }

    /// Turns until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..100 {
            let now = self.now();
            for (from, shard) in self.shards.iter_mut().enumerate() {
                let before = self.world.mail.len();
                shard.flush(now, &mut self.world);
                for entry in &mut self.world.mail[before..] {
                    // Whose mail it is travels in the upper half of the address.
                    entry.0 |= (from as u16) << 8;
                }
            }
            if self.world.mail.is_empty() && !self.shards.iter().any(Shard::is_dirty) {
                return;
            }
            for (way, mail) in std::mem::take(&mut self.world.mail) {
                self.shards[usize::from(way & 0xff)].on_mail(now, way >> 8, mail);
            }
        }
        panic!("the node never comes to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.world.now += time.as_nanos() as u64;
        let now = self.now();
        for shard in &mut self.shards {
            if shard.poll_deadline().is_some_and(|at| at <= now.mono) {
                shard.on_deadline(now);
            }
        }
        self.settle();
    }

    /// The messages that a client got since it was last asked, the 101 and all frames' heads left out.
    fn heard(&mut self, client: Client) -> Vec<String> {
        let bytes = self.world.sent.remove(&client.socket).unwrap_or_default();
        let mut rest = bytes.strip_prefix(b"HTTP/1.1 101\r\n\r\n").unwrap_or(&bytes);
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let (opcode, length, head) = match rest[1] {
                126 => (rest[0], usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
                127 => (rest[0], u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize, 10),
                short => (rest[0], usize::from(short), 2),
            };
            let payload = &rest[head..head + length];
            match opcode {
                0x88 => messages.push(format!("close {}", u16::from_be_bytes([payload[0], payload[1]]))),
                _ => messages.extend(String::from_utf8_lossy(payload).lines().map(str::to_owned)),
            }
            rest = &rest[head + length..];
        }
        messages
    }

    fn connected(&mut self, worker: usize, channel: &str) -> Client {
        let client = self.open(worker);
        self.say(
            client,
            &format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"),
        );
        self.settle();
        let heard = self.heard(client);
        assert!(heard[0].starts_with("{\"id\":1,\"connect\":{\"client\":"), "{heard:?}");
        assert_eq!(heard[1..], ["{\"id\":2,\"subscribe\":{}}"]);
        client
    }
}

fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn publish(id: u32, channel: &str, data: u32) -> String {
    format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{data}}}}}")
}

#[test]
fn what_is_published_reaches_every_subscriber_on_every_worker() {
    for workers in 1..=4 {
        let mut node = Node::new(workers);
        let clients: Vec<Client> = (0..8).map(|i| node.connected(i % usize::from(workers), "room")).collect();
        node.say(clients[0], &publish(3, "room", 7));
        node.settle();
        for (i, &client) in clients.iter().enumerate() {
            let mut heard = node.heard(client);
            heard.retain(|message| message != "{\"id\":3,\"publish\":{}}" || i != 0);
            assert_eq!(heard.len(), 1, "{heard:?}");
            assert!(heard[0].contains("\"channel\":\"room\",\"pub\":{\"data\":7"), "{heard:?}");
        }
    }
}

#[test]
fn publications_of_one_turn_leave_in_one_send_in_order() {
    let mut node = Node::new(1);
    let subscriber = node.connected(0, "room");
    let publisher = node.connected(0, "other");
    node.world.sends = 0;
    for i in 0..40 {
        node.say(publisher, &publish(3 + i, "room", i));
    }
    node.settle();
    assert_eq!(node.world.sends, 2);
    let heard = node.heard(subscriber);
    assert_eq!(heard.len(), 40);
    for (i, message) in heard.iter().enumerate() {
        assert!(message.contains(&format!("\"data\":{i},")), "{message}");
    }
}

#[test]
fn who_subscribes_in_the_middle_of_a_turn_gets_the_answer_and_only_what_comes_after() {
    let mut node = Node::new(1);
    let publisher = node.connected(0, "room");
    let late = node.connected(0, "other");
    node.say(publisher, &publish(3, "room", 1));
    node.say(late, "{\"id\":3,\"subscribe\":{\"channel\":\"room\"}}");
    node.say(publisher, &publish(4, "room", 2));
    node.say(late, "{\"id\":4,\"unsubscribe\":{\"channel\":\"room\"}}");
    node.say(publisher, &publish(5, "room", 3));
    node.settle();
    let heard = node.heard(late);
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert_eq!(heard[0], "{\"id\":3,\"subscribe\":{}}");
    assert!(heard[1].contains("\"data\":2"));
    assert_eq!(heard[2], "{\"id\":4,\"unsubscribe\":{}}");
}

#[test]
fn a_slow_reader_is_closed_and_others_do_not_notice() {
    let options = Options { outbox_bytes_max: 10_000, ..Options::default() };
    let mut node = Node::with(1, options);
    let slow = node.connected(0, "room");
    let quick = node.connected(0, "room");
    node.world.room.insert(slow.socket, 100);
    for i in 0..300 {
        node.say(quick, &publish(i + 3, "room", i));
        node.settle();
    }
    let pushes = node.heard(quick).into_iter().filter(|message| message.contains("push")).count();
    assert_eq!(pushes, 300);
    node.world.room.insert(slow.socket, 1_000_000);
    let now = node.now();
    node.shards[0].on_writable(now, slow.key);
    node.settle();
    let heard = node.heard(slow);
    assert_eq!(heard.last().unwrap(), "close 3008");
    // What it had begun to read ends at a frame's border and in order.
    for (i, message) in heard[..heard.len() - 1].iter().enumerate() {
        assert!(message.contains(&format!("\"data\":{i},")), "{message}");
    }
    assert_eq!(node.world.finished, [(slow.socket, Finish::HalfClose)]);
    node.pass(Duration::from_secs(2));
    assert_eq!(node.world.finished.last(), Some(&(slow.socket, Finish::Abort)));
    assert!(node.shards[0].outboxes.blocked() == 0 && node.shards[0].outboxes.backlog_bytes() == 0);
}

#[test]
fn a_reader_that_catches_up_gets_everything_in_order() {
    let mut node = Node::new(1);
    let slow = node.connected(0, "room");
    let quick = node.connected(0, "room");
    node.world.room.insert(slow.socket, 0);
    let mut heard = Vec::new();
    for i in 0..2000 {
        node.say(quick, &publish(i + 3, "room", i));
        node.settle();
        if i % 50 == 49 {
            node.world.room.insert(slow.socket, 3_000);
            let now = node.now();
            node.shards[0].on_writable(now, slow.key);
            node.settle();
        }
    }
    for _ in 0..200 {
        node.world.room.insert(slow.socket, 10_000);
        let now = node.now();
        node.shards[0].on_writable(now, slow.key);
        node.settle();
    }
    heard.extend(node.heard(slow));
    assert_eq!(heard.len(), 2000);
    for (i, message) in heard.iter().enumerate() {
        assert!(message.contains(&format!("\"data\":{i},")), "{message}");
    }
}

#[test]
fn a_stopping_node_says_so_and_is_drained() {
    let mut node = Node::new(2);
    let clients = [node.connected(0, "room"), node.connected(1, "room")];
    let now = node.now();
    for shard in &mut node.shards {
        shard.on_shutdown(now);
    }
    node.settle();
    for client in clients {
        assert_eq!(node.heard(client), ["close 3001"]);
        let now = node.now();
        node.shards[client.worker].on_hangup(now, client.key);
    }
    node.settle();
    assert!(node.shards.iter().all(Shard::is_drained));
}

#[test]
fn a_backend_publishes_and_asks_who_is_there() {
    let mut node = Node::new(3);
    let client = node.connected(2, "room");
    let now = node.now();
    let bodies: [(&str, &[u8]); 3] = [
        ("publish", b"{\"channel\":\"room\",\"data\":{\"a\":1}}"),
        ("broadcast", b"{\"channels\":[\"room\",\"nowhere:x\"],\"data\":2}"),
        ("info", b"{}"),
    ];
    for (place, (method, body)) in bodies.into_iter().enumerate() {
        let request = Request::Api { method, body, transport_errors: false };
        node.shards[1].on_request(now, RequestKey(place as u64), request);
        node.settle();
    }
    let text = |place| String::from_utf8(node.world.answers[&RequestKey(place)].body.clone()).unwrap();
    assert_eq!(text(0), "{\"result\":{}}");
    assert_eq!(
        text(1),
        "{\"result\":{\"responses\":[{\"result\":{}},{\"error\":{\"code\":102,\"message\":\"unknown channel\"}}]}}"
    );
    assert!(text(2).contains("\"num_clients\":1,\"num_users\":0,\"num_subs\":1,\"num_channels\":1"), "{}", text(2));
    assert_eq!(node.heard(client).len(), 2);
}

#[test]
fn memory_goes_back_when_clients_have_gone() {
    let mut node = Node::new(2);
    for _ in 0..3 {
        let clients: Vec<Client> = (0..100).map(|i| node.connected(i % 2, &format!("room-{}", i % 7))).collect();
        for client in clients {
            let now = node.now();
            node.shards[client.worker].on_hangup(now, client.key);
        }
        node.pass(Duration::from_secs(5));
        for shard in &node.shards {
            assert_eq!(shard.hub.channels(), 0);
            assert_eq!(shard.interest.channels(), 0);
            assert!(shard.connections.is_empty());
            assert_eq!(shard.counters.connections, 0);
            assert_eq!(shard.counters.sessions, 0);
        }
    }
}

#[test]
fn a_publication_in_the_turn_that_gives_a_channel_back_is_dropped() {
    let mut node = Node::new(2);
    let options = Options::default();
    // One channel whose home is the other worker, so that it comes by mail.
    let channel =
        (0..).map(|i| format!("room-{i}")).find(|name| HashKey::new([1; 16]).channel(name).home(2) == 1).unwrap();
    let client = node.connected(0, &channel);
    node.say(client, &format!("{{\"id\":3,\"unsubscribe\":{{\"channel\":\"{channel}\"}}}}"));
    node.settle();
    node.world.now += options.interest_linger.as_nanos() as u64;
    let now = node.now();
    let body = format!("{{\"channel\":\"{channel}\",\"data\":1}}");
    let request = Request::Api { method: "publish", body: body.as_bytes(), transport_errors: false };
    node.shards[1].on_request(now, RequestKey(1), request);
    node.shards[1].flush(now, &mut node.world);
    for (_, mail) in std::mem::take(&mut node.world.mail) {
        node.shards[0].on_mail(now, 1, mail);
    }
    node.shards[0].on_deadline(now);
    node.settle();
    assert_eq!(node.shards[0].hub.channels(), 0);
}
