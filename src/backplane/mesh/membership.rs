//! Who is alive, as gossip tells it: foca (SWIM), wrapped so that time and datagrams are values.
//!
//! It knows node names, lives and addresses, never lanes: `poll_send` names the node that a datagram is for, and
//! `cluster` finds the lane, or drops the datagram as a network would. Two lives of one node are told apart by
//! generation, two tries of one life to come back by a renewal counter; the higher wins.
//!
//! Always true: whatever a datagram holds, it is read or refused; no more than `REMEMBERED_MAX` names are known.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use foca::{Foca, Header, Message, NoCustomBroadcast, Notification, PeriodicParams, Timer};

use crate::backplane::compact::{self, Malformed, Reader};
use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::limits::{MESH_DATAGRAM_BYTES_MAX, NODE_ADDRESSES_MAX, NODE_ID_BYTES_MAX, PEERS_MAX, WORKERS_MAX};

/// Names that are remembered, dead ones included. Datagrams that bring more are refused until some are forgotten.
const REMEMBERED_MAX: usize = 2 * PEERS_MAX;
/// A dead name is forgotten after this.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// A node in one of its lives. Equal when name, generation and renewal are: the rest cannot change within a life.
#[derive(Clone)]
pub struct Identity {
    pub id: NodeId,
    pub generation: Generation,
    /// Counts how often this life was wrongly declared dead and came back.
    pub renewal: u32,
    pub workers: u16,
    pub addresses: Arc<[SocketAddr]>,
}

impl Identity {
    const fn life(&self) -> (Generation, u32) {
        (self.generation, self.renewal)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.life() == other.life()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}+{}", self.id, self.generation.0, self.renewal)
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Identity { renewal: self.renewal.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.id.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life() > adversary.life()
    }
}

/// What changed. Generations other than the current one of a name are never `Down`: they are `Replaced`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Up(Identity),
    Down(Identity),
    /// Another identity of the same name took over; which of the two is alive follows as its own event if it changed.
    Replaced {
        old: Identity,
        new: Identity,
    },
    /// We had been declared dead and are back under a new renewal.
    Rejoined,
    /// A later life of our own name is alive elsewhere.
    Superseded(Generation),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Alive,
    Suspect,
    Down,
}

/// A datagram that is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadDatagram;

pub struct Membership {
    foca: Foca<Identity, Codec, Randomness, NoCustomBroadcast>,
    collector: Collector,
}

impl Membership {
    pub fn new(identity: Identity, rng: Rng) -> Self {
        Membership { foca: Foca::new(identity, config(), Randomness(rng), Codec), collector: Collector::default() }
    }

    /// From the node at the other end of a lane, which is never anybody else's post office.
    pub fn on_datagram(&mut self, now: Instant, from: &NodeId, bytes: &[u8]) -> Result<(), BadDatagram> {
        self.preview(from, bytes)?;
        self.collector.now = now;
        self.foca.handle_data(bytes, &mut self.collector).map_err(|_| BadDatagram)
    }

    /// Looks through a datagram for what foca would not ask: another sender than the lane's, more names than may be
    /// remembered, and ourselves in a later life, which foca would declare dead in an endless quarrel.
    fn preview(&mut self, from: &NodeId, mut bytes: &[u8]) -> Result<(), BadDatagram> {
        use foca::Codec as _;

        if bytes.len() > MESH_DATAGRAM_BYTES_MAX {
            return Err(BadDatagram);
        }
        let ours = self.foca.identity().clone();
        let header = Codec.decode_header(&mut bytes).map_err(|_| BadDatagram)?;
        if header.src.id != *from {
            return Err(BadDatagram);
        }
        let mut named = vec![(header.src, foca::State::Alive)];
        if bytes.len() >= 2 && header.message != Message::Broadcast {
            for _ in 0..bytes.get_u16() {
                let member = Codec.decode_member(&mut bytes).map_err(|_| BadDatagram)?;
                named.push((member.id().clone(), member.state()));
            }
        }
        let later = |(identity, state): &(Identity, foca::State)| {
            identity.id == ours.id && identity.generation > ours.generation && *state != foca::State::Down
        };
        if let Some((identity, _)) = named.iter().find(|named| later(named)) {
            self.collector.events.push_back(Event::Superseded(identity.generation));
            return Err(BadDatagram);
        }
        let known = self.foca.iter_membership_state();
        if known.len() + named.len() > REMEMBERED_MAX {
            let new = named
                .iter()
                .filter(|(identity, _)| !self.foca.iter_membership_state().any(|member| member.id().id == identity.id));
            if known.len() + new.count() > REMEMBERED_MAX {
                return Err(BadDatagram);
            }
        }
        Ok(())
    }

    /// HELLO proved that a node lives. It learns of us, and tells us more, by the announcement.
    pub fn on_met(&mut self, now: Instant, identity: &Identity) {
        self.collector.now = now;
        let update = foca::Member::alive(identity.clone());
        let applied = self.foca.apply_many(std::iter::once(update), true, &mut self.collector);
        self.note(applied);
        self.announce(now, identity);
    }

    /// Asks a node to take note of us. Its renewal need not be known.
    pub fn announce(&mut self, now: Instant, identity: &Identity) {
        self.collector.now = now;
        let announced = self.foca.announce(identity.clone(), &mut self.collector);
        self.note(announced);
    }

    /// A node said goodbye: nobody has to suspect it first.
    pub fn on_goodbye(&mut self, now: Instant, id: &NodeId, generation: Generation) {
        self.collector.now = now;
        let alive = |member: &&foca::Member<Identity>| member.id().id == *id && member.id().generation == generation;
        let Some(identity) = self.foca.iter_members().find(alive).map(|member| member.id().clone()) else { return };
        let update = foca::Member::down(identity);
        let applied = self.foca.apply_many(std::iter::once(update), true, &mut self.collector);
        self.note(applied);
    }

    /// Tells a few members that we go. Nothing is sent or noticed afterwards.
    pub fn leave(&mut self, now: Instant) {
        self.collector.now = now;
        let left = self.foca.leave_cluster(&mut self.collector);
        self.note(left);
        self.collector.timers.clear();
    }

    pub fn poll_deadline(&self) -> Option<Instant> {
        self.collector.timers.first_key_value().map(|(&(at, _), _)| at)
    }

    pub fn on_deadline(&mut self, now: Instant) {
        self.collector.now = now;
        while let Some(entry) = self.collector.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            let handled = self.foca.handle_timer(timer, &mut self.collector);
            self.note(handled);
        }
    }

    pub fn poll_send(&mut self) -> Option<(Identity, Vec<u8>)> {
        self.collector.sends.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.collector.events.pop_front()
    }

    /// What gossip thinks of a node's current life.
    pub fn state(&self, id: &NodeId, generation: Generation) -> Option<State> {
        let known = self.foca.iter_membership_state().find(|member| member.id().id == *id)?;
        (known.id().generation == generation).then_some(match known.state() {
            foca::State::Alive => State::Alive,
            foca::State::Suspect => State::Suspect,
            foca::State::Down => State::Down,
        })
    }

    /// What foca calls errors of ours: none of them is reachable with a codec that has room for one header, but none of
    /// them is worth a process either, since gossip repeats itself.
    fn note(&mut self, result: Result<(), foca::Error>) {
        self.collector.troubles += u64::from(result.is_err());
    }

    /// How often foca met trouble that is not a datagram's fault.
    pub fn troubles(&self) -> u64 {
        self.collector.troubles
    }
}

/// A killed node is probed within one or two periods in a small cluster (each node probes the others in turn, so in a
/// large one somebody does), fails the probe at the end of its period, and has the suspicion's time to object.
fn config() -> foca::Config {
    const fn some<const N: usize>() -> NonZeroUsize {
        const { NonZeroUsize::new(N).unwrap() }
    }
    foca::Config {
        probe_period: Duration::from_millis(400),
        probe_rtt: Duration::from_millis(130),
        num_indirect_probes: some::<3>(),
        max_transmissions: const { NonZeroU8::new(10).unwrap() },
        suspect_to_down_after: Duration::from_millis(800),
        remove_down_after: Some(REMEMBERED_FOR),
        max_packet_size: some::<MESH_DATAGRAM_BYTES_MAX>(),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: some::<1>() }),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_secs(2),
            num_members: some::<3>(),
        }),
        periodic_gossip: Some(PeriodicParams { frequency: Duration::from_millis(200), num_members: some::<3>() }),
    }
}

/// foca's side effects, as values.
#[derive(Default)]
struct Collector {
    now: Instant,
    sends: VecDeque<(Identity, Vec<u8>)>,
    events: VecDeque<Event>,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    timers_made: u64,
    troubles: u64,
}

impl foca::Runtime<Identity> for Collector {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.events.push_back(match notification {
            Notification::MemberUp(identity) => Event::Up(identity.clone()),
            Notification::MemberDown(identity) => Event::Down(identity.clone()),
            Notification::Rename(old, new) => Event::Replaced { old: old.clone(), new: new.clone() },
            Notification::Rejoin(_) => Event::Rejoined,
            Notification::Active | Notification::Idle | Notification::Defunct => return,
        });
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push_back((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.insert((self.now + after, self.timers_made), timer);
        self.timers_made += 1;
    }
}

struct Randomness(Rng);

impl rand_core::TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next_u64().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

// --- Bytes ---------------------------------------------------------------------------------------------------------

const IDENTITY_BYTES_MAX: usize = 1 + NODE_ID_BYTES_MAX + 8 + 4 + 2 + 1 + NODE_ADDRESSES_MAX * 19;

// A header names at most three nodes, and an announcement has to have room for it.
const _: () = assert!(3 * IDENTITY_BYTES_MAX + 4 <= MESH_DATAGRAM_BYTES_MAX);

struct Codec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CodecError {
    NoRoom,
    Malformed(Malformed),
    Unknown,
}

impl From<Malformed> for CodecError {
    fn from(malformed: Malformed) -> Self {
        CodecError::Malformed(malformed)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CodecError::NoRoom => "no room in the datagram",
            CodecError::Malformed(_) => "malformed",
            CodecError::Unknown => "unknown message or state",
        })
    }
}

impl std::error::Error for CodecError {}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut out = Vec::with_capacity(128);
        put_identity(&header.src, &mut out);
        out.extend_from_slice(&header.src_incarnation.to_le_bytes());
        put_identity(&header.dst, &mut out);
        put_message(&header.message, &mut out);
        put_whole(&out, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        take_whole(buf, |reader| {
            Ok(Header {
                src: take_identity(reader)?,
                src_incarnation: reader.u16()?,
                dst: take_identity(reader)?,
                message: take_message(reader)?,
            })
        })
    }

    fn encode_member(&mut self, member: &foca::Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut out = Vec::with_capacity(64);
        put_identity(member.id(), &mut out);
        out.extend_from_slice(&member.incarnation().to_le_bytes());
        out.push(match member.state() {
            foca::State::Alive => 0,
            foca::State::Suspect => 1,
            foca::State::Down => 2,
        });
        put_whole(&out, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Identity>, CodecError> {
        take_whole(buf, |reader| {
            let identity = take_identity(reader)?;
            let incarnation = reader.u16()?;
            let state = match reader.u8()? {
                0 => foca::State::Alive,
                1 => foca::State::Suspect,
                2 => foca::State::Down,
                _ => return Err(CodecError::Unknown),
            };
            Ok(foca::Member::new(identity, incarnation, state))
        })
    }
}

/// All or nothing, as foca demands.
fn put_whole(bytes: &[u8], mut buf: impl BufMut) -> Result<(), CodecError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(CodecError::NoRoom);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn take_whole<T>(
    mut buf: impl Buf,
    take: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    let mut reader = Reader::new(buf.chunk());
    let before = reader.remaining();
    let taken = take(&mut reader)?;
    let count = before - reader.remaining();
    buf.advance(count);
    Ok(taken)
}

fn put_identity(identity: &Identity, out: &mut Vec<u8>) {
    compact::put_text(identity.id.as_str(), out);
    out.extend_from_slice(&identity.generation.0.to_le_bytes());
    out.extend_from_slice(&identity.renewal.to_le_bytes());
    out.extend_from_slice(&identity.workers.to_le_bytes());
    compact::put_addresses(&identity.addresses, out);
}

fn take_identity(reader: &mut Reader<'_>) -> Result<Identity, CodecError> {
    let identity = Identity {
        id: reader.node_id()?,
        generation: Generation(reader.u64()?),
        renewal: reader.u32()?,
        workers: reader.u16()?,
        addresses: reader.addresses()?.into(),
    };
    if identity.workers == 0 || identity.workers > WORKERS_MAX {
        return Err(CodecError::Unknown);
    }
    Ok(identity)
}

fn put_message(message: &Message<Identity>, out: &mut Vec<u8>) {
    let (tag, probe, other) = match message {
        Message::Ping(probe) => (0, Some(probe), None),
        Message::Ack(probe) => (1, Some(probe), None),
        Message::PingReq { target, probe_number } => (2, Some(probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (3, Some(probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (4, Some(probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    out.push(tag);
    out.extend(probe);
    if let Some(identity) = other {
        put_identity(identity, out);
    }
}

fn take_message(reader: &mut Reader<'_>) -> Result<Message<Identity>, CodecError> {
    let tag = reader.u8()?;
    if let 6..=10 = tag {
        return Ok(match tag {
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        });
    }
    let probe_number = reader.u8()?;
    Ok(match tag {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: take_identity(reader)?, probe_number },
        3 => Message::IndirectPing { origin: take_identity(reader)?, probe_number },
        4 => Message::IndirectAck { target: take_identity(reader)?, probe_number },
        5 => Message::ForwardedAck { origin: take_identity(reader)?, probe_number },
        _ => return Err(CodecError::Unknown),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, proptest};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof};

    use super::*;

    fn identity(name: &str, generation: u64) -> Identity {
        Identity {
            id: NodeId::parse(name).unwrap(),
            generation: Generation(generation),
            renewal: 0,
            workers: 2,
            addresses: vec!["10.0.0.1:7000".parse().unwrap()].into(),
        }
    }

    fn membership(name: &str, generation: u64) -> Membership {
        Membership::new(identity(name, generation), Rng::seeded(1))
    }

    fn events(membership: &mut Membership) -> Vec<Event> {
        std::iter::from_fn(|| membership.poll_event()).collect()
    }

    /// Passes everything on, in turns, until both have nothing to say.
    fn talk(now: Instant, a: &mut Membership, b: &mut Membership) {
        let (ours, theirs) = (a.foca.identity().id.clone(), b.foca.identity().id.clone());
        loop {
            let mut quiet = true;
            while let Some((_, bytes)) = a.poll_send() {
                quiet = false;
                b.on_datagram(now, &ours, &bytes).unwrap();
            }
            while let Some((_, bytes)) = b.poll_send() {
                quiet = false;
                a.on_datagram(now, &theirs, &bytes).unwrap();
            }
            if quiet {
                return;
            }
        }
    }

    fn gossip(from: &Identity, to: &Identity, members: &[foca::Member<Identity>]) -> Vec<u8> {
        use foca::Codec as _;

        let mut bytes = Vec::new();
        let header = Header { src: from.clone(), src_incarnation: 0, dst: to.clone(), message: Message::Gossip };
        Codec.encode_header(&header, &mut bytes).unwrap();
        bytes.put_u16(members.len() as u16);
        for member in members {
            Codec.encode_member(member, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn two_nodes_that_met_hold_each_other_alive() {
        let (mut a, mut b) = (membership("a", 1), membership("b", 1));
        a.on_met(Instant::START, &identity("b", 1));
        talk(Instant::START, &mut a, &mut b);
        assert_eq!(events(&mut a), [Event::Up(identity("b", 1))]);
        assert_eq!(events(&mut b), [Event::Up(identity("a", 1))]);
        assert_eq!(b.state(&identity("a", 1).id, Generation(1)), Some(State::Alive));
        assert_eq!(b.state(&identity("a", 1).id, Generation(2)), None);
    }

    #[test]
    fn a_silent_node_is_down_in_two_seconds_and_comes_back_under_a_new_renewal() {
        let (mut a, mut b) = (membership("a", 1), membership("b", 1));
        a.on_met(Instant::START, &identity("b", 1));
        talk(Instant::START, &mut a, &mut b);
        let mut now = Instant::START;
        while a.state(&identity("b", 1).id, Generation(1)) != Some(State::Down) {
            now = a.poll_deadline().unwrap();
            assert!(now < Instant::START + Duration::from_secs(2));
            a.on_deadline(now);
            while a.poll_send().is_some() {}
        }
        events(&mut a);
        events(&mut b);
        a.announce(now, &identity("b", 1));
        talk(now, &mut a, &mut b);
        assert!(events(&mut b).contains(&Event::Rejoined));
        a.announce(now, &identity("b", 1));
        talk(now, &mut a, &mut b);
        let back = Identity { renewal: 1, ..identity("b", 1) };
        assert_eq!(events(&mut a), [Event::Replaced { old: identity("b", 1), new: back.clone() }, Event::Up(back)]);
    }

    #[test]
    fn a_later_life_of_our_name_is_told_and_not_fought() {
        let mut a = membership("a", 5);
        let later = foca::Member::alive(identity("a", 6));
        let bytes = gossip(&identity("b", 1), &identity("a", 5), &[later]);
        assert_eq!(a.on_datagram(Instant::START, &identity("b", 1).id, &bytes), Err(BadDatagram));
        assert_eq!(events(&mut a), [Event::Superseded(Generation(6))]);
        // A dead one, or an earlier one, is no matter.
        for other in [foca::Member::down(identity("a", 6)), foca::Member::alive(identity("a", 4))] {
            let bytes = gossip(&identity("b", 1), &identity("a", 5), &[other]);
            assert_eq!(a.on_datagram(Instant::START, &identity("b", 1).id, &bytes), Ok(()));
            assert!(!events(&mut a).iter().any(|event| matches!(event, Event::Superseded(_))));
        }
    }

    #[test]
    fn a_peer_speaks_for_itself_only() {
        let mut a = membership("a", 5);
        let bytes = gossip(&identity("b", 1), &identity("a", 5), &[]);
        assert_eq!(a.on_datagram(Instant::START, &identity("c", 1).id, &bytes), Err(BadDatagram));
        assert_eq!(a.on_datagram(Instant::START, &identity("b", 1).id, &bytes), Ok(()));
    }

    #[test]
    fn a_peer_that_invents_names_is_stopped_at_the_bound() {
        let mut a = membership("a", 5);
        let mut refused = 0;
        for batch in 0..100 {
            let invented = |i: u64| foca::Member::alive(identity(&format!("x{}", batch * 10 + i), 1));
            let bytes = gossip(&identity("b", 1), &identity("a", 5), &(0..10).map(invented).collect::<Vec<_>>());
            refused += u64::from(a.on_datagram(Instant::START, &identity("b", 1).id, &bytes).is_err());
        }
        assert!(refused > 0);
        assert!(a.foca.iter_membership_state().len() <= REMEMBERED_MAX);
        // Who is known already may still speak.
        let bytes = gossip(&identity("b", 1), &identity("a", 5), &[foca::Member::alive(identity("x3", 1))]);
        assert_eq!(a.on_datagram(Instant::START, &identity("b", 1).id, &bytes), Ok(()));
    }

    #[test]
    fn a_header_of_the_longest_names_leaves_room_in_a_datagram() {
        let long = |name: char| Identity {
            id: NodeId::parse(&name.to_string().repeat(NODE_ID_BYTES_MAX)).unwrap(),
            addresses: vec!["[::1]:7000".parse().unwrap(); NODE_ADDRESSES_MAX].into(),
            ..identity("a", 1)
        };
        let mut a = Membership::new(long('a'), Rng::seeded(1));
        let mut b = Membership::new(long('b'), Rng::seeded(2));
        a.on_met(Instant::START, &long('b'));
        talk(Instant::START, &mut a, &mut b);
        assert_eq!(events(&mut b), [Event::Up(long('a'))]);
        let mut bytes = Vec::new();
        put_identity(&long('a'), &mut bytes);
        assert_eq!(bytes.len(), IDENTITY_BYTES_MAX);
    }

    #[test]
    fn who_has_left_stays_away() {
        let (mut a, mut b) = (membership("a", 1), membership("b", 1));
        a.on_met(Instant::START, &identity("b", 1));
        talk(Instant::START, &mut a, &mut b);
        events(&mut a);
        b.leave(Instant::START);
        assert_eq!(b.poll_deadline(), None);
        let (_, bytes) = b.poll_send().unwrap();
        a.on_datagram(Instant::START, &identity("b", 1).id, &bytes).unwrap();
        assert_eq!(events(&mut a), [Event::Down(identity("b", 1))]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..11u8], 0..200),
        ) {
            use foca::Codec as _;

            // Twice, behind a good sender too, so that the rest is reached.
            let mut behind = gossip(&identity("b", 1), &identity("a", 5), &[]);
            behind.truncate(behind.len() - 3);
            behind.extend_from_slice(&bytes);
            let mut a = membership("a", 5);
            for bytes in [&bytes, &behind] {
                // Refusal is as good as acceptance here.
                let _taken = a.on_datagram(Instant::START, &identity("b", 1).id, bytes);
                let mut rest = &bytes[..];
                if let Ok(header) = Codec.decode_header(&mut rest) {
                    let mut again = Vec::new();
                    Codec.encode_header(&header, &mut again).unwrap();
                    prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
                }
            }
        }

        #[test]
        fn a_member_is_written_whole_or_not_at_all(room in 0..80usize) {
            use foca::Codec as _;

            let member = foca::Member::new(identity("some-node", 9), 3, foca::State::Suspect);
            let mut whole = Vec::new();
            Codec.encode_member(&member, &mut whole).unwrap();
            let mut out = Vec::new();
            let written = Codec.encode_member(&member, (&mut out).limit(room));
            prop_assert_eq!(written.is_ok(), room >= whole.len());
            prop_assert!(out.is_empty() || out == whole);
            prop_assert_eq!(Codec.decode_member(&whole[..]), Ok(member));
        }
    }
}
