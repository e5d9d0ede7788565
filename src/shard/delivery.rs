//! The way of a publication: publisher's worker, home worker, subscribers' workers and lanes, outboxes.
//!
//! It is encoded once per encoding and worker, into the turn's arena. Members get it when the channel is settled: at
//! the end of the turn, or before the channel's members change, so that all publications of a turn reach a member in
//! one piece and in one frame where they fit.
//!
//! Always true: a channel with pending publications is listed as unsettled; its members do not change while it is.

use std::ops::Range;

use smallvec::SmallVec;

use super::Shard;
use super::mail::{Mail, Origin, Parcel};
use super::outboxes::Outboxes;
use super::replies::opcode;
use crate::backplane::envelope::PublicationRef;
use crate::backplane::mesh::flow::Passage;
use crate::base::id::WorkerIndex;
use crate::base::time::Now;
use crate::hub::{ChannelIndex, GROUPS};
use crate::limits::MESSAGES_PER_FRAME_MAX;
use crate::metrics::DropReason;
use crate::protocol::{ClientInfo, Disconnect, Encoding, Error, Publication, Push, Reply, batch};
use crate::ws::encoder::{self, HEAD_BYTES_MAX};

/// Members of one encoding are one group of the hub.
pub const ENCODINGS: [Encoding; GROUPS] = [Encoding::Json, Encoding::Protobuf];

pub const fn group_of(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Json => 0,
        Encoding::Protobuf => 1,
    }
}

/// What the turn has encoded and not yet given to members.
#[derive(Default)]
pub struct Turn {
    unsettled: Vec<ChannelIndex>,
    /// A publication's bytes per group, without a frame's head but with room for one before them. Empty: nobody there.
    encoded: Vec<[Range<u32>; GROUPS]>,
}

impl Turn {
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub fn clear(&mut self) {
        assert!(self.unsettled.is_empty(), "every channel is settled before the arena is emptied");
        self.encoded.clear();
    }
}

impl Shard {
    /// A publication of a client or a backend enters. `Some`: what to answer now; `None`: its home worker will say.
    pub(super) fn publish(&mut self, publication: &PublicationRef<'_>, origin: Origin) -> Option<Result<(), Error>> {
        let home = publication.hash.home(self.workers);
        if home == self.worker {
            self.publish_at_home(publication);
            return Some(Ok(()));
        }
        let mail = Mail::Publish { publication: Parcel::new(publication), origin };
        match self.outgoing.publication(home, mail) {
            Ok(()) => None,
            Err(_) => {
                self.counters.dropped(DropReason::MailboxFullHome, 1);
                Some(Err(Error::TooManyRequests))
            }
        }
    }

    pub(super) fn on_published(&mut self, origin: Origin, outcome: Result<(), Error>) {
        match origin {
            Origin::Client { id: 0, .. } => {}
            Origin::Client { connection, id } => {
                let reply = outcome.map_or_else(Reply::Error, |()| Reply::Publish);
                self.reply(connection, id, &reply);
            }
            Origin::Request { key, place } => self.on_request_published(key, place, outcome),
        }
    }

    /// On the channel's home worker: to every worker and every peer with interest.
    pub(super) fn publish_at_home(&mut self, publication: &PublicationRef<'_>) {
        self.deliver_on_node(publication);
        self.send_to_peers(publication);
    }

    /// On the channel's home worker: to every worker of this node with subscribers.
    pub(super) fn deliver_on_node(&mut self, publication: &PublicationRef<'_>) {
        let workers = self.interest.workers(publication.channel, publication.hash);
        let mut parcel = None;
        for worker in workers.iter() {
            if worker == self.worker {
                self.deliver(publication);
                continue;
            }
            let parcel = parcel.get_or_insert_with(|| Parcel::new(publication));
            if self.outgoing.publication(worker, Mail::Deliver(parcel.clone())).is_err() {
                self.on_mailbox_full(worker, publication);
            }
        }
    }

    fn on_mailbox_full(&mut self, worker: WorkerIndex, publication: &PublicationRef<'_>) {
        self.counters.dropped(DropReason::MailboxFullSubscribers, 1);
        if self.tells_gaps(publication.channel) {
            let channels = vec![(publication.channel.into(), publication.hash)];
            self.outgoing.control(worker, Mail::Gap { channels });
        }
    }

    fn send_to_peers(&mut self, publication: &PublicationRef<'_>) {
        let mut place = None;
        for peer in self.peers.iter_mut() {
            match peer.passage(publication.hash) {
                Passage::Unwanted => {}
                Passage::Gap => {
                    peer.count_gap();
                    self.counters.dropped(DropReason::PeerOutOfView, 1);
                }
                Passage::Send => {
                    let place =
                        *place.get_or_insert_with(|| self.turn_publications.push(publication, &mut self.outboxes));
                    peer.push(publication.hash, place);
                }
            }
        }
    }

    /// To this worker's own subscribers.
    pub(super) fn deliver(&mut self, publication: &PublicationRef<'_>) {
        let Some(index) = self.hub.find(publication.channel, publication.hash) else {
            self.counters.dropped(DropReason::NoSubscriber, 1);
            return;
        };
        if self.hub.channel(index).members() == 0 {
            // It lingers, or its first subscriber waits. Nothing may be pending when its time is over.
            self.counters.dropped(DropReason::NoSubscriber, 1);
            return;
        }
        let channel = self.hub.channel(index);
        let tags: SmallVec<[(&str, &str); 4]> = publication.tags.iter().collect();
        let push = Push::Publication(Publication {
            data: publication.data,
            info: publication.info.map(|info| ClientInfo {
                user: info.user,
                client: info.client,
                conn_info: info.conn_info,
                chan_info: info.chan_info,
            }),
            tags: &tags,
            offset: 0,
        });
        let mut encoded: [Range<u32>; GROUPS] = Default::default();
        let mut refused = false;
        for (group, encoding) in ENCODINGS.into_iter().enumerate() {
            if channel.group(group).is_empty() {
                continue;
            }
            if encoding == Encoding::Json && !publication.json {
                refused = true;
                continue;
            }
            let arena = self.outboxes.arena();
            arena.extend_from_slice(&[0; HEAD_BYTES_MAX]);
            let start = arena.len() as u32;
            batch::encode_push(encoding, publication.channel, &push, arena);
            encoded[group] = start..arena.len() as u32;
        }
        let place = self.turn.encoded.len() as u32;
        self.turn.encoded.push(encoded);
        let channel = self.hub.channel_mut(index);
        if channel.pending.is_empty() {
            self.turn.unsettled.push(index);
        }
        channel.pending.push(place);
        if refused {
            self.refuse_binary(index);
        }
    }

    /// A payload that is no JSON cannot be put into a JSON frame: its JSON subscribers are closed, as the protocol has it.
    fn refuse_binary(&mut self, index: ChannelIndex) {
        for member in self.hub.channel(index).group(0) {
            self.counters.dropped(DropReason::NotJson, 1);
            let key = self.connections.key_at(member.connection).expect("members are connections");
            self.inappropriate.push(key);
        }
    }

    pub(super) fn settle_all(&mut self) {
        while let Some(&index) = self.turn.unsettled.last() {
            self.settle(index);
        }
        self.commit_replies();
    }

    /// Those who got a payload that they cannot be given are closed, after the channels are settled.
    pub(super) fn close_inappropriate(&mut self, now: Now) {
        for connection in std::mem::take(&mut self.inappropriate) {
            self.disconnect(now, connection, Disconnect::InappropriateProtocol);
        }
    }

    pub(super) fn commit_replies(&mut self) {
        self.counters.frames_out += self.replies.commit(&mut self.outboxes);
    }

    /// Gives a channel's pending publications to its members.
    pub(super) fn settle(&mut self, index: ChannelIndex) {
        if self.hub.channel(index).pending.is_empty() {
            return;
        }
        // An answer that was gathered before must leave before: it may be the very one that opens the subscription.
        self.commit_replies();
        let pending = std::mem::take(&mut self.hub.channel_mut(index).pending);
        for (group, encoding) in ENCODINGS.into_iter().enumerate() {
            let members = self.hub.channel(index).group(group);
            if members.is_empty() {
                continue;
            }
            let (range, messages, frames) =
                frame_all(&mut self.outboxes, encoding, &pending, &self.turn.encoded, group);
            if messages == 0 {
                continue;
            }
            for member in members {
                self.outboxes.append(member.connection, range.clone());
            }
            self.counters.deliveries += (members.len() * messages) as u64;
            self.counters.frames_out += (members.len() * frames) as u64;
        }
        let mut pending = pending;
        pending.clear();
        if pending.capacity() > 64 {
            pending = Vec::new();
        }
        self.hub.channel_mut(index).pending = pending;
        match self.turn.unsettled.last() {
            Some(&last) if last == index => {
                self.turn.unsettled.pop();
            }
            _ => self.turn.unsettled.retain(|&other| other != index),
        }
    }
}

/// One contiguous range with everything framed; the numbers of messages and of frames in it.
fn frame_all(
    outboxes: &mut Outboxes,
    encoding: Encoding,
    pending: &[u32],
    encoded: &[[Range<u32>; GROUPS]],
    group: usize,
) -> (Range<u32>, usize, usize) {
    let mut parts =
        pending.iter().map(|&place| encoded[place as usize][group].clone()).filter(|range| !range.is_empty());
    let messages = parts.clone().count();
    let separator = batch::separator(encoding);
    if messages == 1 {
        // The head goes into the room before the payload, by way of the arena's end: the payload is not copied.
        let payload = parts.next().expect("there is one");
        let arena = outboxes.arena();
        let end = arena.len();
        encoder::head(opcode(encoding), payload.len(), arena);
        let start = payload.start as usize - (arena.len() - end);
        arena.copy_within(end.., start);
        arena.truncate(end);
        return (start as u32..payload.end, 1, 1);
    }
    let start = outboxes.arena_bytes() as u32;
    let mut frames = 0;
    let parts: SmallVec<[Range<u32>; 32]> = parts.collect();
    for merged in parts.chunks(MESSAGES_PER_FRAME_MAX) {
        let payload = merged.iter().map(|part| part.len()).sum::<usize>() + separator.len() * (merged.len() - 1);
        encoder::head(opcode(encoding), payload, outboxes.arena());
        for (place, part) in merged.iter().enumerate() {
            if place > 0 {
                outboxes.arena().extend_from_slice(separator);
            }
            outboxes.repeat(part.start as usize..part.end as usize);
        }
        frames += 1;
    }
    (start..outboxes.arena_bytes() as u32, messages, frames)
}
