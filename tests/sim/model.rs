//! What clients must see, from what they did: a list of publications, a list of subscriptions, and what each still owes
//! the other. It knows nothing of how Skein works but what Skein promises.
//!
//! A publication that began when a subscriber had its answer must reach it, after all earlier ones of the same publisher,
//! once; unless the two nodes did not have each other in view, or one of them has counted a gap since. Where a channel
//! tells gaps, the subscriber must have been told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skein::backplane::envelope::{self, Frame};

use crate::net::{LaneId, Side};
use crate::plan::SECOND;
use crate::trace::digest;

/// A node in one of its lives.
pub type Life = (usize, u32);

/// How long a publication may take, and an answer.
pub const PATIENCE: u64 = 4 * SECOND;
/// How long publications may go on to a node that has taken its interest back.
const HABIT: u64 = 6 * SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Open,
    Taken,
    Refused,
    /// Its publisher went before it was answered.
    Unknown,
}

/// What was known of a node when a publication began on another, or the same.
#[derive(Clone, Copy, Default, Debug)]
pub struct Base {
    pub gaps: u64,
    pub local_drops: u64,
    /// Both nodes have each other in view, as far as the channel is concerned.
    pub view: bool,
    /// A gap is open on the subscriber's side.
    pub open_there: bool,
}

pub struct Publication {
    publisher: u32,
    channel: usize,
    number: u64,
    pub from: Life,
    pub began: u64,
    pub fate: Fate,
    /// Somebody got it.
    seen: bool,
    digest: u64,
    /// Of the client that published it.
    client: Option<String>,
    bases: Vec<Base>,
    sent_to: Vec<Life>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubState {
    Asked,
    Live,
    /// The client has said that it leaves.
    Leaving,
    Over,
}

pub struct Sub {
    pub conn: u64,
    pub client: usize,
    pub at: Life,
    pub channel: usize,
    pub state: SubState,
    pub since: u64,
    expected: BTreeMap<u32, VecDeque<usize>>,
    /// A loss that it must be told of.
    owed: Option<usize>,
}

struct Interest {
    added: u64,
    removed: Option<u64>,
}

#[derive(Default)]
pub struct Figures {
    pub publications: u64,
    pub deliveries: u64,
    pub excused: u64,
    pub told: u64,
    pub envelopes: u64,
    pub refused: u64,
}

pub struct Model {
    channels: Vec<String>,
    pub publications: Vec<Publication>,
    pub subs: Vec<Sub>,
    live: Vec<BTreeSet<usize>>,
    publishers: u32,
    last_seen: BTreeMap<(u64, u32, usize), u64>,
    due: BTreeSet<(u64, usize, usize)>,
    doubts: Vec<(usize, usize)>,
    interest: BTreeMap<(LaneId, Side, u64), Interest>,
    /// Gaps counted between two nodes, and drops of full mailboxes to subscribers.
    pub gaps: Vec<Vec<u64>>,
    pub local_drops: Vec<u64>,
    pub figures: Figures,
}

impl Model {
    pub fn new(channels: &[String], nodes: usize) -> Model {
        Model {
            channels: channels.to_vec(),
            publications: Vec::new(),
            subs: Vec::new(),
            live: vec![BTreeSet::new(); channels.len()],
            publishers: 0,
            last_seen: BTreeMap::new(),
            due: BTreeSet::new(),
            doubts: Vec::new(),
            interest: BTreeMap::new(),
            gaps: vec![vec![0; nodes]; nodes],
            local_drops: vec![0; nodes],
            figures: Figures::default(),
        }
    }

    pub fn new_publisher(&mut self) -> u32 {
        self.publishers += 1;
        self.publishers
    }

    pub fn channel_named(&self, name: &str) -> usize {
        let found = self.channels.iter().position(|channel| channel == name);
        found.unwrap_or_else(|| panic!("a client hears of channel {name}"))
    }

    // ---- subscriptions

    pub fn ask(&mut self, now: u64, client: usize, conn: u64, at: Life, channel: usize) -> usize {
        self.subs.push(Sub {
            conn,
            client,
            at,
            channel,
            state: SubState::Asked,
            since: now,
            expected: BTreeMap::new(),
            owed: None,
        });
        self.subs.len() - 1
    }

    pub fn answered(&mut self, now: u64, sub: usize) {
        let it = &mut self.subs[sub];
        assert!(
            matches!(it.state, SubState::Asked | SubState::Leaving),
            "a subscription is answered that is {:?}",
            it.state
        );
        if it.state == SubState::Asked {
            it.state = SubState::Live;
            it.since = now;
            self.live[it.channel].insert(sub);
        }
    }

    /// From now on nothing is owed to it any more.
    pub fn leave(&mut self, sub: usize, state: SubState) {
        let it = &mut self.subs[sub];
        self.live[it.channel].remove(&sub);
        it.state = state;
        it.expected.clear();
        it.owed = None;
    }

    /// It was told that something may be missing.
    pub fn told(&mut self, sub: usize) {
        assert!(crate::plan::Plan::told(&self.channels[self.subs[sub].channel]), "only some channels tell gaps");
        self.figures.told += 1;
        self.leave(sub, SubState::Over);
    }

    /// Nobody waits for anything.
    pub fn is_settled(&self) -> bool {
        self.doubts.is_empty()
            && self.publications.iter().all(|it| it.fate != Fate::Open)
            && self.live.iter().flatten().all(|&sub| self.subs[sub].expected.values().all(VecDeque::is_empty))
    }

    // ---- publications

    /// The number of the publication, and its payload.
    pub fn payload(&self, bytes: u64) -> (usize, String) {
        let number = self.publications.len();
        let mut payload = format!("{{\"p\":{number},\"x\":\"");
        let fill = "nothing but filling ";
        while (payload.len() as u64) < bytes {
            payload.push_str(fill);
        }
        payload.push_str("\"}");
        (number, payload)
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a publication")]
    pub fn begin(
        &mut self,
        now: u64,
        publisher: u32,
        client: Option<String>,
        channel: usize,
        number: u64,
        from: Life,
        payload: &str,
        bases: Vec<Base>,
    ) {
        let place = self.publications.len();
        self.figures.publications += 1;
        self.publications.push(Publication {
            publisher,
            channel,
            number,
            from,
            began: now,
            fate: Fate::Open,
            seen: false,
            digest: digest(payload.as_bytes()),
            client,
            bases,
            sent_to: Vec::new(),
        });
        for &sub in &self.live[channel] {
            self.subs[sub].expected.entry(publisher).or_default().push_back(place);
            self.due.insert((now + PATIENCE, place, sub));
        }
    }

    pub fn decide(&mut self, publication: usize, fate: Fate) {
        let it = &mut self.publications[publication];
        assert_eq!(it.fate, Fate::Open, "publication {publication} is answered twice");
        it.fate = fate;
        self.figures.refused += u64::from(fate == Fate::Refused);
    }

    pub fn received(&mut self, now: u64, sub: usize, data: &[u8], client: Option<&str>) {
        self.figures.deliveries += 1;
        let place = number_in(data);
        let it = &mut self.publications[place];
        let Publication { publisher, channel, number, fate, .. } = *it;
        let receiver = &mut self.subs[sub];
        assert_eq!(channel, receiver.channel, "publication {place} came on another channel");
        assert_eq!(it.digest, digest(data), "publication {place} came with other bytes");
        assert_eq!(it.client.as_deref(), client, "publication {place} came with another publisher");
        assert!(fate != Fate::Refused, "publication {place} was refused and came nevertheless");
        assert!(
            matches!(receiver.state, SubState::Live | SubState::Leaving),
            "publication {place} came to a subscription that is {:?}",
            receiver.state
        );
        it.seen = true;
        let last = self.last_seen.entry((receiver.conn, publisher, channel)).or_insert(0);
        assert!(number != *last, "publication {place} came twice to client {}", receiver.client);
        assert!(
            number > *last,
            "publication {place} ({number} of its publisher) came after {last} to client {}",
            receiver.client
        );
        *last = number;
        let mut missing = Vec::new();
        if let Some(expected) = receiver.expected.get_mut(&publisher) {
            while let Some(&front) = expected.front()
                && front <= place
            {
                expected.pop_front();
                if front < place {
                    missing.push(front);
                }
            }
        }
        for lost in missing {
            self.judge(now, lost, sub, "a later one came");
        }
    }

    /// A publication will not come any more. Somebody has to answer for it.
    fn judge(&mut self, now: u64, place: usize, sub: usize, why: &str) {
        let it = &self.publications[place];
        match it.fate {
            Fate::Refused => return,
            Fate::Unknown if !it.seen => return,
            Fate::Open => {
                self.doubts.push((place, sub));
                return;
            }
            Fate::Taken | Fate::Unknown => {}
        }
        let receiver = &mut self.subs[sub];
        let (from, to) = (it.from.0, receiver.at.0);
        let base = it.bases[to];
        let dropped = self.local_drops[to] > base.local_drops;
        let gap = self.gaps[from][to] > base.gaps;
        let same = it.from == receiver.at;
        let excused = dropped || (!same && (!base.view || gap));
        assert!(
            excused,
            "publication {place} ({} of its publisher, on {}, begun {} us ago on node {from}) never came to client {} \
             on node {to}: {why}, and nobody has counted a gap",
            it.number,
            self.channels[it.channel],
            (now - it.began) / 1000,
            receiver.client,
        );
        self.figures.excused += 1;
        let owed = if same { dropped } else { base.open_there || (base.view && (gap || dropped)) };
        if owed && crate::plan::Plan::told(&self.channels[receiver.channel]) {
            receiver.owed = Some(place);
        }
    }

    /// Looks at what is due. `punctual` tells whether a subscription's way was free all the time.
    pub fn look(&mut self, now: u64, until: u64, punctual: impl Fn(&Publication, &Sub) -> bool) {
        while let Some(&(due, place, sub)) = self.due.first()
            && due <= until
        {
            self.due.pop_first();
            let publisher = self.publications[place].publisher;
            let receiver = &mut self.subs[sub];
            let Some(expected) = receiver.expected.get_mut(&publisher) else { continue };
            let Some(at) = expected.iter().position(|&other| other == place) else { continue };
            if !punctual(&self.publications[place], &self.subs[sub]) {
                self.due.insert((now + PATIENCE, place, sub));
                continue;
            }
            self.subs[sub].expected.get_mut(&publisher).expect("found above").remove(at);
            self.judge(now, place, sub, "its time is over");
        }
        for (place, sub) in std::mem::take(&mut self.doubts) {
            if self.subs[sub].state == SubState::Live {
                self.judge(now, place, sub, "its answer came late");
            }
        }
    }

    /// Nothing may be open at the end.
    pub fn conclude(&mut self, now: u64) {
        self.look(now, u64::MAX, |_, _| true);
        for (place, it) in self.publications.iter().enumerate() {
            assert!(it.fate != Fate::Open, "publication {place} was never answered");
        }
        for &sub in self.live.iter().flatten() {
            let it = &self.subs[sub];
            assert!(
                it.owed.is_none(),
                "client {} was never told that publication {:?} on {} was lost",
                it.client,
                it.owed,
                self.channels[it.channel]
            );
        }
        assert!(self.doubts.is_empty());
    }

    // ---- between nodes

    pub fn on_frame_written(&mut self, now: u64, from: Life, to: Life, lane: LaneId, side: Side, frame: &[u8]) {
        let (_, read) = envelope::decode(frame).unwrap_or_else(|bad| panic!("a node writes a bad frame: {bad:?}"));
        match read {
            Frame::Publications(batch) => {
                assert!(!batch.is_empty());
                for publication in batch.iter() {
                    let place = number_in(publication.data);
                    let it = &mut self.publications[place];
                    self.figures.envelopes += 1;
                    assert_eq!(it.from, from, "publication {place} is passed on by another node");
                    assert!(!it.sent_to.contains(&to), "publication {place} goes twice to node {}", to.0);
                    it.sent_to.push(to);
                    let wanted = self.interest.get(&(lane, 1 - side, publication.hash.0));
                    let wanted = wanted.is_some_and(|it| it.removed.is_none_or(|at| now < at + HABIT));
                    assert!(wanted, "publication {place} goes to node {}, which did not ask for it", to.0);
                }
            }
            Frame::Interest { sequence, add, .. } => {
                for hash in add.iter() {
                    self.interest.insert((lane, side, hash), Interest { added: sequence, removed: None });
                }
            }
            _ => {}
        }
    }

    pub fn on_frame_read(&mut self, now: u64, lane: LaneId, reader: Side, frame: &[u8]) {
        if let Ok((_, Frame::Interest { sequence, remove, .. })) = envelope::decode(frame) {
            for hash in remove.iter() {
                if let Some(it) = self.interest.get_mut(&(lane, 1 - reader, hash))
                    && it.added < sequence
                {
                    it.removed = Some(now);
                }
            }
        }
    }
}

fn number_in(data: &[u8]) -> usize {
    let text = str::from_utf8(data).expect("payloads here are text");
    let digits = text.strip_prefix("{\"p\":").and_then(|text| text.split_once(','));
    let number = digits.and_then(|(digits, _)| digits.parse().ok());
    number.unwrap_or_else(|| panic!("nobody has published {text}"))
}
