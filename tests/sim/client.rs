//! Clients: the protocol in either encoding over a WebSocket of their own, and a user who wants some channels.
//!
//! Here too is what a client may expect of its server: answers in time, and no goodbye without a reason.

use std::collections::{BTreeMap, BTreeSet};

use skein::base::rng::Rng;
use skein::client::ws::{Incoming, Socket};
use skein::client::{self, Event as Heard};
use skein::protocol::Encoding;
use skein::ws::upgrade::{self, OriginRule, Parse, parse_head};

use crate::model::{Fate, Life, PATIENCE, SubState};
use crate::node::{Input, Node, State};
use crate::plan::{MILLI, SECOND, between};
use crate::queue::Event;
use crate::wires::Conn;
use crate::world::{Phase, World};

pub struct Client {
    index: usize,
    pub encoding: Encoding,
    pub conn: Option<u64>,
    machine: client::Client,
    socket: Option<Socket>,
    /// The upgrade is done.
    opened: bool,
    pub connected: bool,
    opened_at: u64,
    name: Option<String>,
    publisher: u32,
    numbers: BTreeMap<usize, u64>,
    /// Channels that the user wants, whatever happens to the connection.
    pub wanted: BTreeSet<usize>,
    subs: BTreeMap<usize, usize>,
    /// When a subscription was asked for.
    asked: BTreeMap<usize, u64>,
    publishing: BTreeMap<u32, usize>,
    /// Does not read, or its node did not: no goodbye surprises.
    pub excused: bool,
    /// Reads a few bytes at a time.
    pub dawdles: bool,
    pub vanished: bool,
    /// Does not come back.
    pub retired: bool,
}

fn machine(encoding: Encoding) -> client::Client {
    client::Client::new(client::Options { encoding, token: String::new(), name: "sim".to_owned() })
}

impl Client {
    pub fn new(index: usize, rng: &mut Rng) -> Client {
        let encoding = if rng.chance(1, 2) { Encoding::Json } else { Encoding::Protobuf };
        Client {
            index,
            encoding,
            conn: None,
            machine: machine(encoding),
            socket: None,
            opened: false,
            connected: false,
            opened_at: 0,
            name: None,
            publisher: 0,
            numbers: BTreeMap::new(),
            wanted: BTreeSet::new(),
            subs: BTreeMap::new(),
            asked: BTreeMap::new(),
            publishing: BTreeMap::new(),
            excused: false,
            dawdles: false,
            vanished: false,
            retired: false,
        }
    }

    pub fn is_subscribed(&self, world: &World, channel: usize) -> bool {
        self.subs.get(&channel).is_some_and(|&sub| world.model.subs[sub].state == SubState::Live)
    }

    /// Everything that it asked for has its answer in time.
    pub fn check_answers(&self, now: u64, conns: &BTreeMap<u64, Conn>, nodes: &[Node]) {
        let Some(conn) = self.conn.and_then(|conn| conns.get(&conn)) else { return };
        let node = &nodes[conn.node];
        if self.vanished || !node.is_on() || node.life != conn.life || node.paused {
            return;
        }
        let since = |asked: u64| asked.max(node.awake_since).max(conn.stalled_until) + PATIENCE < now;
        let index = self.index;
        assert!(self.connected || !since(self.opened_at), "client {index} waits for the answer to its connect");
        for (channel, &asked) in &self.asked {
            assert!(!since(asked), "client {index} waits for the answer to its subscribe to {channel}");
        }
    }

    pub fn is_settled(&self, world: &World) -> bool {
        self.retired || (self.connected && self.wanted.iter().all(|&channel| self.is_subscribed(world, channel)))
    }
}

impl World {
    fn client_life(&self, index: usize) -> Option<Life> {
        let conn = self.conns.get(&self.clients[index].conn?)?;
        Some((conn.node, conn.life))
    }

    /// To a node that serves, any of its workers, as the kernel chooses.
    pub fn client_connects(&mut self, index: usize) {
        let serving: Vec<usize> = (0..self.nodes.len()).filter(|&slot| self.nodes[slot].is_serving()).collect();
        if self.clients[index].conn.is_some() || self.clients[index].retired || serving.is_empty() {
            return;
        }
        let slot = serving[self.rng.below(serving.len() as u64) as usize];
        let node = &self.nodes[slot];
        let worker = self.rng.below(u64::from(node.workers)) as usize;
        self.conns_made += 1;
        let id = self.conns_made;
        let conn = Conn {
            client: index,
            node: slot,
            life: node.life,
            worker,
            descriptor: None,
            key: None,
            down: Vec::new(),
            blocked: false,
            fin: false,
            aborted: false,
            client_gone: false,
            read_scheduled: false,
            stalled_until: 0,
            up_last: 0,
        };
        let life = node.life;
        let paused = node.paused;
        self.conns.insert(id, conn);
        let mask = self.rng.fork();
        let client = &mut self.clients[index];
        let mut socket = Socket::new(client.encoding, "skein", "/connection/websocket", mask);
        let request = socket.poll_transmit().expect("the upgrade request");
        let response = answer_upgrade(&request, client.encoding);
        client.conn = Some(id);
        client.machine = machine(client.encoding);
        client.socket = Some(socket);
        client.opened = false;
        client.connected = false;
        client.opened_at = self.now;
        client.publisher = self.model.new_publisher();
        client.numbers.clear();
        client.excused = paused;
        client.vanished = false;
        client.dawdles = false;
        let encoding = client.encoding;
        self.trace
            .note(self.now, "connect", &[index as u64, id, slot as u64, worker as u64], || format!("{encoding:?}"));
        let delay = self.latency();
        self.conns.get_mut(&id).expect("just made").up_last = self.now + delay;
        self.feed(slot, life, worker, Input::Open { conn: id, encoding, response });
        self.clients[index].machine.connect_request();
        // The official clients put what they want into the frame of their connect; some wait.
        if self.rng.chance(2, 3) {
            self.client_wants_all(index);
        }
    }

    /// Asks for whatever is wanted and not there.
    fn client_wants_all(&mut self, index: usize) {
        let client = &self.clients[index];
        let missing: Vec<usize> =
            client.wanted.iter().copied().filter(|channel| !client.subs.contains_key(channel)).collect();
        for channel in missing {
            self.client_subscribes(index, channel);
        }
    }

    pub fn client_subscribes(&mut self, index: usize, channel: usize) {
        self.clients[index].wanted.insert(channel);
        let (Some(conn), Some(at)) = (self.clients[index].conn, self.client_life(index)) else { return };
        if self.clients[index].subs.contains_key(&channel) || self.clients[index].vanished {
            return;
        }
        let sub = self.model.ask(self.now, index, conn, at, channel);
        let client = &mut self.clients[index];
        client.subs.insert(channel, sub);
        client.asked.insert(channel, self.now);
        client.machine.subscribe(&self.plan.channels[channel]).expect("room for a command");
        self.trace.note(self.now, "subscribe", &[index as u64, channel as u64], String::new);
        self.client_writes(index);
    }

    pub fn client_unsubscribes(&mut self, index: usize, channel: usize) {
        let client = &mut self.clients[index];
        client.wanted.remove(&channel);
        if client.vanished || client.conn.is_none() {
            return;
        }
        let Some(&sub) = client.subs.get(&channel) else { return };
        // What was asked for and not answered stays so: the server may answer either way.
        if !matches!(self.model.subs[sub].state, SubState::Live | SubState::Asked) {
            return;
        }
        client.machine.unsubscribe(&self.plan.channels[channel]).expect("room for a command");
        self.model.leave(sub, SubState::Leaving);
        self.trace.note(self.now, "unsubscribe", &[index as u64, channel as u64], String::new);
        self.client_writes(index);
    }

    pub fn client_publishes(&mut self, index: usize, channel: usize) {
        let Some(from) = self.client_life(index) else { return };
        let client = &self.clients[index];
        if !client.connected || client.vanished {
            return;
        }
        let bytes = self.rng.below(self.plan.payload_bytes_max);
        let (place, payload) = self.model.payload(bytes);
        let bases = if self.nodes[from.0].life == from.1 && self.nodes[from.0].is_on() {
            self.bases(from.0, channel)
        } else {
            vec![Default::default(); self.nodes.len()]
        };
        let client = &mut self.clients[index];
        let number = client.numbers.entry(channel).or_insert(0);
        *number += 1;
        let (number, name) = (*number, client.name.clone());
        let id = client.machine.publish(&self.plan.channels[channel], payload.as_bytes()).expect("room for a command");
        client.publishing.insert(id, place);
        self.model.begin(self.now, client.publisher, name, channel, number, from, &payload, bases);
        self.trace.note(self.now, "publish", &[index as u64, channel as u64, place as u64], String::new);
        self.client_writes(index);
    }

    /// Everything that the client has to say goes on its way, in pieces.
    fn client_writes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let (Some(id), Some(socket)) = (client.conn, &mut client.socket) else { return };
        if client.vanished {
            return;
        }
        // Nothing is said before the upgrade is done.
        if client.opened {
            while let Some(frame) = client.machine.poll_transmit() {
                // After a close nothing is said any more.
                socket.send(&frame);
            }
        }
        let Some(mut bytes) = socket.poll_transmit() else { return };
        while !bytes.is_empty() {
            let cut = if self.rng.chance(1, 3) { 1 + self.rng.below(bytes.len() as u64) as usize } else { bytes.len() };
            let rest = bytes.split_off(cut.min(bytes.len()));
            let latency = between(&mut self.rng, self.plan.latency);
            let Some(conn) = self.conns.get_mut(&id) else { return };
            conn.up_last = conn.up_last.max(self.now + latency);
            self.queue.put(conn.up_last, Event::Upload { conn: id, bytes: Some(bytes) });
            bytes = rest;
        }
    }

    // ---- what it hears

    pub fn on_client_reads(&mut self, id: u64) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.read_scheduled = false;
        let index = conn.client;
        if self.clients[index].conn != Some(id) || conn.stalled_until > now || self.clients[index].vanished {
            return;
        }
        let most = match () {
            () if self.clients[index].dawdles => 1 + self.rng.below(300) as usize,
            () if self.rng.chance(1, 4) => 1 + self.rng.below(conn.down.len().max(1) as u64) as usize,
            () => usize::MAX,
        };
        let bytes: Vec<u8> = conn.down.drain(..most.min(conn.down.len())).collect();
        let room = conn.blocked && conn.down.len() * 2 <= self.plan.socket_bytes;
        let ended = conn.down.is_empty() && conn.fin;
        let more = !conn.down.is_empty();
        self.trace.note(now, "read", &[index as u64, id, bytes.len() as u64], String::new);
        if room {
            self.on_room(id);
        }
        if !bytes.is_empty() {
            let socket = self.clients[index].socket.as_mut().expect("beside the connection");
            if let Err(trouble) = socket.on_bytes(&bytes) {
                panic!("client {index} cannot read what it got: {trouble:?}");
            }
            self.client_hears(index, id);
        }
        if self.clients[index].conn != Some(id) {
            return;
        }
        if ended {
            self.client_ends(index, "end of file");
        } else if more {
            let delay = if self.clients[index].dawdles { 3 * MILLI } else { self.latency() };
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.read_scheduled = true;
            }
            self.after(delay, Event::ClientReads { conn: id });
        }
    }

    fn client_hears(&mut self, index: usize, id: u64) {
        while self.clients[index].conn == Some(id) {
            let client = &mut self.clients[index];
            match client.socket.as_mut().and_then(Socket::poll_incoming) {
                Some(Incoming::Opened) => {
                    client.opened = true;
                    self.trace.note(self.now, "opened", &[index as u64], String::new);
                }
                Some(Incoming::Frame(frame)) => {
                    if let Err(bad) = client.machine.on_frame(&frame) {
                        panic!("client {index} gets {bad:?}: {}", String::from_utf8_lossy(&frame));
                    }
                    while let Some(heard) = self.clients[index].machine.poll_event() {
                        self.client_event(index, heard);
                        if self.clients[index].conn != Some(id) {
                            return;
                        }
                    }
                }
                Some(Incoming::Pong(_)) => {}
                Some(Incoming::Closed { code, reason }) => {
                    self.on_goodbye(index, code, &reason);
                    return;
                }
                None => break,
            }
        }
        self.client_writes(index);
    }

    fn client_event(&mut self, index: usize, heard: Heard) {
        let now = self.now;
        let client = &mut self.clients[index];
        match heard {
            Heard::Connected { client: name, .. } => {
                client.connected = true;
                client.name = Some(name);
                self.trace.note(now, "connected", &[index as u64], String::new);
                self.client_wants_all(index);
            }
            Heard::Subscribed { channel } => {
                let channel = self.model.channel_named(&channel);
                let sub = client.subs[&channel];
                client.asked.remove(&channel);
                self.model.answered(now, sub);
                self.trace.note(now, "subscribed", &[index as u64, channel as u64], String::new);
            }
            Heard::SubscribeError { channel, code, .. } => {
                let channel = self.model.channel_named(&channel);
                let sub = client.subs[&channel];
                // Its own unsubscribe, or the end of the connection, was there before the answer.
                let left = self.model.subs[sub].state == SubState::Leaving;
                assert_eq!(code, 100, "client {index} may not subscribe");
                if left {
                    client.asked.remove(&channel);
                }
                // Otherwise the goodbye has to follow before this counts as never answered.
                self.trace.note(now, "not subscribed", &[index as u64, channel as u64], String::new);
            }
            Heard::Unsubscribed { channel, code } => {
                let channel = self.model.channel_named(&channel);
                self.trace.note(now, "unsubscribed", &[index as u64, channel as u64, u64::from(code)], String::new);
                let sub = client.subs.get(&channel).copied();
                let sub = sub.unwrap_or_else(|| panic!("client {index} loses what it does not have"));
                if code == 0 {
                    client.subs.remove(&channel);
                    client.asked.remove(&channel);
                    self.model.leave(sub, SubState::Over);
                    if client.wanted.contains(&channel) {
                        // The user has changed his mind meanwhile.
                        self.after(MILLI, Event::ClientWakes { client: index });
                    }
                } else {
                    assert_eq!(code, 2500, "client {index} is unsubscribed from {channel}");
                    let state = self.model.subs[sub].state;
                    assert!(state != SubState::Asked, "client {index} loses what it never had");
                    assert!(self.phase < Phase::Exam, "client {index} is told of a gap on a healthy day");
                    // One that is leaving waits for the answer to its unsubscribe, which finds nothing any more.
                    if state == SubState::Live {
                        self.model.told(sub);
                        client.subs.remove(&channel);
                        let delay = between(&mut self.rng, (0, 400 * MILLI));
                        self.after(delay, Event::ClientWakes { client: index });
                    }
                }
            }
            Heard::Publication { channel, data, info, .. } => {
                let channel = self.model.channel_named(&channel);
                let sub = client.subs.get(&channel).copied();
                let sub = sub.unwrap_or_else(|| panic!("client {index} gets a publication of {channel} unasked"));
                let publisher = info.map(|info| info.client);
                self.model.received(now, sub, &data, publisher.as_deref());
            }
            Heard::Published { id } => {
                let place = client.publishing.remove(&id).expect("it has asked");
                self.model.decide(place, Fate::Taken);
            }
            Heard::Error { id, code, .. } => {
                if let Some(place) = client.publishing.remove(&id) {
                    assert_eq!(code, 111, "client {index} may not publish");
                    assert!(self.phase < Phase::Exam, "a publication is refused on a healthy day");
                    self.model.decide(place, Fate::Refused);
                } else {
                    panic!("client {index} is refused command {id}: {code}");
                }
            }
            Heard::Disconnected { code, reason, .. } => panic!("client {index} is pushed away: {code} {reason}"),
            heard @ (Heard::Answered { .. } | Heard::Joined { .. } | Heard::Left { .. } | Heard::Message { .. }) => {
                panic!("client {index} hears {heard:?}");
            }
        }
    }

    /// The server's close frame.
    fn on_goodbye(&mut self, index: usize, code: Option<u16>, reason: &str) {
        let conn = self.clients[index].conn.and_then(|id| self.conns.get(&id));
        let stopping = conn.is_some_and(|conn| {
            let node = &self.nodes[conn.node];
            node.life != conn.life || node.state != State::On
        });
        let excused = self.clients[index].excused;
        let expected = match code {
            Some(3001) => stopping,
            // A burst may be more than an outbox holds.
            Some(3008) => excused || self.phase < Phase::Exam,
            Some(3012) => excused,
            // Its own close, echoed.
            Some(1000) => true,
            _ => false,
        };
        assert!(expected, "client {index} is closed with {code:?} {reason:?}");
        self.trace.note(self.now, "goodbye", &[index as u64, u64::from(code.unwrap_or(0))], String::new);
        self.client_writes(index);
        self.client_ends(index, reason);
    }

    pub fn on_client_reset(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (index, node, life) = (conn.client, conn.node, conn.life);
        let ours = self.clients[index].conn == Some(id) && !self.clients[index].vanished;
        let gone = self.nodes[node].life != life || self.nodes[node].state != State::On;
        if self.clients[index].conn == Some(id) && self.clients[index].vanished {
            self.client_ends(index, "forgotten");
        }
        if ours {
            assert!(gone || self.clients[index].excused || self.phase < Phase::Exam, "client {index} is cut off");
            self.client_ends(index, "reset");
        }
        if gone && (self.nodes[node].life != life || !self.nodes[node].is_on()) {
            // Nobody holds the server's end any more.
            self.conns.remove(&id);
            if self.clients[index].conn == Some(id) {
                self.client_ends(index, "its server is gone");
            }
        }
    }

    /// The client's end of it is over, for whatever reason.
    pub fn client_ends(&mut self, index: usize, why: &str) {
        let client = &mut self.clients[index];
        let Some(id) = client.conn.take() else { return };
        client.connected = false;
        client.socket = None;
        client.name = None;
        client.asked.clear();
        for (_, sub) in std::mem::take(&mut client.subs) {
            self.model.leave(sub, SubState::Over);
        }
        for (_, place) in std::mem::take(&mut client.publishing) {
            self.model.decide(place, Fate::Unknown);
        }
        self.trace.note(self.now, "client ends", &[index as u64, id], || why.to_owned());
        let latency = self.latency();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client_gone = true;
            conn.down.clear();
            let at = conn.up_last.max(self.now + latency);
            self.queue.put(at, Event::Upload { conn: id, bytes: None });
        }
        let delay = between(&mut self.rng, (MILLI, SECOND));
        self.after(delay, Event::ClientWakes { client: index });
    }

    /// Disconnects as a client may: with a goodbye, or without a word.
    pub fn client_leaves(&mut self, index: usize) {
        if self.clients[index].conn.is_none() || self.clients[index].vanished {
            return;
        }
        if self.rng.chance(1, 2)
            && let Some(socket) = &mut self.clients[index].socket
        {
            socket.close(1000, "bye");
            self.client_writes(index);
            for (_, sub) in self.clients[index].subs.clone() {
                self.model.leave(sub, SubState::Leaving);
            }
            // The rest of its time it only listens for the echo; nothing is due any more.
            self.clients[index].asked.clear();
            self.client_ends(index, "closed");
        } else {
            self.client_ends(index, "went");
        }
    }

    /// The host is gone: it reads nothing, and says nothing, not even goodbye.
    pub fn client_vanishes(&mut self, index: usize) {
        let Some(id) = self.clients[index].conn else { return };
        let client = &mut self.clients[index];
        client.vanished = true;
        for (_, sub) in std::mem::take(&mut client.subs) {
            self.model.leave(sub, SubState::Over);
        }
        for (_, place) in std::mem::take(&mut client.publishing) {
            self.model.decide(place, Fate::Unknown);
        }
        self.trace.note(self.now, "vanish", &[index as u64, id], String::new);
        // The server's end dies of a timeout of its own, or at the latest when the kernel gives up.
        let delay = between(&mut self.rng, (SECOND, 5 * SECOND));
        let at = self.now + delay;
        self.queue.put(at, Event::Upload { conn: id, bytes: None });
        self.queue.put(at, Event::ClientReset { conn: id });
    }

    pub fn client_stalls(&mut self, index: usize, length: u64) {
        let Some(id) = self.clients[index].conn else { return };
        self.clients[index].excused = true;
        let until = self.now + length;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.stalled_until = until;
            conn.read_scheduled = true;
            self.queue.put(until, Event::ClientReads { conn: id });
        }
        self.trace.note(self.now, "stall", &[index as u64, length], String::new);
    }

    pub fn on_client_wakes(&mut self, index: usize) {
        if self.clients[index].retired {
            return;
        }
        if self.clients[index].conn.is_none() {
            self.client_connects(index);
            if self.clients[index].conn.is_none() {
                let delay = between(&mut self.rng, (10 * MILLI, 500 * MILLI));
                self.after(delay, Event::ClientWakes { client: index });
            }
        } else if self.clients[index].connected {
            self.client_wants_all(index);
        }
    }
}

/// As the shell does.
fn answer_upgrade(request: &[u8], encoding: Encoding) -> Vec<u8> {
    let Ok(Parse::Complete(head, length)) = parse_head(request) else { panic!("the client's request cannot be read") };
    assert_eq!(length, request.len());
    let upgrade = upgrade::check(&head, &OriginRule::default()).expect("the client's request is in order");
    let protobuf = matches!(upgrade.encoding, upgrade::Subprotocol::Protobuf);
    assert_eq!(protobuf, encoding == Encoding::Protobuf);
    let mut response = Vec::new();
    upgrade::response(&upgrade, &mut response);
    response
}
