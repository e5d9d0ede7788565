//! A run from its seed to its end: chaos, calm, an exam in which everything has to work, and an orderly end.

use skein::shard::Shard;

use crate::defect::Defect;
use crate::model::PATIENCE;
use crate::net::EndState;
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
            let delay =
                between(&mut world.rng, (0, if world.deeds_left.is_multiple_of(2) { MILLI } else { 2 * SECOND }));
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
    world.heal_all();
    for from in 0..world.nodes.len() {
        world.resume(from);
        if !world.nodes[from].is_on() {
            world.after(0, Event::Start { node: from });
        }
    }
    for client in 0..world.clients.len() {
        world.client_wakes_up(client);
    }
    let began = world.now;
    // For a while, since what answers late may yet change something.
    let mut healthy_from = None;
    while world.now < world.quiet_from || healthy_from.is_none_or(|from| world.now < from + 300 * MILLI) {
        let end = world.now + 20 * MILLI;
        world.run_until(end);
        let why_not = world.why_not_healthy();
        healthy_from = if why_not.is_empty() { healthy_from.or(Some(world.now)) } else { None };
        assert!(world.now < began + HEALING, "the cluster does not heal: {why_not}\n{}", world.views());
    }
    let healed = world.now - began;
    // What is still owed from before comes now or never.
    let end = world.now + 3 * PATIENCE;
    world.run_while(end, |world| !world.model.is_settled());
    world.rest();

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
        world.run_while(end, |world| round == 0 || !world.model.is_settled());
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
    world.run_while(end, |world| !world.what_is_left().is_empty());
    let left = world.what_is_left();
    assert!(left.is_empty(), "{left}");

    // Nodes stop, one after the other.
    for node in 0..world.nodes.len() {
        world.shut_down(node);
        let end = world.now + between(&mut world.rng, (0, SECOND));
        world.run_until(end);
    }
    let end = world.now + STOPPING;
    world.run_while(end, |world| world.nodes.iter().any(crate::node::Node::is_on));
    for node in &world.nodes {
        assert!(!node.is_on(), "node {} has not come to its end", node.slot);
    }
    healed
}

impl World {
    /// Everybody reaches everybody.
    pub fn heal_all(&mut self) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.after(0, Event::Heal { from, to });
            }
        }
    }

    pub fn run_while(&mut self, end: u64, wanted: impl Fn(&World) -> bool) {
        while self.now < end && wanted(self) {
            let next = (self.now + 20 * MILLI).min(end);
            self.run_until(next);
        }
    }

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
                    self.heal_all();
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
        let bases = self.bases(slot, channel);
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

    pub fn why_not_healthy(&self) -> String {
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
        // A dial that answers late may yet take the place of a lane that stands.
        if self.net.lanes.values().any(|lane| lane.ends.iter().any(|end| end.state == EndState::Shaking)) {
            return "a dial is under way".to_owned();
        }
        if self.conns.values().any(|conn| !conn.down.is_empty() || !conn.client_gone && conn.blocked) {
            return "a client has not read everything".to_owned();
        }
        for (index, client) in self.clients.iter().enumerate() {
            if !client.is_settled(self) {
                return format!("client {index} does not have what it wants");
            }
        }
        String::new()
    }

    /// Of what clients wanted who have gone.
    fn what_is_left(&self) -> String {
        for node in &self.nodes {
            let slot = node.slot;
            for shard in &node.shards {
                if shard.hub_channels() > 0 {
                    return format!("node {slot} keeps channels that nobody follows");
                }
                if shard.wanted_hashes() > 0 {
                    return format!("node {slot} wants what nobody follows");
                }
                if shard.backlog() != (0, 0) {
                    return format!("node {slot} keeps bytes for nobody");
                }
                if shard.peer_views().any(|view| view.remote_interest > 0) {
                    return format!("node {slot} believes that others want something");
                }
                if shard.peer_views().any(|view| view.queued_bytes > 0) {
                    return format!("node {slot} keeps bytes for its lanes");
                }
                let counters = shard.counters();
                if (counters.connections, counters.sessions) != (0, 0) {
                    return format!("node {slot} counts clients who have gone");
                }
            }
            if node.descriptors.iter().any(Option::is_some) {
                return format!("node {slot} keeps a socket");
            }
            assert!(node.shards.iter().all(Shard::is_ready));
        }
        String::new()
    }
}
