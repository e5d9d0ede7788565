//! The turn's publications that go to peers, and how they become frames.
//!
//! Kept in the turn's arena like everything else of the turn, once for all peers; a flow holds places in this list.

use std::ops::Range;

use crate::backplane::envelope::{self, InfoRef, PublicationRef, Tags};
use crate::base::hash::ChannelHash;
use crate::base::id::WorkerIndex;
use crate::shard::outboxes::Outboxes;

/// Bytes of publications in one frame: large enough to be cheap, small enough not to hold others up.
const BATCH_BYTES_TARGET: usize = 64 * 1024;

/// The turn's publications that some peer gets, kept in the turn's arena.
#[derive(Default)]
pub struct TurnPublications {
    entries: Vec<Entry>,
}

struct Entry {
    hash: ChannelHash,
    origin_micros: u64,
    channel: Range<usize>,
    data: Range<usize>,
    json: bool,
    info: Option<[Range<usize>; 4]>,
    tags: Vec<(Range<usize>, Range<usize>)>,
}

impl TurnPublications {
    pub fn push(&mut self, publication: &PublicationRef<'_>, outboxes: &mut Outboxes) -> u32 {
        let arena = outboxes.arena();
        let mut keep = |bytes: &[u8]| {
            let start = arena.len();
            arena.extend_from_slice(bytes);
            start..arena.len()
        };
        self.entries.push(Entry {
            hash: publication.hash,
            origin_micros: publication.origin_micros,
            channel: keep(publication.channel.as_bytes()),
            data: keep(publication.data),
            json: publication.json,
            info: publication.info.map(|info| {
                [keep(info.user.as_bytes()), keep(info.client.as_bytes()), keep(info.conn_info), keep(info.chan_info)]
            }),
            tags: publication.tags.iter().map(|(key, value)| (keep(key.as_bytes()), keep(value.as_bytes()))).collect(),
        });
        (self.entries.len() - 1) as u32
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Appends frames with these publications. They are all of one flow.
    pub fn encode(
        &self,
        from: WorkerIndex,
        to: WorkerIndex,
        places: &[(u32, u64)],
        outboxes: &Outboxes,
        out: &mut Vec<u8>,
    ) {
        let text = |range: &Range<usize>| {
            std::str::from_utf8(outboxes.bytes(range.clone())).expect("what was text when kept is text")
        };
        let tags: Vec<Vec<(&str, &str)>> = places
            .iter()
            .map(|&(place, _)| {
                self.entries[place as usize].tags.iter().map(|(key, value)| (text(key), text(value))).collect()
            })
            .collect();
        let mut batch = Vec::with_capacity(places.len());
        let mut bytes = 0;
        for (&(place, _), tags) in places.iter().zip(&tags) {
            let entry = &self.entries[place as usize];
            let publication = PublicationRef {
                hash: entry.hash,
                origin_micros: entry.origin_micros,
                channel: text(&entry.channel),
                data: outboxes.bytes(entry.data.clone()),
                json: entry.json,
                info: entry.info.as_ref().map(|[user, client, conn_info, chan_info]| InfoRef {
                    user: text(user),
                    client: text(client),
                    conn_info: outboxes.bytes(conn_info.clone()),
                    chan_info: outboxes.bytes(chan_info.clone()),
                }),
                tags: Tags::new(tags),
            };
            let adds = publication.wire_bytes();
            if !batch.is_empty() && bytes + adds > BATCH_BYTES_TARGET {
                envelope::encode_publications(from, to, &batch, out);
                batch.clear();
                bytes = 0;
            }
            bytes += adds;
            batch.push(publication);
        }
        if !batch.is_empty() {
            envelope::encode_publications(from, to, &batch, out);
        }
    }
}
