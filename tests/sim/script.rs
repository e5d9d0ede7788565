//! A run from its seed to its end: chaos, calm, an exam in which everything has to work, and an orderly end.

use skein::shard::Shard;

use crate::defect::Defect;
use crate::model::PATIENCE;
use crate::node::{Ask, State};
use crate::plan::{Deed, MILLI, SECOND, between};
use crate::queue::Event;
use crate::trace::{Detail, Trace};
use crate::world::{Phase, World};

/// By then a cluster without faults has found itself again, whatever happened to it.
const HEALING: u64 = 40 * SECOND;
/// The same for a node that stops.
const STOPPING: u64 = 8 * SECOND;

pub struct Outcome {
    pub trace: u64,
    pub events: u64,
    pub virtual_secs: u64,
    pub publications: u64,
    pub deliveries: u64,
    pub excused: u64,
    pub told: u64,
    pub envelopes: u64,
    pub refused: u64,
    pub healed_millis: u64,
}

/// Runs a seed to its end. Panics when a promise is broken; `trace` gets what led to it.
pub fn run(seed: u64, detail: Detail, defect: Option<Defect>, trace: &mut Option<Trace>) -> Outcome {
    let mut world = World::new(seed, detail, defect);
    // The trace outlives a panic.
    struct Keep<'a>(&'a mut World, &'a mut Option<Trace>);
    impl Drop for Keep<'_> {
        fn drop(&mut self) {
            *self.1 = Some(std::mem::replace(&mut self.0.trace, Trace::new(Detail::Hash)));
        }
    }
    let keep = Keep(&mut world, trace);
    let healed = play(keep.0);
    let world = &*keep.0;
    let figures = &world.model.figures;
    Outcome {
        trace: world.trace.hash(),
        events: world.trace.events(),
        virtual_secs: world.now / SECOND,
        publications: figures.publications,
        deliveries: figures.deliveries,
        excused: figures.excused,
        told: figures.told,
        envelopes: figures.envelopes,
        refused: figures.refused,
        healed_millis: healed / MILLI,
    }
}

fn play(world: &mut World) -> u64 {
    // Chaos.
    for node in 0..world.nodes.len() {
        // Some come later, as one of the deeds.
        if node == 0 || world.rng.chance(4, 5) {
            let delay = between(&mut world.rng, (0, if world.deeds_left % 2 == 0 { MILLI } else { 2 * SECOND }));
            world.after(delay, Event::Start { node });
        }
    }
    for client in 0..world.clients.len() {
        let delay = between(&mut world.rng, (0, SECOND));
        world.after(delay, Event::ClientWakes { client });
    }
    world.after(0, Event::Deed);
    world.after(0, Event::Look);
    while world.deeds_left > 0 {
        let end = world.now + 10 * MILLI;
        world.run_until(end);
    }

    // Calm.
    world.phase = Phase::Calm;
    world.net.storm = false;
    for from in 0..world.nodes.len() {
        for to in 0..world.nodes.len() {
            world.queue.put(world.now, Event::Heal { from, to });
        }
        world.resume(from);
        if !world.nodes[from].is_on() {
            world.after(0, Event::Start { node: from });
        }
    }
    for client in 0..world.clients.len() {
        world.client_wakes_up(client);
    }
    let began = world.now;
    while !world.is_healthy() {
        let end = world.now + 20 * MILLI;
        world.run_until(end);
        assert!(
            world.now < began + HEALING,
            "the cluster does not heal: {}\n{}",
            world.why_not_healthy(),
            world.views()
        );
    }
    let healed = world.now - began;
    // What is still owed from before comes now or never.
    let end = world.now + 2 * PATIENCE;
    world.run_until(end);

    // The exam.
    world.phase = Phase::Exam;
    let gaps = world.model.gaps.clone();
    for round in 0..2 {
        for channel in 0..world.plan.channels.len() {
            for node in 0..world.nodes.len() {
                let worker = world.rng.below(u64::from(world.nodes[node].workers)) as usize;
                world.publish_over_http(node, worker, channel);
                world.rest();
            }
            let clients = world.clients.len();
            let client = world.rng.below(clients as u64) as usize;
            world.client_publishes(client, channel);
            world.rest();
        }
        let end = world.now + if round == 0 { 5 * MILLI } else { 2 * SECOND };
        world.run_until(end);
    }
    if world.net.defect != Some(Defect::ForgetGap) {
        assert_eq!(gaps, world.model.gaps, "a gap was counted on a healthy day");
    }
    world.model.conclude(world.now);
    assert!(world.requests.is_empty(), "a request was never answered");

    // Nobody wants anything: nothing is left of it anywhere.
    world.phase = Phase::End;
    for client in 0..world.clients.len() {
        world.clients[client].retired = true;
        world.client_leaves(client);
    }
    let end = world.now + 8 * SECOND;
    world.run_until(end);
    world.check_empty();

    // Nodes stop, one after the other.
    for node in 0..world.nodes.len() {
        world.shut_down(node);
        let end = world.now + between(&mut world.rng, (0, SECOND));
        world.run_until(end);
    }
    let end = world.now + STOPPING;
    world.run_until(end);
    for node in &world.nodes {
        assert!(!node.is_on(), "node {} has not come to its end", node.slot);
    }
    healed
}

impl World {
    /// Long enough that even the smallest queues are empty again.
    fn rest(&mut self) {
        let end = self.now + 30 * MILLI;
        self.run_until(end);
    }

    pub fn on_deed(&mut self) {
        if self.deeds_left == 0 {
            return;
        }
        self.deeds_left -= 1;
        let deed = self.plan.deed(&mut self.rng);
        self.trace.note(self.now, "deed", &[deed as u64], || format!("{deed:?}"));
        self.act(deed);
        let pace = if self.rng.chance(1, 2) {
            self.rng.below(self.plan.pace / 10 + 1)
        } else {
            self.rng.below(2 * self.plan.pace)
        };
        self.after(pace, Event::Deed);
    }

    fn any_node(&mut self, fit: impl Fn(&crate::node::Node) -> bool) -> Option<usize> {
        let fit: Vec<usize> = self.nodes.iter().filter(|node| fit(node)).map(|node| node.slot).collect();
        (!fit.is_empty()).then(|| fit[self.rng.below(fit.len() as u64) as usize])
    }

    fn any_client(&mut self) -> usize {
        self.rng.below(self.clients.len() as u64) as usize
    }

    fn any_channel(&mut self) -> usize {
        self.rng.below(self.plan.channels.len() as u64) as usize
    }

    fn act(&mut self, deed: Deed) {
        let (client, channel) = (self.any_client(), self.any_channel());
        let nodes = self.nodes.len();
        match deed {
            Deed::Connect => self.client_connects(client),
            Deed::Disconnect => self.client_leaves(client),
            Deed::Vanish => self.client_vanishes(client),
            Deed::Subscribe => self.client_subscribes(client, channel),
            Deed::Unsubscribe => self.client_unsubscribes(client, channel),
            Deed::Publish => self.client_publishes(client, channel),
            Deed::PublishMany => {
                let count = 2 + self.rng.below(80);
                let one = self.rng.chance(1, 2);
                for _ in 0..count {
                    let channel = if one { channel } else { self.any_channel() };
                    self.client_publishes(client, channel);
                }
            }
            Deed::PublishOverHttp => {
                if let Some(node) = self.any_node(|node| node.is_on()) {
                    let worker = self.rng.below(u64::from(self.nodes[node].workers)) as usize;
                    self.publish_over_http(node, worker, channel);
                }
            }
            Deed::Ask => {
                if let Some(node) = self.any_node(|node| node.is_on()) {
                    let worker = self.rng.below(u64::from(self.nodes[node].workers)) as usize;
                    let ask = match self.rng.below(4) {
                        0 => Ask::Info,
                        1 => Ask::Status,
                        2 => Ask::Metrics,
                        _ => Ask::Ready,
                    };
                    self.request(node, worker, ask, None);
                }
            }
            Deed::Stall => {
                let length = between(&mut self.rng, (50 * MILLI, 5 * SECOND));
                self.client_stalls(client, length);
            }
            Deed::Dawdle => {
                self.clients[client].dawdles ^= true;
                self.clients[client].excused = true;
            }
            Deed::Crash => {
                if let Some(node) = self.any_node(|node| node.is_on()) {
                    self.crash(node);
                }
            }
            Deed::Start => {
                if let Some(node) = self.any_node(|node| !node.is_on()) {
                    self.start(node);
                }
            }
            Deed::Leave => {
                if let Some(node) = self.any_node(|node| node.state == State::On) {
                    self.shut_down(node);
                }
            }
            Deed::Pause => {
                if let Some(node) = self.any_node(|node| node.is_on() && !node.paused) {
                    let length = between(&mut self.rng, (20 * MILLI, 5 * SECOND));
                    self.pause(node, length);
                }
            }
            Deed::Partition => {
                let inside: Vec<bool> = (0..nodes).map(|_| self.rng.chance(1, 2)).collect();
                self.trace.note(self.now, "partition", &[], || format!("{inside:?}"));
                let length = between(&mut self.rng, (100 * MILLI, 8 * SECOND));
                for from in 0..nodes {
                    for to in 0..nodes {
                        if inside[from] != inside[to] {
                            self.net.cut(from, to);
                            self.after(length, Event::Heal { from, to });
                        }
                    }
                }
            }
            Deed::CutOneWay => {
                let from = self.rng.below(nodes as u64) as usize;
                let to = self.rng.below(nodes as u64) as usize;
                self.net.cut(from, to);
                self.trace.note(self.now, "cut", &[from as u64, to as u64], String::new);
                let length = between(&mut self.rng, (100 * MILLI, 4 * SECOND));
                self.after(length, Event::Heal { from, to });
            }
            Deed::Heal => {
                if self.net.any_cut() {
                    for from in 0..nodes {
                        for to in 0..nodes {
                            self.after(0, Event::Heal { from, to });
                        }
                    }
                }
            }
            Deed::KillLane => {
                let lanes: Vec<_> = self.net.lanes.keys().copied().collect();
                if !lanes.is_empty() {
                    let lane = lanes[self.rng.below(lanes.len() as u64) as usize];
                    self.kill_lane(lane);
                }
            }
            Deed::Weather => {
                self.net.storm = true;
                let length = between(&mut self.rng, (100 * MILLI, 4 * SECOND));
                self.after(length, Event::WeatherEnds);
            }
        }
    }

    pub fn publish_over_http(&mut self, slot: usize, worker: usize, channel: usize) {
        let life = self.nodes[slot].life;
        let bytes = self.rng.below(self.plan.payload_bytes_max);
        let (place, payload) = self.model.payload(bytes);
        let bases = self.bases(slot);
        let backend = self.backends.get_mut(&(slot, life, worker)).expect("one for each worker");
        let number = backend.numbers.entry(channel).or_insert(0);
        *number += 1;
        self.model.begin(self.now, backend.publisher, None, channel, *number, (slot, life), &payload, bases);
        self.trace.note(self.now, "publish over http", &[slot as u64, channel as u64, place as u64], String::new);
        let body = format!("{{\"channel\":\"{}\",\"data\":{payload}}}", self.plan.channels[channel]);
        self.request(slot, worker, Ask::Publish { body: body.into_bytes() }, Some(place));
    }

    fn client_wakes_up(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.dawdles = false;
        client.excused = true;
        let conn = client.conn;
        if let Some(conn) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            conn.stalled_until = conn.stalled_until.min(self.now);
        }
        if let Some(conn) = conn {
            self.after(0, Event::ClientReads { conn });
        }
        self.after(MILLI, Event::ClientWakes { client: index });
    }

    // ---- health

    fn is_healthy(&self) -> bool {
        self.why_not_healthy().is_empty()
    }

    /// What every worker has with every peer.
    fn views(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            for (worker, shard) in node.shards.iter().enumerate() {
                for view in shard.peer_views() {
                    let (slot, id) = (node.slot, view.id);
                    let in_view = worker == 0 && shard.has_in_view(id, view.generation);
                    text += &format!("node {slot} worker {worker} with {id}: in view {in_view}, {view:?}\n");
                }
            }
        }
        for (id, lane) in &self.net.lanes {
            let [a, b] = lane.ends.each_ref().map(|end| (end.node, end.worker, end.key, end.state));
            text += &format!("lane {id:?}: {a:?} {b:?}\n");
        }
        text
    }

    fn why_not_healthy(&self) -> String {
        for node in &self.nodes {
            if !node.is_serving() {
                return format!("node {} is not ready", node.slot);
            }
            for other in self.nodes.iter().filter(|other| other.slot != node.slot) {
                if !self.is_in_view(node.slot, other.slot) {
                    return format!("node {} does not have {} in view", node.slot, other.slot);
                }
                for shard in &node.shards {
                    let view = shard.peer_views().find(|view| *view.id == other.id);
                    if !view.is_some_and(|view| view.synced && !view.gap_open) {
                        return format!("node {} has an open gap with {}", node.slot, other.slot);
                    }
                }
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if !client.is_settled(self) {
                return format!("client {index} does not have what it wants");
            }
        }
        String::new()
    }

    /// Nobody is subscribed any more.
    fn check_empty(&self) {
        for node in &self.nodes {
            for shard in &node.shards {
                assert_eq!(shard.hub_channels(), 0, "node {} keeps channels that nobody follows", node.slot);
                assert_eq!(shard.wanted_hashes(), 0, "node {} wants what nobody follows", node.slot);
                assert_eq!(shard.backlog(), (0, 0), "node {} keeps bytes for nobody", node.slot);
                let left: usize = shard.peer_views().map(|view| view.remote_interest).sum();
                assert_eq!(left, 0, "node {} believes that others want something", node.slot);
                let queued: usize = shard.peer_views().map(|view| view.queued_bytes).sum();
                assert_eq!(queued, 0, "node {} keeps bytes for its lanes", node.slot);
                let counters = shard.counters();
                assert_eq!((counters.connections, counters.sessions), (0, 0), "node {} counts clients", node.slot);
            }
            assert!(node.descriptors.iter().all(Option::is_none), "node {} keeps a socket", node.slot);
            assert!(node.shards.iter().all(Shard::is_ready));
        }
    }
}
