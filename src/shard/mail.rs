//! What one shard sends another in the same node.
//!
//! Two kinds. Publications (`Publish`, `Deliver`, and what a lane carries of them) may be refused when the way is full, and
//! then somebody is told. Everything else is control: it is never dropped, and what can be under way is bounded by the state
//! that it is about (a worker asks for a channel once, a client is admitted once, a lane goes up once).
//!
//! Mail is the only thing besides shared bytes that crosses threads.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backplane::envelope::{InfoRef, PublicationRef, Tags};
use crate::backplane::mesh::cluster::PeerInfo;
use crate::base::hash::ChannelHash;
use crate::base::id::{Generation, NodeId, WorkerIndex};
use crate::base::slab::Key;
use crate::protocol::Error;

use super::outlet::{LaneStream, RequestKey};
use super::survey::WorkerReport;

#[derive(Debug)]
pub enum Mail {
    /// To a channel's home worker.
    Publish {
        publication: Arc<Parcel>,
        origin: Origin,
    },
    /// From there to a worker with subscribers.
    Deliver(Arc<Parcel>),
    /// What came of `Publish`.
    Published {
        origin: Origin,
        outcome: Result<(), Error>,
    },

    /// A worker wants a channel, or does not any more.
    Ask {
        channel: Box<str>,
        hash: ChannelHash,
    },
    GiveBack {
        channel: Box<str>,
        hash: ChannelHash,
    },
    /// Every peer in view knows that it is wanted.
    Confirmed {
        channel: Box<str>,
        hash: ChannelHash,
    },
    /// These channels may have lost publications.
    Gap {
        channels: Vec<(Box<str>, ChannelHash)>,
    },

    /// May one more client with this key (a user, an address) come in? Both keys have their home by themselves.
    Admit {
        connection: Key,
        key: u64,
        limit: u32,
    },
    Admitted {
        connection: Key,
        key: u64,
        admitted: bool,
    },
    Release {
        key: u64,
    },

    /// A peer is connected; `dial`: this node dials the lanes above lane 0.
    PeerUp {
        peer: PeerInfo,
        dial: bool,
    },
    /// It is gone; `forever`: as that generation it does not come back.
    PeerGone {
        id: NodeId,
        generation: Generation,
        forever: bool,
    },
    /// All lanes to the peer are closed at once.
    CloseLanes {
        id: NodeId,
        generation: Generation,
        code: u32,
        reason: &'static str,
    },
    /// From a lane's worker to the home workers whose flows it carries; `None`: it is down.
    LaneState {
        id: NodeId,
        generation: Generation,
        lane: u16,
        session: u64,
        up: bool,
    },
    /// Frames of a flow, to the worker of its lane. `hashes` are those of the publications in it.
    LaneOut {
        id: NodeId,
        session: u64,
        from: WorkerIndex,
        to: WorkerIndex,
        stream: LaneStream,
        frames: Vec<u8>,
        hashes: Vec<u64>,
    },
    /// A frame for a home worker, from the worker of its lane.
    LaneIn {
        id: NodeId,
        generation: Generation,
        session: u64,
        publications: bool,
        frame: Vec<u8>,
    },
    /// A worker's flows with a peer are all in order, or not any more.
    PeerSynced {
        id: NodeId,
        generation: Generation,
        synced: bool,
    },
    Ready,

    Survey {
        number: u64,
    },
    Surveyed {
        number: u64,
        report: Box<WorkerReport>,
    },
}

impl Mail {
    pub fn is_publication(&self) -> bool {
        match self {
            Mail::Publish { .. } | Mail::Deliver(_) => true,
            Mail::LaneOut { stream, .. } => *stream == LaneStream::Publications,
            Mail::LaneIn { publications, .. } => *publications,
            _ => false,
        }
    }
}

/// Who waits for a publish to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The command `id` of a connection; zero: nobody waits.
    Client { connection: Key, id: u32 },
    /// The publication of that place in a request over HTTP.
    Request { key: RequestKey, place: u32 },
}

/// A publication that owns what it says, to be shared between workers.
#[derive(Debug)]
pub struct Parcel {
    hash: ChannelHash,
    origin_micros: u64,
    channel: Box<str>,
    data: Box<[u8]>,
    json: bool,
    info: Option<Box<ParcelInfo>>,
    tags: Vec<(Box<str>, Box<str>)>,
}

#[derive(Debug)]
struct ParcelInfo {
    user: Box<str>,
    client: Box<str>,
    conn_info: Box<[u8]>,
    chan_info: Box<[u8]>,
}

impl Parcel {
    pub fn new(publication: &PublicationRef<'_>) -> Arc<Self> {
        Arc::new(Parcel {
            hash: publication.hash,
            origin_micros: publication.origin_micros,
            channel: publication.channel.into(),
            data: publication.data.into(),
            json: publication.json,
            info: publication.info.map(|info| {
                Box::new(ParcelInfo {
                    user: info.user.into(),
                    client: info.client.into(),
                    conn_info: info.conn_info.into(),
                    chan_info: info.chan_info.into(),
                })
            }),
            tags: publication.tags.iter().map(|(key, value)| (key.into(), value.into())).collect(),
        })
    }

    /// Lends it as the form that everything works on.
    pub fn lend<R>(&self, use_it: impl FnOnce(&PublicationRef<'_>) -> R) -> R {
        let tags: Vec<(&str, &str)> = self.tags.iter().map(|(key, value)| (&**key, &**value)).collect();
        use_it(&PublicationRef {
            hash: self.hash,
            origin_micros: self.origin_micros,
            channel: &self.channel,
            data: &self.data,
            json: self.json,
            info: self.info.as_ref().map(|info| InfoRef {
                user: &info.user,
                client: &info.client,
                conn_info: &info.conn_info,
                chan_info: &info.chan_info,
            }),
            tags: Tags::new(&tags),
        })
    }
}

/// Mail to the other workers that waits for the end of the turn, or for room in their mailboxes.
pub struct Outgoing {
    queues: Vec<VecDeque<Mail>>,
    publications_max: usize,
    high: usize,
    stuck: bool,
}

impl Outgoing {
    pub fn new(workers: u16, publications_max: usize) -> Self {
        Outgoing { queues: (0..workers).map(|_| VecDeque::new()).collect(), publications_max, high: 0, stuck: false }
    }

    pub fn control(&mut self, to: WorkerIndex, mail: Mail) {
        assert!(!mail.is_publication());
        self.queues[usize::from(to)].push_back(mail);
    }

    /// Gives the mail back when too much waits already.
    pub fn publication(&mut self, to: WorkerIndex, mail: Mail) -> Result<(), Mail> {
        assert!(mail.is_publication());
        let queue = &mut self.queues[usize::from(to)];
        if queue.len() >= self.publications_max {
            return Err(mail);
        }
        queue.push_back(mail);
        self.high = self.high.max(queue.len());
        Ok(())
    }

    pub fn flush(&mut self, mut send: impl FnMut(WorkerIndex, Mail) -> Result<(), Mail>) {
        self.stuck = false;
        for (to, queue) in self.queues.iter_mut().enumerate() {
            while let Some(mail) = queue.pop_front() {
                if let Err(mail) = send(to as WorkerIndex, mail) {
                    queue.push_front(mail);
                    self.stuck = true;
                    break;
                }
            }
            if queue.is_empty() && queue.capacity() > 4096 {
                queue.shrink_to(1024);
            }
        }
    }

    /// Something waits that was not refused a moment ago.
    pub fn is_dirty(&self) -> bool {
        !self.stuck && self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// A mailbox was full: try again a little later.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    pub fn high(&self) -> usize {
        self.high
    }
}
