//! The world: virtual time, and what happens in it. It carries events to nodes and clients and looks at every turn.

use std::collections::BTreeMap;

use skein::base::hash::ChannelHash;
use skein::base::rng::Rng;
use skein::base::time::{Instant, Now};
use skein::metrics::DropReason;
use skein::shard::mail::Mail;
use skein::shard::outlet::{LaneKey, RequestKey};
use skein::shard::{LaneDown, LaneOpened, Opened, Request};

use crate::client::Client;
use crate::defect::Defect;
use crate::model::{Base, Fate, Model, PATIENCE};
use crate::net::{EndState, IDLE, LaneId, Net, Side, TICK};
use crate::node::{Ask, Input, Node, State, address};
use crate::plan::{MILLI, Plan, SECOND, between};
use crate::queue::{Event, Queue};
use crate::trace::{Detail, Trace};
use crate::wires::{Conn, Wires};

/// More events than any run needs: something goes round in circles.
const EVENTS_MAX: u64 = 5_000_000;

pub struct World {
    pub now: u64,
    pub plan: Plan,
    pub rng: Rng,
    pub trace: Trace,
    pub queue: Queue,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub conns: BTreeMap<u64, Conn>,
    pub conns_made: u64,
    pub model: Model,
    /// Publications over HTTP, by node, life and request.
    pub requests: BTreeMap<(usize, u32, RequestKey), Asked>,
    /// One publisher for each worker of each life.
    pub backends: BTreeMap<(usize, u32, usize), Backend>,
    late_mail: Vec<Vec<(u64, usize, usize, Mail)>>,
    pub phase: Phase,
    pub deeds_left: u32,
    /// When the last fault that is under way has struck.
    pub quiet_from: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    Chaos,
    /// All faults are over.
    Calm,
    /// Everything has to work.
    Exam,
    /// Clients leave, nodes stop.
    End,
}

pub struct Asked {
    pub at: u64,
    pub publication: Option<usize>,
}

pub struct Backend {
    pub publisher: u32,
    pub numbers: BTreeMap<usize, u64>,
}

impl World {
    pub fn new(seed: u64, detail: Detail, defect: Option<Defect>) -> World {
        let mut rng = Rng::seeded(seed);
        let plan = Plan::draw(&mut rng);
        World::with(plan, rng, detail, defect)
    }

    pub fn with(plan: Plan, mut rng: Rng, detail: Detail, defect: Option<Defect>) -> World {
        let nodes = plan.workers.len();
        World {
            now: 0,
            trace: Trace::new(detail),
            queue: Queue::default(),
            net: Net::new(nodes, defect),
            nodes: plan.workers.iter().enumerate().map(|(slot, &workers)| Node::new(slot, workers)).collect(),
            clients: (0..plan.clients).map(|index| Client::new(index, &mut rng)).collect(),
            conns: BTreeMap::new(),
            conns_made: 0,
            model: Model::new(&plan.channels, nodes),
            requests: BTreeMap::new(),
            backends: BTreeMap::new(),
            late_mail: (0..nodes).map(|_| Vec::new()).collect(),
            phase: Phase::Chaos,
            deeds_left: plan.operations,
            quiet_from: 0,
            plan,
            rng,
        }
    }

    pub fn clock(&self) -> Now {
        Now::simulated(Instant::from_nanos(self.now))
    }

    pub fn after(&mut self, delay: u64, event: Event) {
        self.queue.put(self.now + delay, event);
    }

    pub fn latency(&mut self) -> u64 {
        between(&mut self.rng, self.plan.latency)
    }

    /// Lets the world go on until then.
    pub fn run_until(&mut self, end: u64) {
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    fn step(&mut self) {
        let (at, event) = self.queue.pop().expect("the caller has looked");
        assert!(at >= self.now);
        assert!(self.trace.events() < EVENTS_MAX, "the world never comes to rest");
        self.now = at;
        match event {
            Event::Start { node } => self.start(node),
            Event::Turn { node, life, worker } => self.on_turn(node, life, worker),
            Event::Resume { node, life } => {
                if self.nodes[node].life == life {
                    self.resume(node);
                }
            }
            Event::Upload { conn, bytes } => self.on_upload(conn, bytes),
            Event::Room { conn } => self.on_room(conn),
            Event::ClientReads { conn } => self.on_client_reads(conn),
            Event::ClientReset { conn } => self.on_client_reset(conn),
            Event::ClientWakes { client } => self.on_client_wakes(client),
            Event::Dialled { lane } => self.on_dialled(lane),
            Event::LaneUp { lane, side } => self.on_lane_up(lane, side),
            Event::DialFails { node, life, worker, token } => {
                self.feed(node, life, worker, Input::DialFailed { token });
            }
            Event::Arrival { lane, to, stream } => {
                for bytes in self.net.arrive(self.now, lane, to, stream, &mut self.queue) {
                    let numbers = [lane.0, to as u64, stream as u64, bytes.len() as u64];
                    self.trace.note(self.now, "arrive", &numbers, String::new);
                    self.feed_lane(lane, to, |lane| Input::LaneBytes { lane, stream, bytes });
                }
            }
            Event::Datagram { lane, to, bytes } => self.on_datagram(lane, to, bytes),
            Event::LaneRoom { lane, side } => self.feed_lane(lane, side, |lane| Input::LaneWritable { lane }),
            Event::LaneClosed { lane, side, code, reason } => {
                let reachable = self.net.lanes.get(&lane).is_some_and(|it| {
                    it.ends[side].state == EndState::Up && !self.net.is_cut(it.ends[1 - side].node, it.ends[side].node)
                });
                if reachable {
                    self.take_lane_down(lane, side, LaneDown::Peer { code, reason });
                }
            }
            Event::LaneDies { lane, side } => self.take_lane_down(lane, side, LaneDown::Lost("killed".to_owned())),
            Event::LaneTick { lane } => self.on_lane_tick(lane),
            Event::Heal { from, to } => {
                self.net.heal(self.now, from, to, &mut self.queue, &mut self.rng);
                self.trace.note(self.now, "heal", &[from as u64, to as u64], String::new);
            }
            Event::WeatherEnds => self.net.storm = false,
            Event::Deed => self.on_deed(),
            Event::Look => self.on_look(),
        }
    }

    // ---- nodes

    pub fn start(&mut self, slot: usize) {
        if self.nodes[slot].is_on() || self.phase == Phase::End {
            return;
        }
        let (now, nodes) = (self.clock(), self.nodes.len());
        self.nodes[slot].start(&self.plan, &mut self.rng, now, nodes);
        let (life, workers) = (self.nodes[slot].life, self.nodes[slot].workers);
        self.trace.note(self.now, "start", &[slot as u64, u64::from(life), u64::from(workers)], String::new);
        self.feed(slot, life, 0, Input::Seeds);
        for worker in 0..usize::from(workers) {
            self.backends.insert(
                (slot, life, worker),
                Backend { publisher: self.model.new_publisher(), numbers: BTreeMap::new() },
            );
        }
    }

    /// Power off: clients and peers find out by themselves.
    pub fn crash(&mut self, slot: usize) {
        let life = self.nodes[slot].life;
        self.trace.note(self.now, "crash", &[slot as u64, u64::from(life)], String::new);
        let lanes: Vec<(LaneId, Side)> = self.nodes[slot].lanes.values().copied().collect();
        for (lane, side) in lanes {
            self.net.end_side(self.now, lane, side, &mut self.rng);
        }
        self.nodes[slot].end();
        self.late_mail[slot].clear();
        let dead: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| conn.node == slot && conn.life == life).map(|(&id, _)| id).collect();
        for conn in dead {
            let latency = self.latency();
            self.conns.get_mut(&conn).expect("just listed").aborted = true;
            self.after(latency, Event::ClientReset { conn });
        }
        let unanswered: Vec<_> = self
            .requests
            .range((slot, life, RequestKey(0))..=(slot, life, RequestKey(u64::MAX)))
            .map(|(&key, _)| key)
            .collect();
        for key in unanswered {
            if let Some(publication) = self.requests.remove(&key).and_then(|asked| asked.publication) {
                self.model.decide(publication, Fate::Unknown);
            }
        }
    }

    pub fn pause(&mut self, slot: usize, length: u64) {
        let node = &mut self.nodes[slot];
        node.paused = true;
        let life = node.life;
        self.trace.note(self.now, "pause", &[slot as u64, length], String::new);
        self.after(length, Event::Resume { node: slot, life });
    }

    pub fn resume(&mut self, slot: usize) {
        let node = &mut self.nodes[slot];
        if !std::mem::take(&mut node.paused) {
            return;
        }
        node.awake_since = self.now;
        self.trace.note(self.now, "resume", &[slot as u64], String::new);
        for worker in 0..usize::from(self.nodes[slot].workers) {
            self.wake(slot, worker, 0);
        }
        for conn in self.conns.values_mut().filter(|conn| conn.node == slot) {
            if let Some(client) = self.clients.get_mut(conn.client) {
                client.excused = true;
            }
        }
    }

    pub fn shut_down(&mut self, slot: usize) {
        let node = &mut self.nodes[slot];
        node.state = State::Stopping { since: self.now };
        let (life, workers) = (node.life, node.workers);
        self.trace.note(self.now, "shut down", &[slot as u64], String::new);
        for worker in 0..usize::from(workers) {
            self.feed(slot, life, worker, Input::Shutdown);
        }
    }

    pub fn feed(&mut self, slot: usize, life: u32, worker: usize, input: Input) {
        let node = &mut self.nodes[slot];
        if node.life == life && node.is_on() {
            node.inputs[worker].push_back(input);
            let delay = between(&mut self.rng, self.plan.turn_delay);
            self.wake(slot, worker, delay);
        }
    }

    fn feed_lane(&mut self, lane: LaneId, side: Side, input: impl FnOnce(LaneKey) -> Input) {
        let Some(it) = self.net.lanes.get(&lane) else { return };
        let end = &it.ends[side];
        if end.state == EndState::Up {
            let (node, life, worker, key) = (end.node, end.life, end.worker, end.key);
            self.feed(node, life, worker, input(key));
        }
    }

    fn wake(&mut self, slot: usize, worker: usize, delay: u64) {
        let at = self.now + delay;
        let node = &mut self.nodes[slot];
        if node.wake[worker].is_none_or(|wake| at < wake) {
            node.wake[worker] = Some(at);
            self.queue.put(at, Event::Turn { node: slot, life: node.life, worker });
        }
    }

    // ---- a turn

    fn on_turn(&mut self, slot: usize, life: u32, worker: usize) {
        let node = &mut self.nodes[slot];
        if !node.is_on() || node.life != life || node.wake[worker] != Some(self.now) {
            return;
        }
        node.wake[worker] = None;
        if node.paused {
            return;
        }
        self.trace.note(self.now, "turn", &[slot as u64, worker as u64], String::new);
        self.deliver_late_mail(slot);
        let now = self.clock();
        let on_time = self.rng.chance(1, 2);
        if on_time {
            self.on_time(slot, worker, now);
        }
        let mut bound = if self.rng.chance(1, 4) { 1 + self.rng.below(4) } else { 256 };
        while bound > 0 && self.read_one(slot, worker, now) {
            bound -= 1;
            if self.nodes[slot].shards[worker].is_full() {
                self.flush(slot, worker, now);
            }
        }
        if !on_time {
            self.on_time(slot, worker, now);
        }
        self.flush(slot, worker, now);
        self.inspect(slot, worker);
        if !self.nodes[slot].is_on() {
            return;
        }
        if self.nodes[slot].has_work(worker) {
            let delay = between(&mut self.rng, self.plan.turn_delay);
            self.wake(slot, worker, delay);
        } else if let Some(at) = self.nodes[slot].shards[worker].poll_deadline() {
            self.wake(slot, worker, at.as_nanos().saturating_sub(self.now));
        }
    }

    fn on_time(&mut self, slot: usize, worker: usize, now: Now) {
        let shard = &mut self.nodes[slot].shards[worker];
        if shard.poll_deadline().is_some_and(|at| at <= now.mono) {
            shard.on_deadline(now);
        }
    }

    /// One thing that the worker has to read, from any of its sources. False: there is none.
    fn read_one(&mut self, slot: usize, worker: usize, now: Now) -> bool {
        let node = &mut self.nodes[slot];
        let mail: Vec<usize> =
            (0..node.mail[worker].len()).filter(|&from| !node.mail[worker][from].is_empty()).collect();
        let sources = mail.len() + usize::from(!node.inputs[worker].is_empty());
        if sources == 0 {
            return false;
        }
        let source = self.rng.below(sources as u64) as usize;
        if let Some(&from) = mail.get(source) {
            let mail = node.mail[worker][from].pop_front().expect("not empty");
            node.shards[worker].on_mail(now, from as u16, mail);
            return true;
        }
        let input = node.inputs[worker].pop_front().expect("not empty");
        self.read(slot, worker, now, input);
        true
    }

    fn read(&mut self, slot: usize, worker: usize, now: Now, input: Input) {
        let node = &mut self.nodes[slot];
        let shard = &mut node.shards[worker];
        match input {
            Input::Open { conn, encoding, response } => {
                let descriptor = node.take_descriptor(conn);
                let address = [192, 168, 0, 1].into();
                let opened = Opened { socket: descriptor, address, encoding, frame_pings: false, response: &response };
                let key = node.shards[worker].on_open(now, opened);
                let it = self.conns.get_mut(&conn).expect("a connection lives while it has an end");
                it.descriptor = Some(descriptor);
                it.key = Some(key);
            }
            Input::Bytes { conn, mut bytes } => {
                if let Some(key) = self.conns.get(&conn).and_then(|conn| conn.key) {
                    shard.on_bytes(now, key, &mut bytes);
                }
            }
            Input::Writable { conn } => {
                if let Some(key) = self.conns.get(&conn).and_then(|conn| conn.key) {
                    shard.on_writable(now, key);
                }
            }
            Input::Hangup { conn } => {
                let Some(it) = self.conns.get_mut(&conn) else { return };
                let Some(key) = it.key.take() else { return };
                shard.on_hangup(now, key);
                let descriptor = it.descriptor.take().expect("beside the key");
                node.descriptors[descriptor as usize] = None;
                if it.client_gone {
                    self.conns.remove(&conn);
                } else {
                    it.fin = true;
                    self.schedule_read(conn);
                }
            }
            Input::Request { key, ask } => {
                let request = match &ask {
                    Ask::Publish { body } => Request::Api { method: "publish", body, transport_errors: false },
                    Ask::Info => Request::Api { method: "info", body: b"{}", transport_errors: false },
                    Ask::Status => Request::Status,
                    Ask::Metrics => Request::Metrics,
                    Ask::Ready => Request::Ready,
                };
                shard.on_request(now, key, request);
            }
            Input::LaneUp { lane, opened } => shard.on_lane_up(now, lane, opened),
            Input::DialFailed { token } => shard.on_dial_failed(now, token, "no answer"),
            Input::LaneBytes { lane, stream, bytes } => {
                shard.on_lane_bytes(now, lane, stream, &bytes);
                let Some(&(id, side)) = node.lanes.get(&(worker, lane)) else { return };
                let (tell, frames) = self.net.consumed(id, side, stream, &bytes, self.plan.lane_window);
                for (hello, frame) in frames {
                    if !hello {
                        self.model.on_frame_read(self.now, id, side, &frame);
                    }
                }
                if tell {
                    let latency = self.latency();
                    self.after(latency, Event::LaneRoom { lane: id, side: 1 - side });
                }
            }
            Input::LaneDatagram { lane, bytes } => shard.on_lane_datagram(now, lane, &bytes),
            Input::LaneWritable { lane } => shard.on_lane_writable(now, lane),
            Input::LaneDown { lane, why } => {
                shard.on_lane_down(now, lane, why);
                node.lanes.remove(&(worker, lane));
            }
            Input::Seeds => {
                let known = if self.plan.seeds_all { self.plan.workers.len() } else { 1 };
                let seeds: Vec<_> = (0..known).map(|other| address(other, other == slot, 0)).collect();
                shard.on_seeds(now, &seeds);
            }
            Input::Shutdown => shard.on_shutdown(now),
        }
    }

    fn flush(&mut self, slot: usize, worker: usize, now: Now) {
        let Node { shards, descriptors, mail, lanes, lanes_made, life, .. } = &mut self.nodes[slot];
        let mut wires = Wires {
            now: self.now,
            node: slot,
            life: *life,
            worker,
            plan: &self.plan,
            rng: &mut self.rng,
            trace: &mut self.trace,
            queue: &mut self.queue,
            net: &mut self.net,
            model: &mut self.model,
            conns: &mut self.conns,
            descriptors,
            mail,
            lanes,
            lanes_made: &mut lanes_made[worker],
            woken: Vec::new(),
            aborted: Vec::new(),
            closed: Vec::new(),
            answers: Vec::new(),
            late_mail: &mut self.late_mail[slot],
        };
        shards[worker].flush(now, &mut wires);
        let Wires { woken, aborted, closed, answers, .. } = wires;
        let life = *life;
        for worker in woken {
            let delay = between(&mut self.rng, self.plan.turn_delay);
            self.wake(slot, worker, delay);
        }
        for conn in aborted {
            self.feed(slot, life, worker, Input::Hangup { conn });
        }
        for (lane, code, reason) in closed {
            self.close_lane(slot, worker, lane, code, reason);
        }
        for (key, answer) in answers {
            self.on_answer(slot, key, &answer);
        }
    }

    fn deliver_late_mail(&mut self, slot: usize) {
        let now = self.now;
        let due: Vec<_> = self.late_mail[slot].extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, from, mail) in due {
            self.nodes[slot].mail[to][from].push_back(mail);
            self.wake(slot, to, 0);
        }
    }

    // ---- what is looked at

    /// After every turn.
    fn inspect(&mut self, slot: usize, worker: usize) {
        let node = &mut self.nodes[slot];
        let shard = &node.shards[worker];
        if let Some(why) = shard.fatal() {
            panic!("node {slot} gives up: {why}");
        }
        let options = &self.plan.options;
        let counters = shard.counters();
        // One turn's chain and one frame may lie above each bound.
        let turn = (options.turn_bytes_max + 300_000) as u64;
        assert!(counters.outbox_bytes_high <= options.outbox_bytes_max as u64 + turn, "a client's outbox is too long");
        assert!(counters.lane_queue_bytes_high <= options.lane_queue_bytes_max as u64, "a lane's queue is too long");
        let seen = &mut node.seen[worker];
        let drops = counters.drops(DropReason::MailboxFullSubscribers);
        self.model.local_drops[slot] += drops - seen.local_drops;
        seen.local_drops = drops;
        let mut gaps = vec![0; seen.gaps.len()];
        for lane in counters.lanes() {
            let peer = NAMES.iter().position(|name| *name == lane.peer.as_str()).expect("peers are nodes");
            gaps[peer] += lane.gaps_in + lane.gaps_out;
        }
        let forgets = self.net.defect == Some(Defect::ForgetGap);
        let more = counters.gaps() - seen.gaps_total;
        let of_lanes: u64 = gaps.iter().zip(&seen.gaps).map(|(now, before)| now.saturating_sub(*before)).sum();
        for (peer, count) in gaps.into_iter().enumerate() {
            // The figures of a peer that left may go in the very turn that counts the gap; the total has it.
            let forgotten = count < seen.gaps[peer] || (count == 0 && of_lanes < more && peer != slot);
            let more = if forgotten { more } else { count.saturating_sub(seen.gaps[peer]) };
            if more > 0 && !forgets {
                self.trace.note(self.now, "gap", &[slot as u64, peer as u64, more], String::new);
                self.model.gaps[slot][peer] += more;
                self.model.gaps[peer][slot] += more;
            }
            seen.gaps[peer] = count;
        }
        seen.gaps_total = counters.gaps();
        let stopped = node.state != State::On && node.is_drained();
        if stopped {
            self.exit(slot);
        }
    }

    /// A node that has nothing more to do ends.
    fn exit(&mut self, slot: usize) {
        self.trace.note(self.now, "exit", &[slot as u64], String::new);
        self.crash(slot);
        if self.phase == Phase::Calm {
            self.after(MILLI, Event::Start { node: slot });
        }
    }

    /// What holds between two nodes when a publication begins on the first.
    pub fn bases(&self, from: usize, channel: usize) -> Vec<Base> {
        let hash = self.plan.key().channel(&self.plan.channels[channel]);
        (0..self.nodes.len())
            .map(|to| {
                let here = self.flow(from, to, hash);
                let there = self.flow(to, from, hash);
                Base {
                    gaps: self.model.gaps[from][to],
                    local_drops: self.model.local_drops[to],
                    view: here.0 && there.0,
                    open_there: there.1,
                }
            })
            .collect()
    }

    /// Whether the flow of a channel is in order, and whether a gap is open.
    fn flow(&self, of: usize, with: usize, hash: ChannelHash) -> (bool, bool) {
        let (node, peer) = (&self.nodes[of], &self.nodes[with]);
        let shard = node.shards.get(usize::from(hash.home(node.workers)));
        let view = shard.and_then(|shard| shard.flow_view(&peer.id, peer.generation, hash.home(peer.workers)));
        view.unwrap_or_default()
    }

    pub fn is_in_view(&self, of: usize, other: usize) -> bool {
        let (node, other) = (&self.nodes[of], &self.nodes[other]);
        node.shards.first().is_some_and(|shard| shard.has_in_view(&other.id, other.generation))
    }

    fn on_look(&mut self) {
        let World { model, nodes, conns, clients, now, .. } = self;
        let now = *now;
        model.look(now, now, |publication, sub| {
            let awake = |slot: usize| {
                let node = &nodes[slot];
                !node.paused && node.awake_since + PATIENCE <= now
            };
            let from = publication.from.0;
            let conn = conns.get(&sub.conn);
            // The publisher may have ended: what it left on its way has had its time.
            let from_awake = nodes[from].life != publication.from.1 || !nodes[from].is_on() || awake(from);
            from_awake && awake(sub.at.0) && conn.is_none_or(|conn| conn.stalled_until + PATIENCE <= now)
        });
        for client in clients.iter() {
            client.check_answers(now, conns, nodes);
        }
        for (&(slot, life, _), asked) in &self.requests {
            let node = &self.nodes[slot];
            let late = node.life == life && !node.paused && node.awake_since.max(asked.at) + PATIENCE < now;
            assert!(!late, "a request on node {slot} is not answered");
        }
        for node in &self.nodes {
            if let State::Stopping { since } = node.state {
                let late = !node.paused && node.awake_since.max(since) + 6 * SECOND < now;
                assert!(!late, "node {} does not come to its end", node.slot);
            }
        }
        self.after(50 * MILLI, Event::Look);
    }

    // ---- requests

    pub fn request(&mut self, slot: usize, worker: usize, ask: Ask, publication: Option<usize>) {
        let node = &mut self.nodes[slot];
        node.requests_made += 1;
        let key = RequestKey(node.requests_made);
        let life = node.life;
        self.requests.insert((slot, life, key), Asked { at: self.now, publication });
        self.feed(slot, life, worker, Input::Request { key, ask });
    }

    fn on_answer(&mut self, slot: usize, key: RequestKey, answer: &skein::shard::outlet::Answer) {
        let life = self.nodes[slot].life;
        let asked = self.requests.remove(&(slot, life, key));
        let asked = asked.unwrap_or_else(|| panic!("node {slot} answers a request twice"));
        self.trace.note(self.now, "answer", &[slot as u64, key.0, u64::from(answer.status)], || {
            String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned()
        });
        let Some(publication) = asked.publication else { return };
        let body = String::from_utf8_lossy(&answer.body);
        let fate = match answer.status {
            200 if body == "{\"result\":{}}" => Fate::Taken,
            200 if body.contains("\"code\":111") => Fate::Refused,
            503 => Fate::Refused,
            status => panic!("a publication over HTTP is answered with {status}: {body}"),
        };
        self.model.decide(publication, fate);
    }

    // ---- lanes

    fn on_dialled(&mut self, lane: LaneId) {
        let Some(it) = self.net.lanes.get(&lane) else { return };
        let token = it.token;
        let [dialler, acceptor] = &it.ends;
        let (from, life, from_worker) = (dialler.node, dialler.life, dialler.worker);
        let (to, worker) = (acceptor.node, acceptor.worker);
        let target = &self.nodes[to];
        let open = !self.net.is_cut(from, to) && !self.net.is_cut(to, from);
        let accepts = target.is_on() && !target.paused && worker < usize::from(target.workers);
        let unlucky = self.phase == Phase::Chaos && self.rng.chance(1, 20);
        if !open || !accepts || unlucky || !self.nodes[from].is_on() || self.nodes[from].life != life {
            self.net.lanes.remove(&lane);
            let delay = between(&mut self.rng, (200 * MILLI, 2 * SECOND));
            self.after(delay, Event::DialFails { node: from, life, worker: from_worker, token });
            return;
        }
        let target = &mut self.nodes[to];
        target.lanes_made[worker] += 1;
        let key = LaneKey(target.lanes_made[worker]);
        let it = self.net.lanes.get_mut(&lane).expect("found above");
        it.ends[1].key = key;
        it.ends[1].life = target.life;
        for end in &mut it.ends {
            end.heard = self.now;
        }
        // The dialler believes first that it is connected.
        let first = self.latency();
        let second = first + self.latency();
        self.after(first, Event::LaneUp { lane, side: 0 });
        self.after(second, Event::LaneUp { lane, side: 1 });
        self.after(TICK, Event::LaneTick { lane });
    }

    fn on_lane_up(&mut self, lane: LaneId, side: Side) {
        let Some(it) = self.net.lanes.get_mut(&lane) else { return };
        if it.ends[side].state != EndState::Shaking {
            return;
        }
        let token = it.token;
        let other = (it.ends[1 - side].node, it.ends[1 - side].worker);
        let end = &mut it.ends[side];
        let (node, life, worker, key) = (end.node, end.life, end.worker, end.key);
        if self.nodes[node].life != life || !self.nodes[node].is_on() {
            self.net.end_side(self.now, lane, side, &mut self.rng);
            return;
        }
        end.state = EndState::Up;
        end.heard = self.now;
        self.trace.note(self.now, "lane up", &[lane.0, side as u64, node as u64, other.0 as u64], String::new);
        self.nodes[node].lanes.insert((worker, key), (lane, side));
        let opened = LaneOpened {
            names: vec![self.nodes[other.0].id.to_string()],
            dial: (side == 0).then_some(token),
            remote: address(other.0, false, other.1 as u16),
        };
        self.feed(node, life, worker, Input::LaneUp { lane: key, opened });
        // What came before it was up lies there.
        for stream in crate::net::STREAMS {
            self.queue.put(self.now, Event::Arrival { lane, to: side, stream });
        }
    }

    fn on_datagram(&mut self, lane: LaneId, to: Side, bytes: Vec<u8>) {
        let Some(it) = self.net.lanes.get(&lane) else { return };
        let (from_node, to_node) = (it.ends[1 - to].node, it.ends[to].node);
        if self.net.is_cut(from_node, to_node) || (self.nodes[to_node].paused && self.rng.chance(1, 2)) {
            return;
        }
        self.feed_lane(lane, to, |lane| Input::LaneDatagram { lane, bytes });
    }

    fn close_lane(&mut self, slot: usize, worker: usize, key: LaneKey, code: u32, reason: String) {
        let Some(&(lane, side)) = self.nodes[slot].lanes.get(&(worker, key)) else { return };
        let Some(it) = self.net.lanes.get(&lane) else { return };
        if it.ends[side].state == EndState::Gone {
            return;
        }
        self.trace.note(self.now, "lane close", &[lane.0, side as u64, u64::from(code)], || reason.clone());
        let life = self.nodes[slot].life;
        let last = self.net.end_side(self.now, lane, side, &mut self.rng);
        let at = last + self.latency();
        self.queue.put(at, Event::LaneClosed { lane, side: 1 - side, code, reason });
        self.feed(slot, life, worker, Input::LaneDown { lane: key, why: LaneDown::Local });
    }

    fn take_lane_down(&mut self, lane: LaneId, side: Side, why: LaneDown) {
        let Some(it) = self.net.lanes.get(&lane) else { return };
        let (end, token) = (&it.ends[side], it.token);
        let (node, life, worker, key, state) = (end.node, end.life, end.worker, end.key, end.state);
        if state == EndState::Gone {
            return;
        }
        self.trace.note(self.now, "lane down", &[lane.0, side as u64, node as u64], || format!("{why:?}"));
        self.net.end_side(self.now, lane, side, &mut self.rng);
        if state == EndState::Up {
            self.feed(node, life, worker, Input::LaneDown { lane: key, why });
        } else if side == 0 {
            self.feed(node, life, worker, Input::DialFailed { token });
        }
    }

    /// Kill a lane: both sides notice at their own time.
    pub fn kill_lane(&mut self, lane: LaneId) {
        for side in 0..2 {
            let delay = self.rng.below(SECOND);
            self.quiet_from = self.quiet_from.max(self.now + delay + 1);
            self.after(delay, Event::LaneDies { lane, side });
        }
        self.trace.note(self.now, "kill lane", &[lane.0], String::new);
    }

    fn on_lane_tick(&mut self, lane: LaneId) {
        let Some(it) = self.net.lanes.get(&lane) else { return };
        let now = self.now;
        let alive = |end: &crate::net::End| {
            let node = &self.nodes[end.node];
            node.is_on() && node.life == end.life && end.state != EndState::Gone
        };
        let paused = |end: &crate::net::End| self.nodes[end.node].paused;
        let (mut silent, mut heard_by) = (Vec::new(), Vec::new());
        for side in 0..2 {
            let (here, there) = (&it.ends[side], &it.ends[1 - side]);
            if here.state == EndState::Gone {
                continue;
            }
            let heard = alive(there) && !paused(there) && !self.net.is_cut(there.node, here.node);
            // The other node lives, but not this lane: it says so as soon as we send.
            let reset = !alive(there)
                && self.nodes[there.node].is_on()
                && !paused(there)
                && !self.net.is_cut(there.node, here.node)
                && !self.net.is_cut(here.node, there.node);
            if heard && !paused(here) {
                heard_by.push(side);
            } else if !paused(here) && now >= here.heard + IDLE {
                silent.push((side, "silence"));
            } else if reset && !paused(here) {
                silent.push((side, "reset"));
            }
        }
        for side in heard_by {
            self.net.lanes.get_mut(&lane).expect("found above").ends[side].heard = now;
        }
        for (side, why) in silent {
            if why == "silence" || self.rng.chance(1, 2) {
                self.take_lane_down(lane, side, LaneDown::Lost(why.to_owned()));
            }
        }
        let delay = TICK + self.rng.below(20 * MILLI);
        self.after(delay, Event::LaneTick { lane });
    }

    // ---- sockets, the server's side

    fn on_upload(&mut self, conn: u64, bytes: Option<Vec<u8>>) {
        let Some(it) = self.conns.get(&conn) else { return };
        let (node, life, worker) = (it.node, it.life, it.worker);
        match bytes {
            Some(bytes) => self.feed(node, life, worker, Input::Bytes { conn, bytes }),
            None => self.feed(node, life, worker, Input::Hangup { conn }),
        }
    }

    pub fn on_room(&mut self, conn: u64) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        if std::mem::take(&mut it.blocked) {
            let (node, life, worker) = (it.node, it.life, it.worker);
            self.feed(node, life, worker, Input::Writable { conn });
        }
    }

    pub fn schedule_read(&mut self, conn: u64) {
        let latency = self.latency();
        let now = self.now;
        let Some(it) = self.conns.get_mut(&conn) else { return };
        if !it.read_scheduled && it.stalled_until <= now {
            it.read_scheduled = true;
            self.after(latency, Event::ClientReads { conn });
        }
    }
}

pub const NAMES: [&str; 5] = ["ada", "bob", "cleo", "dan", "eve"];
