//! The world as one worker's flush sees it: sockets that take what they have room for, mailboxes, lanes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use skein::base::id::WorkerIndex;
use skein::base::rng::Rng;
use skein::shard::mail::Mail;
use skein::shard::outlet::{
    Answer, ConnectionKey, Finish, LaneKey, LaneStream, Outgoing, Outlet, RequestKey, SendResult, Unsent,
};

use crate::defect::Defect;
use crate::model::Model;
use crate::net::{End, EndState, Lane, LaneId, Net, Side};
use crate::node::resolve;
use crate::plan::{MICRO, MILLI, Plan, SECOND, between};
use crate::queue::{Event, Queue};
use crate::trace::{Trace, digest};

/// A TCP connection of a client, as far as somebody still holds an end of it.
pub struct Conn {
    pub client: usize,
    pub node: usize,
    pub life: u32,
    pub worker: usize,
    /// The server's end, once accepted.
    pub descriptor: Option<i32>,
    pub key: Option<ConnectionKey>,
    /// Sent and not read by the client.
    pub down: Vec<u8>,
    /// The shard waits to be told of room.
    pub blocked: bool,
    pub fin: bool,
    pub aborted: bool,
    /// The client's end is closed: what is sent fails or goes nowhere.
    pub client_gone: bool,
    pub read_scheduled: bool,
    pub stalled_until: u64,
    pub up_last: u64,
}

pub struct Wires<'w> {
    pub now: u64,
    pub node: usize,
    pub life: u32,
    pub worker: usize,
    pub plan: &'w Plan,
    pub rng: &'w mut Rng,
    pub trace: &'w mut Trace,
    pub queue: &'w mut Queue,
    pub net: &'w mut Net,
    pub model: &'w mut Model,
    pub conns: &'w mut BTreeMap<u64, Conn>,
    pub descriptors: &'w [Option<u64>],
    pub mail: &'w mut [Vec<VecDeque<Mail>>],
    pub lanes: &'w mut BTreeMap<(usize, LaneKey), (LaneId, Side)>,
    pub lanes_made: &'w mut u64,
    /// Workers that got mail.
    pub woken: Vec<usize>,
    /// Connections that the shard wants ended.
    pub aborted: Vec<u64>,
    pub closed: Vec<(LaneKey, u32, String)>,
    pub answers: Vec<(RequestKey, Answer)>,
    /// Held back by a planted defect: sender's mail and until when.
    pub late_mail: &'w mut Vec<(u64, usize, usize, Mail)>,
}

impl Wires<'_> {
    fn conn(&mut self, connection: ConnectionKey, socket: i32) -> (u64, &mut Conn) {
        let id = self.descriptors.get(socket as usize).copied().flatten();
        let id = id.unwrap_or_else(|| panic!("descriptor {socket} is closed"));
        let conn = self.conns.get_mut(&id).expect("descriptors belong to connections");
        assert_eq!(conn.key, Some(connection), "bytes for the former owner of a descriptor");
        (id, conn)
    }
}

impl Outlet for Wires<'_> {
    fn send<'a, I, S>(&mut self, batch: I, unsent: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>,
    {
        let (now, plan) = (self.now, self.plan);
        let mut sent = std::collections::BTreeSet::new();
        for (index, outgoing) in batch.enumerate() {
            assert!(sent.insert(outgoing.socket), "two sends for one socket in a batch");
            let bytes: Vec<u8> = outgoing.slices.flatten().copied().collect();
            assert_eq!(bytes.len(), outgoing.bytes);
            let refuse = self.rng.below(1000) < plan.short_permille;
            let part = self.rng.below(bytes.len() as u64 + 1) as usize;
            let nothing = self.rng.chance(1, 2);
            let soon = now + between(self.rng, (20 * MICRO, 2 * MILLI));
            let fails = self.rng.chance(1, 2);
            let (id, conn) = self.conn(outgoing.connection, outgoing.socket);
            if conn.client_gone {
                if fails {
                    unsent.push(Unsent { index, result: SendResult::Failed });
                }
                continue;
            }
            assert!(!conn.fin, "bytes after the end of the stream");
            let mut room = plan.socket_bytes.saturating_sub(conn.down.len());
            let refused = refuse && room > 0;
            if refused {
                room = if nothing { 0 } else { part };
            }
            let taken = bytes.len().min(room);
            conn.down.extend_from_slice(&bytes[..taken]);
            let read = taken > 0 && !conn.read_scheduled && conn.stalled_until <= now;
            conn.read_scheduled |= read;
            if taken < bytes.len() {
                conn.blocked = true;
                unsent.push(Unsent { index, result: SendResult::Short(taken) });
                if refused || conn.down.is_empty() {
                    self.queue.put(soon, Event::Room { conn: id });
                }
            }
            if read {
                self.queue.put(now + between(self.rng, plan.latency), Event::ClientReads { conn: id });
            }
            self.trace.note(now, "send", &[self.node as u64, id, taken as u64, digest(&bytes)], String::new);
        }
        if self.rng.chance(1, 4) {
            // The completions of a ring come in any order.
            unsent.reverse();
        }
    }

    fn finish(&mut self, connection: ConnectionKey, socket: i32, how: Finish) {
        let (now, latency) = (self.now, between(self.rng, self.plan.latency));
        let (id, conn) = self.conn(connection, socket);
        match how {
            Finish::HalfClose => {
                assert!(!conn.fin, "a stream is ended once");
                conn.fin = true;
                if !conn.read_scheduled && conn.stalled_until <= now {
                    conn.read_scheduled = true;
                    self.queue.put(now + latency, Event::ClientReads { conn: id });
                }
            }
            Finish::Abort => {
                conn.aborted = true;
                self.queue.put(now + latency, Event::ClientReset { conn: id });
                self.aborted.push(id);
            }
        }
        self.trace.note(now, "finish", &[self.node as u64, id, how as u64], || format!("{how:?}"));
    }

    fn mail(&mut self, to: WorkerIndex, mail: Mail) -> Result<(), Mail> {
        let to = usize::from(to);
        assert_ne!(to, self.worker, "a shard sends no mail to itself");
        let places = self.plan.mailbox_places;
        if self.mail[to][self.worker].len() >= places {
            self.trace.note(self.now, "mailbox full", &[self.node as u64, self.worker as u64, to as u64], String::new);
            return Err(mail);
        }
        let mut doubled = None;
        match (self.net.defect, &mail) {
            (Some(Defect::LoseMail), Mail::Deliver(_)) if self.rng.chance(1, 10) => return Ok(()),
            (Some(Defect::LoseControlMail), Mail::Confirmed { .. }) if self.rng.chance(1, 10) => return Ok(()),
            (Some(Defect::MailTwice), Mail::Deliver(parcel)) if self.rng.chance(1, 10) => {
                doubled = Some(Mail::Deliver(parcel.clone()));
            }
            (Some(Defect::ConfirmBeforeAsk), Mail::Ask { channel, hash }) => {
                let forged = Mail::Confirmed { channel: channel.clone(), hash: *hash };
                self.mail[self.worker][to].push_back(forged);
                self.woken.push(self.worker);
                self.late_mail.push((self.now + 60 * MILLI, to, self.worker, mail));
                return Ok(());
            }
            _ => {}
        }
        let queue = &mut self.mail[to][self.worker];
        queue.push_back(mail);
        queue.extend(doubled);
        self.woken.push(to);
        Ok(())
    }

    fn lane_write(&mut self, lane: LaneKey, stream: LaneStream, bytes: &[u8]) -> usize {
        assert!(!bytes.is_empty(), "nothing is written for nothing");
        let Some(&(id, side)) = self.lanes.get(&(self.worker, lane)) else {
            // It went down, and this worker is about to be told.
            return bytes.len();
        };
        let (taken, frames) = self.net.write(self.now, id, side, stream, bytes, self.plan, self.queue, self.rng);
        let numbers = [self.node as u64, id.0, side as u64, stream as u64, taken as u64, digest(&bytes[..taken])];
        self.trace.note(self.now, "lane write", &numbers, || format!("{} frames", frames.len()));
        let peer = self.net.lanes.get(&id).map(|lane| (lane.ends[1 - side].node, lane.ends[1 - side].life));
        if let Some(peer) = peer {
            for (hello, frame) in frames {
                if !hello {
                    self.model.on_frame_written(self.now, (self.node, self.life), peer, id, side, &frame);
                }
            }
        }
        taken
    }

    fn lane_datagram(&mut self, lane: LaneKey, bytes: &[u8]) {
        assert!(bytes.len() <= skein::limits::MESH_DATAGRAM_BYTES_MAX);
        let Some(&(id, side)) = self.lanes.get(&(self.worker, lane)) else { return };
        let copies = match self.rng.below(1000) {
            lost if lost < if self.net.storm { 400 } else { self.plan.datagram_loss } => 0,
            doubled if doubled > if self.net.storm { 800 } else { 990 } => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.net.storm { (0, 300 * MILLI) } else { self.plan.latency };
            let at = self.now + between(self.rng, late);
            self.queue.put(at, Event::Datagram { lane: id, to: 1 - side, bytes: bytes.to_vec() });
        }
        self.trace.note(self.now, "datagram", &[self.node as u64, id.0, copies, digest(bytes)], String::new);
    }

    fn lane_dial(&mut self, remote: SocketAddr, token: u64) {
        let (slot, worker) = resolve(remote);
        *self.lanes_made += 1;
        let key = LaneKey(*self.lanes_made);
        let end = |node, life, worker, key| End {
            node,
            life,
            worker,
            key,
            state: EndState::Shaking,
            heard: self.now,
            streams: Default::default(),
        };
        let dialler = end(self.node, self.life, self.worker, key);
        // Who accepts is found out when the handshake comes there.
        let acceptor = end(slot, 0, usize::from(worker), LaneKey(0));
        let lane = self.net.make(Lane { ends: [dialler, acceptor], token });
        let late = if self.rng.chance(1, 20) { (0, SECOND) } else { self.plan.latency };
        self.queue.put(self.now + 2 * between(self.rng, late), Event::Dialled { lane });
        self.trace
            .note(self.now, "dial", &[self.node as u64, lane.0, slot as u64, u64::from(worker)], || remote.to_string());
    }

    fn lane_close(&mut self, lane: LaneKey, code: u32, reason: &str) {
        self.closed.push((lane, code, reason.to_owned()));
    }

    fn lanes_written(&mut self) {}

    fn answer(&mut self, request: RequestKey, answer: Answer) {
        self.answers.push((request, answer));
    }
}
