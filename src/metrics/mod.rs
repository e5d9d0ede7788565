//! What a worker counts: plain numbers that it alone owns, so counting is an addition and nothing is shared.
//!
//! A worker that answers a scrape asks the others for a copy, merges the copies and renders them. Gathering is not done
//! here, nor is any decision: a counter never changes what the gateway does.
//!
//! Always true: every field is merged (`merge` takes the struct apart, so a new field does not compile until it says
//! how), and every name that is rendered stands once in `METRICS`, with its help.

mod codes;
mod histogram;
mod render;

pub use codes::Codes;
pub use histogram::Histogram;
pub use render::{CONTENT_TYPE, Kind, METRICS, Metric, NodeLabels, render_prometheus};

use crate::base::id::NodeId;

/// Where a publication came into this worker from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Client,
    Api,
    /// Another node, over a lane.
    Peer,
}

/// Why a publication, or what it had become, went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// The home worker's mailbox was full: error 111 to the publisher.
    MailboxFullHome,
    /// A subscribers' worker had a full mailbox: a GAP for that worker.
    MailboxFullSubscribers,
    /// A lane's queue was full: a GAP for that peer.
    LaneFull,
    /// A peer that was interested is out of view: a GAP for that peer.
    PeerOutOfView,
    /// The lane died with this in its queue, or on its way.
    LaneLost,
    /// A frame between nodes for a worker that could not take it.
    LaneMailboxFull,
    /// A session's outbox was above its bound: the client is closed with 3008.
    OutboxSlow,
    /// The client was being closed.
    Closing,
    /// A payload that is no JSON, for a JSON client.
    NotJson,
    /// Nobody in this worker wants it: an unsubscribe crossed it on the way, or two names share a hash.
    NoSubscriber,
}

/// Why a connection or a request did not become a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    BadRequest,
    /// Head above its size.
    TooLarge,
    /// The request was not complete in time.
    Timeout,
    Origin,
    NotFound,
    Method,
    /// No key, or another one.
    Unauthorized,
    /// Connections of this node.
    ConnectionLimit,
    AddressLimit,
    /// Not ready, or stopping.
    Unavailable,
    /// No file descriptor was left.
    Descriptors,
}

/// Why something on the mesh port was turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshRefusal {
    /// TLS or QUIC did not come about: no certificate, another CA, another protocol.
    Handshake,
    /// The certificate has another name than HELLO.
    Name,
    /// HELLO of a version or layout we do not speak, or another hash key.
    Hello,
    /// A datagram before HELLO, or one that is none of ours.
    Datagram,
    /// A frame that failed its check.
    Frame,
    /// An older life of a node.
    Generation,
    Limit,
}

macro_rules! labels {
    ($of:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $of {
            pub const ALL: [$of; [$($name),+].len()] = [$($of::$variant),+];

            /// Its value in the label of a metric.
            pub const fn name(self) -> &'static str {
                match self { $($of::$variant => $name),+ }
            }
        }
    };
}

labels!(Source { Client => "client", Api => "api", Peer => "peer" });
labels!(DropReason {
    MailboxFullHome => "mailbox_full_home",
    MailboxFullSubscribers => "mailbox_full_subscribers",
    LaneFull => "lane_full",
    PeerOutOfView => "peer_out_of_view",
    LaneLost => "lane_lost",
    LaneMailboxFull => "lane_mailbox_full",
    OutboxSlow => "outbox_slow",
    Closing => "closing",
    NotJson => "not_json",
    NoSubscriber => "no_subscriber",
});
labels!(RefusalReason {
    BadRequest => "bad_request",
    TooLarge => "too_large",
    Timeout => "timeout",
    Origin => "origin",
    NotFound => "not_found",
    Method => "method",
    Unauthorized => "unauthorized",
    ConnectionLimit => "connection_limit",
    AddressLimit => "address_limit",
    Unavailable => "unavailable",
    Descriptors => "descriptors",
});
labels!(MeshRefusal {
    Handshake => "handshake",
    Name => "name",
    Hello => "hello",
    Datagram => "datagram",
    Frame => "frame",
    Generation => "generation",
    Limit => "limit",
});

/// What of a peer may have been lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// What it sent.
    In,
    /// What was sent to it.
    Out,
    /// Both: it was in view and is not any more.
    View,
}

/// Everything one worker counts; merged, everything a node counts.
///
/// Fields without a verb are gauges, `_total` and `_in`/`_out` only grow, `_high` is the highest value since the start.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub connections: u64,
    pub connections_total: u64,
    /// Clients whose connect command was answered with success.
    pub sessions: u64,
    pub sessions_total: u64,
    /// Distinct users whose home is here.
    pub users: u64,
    pub subscriptions: u64,
    /// Channels with a subscriber: counted by the home worker, so a node counts each once.
    pub channels: u64,

    publications_in: [u64; Source::ALL.len()],
    /// Publications put into a session's outbox.
    pub deliveries: u64,
    pub commands_in: u64,
    /// WebSocket frames sent, and send operations that carried them: their quotient is how well turns coalesce.
    pub frames_out: u64,
    pub frames_in: u64,
    pub sends: u64,
    /// Sends that the socket did not take whole.
    pub sends_short: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub http_requests: u64,

    drops: [u64; DropReason::ALL.len()],
    refusals: [u64; RefusalReason::ALL.len()],
    mesh_refusals: [u64; MeshRefusal::ALL.len()],
    /// Connections that ended, by close code.
    pub disconnects: Codes,
    /// Error replies to commands, by code.
    pub errors: Codes,

    pub outbox_bytes_high: u64,
    pub mailbox_high: u64,
    pub lane_queue_bytes_high: u64,

    pub turn: Histogram,
    /// From the receive that brought a publication into this worker to the send that took it out.
    pub latency: Histogram,

    /// Counted by worker 0 only, so that merging is harmless.
    pub members: u64,
    pub members_in_view: u64,
    pub members_suspected: u64,
    pub ready: u64,
    /// Times a member was taken out of view.
    pub views_lost: u64,
    /// Times that publications between this node and any peer may have been lost. Lanes' own figures go with their peer.
    gaps: u64,

    lanes: Vec<LaneCounters>,
}

/// One lane, known by peer and number: it keeps its counts when the connection under it is another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneCounters {
    pub peer: NodeId,
    pub lane: u16,
    pub up: bool,
    pub ups_total: u64,
    pub rtt_micros: u64,
    pub queued_bytes: u64,
    pub queued_bytes_high: u64,
    pub gaps_out: u64,
    pub gaps_in: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub lost_packets: u64,
}

impl LaneCounters {
    fn new(peer: NodeId, lane: u16) -> Self {
        LaneCounters {
            peer,
            lane,
            up: false,
            ups_total: 0,
            rtt_micros: 0,
            queued_bytes: 0,
            queued_bytes_high: 0,
            gaps_out: 0,
            gaps_in: 0,
            bytes_out: 0,
            bytes_in: 0,
            lost_packets: 0,
        }
    }

    /// The queue holds this much now.
    pub fn queued(&mut self, bytes: u64) {
        self.queued_bytes = bytes;
        self.queued_bytes_high = self.queued_bytes_high.max(bytes);
    }

    fn merge(&mut self, other: &LaneCounters) {
        let LaneCounters {
            peer: _,
            lane: _,
            up,
            ups_total,
            rtt_micros,
            queued_bytes,
            queued_bytes_high,
            gaps_out,
            gaps_in,
            bytes_out,
            bytes_in,
            lost_packets,
        } = other;
        self.up |= up;
        self.ups_total += ups_total;
        self.rtt_micros = self.rtt_micros.max(*rtt_micros);
        self.queued_bytes += queued_bytes;
        self.queued_bytes_high = self.queued_bytes_high.max(*queued_bytes_high);
        self.gaps_out += gaps_out;
        self.gaps_in += gaps_in;
        self.bytes_out += bytes_out;
        self.bytes_in += bytes_in;
        self.lost_packets += lost_packets;
    }
}

impl Counters {
    pub fn published(&mut self, from: Source) {
        self.publications_in[from as usize] += 1;
    }

    pub fn publications_in(&self, from: Source) -> u64 {
        self.publications_in[from as usize]
    }

    pub fn dropped(&mut self, why: DropReason, publications: u64) {
        self.drops[why as usize] += publications;
    }

    pub fn drops(&self, why: DropReason) -> u64 {
        self.drops[why as usize]
    }

    pub fn refused(&mut self, why: RefusalReason) {
        self.refusals[why as usize] += 1;
    }

    pub fn refusals(&self, why: RefusalReason) -> u64 {
        self.refusals[why as usize]
    }

    pub fn mesh_refused(&mut self, why: MeshRefusal) {
        self.mesh_refused_often(why, 1);
    }

    pub fn mesh_refused_often(&mut self, why: MeshRefusal, times: u64) {
        self.mesh_refusals[why as usize] += times;
    }

    pub fn mesh_refusals(&self, why: MeshRefusal) -> u64 {
        self.mesh_refusals[why as usize]
    }

    pub fn outbox_reached(&mut self, bytes: u64) {
        self.outbox_bytes_high = self.outbox_bytes_high.max(bytes);
    }

    pub fn mailbox_reached(&mut self, mails: u64) {
        self.mailbox_high = self.mailbox_high.max(mails);
    }

    /// Also kept per lane by `LaneCounters::queued`.
    pub fn lane_queue_reached(&mut self, bytes: u64) {
        self.lane_queue_bytes_high = self.lane_queue_bytes_high.max(bytes);
    }

    pub fn gap(&mut self, peer: &NodeId, lane: u16, what: Gap) {
        self.gaps += 1;
        let lane = self.lane_mut(peer, lane);
        lane.gaps_in += u64::from(what != Gap::Out);
        lane.gaps_out += u64::from(what != Gap::In);
    }

    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Made when it is not there yet: once per peer and lane, so the list is as bounded as the peers are.
    pub fn lane_mut(&mut self, peer: &NodeId, lane: u16) -> &mut LaneCounters {
        let at = match self.lanes.binary_search_by(|l| (&l.peer, l.lane).cmp(&(peer, lane))) {
            Ok(at) => at,
            Err(at) => {
                self.lanes.insert(at, LaneCounters::new(peer.clone(), lane));
                at
            }
        };
        &mut self.lanes[at]
    }

    /// In order of peer and lane.
    pub fn lanes(&self) -> &[LaneCounters] {
        &self.lanes
    }

    /// The lanes of other peers are shown no more: they have left the cluster for good.
    pub fn keep_peers(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        self.lanes.retain(|lane| is_known(&lane.peer));
    }

    /// Adds what another worker counted: sums, and the higher of two high-water marks.
    pub fn merge(&mut self, other: &Counters) {
        let Counters {
            connections,
            connections_total,
            sessions,
            sessions_total,
            users,
            subscriptions,
            channels,
            publications_in,
            deliveries,
            commands_in,
            frames_out,
            frames_in,
            sends,
            sends_short,
            bytes_out,
            bytes_in,
            http_requests,
            drops,
            refusals,
            mesh_refusals,
            disconnects,
            errors,
            outbox_bytes_high,
            mailbox_high,
            lane_queue_bytes_high,
            turn,
            latency,
            members,
            members_in_view,
            members_suspected,
            ready,
            views_lost,
            gaps,
            lanes,
        } = other;
        self.connections += connections;
        self.connections_total += connections_total;
        self.sessions += sessions;
        self.sessions_total += sessions_total;
        self.users += users;
        self.subscriptions += subscriptions;
        self.channels += channels;
        add_each(&mut self.publications_in, publications_in);
        self.deliveries += deliveries;
        self.commands_in += commands_in;
        self.frames_out += frames_out;
        self.frames_in += frames_in;
        self.sends += sends;
        self.sends_short += sends_short;
        self.bytes_out += bytes_out;
        self.bytes_in += bytes_in;
        self.http_requests += http_requests;
        add_each(&mut self.drops, drops);
        add_each(&mut self.refusals, refusals);
        add_each(&mut self.mesh_refusals, mesh_refusals);
        self.disconnects.merge(disconnects);
        self.errors.merge(errors);
        self.outbox_bytes_high = self.outbox_bytes_high.max(*outbox_bytes_high);
        self.mailbox_high = self.mailbox_high.max(*mailbox_high);
        self.lane_queue_bytes_high = self.lane_queue_bytes_high.max(*lane_queue_bytes_high);
        self.turn.merge(turn);
        self.latency.merge(latency);
        self.members += members;
        self.members_in_view += members_in_view;
        self.members_suspected += members_suspected;
        self.ready = self.ready.max(*ready);
        self.views_lost += views_lost;
        self.gaps += gaps;
        for lane in lanes {
            self.lane_mut(&lane.peer, lane.lane).merge(lane);
        }
    }
}

fn add_each(mine: &mut [u64], theirs: &[u64]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_sums_quantities_and_keeps_the_higher_water_mark() {
        let peer = NodeId::parse("b").unwrap();
        let mut a = Counters { connections: 2, outbox_bytes_high: 10, ready: 1, ..Counters::default() };
        a.published(Source::Api);
        a.dropped(DropReason::OutboxSlow, 3);
        for _ in 0..4 {
            a.gap(&peer, 1, Gap::Out);
        }
        a.lane_mut(&peer, 1).queued(100);
        a.lane_mut(&peer, 1).queued(50);
        let mut b = Counters { connections: 3, outbox_bytes_high: 7, ..Counters::default() };
        b.published(Source::Api);
        b.published(Source::Peer);
        b.lane_mut(&peer, 0).up = true;
        b.gap(&peer, 1, Gap::View);

        b.merge(&a);
        assert_eq!(b.connections, 5);
        assert_eq!(b.outbox_bytes_high, 10);
        assert_eq!(b.ready, 1);
        assert_eq!(b.publications_in(Source::Api), 2);
        assert_eq!(b.publications_in(Source::Peer), 1);
        assert_eq!(b.drops(DropReason::OutboxSlow), 3);
        assert_eq!(b.lanes().len(), 2);
        assert_eq!((b.lanes()[1].gaps_out, b.lanes()[1].gaps_in), (5, 1));
        assert_eq!(b.gaps(), 5);
        assert_eq!(b.lanes()[1].queued_bytes, 50);
        assert_eq!(b.lanes()[1].queued_bytes_high, 100);
    }

    #[test]
    fn a_label_stands_for_one_reason() {
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in MeshRefusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn lanes_of_a_peer_that_left_are_forgotten() {
        let (b, c) = (NodeId::parse("b").unwrap(), NodeId::parse("c").unwrap());
        let mut counters = Counters::default();
        counters.lane_mut(&c, 0);
        counters.lane_mut(&b, 1);
        counters.lane_mut(&b, 0);
        let order: Vec<_> = counters.lanes().iter().map(|l| (l.peer.as_str(), l.lane)).collect();
        assert_eq!(order, [("b", 0), ("b", 1), ("c", 0)]);
        counters.keep_peers(|peer| *peer == c);
        assert_eq!(counters.lanes().len(), 1);
    }
}
