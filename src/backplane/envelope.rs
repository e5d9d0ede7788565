//! Frames between nodes: a header of twelve bytes and an archived rkyv body.
//!
//! Here are the only types that describe these bytes, the splitter that finds frames in a stream, and nothing about
//! when they are sent. Writing allocates nothing but room in the caller's buffer; reading is always checked, borrows
//! from the frame, and works at any alignment. Archived bodies hold only boxes, vectors and integers.
//!
//! Always true: a change of what any kind looks like changes `layout_hash`, which nodes compare before anything else
//! (a test compares golden bytes with the text that is hashed). So a changed kind is a new kind.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use rkyv::api::low::{LowSerializer, LowValidator};
use rkyv::boxed::ArchivedBox;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Fallible};
use rkyv::rend::unaligned::{u16_ule, u64_ule};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, InlineAsBox, SerializeWith};
use rkyv::{Archive, Place, Portable, Serialize};

use super::compact;
use crate::base::hash::{ChannelHash, HashKey};
use crate::base::id::{Generation, NodeId};
use crate::limits::{HASHES_PER_FRAME_MAX, MESH_FRAME_BYTES_MAX, PEERS_MAX, WORKERS_MAX};

/// Of everything that nodes say to each other after HELLO.
pub const WIRE_VERSION: u8 = 1;

/// u32 length of what follows the length, u8 kind, u8 version, u16 from worker, u16 to worker, u16 zero.
pub const HEADER_BYTES: usize = 12;
const LENGTH_BYTES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Publications = 1,
    Gap = 2,
    Interest = 16,
    InterestAck = 17,
    MembersRequest = 18,
    Members = 19,
    Goodbye = 20,
    Report = 21,
}

impl Kind {
    const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Publications,
            2 => Kind::Gap,
            16 => Kind::Interest,
            17 => Kind::InterestAck,
            18 => Kind::MembersRequest,
            19 => Kind::Members,
            20 => Kind::Goodbye,
            21 => Kind::Report,
            _ => return None,
        })
    }
}

/// What a lane's worker needs to pass a frame on without looking into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    pub version: u8,
    pub from: u16,
    pub to: u16,
    pub body_bytes: usize,
}

/// A peer sent something that is not a frame. The lane is closed: what follows cannot be trusted to be one either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFrame {
    TooLong,
    TooShort,
    /// The bytes at hand are not as many as the length says.
    Length,
    Kind,
    Version,
    /// A worker beyond `WORKERS_MAX`, or the reserved bytes are in use.
    Header,
    Body,
}

impl BadFrame {
    pub const fn sentence(self) -> &'static str {
        match self {
            BadFrame::TooLong => "a frame is longer than allowed",
            BadFrame::TooShort => "a frame is shorter than its header",
            BadFrame::Length => "a frame's length is not that of its bytes",
            BadFrame::Kind => "a frame is of an unknown kind",
            BadFrame::Version => "a frame is of another version",
            BadFrame::Header => "a frame's header names an impossible worker or uses reserved bytes",
            BadFrame::Body => "a frame's body is not what its kind says",
        }
    }
}

/// One publication, borrowed: from a frame when read, from the publisher when written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PublicationRef<'a> {
    /// `HashKey::channel(channel)`, carried so that nobody hashes the name again.
    pub hash: ChannelHash,
    /// Unix microseconds when the publishing node received it; 0 when unknown. For measuring, never for ordering.
    pub origin_micros: u64,
    pub channel: &'a str,
    pub data: &'a [u8],
    /// The data is exactly one valid JSON value. The publishing node vouches for it.
    pub json: bool,
    pub info: Option<InfoRef<'a>>,
    pub tags: Tags<'a>,
}

/// Who published.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InfoRef<'a> {
    pub user: &'a str,
    pub client: &'a str,
    pub conn_info: &'a [u8],
    pub chan_info: &'a [u8],
}

/// Key and value pairs, wherever they lie.
#[derive(Clone, Copy)]
pub struct Tags<'a>(TagsFrom<'a>);

#[derive(Clone, Copy)]
enum TagsFrom<'a> {
    Pairs(&'a [(&'a str, &'a str)]),
    Frame(&'a [ArchivedTag]),
}

impl<'a> Tags<'a> {
    pub const NONE: Tags<'static> = Tags(TagsFrom::Pairs(&[]));

    pub const fn new(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Tags(TagsFrom::Pairs(pairs))
    }

    pub const fn len(self) -> usize {
        match self.0 {
            TagsFrom::Pairs(pairs) => pairs.len(),
            TagsFrom::Frame(tags) => tags.len(),
        }
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone {
        (0..self.len()).map(move |i| match self.0 {
            TagsFrom::Pairs(pairs) => pairs[i],
            TagsFrom::Frame(tags) => (&*tags[i].key, &*tags[i].value),
        })
    }
}

impl Default for Tags<'_> {
    fn default() -> Self {
        Tags::NONE
    }
}

impl<'a> From<&'a [(&'a str, &'a str)]> for Tags<'a> {
    fn from(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Tags::new(pairs)
    }
}

impl PartialEq for Tags<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(ours, theirs)| ours == theirs)
    }
}

impl std::fmt::Debug for Tags<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PublicationRef<'_> {
    /// What it adds to a frame of publications, exactly.
    pub fn wire_bytes(&self) -> usize {
        let info = self.info.map_or(0, |info| {
            size_of::<ArchivedInfo>()
                + info.user.len()
                + info.client.len()
                + info.conn_info.len()
                + info.chan_info.len()
        });
        let tag = size_of::<ArchivedTag>();
        let tags: usize = self.tags.iter().map(|(key, value)| tag + key.len() + value.len()).sum();
        size_of::<ArchivedPublication>() + self.channel.len() + self.data.len() + info + tags
    }
}

/// The sum of `wire_bytes` that one frame may hold.
pub const BATCH_BYTES_MAX: usize = MESH_FRAME_BYTES_MAX - HEADER_BYTES - size_of::<ArchivedBatch>();

/// That publications from one worker were dropped on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap<'a> {
    /// Any channel of the flow may have lost something; `hashes` is then of no matter.
    pub whole_flow: bool,
    pub hashes: &'a [u64],
    pub dropped: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest<'a> {
    pub sequence: u64,
    pub phase: Phase,
    pub add: &'a [u64],
    pub remove: &'a [u64],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    SnapshotPart = 0,
    SnapshotEnd = 1,
    Delta = 2,
}

/// A node as others are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub id: NodeId,
    pub generation: Generation,
    pub workers: u16,
    pub addresses: Vec<SocketAddr>,
}

/// What a node tells of itself for `info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report<'a> {
    pub clients: u64,
    pub users: u64,
    pub subscriptions: u64,
    pub channels: u64,
    pub uptime_secs: u64,
    pub version: &'a str,
    /// Names of the nodes that it has in view, parted by commas.
    pub view: &'a str,
    pub workers: u16,
    pub ready: bool,
}

// --- Writing -------------------------------------------------------------------------------------------------------

/// Appends one frame. The batch's `wire_bytes` add up to at most `BATCH_BYTES_MAX`, which is asserted.
pub fn encode_publications(from: u16, to: u16, batch: &[PublicationRef<'_>], out: &mut Vec<u8>) {
    encode(Kind::Publications, from, to, &WireBatch { publications: batch }, out);
}

/// Appends one frame of at most `HASHES_PER_FRAME_MAX` hashes.
pub fn encode_gap(from: u16, to: u16, gap: &Gap<'_>, out: &mut Vec<u8>) {
    assert!(gap.hashes.len() <= HASHES_PER_FRAME_MAX);
    let body = WireGap { dropped: gap.dropped, hashes: gap.hashes, whole_flow: u8::from(gap.whole_flow) };
    encode(Kind::Gap, from, to, &body, out);
}

/// Appends one frame of at most `HASHES_PER_FRAME_MAX` hashes to add and as many to remove.
pub fn encode_interest(from: u16, to: u16, interest: &Interest<'_>, out: &mut Vec<u8>) {
    assert!(interest.add.len() <= HASHES_PER_FRAME_MAX);
    assert!(interest.remove.len() <= HASHES_PER_FRAME_MAX);
    let body = WireInterest {
        sequence: interest.sequence,
        add: interest.add,
        remove: interest.remove,
        phase: interest.phase as u8,
    };
    encode(Kind::Interest, from, to, &body, out);
}

pub fn encode_interest_ack(from: u16, to: u16, sequence: u64, out: &mut Vec<u8>) {
    encode(Kind::InterestAck, from, to, &WireInterestAck { sequence }, out);
}

pub fn encode_members_request(out: &mut Vec<u8>) {
    encode_empty(Kind::MembersRequest, out);
}

/// Appends one frame of at most `PEERS_MAX + 1` members (the sender counts).
pub fn encode_members(members: &[Member], out: &mut Vec<u8>) {
    assert!(members.len() <= PEERS_MAX + 1);
    let addresses: Vec<Vec<u8>> = members
        .iter()
        .map(|member| {
            let mut bytes = Vec::new();
            compact::put_addresses(&member.addresses, &mut bytes);
            bytes
        })
        .collect();
    let members: Vec<WireMember<'_>> = members
        .iter()
        .zip(&addresses)
        .map(|(member, addresses)| WireMember {
            generation: member.generation.0,
            id: member.id.as_str(),
            addresses,
            workers: member.workers,
        })
        .collect();
    encode(Kind::Members, 0, 0, &WireMembers { members: &members }, out);
}

pub fn encode_goodbye(out: &mut Vec<u8>) {
    encode_empty(Kind::Goodbye, out);
}

pub fn encode_report(report: &Report<'_>, out: &mut Vec<u8>) {
    let body = WireReport {
        clients: report.clients,
        users: report.users,
        subscriptions: report.subscriptions,
        channels: report.channels,
        uptime_secs: report.uptime_secs,
        version: report.version,
        view: report.view,
        workers: report.workers,
        ready: u8::from(report.ready),
    };
    encode(Kind::Report, 0, 0, &body, out);
}

fn encode_empty(kind: Kind, out: &mut Vec<u8>) {
    let start = begin(kind, 0, 0, out);
    finish(start, out);
}

type BodySerializer<'a> = LowSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, Failure>;

fn encode<B>(kind: Kind, from: u16, to: u16, body: &B, out: &mut Vec<u8>)
where
    B: for<'a> Serialize<BodySerializer<'a>>,
{
    let start = begin(kind, from, to, out);
    // Positions inside an archive are relative, so it may begin anywhere in the caller's buffer.
    rkyv::util::with_arena(|arena| {
        rkyv::api::low::to_bytes_in_with_alloc(body, &mut *out, arena.acquire())
            .expect("neither the buffer nor the arena can refuse");
    });
    finish(start, out);
}

fn begin(kind: Kind, from: u16, to: u16, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind as u8);
    out.push(WIRE_VERSION);
    out.extend_from_slice(&from.to_le_bytes());
    out.extend_from_slice(&to.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    start
}

fn finish(start: usize, out: &mut [u8]) {
    let frame_bytes = out.len() - start;
    // A longer one would be refused by the peer and cost the lane.
    assert!(frame_bytes <= MESH_FRAME_BYTES_MAX);
    let length = (frame_bytes - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

// --- Reading -------------------------------------------------------------------------------------------------------

/// A decoded body that borrows from its frame.
#[derive(Clone, Debug)]
pub enum Frame<'a> {
    Publications(Batch<'a>),
    Gap { whole_flow: bool, hashes: Hashes<'a>, dropped: u64 },
    Interest { sequence: u64, phase: Phase, add: Hashes<'a>, remove: Hashes<'a> },
    InterestAck { sequence: u64 },
    MembersRequest,
    Members(Vec<Member>),
    Goodbye,
    Report(Report<'a>),
}

/// The publications of one frame, in order.
#[derive(Clone, Copy)]
pub struct Batch<'a>(&'a [ArchivedPublication]);

impl<'a> Batch<'a> {
    pub const fn len(self) -> usize {
        self.0.len()
    }

    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = PublicationRef<'a>> + Clone {
        self.0.iter().map(|archived| PublicationRef {
            hash: ChannelHash(archived.hash.to_native()),
            origin_micros: archived.origin_micros.to_native(),
            channel: &archived.channel,
            data: &archived.data,
            json: archived.json != 0,
            info: archived.info.first().map(|info| InfoRef {
                user: &info.user,
                client: &info.client,
                conn_info: &info.conn_info,
                chan_info: &info.chan_info,
            }),
            tags: Tags(TagsFrom::Frame(&archived.tags)),
        })
    }
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Channel hashes inside a frame.
#[derive(Clone, Copy)]
pub struct Hashes<'a>(&'a [u64_ule]);

impl<'a> Hashes<'a> {
    pub const fn len(self) -> usize {
        self.0.len()
    }

    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = u64> + Clone + 'a {
        self.0.iter().map(|hash| hash.to_native())
    }
}

impl std::fmt::Debug for Hashes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Reads one whole frame, header and body.
pub fn decode(frame: &[u8]) -> Result<(Header, Frame<'_>), BadFrame> {
    let header = decode_header(frame)?;
    let body = &frame[HEADER_BYTES..];
    if body.len() != header.body_bytes {
        return Err(BadFrame::Length);
    }
    let frame = match header.kind {
        Kind::Publications => {
            let body = access::<ArchivedBatch>(body)?;
            for publication in body.publications.iter() {
                flag(publication.json)?;
            }
            Frame::Publications(Batch(&body.publications))
        }
        Kind::Gap => {
            let body = access::<ArchivedGap>(body)?;
            Frame::Gap {
                whole_flow: flag(body.whole_flow)?,
                hashes: hashes(&body.hashes)?,
                dropped: body.dropped.to_native(),
            }
        }
        Kind::Interest => {
            let body = access::<ArchivedInterest>(body)?;
            let phase = match body.phase {
                0 => Phase::SnapshotPart,
                1 => Phase::SnapshotEnd,
                2 => Phase::Delta,
                _ => return Err(BadFrame::Body),
            };
            let (add, remove) = (hashes(&body.add)?, hashes(&body.remove)?);
            Frame::Interest { sequence: body.sequence.to_native(), phase, add, remove }
        }
        Kind::InterestAck => Frame::InterestAck { sequence: access::<ArchivedInterestAck>(body)?.sequence.to_native() },
        Kind::Members => Frame::Members(members(access::<ArchivedMembers>(body)?)?),
        Kind::Report => {
            let body = access::<ArchivedReport>(body)?;
            Frame::Report(Report {
                clients: body.clients.to_native(),
                users: body.users.to_native(),
                subscriptions: body.subscriptions.to_native(),
                channels: body.channels.to_native(),
                uptime_secs: body.uptime_secs.to_native(),
                version: &body.version,
                view: &body.view,
                workers: body.workers.to_native(),
                ready: flag(body.ready)?,
            })
        }
        Kind::MembersRequest | Kind::Goodbye if !body.is_empty() => return Err(BadFrame::Body),
        Kind::MembersRequest => Frame::MembersRequest,
        Kind::Goodbye => Frame::Goodbye,
    };
    Ok((header, frame))
}

/// Reads the header alone, for a worker that only passes the frame on. The frame may be cut anywhere after it.
pub fn decode_header(frame: &[u8]) -> Result<Header, BadFrame> {
    let Some(header) = frame.first_chunk::<HEADER_BYTES>() else { return Err(BadFrame::TooShort) };
    let &[l0, l1, l2, l3, kind, version, f0, f1, t0, t1, z0, z1] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MESH_FRAME_BYTES_MAX - LENGTH_BYTES {
        return Err(BadFrame::TooLong);
    }
    let body_bytes = length.checked_sub(HEADER_BYTES - LENGTH_BYTES).ok_or(BadFrame::TooShort)?;
    let kind = Kind::from_u8(kind).ok_or(BadFrame::Kind)?;
    if version != WIRE_VERSION {
        return Err(BadFrame::Version);
    }
    let (from, to) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([t0, t1]));
    if from >= WORKERS_MAX || to >= WORKERS_MAX || [z0, z1] != [0, 0] {
        return Err(BadFrame::Header);
    }
    Ok(Header { kind, version, from, to, body_bytes })
}

fn access<A>(body: &[u8]) -> Result<&A, BadFrame>
where
    A: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    // The root lies at the end of an archive. The check follows no pointer twice and allocates nothing, not even for
    // its error.
    rkyv::api::low::access::<A, Failure>(body).map_err(|_| BadFrame::Body)
}

const fn flag(byte: u8) -> Result<bool, BadFrame> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BadFrame::Body),
    }
}

const fn hashes(slice: &[u64_ule]) -> Result<Hashes<'_>, BadFrame> {
    if slice.len() > HASHES_PER_FRAME_MAX {
        return Err(BadFrame::Body);
    }
    Ok(Hashes(slice))
}

fn members(body: &ArchivedMembers) -> Result<Vec<Member>, BadFrame> {
    if body.members.len() > PEERS_MAX + 1 {
        return Err(BadFrame::Body);
    }
    body.members
        .iter()
        .map(|member| {
            let mut reader = compact::Reader::new(&member.addresses);
            let addresses = reader.addresses().map_err(|_| BadFrame::Body)?;
            let workers = member.workers.to_native();
            if reader.remaining() != 0 || workers == 0 || workers > WORKERS_MAX {
                return Err(BadFrame::Body);
            }
            Ok(Member {
                id: NodeId::parse(&member.id).map_err(|_| BadFrame::Body)?,
                generation: Generation(member.generation.to_native()),
                workers,
                addresses,
            })
        })
        .collect()
}

// --- Streams -------------------------------------------------------------------------------------------------------

/// Finds frames in a stream of bytes. Whole frames are lent from the input; only a partial one is carried over.
#[derive(Default)]
pub struct Splitter {
    /// Less than one frame, and at most `MESH_FRAME_BYTES_MAX`. It grows with what arrives, not with what a length
    /// promises.
    carry: Vec<u8>,
    over: bool,
}

/// What a carry may keep for the next partial frame when it is empty.
const CARRY_BYTES_KEPT: usize = 64 * 1024;

impl Splitter {
    /// `Break` from `on_frame` ends the stream: the caller is closing the lane, and whatever else arrives is ignored.
    /// So does an error.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), BadFrame> {
        while !self.over && !bytes.is_empty() {
            if self.carry.is_empty() {
                match whole_frame(bytes) {
                    Ok(Some(frame_bytes)) => {
                        let (frame, rest) = bytes.split_at(frame_bytes);
                        bytes = rest;
                        self.over = on_frame(frame).is_break();
                    }
                    Ok(None) => {
                        self.carry.extend_from_slice(bytes);
                        bytes = &[];
                    }
                    Err(bad) => return self.fail(bad),
                }
                continue;
            }
            // Complete the length first, then the frame: never a byte more than this frame's.
            let wanted = match frame_bytes(&self.carry) {
                Ok(Some(frame_bytes)) => frame_bytes,
                Ok(None) => LENGTH_BYTES,
                Err(bad) => return self.fail(bad),
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.carry.len()));
            self.carry.extend_from_slice(taken);
            bytes = rest;
            match whole_frame(&self.carry) {
                Ok(Some(_)) => {
                    self.over = on_frame(&self.carry).is_break();
                    self.carry.clear();
                    self.carry.shrink_to(CARRY_BYTES_KEPT);
                }
                Ok(None) => {}
                Err(bad) => return self.fail(bad),
            }
        }
        Ok(())
    }

    /// Bytes of a frame whose end has not come yet.
    pub fn carried_bytes(&self) -> usize {
        self.carry.len()
    }

    fn fail(&mut self, bad: BadFrame) -> Result<(), BadFrame> {
        self.over = true;
        self.carry = Vec::new();
        Err(bad)
    }
}

/// The length of the frame that `bytes` begin with, once they hold it.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let frame_bytes = (u32::from_le_bytes(*length) as usize).saturating_add(LENGTH_BYTES);
    if frame_bytes > MESH_FRAME_BYTES_MAX {
        return Err(BadFrame::TooLong);
    }
    if frame_bytes < HEADER_BYTES {
        return Err(BadFrame::TooShort);
    }
    Ok(Some(frame_bytes))
}

fn whole_frame(bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
    Ok(frame_bytes(bytes)?.filter(|&frame_bytes| frame_bytes <= bytes.len()))
}

// --- The bodies ----------------------------------------------------------------------------------------------------

/// What both ends must agree on, in words. Whoever changes a body below sees the golden digest change and puts the new
/// one here, and so the hash changes.
const LAYOUT: &str = "v1 header{u32 length,u8 kind,u8 version,u16 from,u16 to,u16 0} rkyv0.8 le unaligned ptr32 \
    1 publications[{u64 hash,u64 origin_micros,str channel,bytes data,[{str user,str client,bytes conn,bytes chan}] info,[{str key,str value}] tags,u8 json}] \
    2 gap{u64 dropped,[u64] hashes,u8 whole_flow} \
    16 interest{u64 sequence,[u64] add,[u64] remove,u8 phase} \
    17 interest_ack{u64 sequence} \
    18 members_request{} \
    19 members[{u64 generation,str id,bytes addresses,u16 workers}] \
    20 goodbye{} \
    21 report{u64 clients,u64 users,u64 subscriptions,u64 channels,u64 uptime_secs,str version,str view,u16 workers,u8 ready} \
    golden 47a095cf3767ebd5";

/// Nodes with another one cannot read each other's frames.
pub fn layout_hash() -> u64 {
    HashKey::new(*b"skein wire hash\0").of(LAYOUT.as_bytes())
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedTag {
    key: ArchivedBox<str>,
    value: ArchivedBox<str>,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedTag, serialize_bounds(__S: Writer + Allocator))]
struct WireTag<'a> {
    #[rkyv(with = InlineAsBox, omit_bounds)]
    key: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    value: &'a str,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedInfo {
    user: ArchivedBox<str>,
    client: ArchivedBox<str>,
    conn_info: ArchivedBox<[u8]>,
    chan_info: ArchivedBox<[u8]>,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedInfo, serialize_bounds(__S: Writer + Allocator))]
struct WireInfo<'a> {
    #[rkyv(with = InlineAsBox, omit_bounds)]
    user: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    client: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    conn_info: &'a [u8],
    #[rkyv(with = InlineAsBox, omit_bounds)]
    chan_info: &'a [u8],
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedPublication {
    hash: u64_ule,
    origin_micros: u64_ule,
    channel: ArchivedBox<str>,
    data: ArchivedBox<[u8]>,
    info: ArchivedVec<ArchivedInfo>,
    tags: ArchivedVec<ArchivedTag>,
    json: u8,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedPublication, serialize_bounds(__S: Writer + Allocator))]
struct WirePublication<'a> {
    hash: u64,
    origin_micros: u64,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    channel: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    data: &'a [u8],
    #[rkyv(with = AsList, omit_bounds)]
    info: Option<InfoRef<'a>>,
    #[rkyv(with = AsList, omit_bounds)]
    tags: Tags<'a>,
    json: u8,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedBatch {
    publications: ArchivedVec<ArchivedPublication>,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedBatch, serialize_bounds(__S: Writer + Allocator))]
struct WireBatch<'a> {
    #[rkyv(with = AsList, omit_bounds)]
    publications: &'a [PublicationRef<'a>],
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedGap {
    dropped: u64_ule,
    hashes: ArchivedBox<[u64_ule]>,
    whole_flow: u8,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedGap, serialize_bounds(__S: Writer + Allocator))]
struct WireGap<'a> {
    dropped: u64,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    hashes: &'a [u64],
    whole_flow: u8,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedInterest {
    sequence: u64_ule,
    add: ArchivedBox<[u64_ule]>,
    remove: ArchivedBox<[u64_ule]>,
    phase: u8,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedInterest, serialize_bounds(__S: Writer + Allocator))]
struct WireInterest<'a> {
    sequence: u64,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    add: &'a [u64],
    #[rkyv(with = InlineAsBox, omit_bounds)]
    remove: &'a [u64],
    phase: u8,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedInterestAck {
    sequence: u64_ule,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedInterestAck, serialize_bounds(__S: Writer + Allocator))]
struct WireInterestAck {
    sequence: u64,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedMember {
    generation: u64_ule,
    id: ArchivedBox<str>,
    addresses: ArchivedBox<[u8]>,
    workers: u16_ule,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedMember, serialize_bounds(__S: Writer + Allocator))]
struct WireMember<'a> {
    generation: u64,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    id: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    addresses: &'a [u8],
    workers: u16,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedMembers {
    members: ArchivedBox<[ArchivedMember]>,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedMembers, serialize_bounds(__S: Writer + Allocator))]
struct WireMembers<'a> {
    #[rkyv(with = InlineAsBox, omit_bounds)]
    members: &'a [WireMember<'a>],
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct ArchivedReport {
    clients: u64_ule,
    users: u64_ule,
    subscriptions: u64_ule,
    channels: u64_ule,
    uptime_secs: u64_ule,
    version: ArchivedBox<str>,
    view: ArchivedBox<str>,
    workers: u16_ule,
    ready: u8,
}

#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedReport, serialize_bounds(__S: Writer + Allocator))]
struct WireReport<'a> {
    clients: u64,
    users: u64,
    subscriptions: u64,
    channels: u64,
    uptime_secs: u64,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    version: &'a str,
    #[rkyv(with = InlineAsBox, omit_bounds)]
    view: &'a str,
    workers: u16,
    ready: u8,
}

/// A list whose elements exist only while they are written.
trait List {
    type Wire: Archive;

    fn wires(&self) -> impl ExactSizeIterator<Item = Self::Wire> + Clone;
}

struct AsList;

impl<L: List> ArchiveWith<L> for AsList {
    type Archived = ArchivedVec<<L::Wire as Archive>::Archived>;
    type Resolver = VecResolver;

    fn resolve_with(list: &L, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(list.wires().len(), resolver, out);
    }
}

impl<L, S> SerializeWith<L, S> for AsList
where
    L: List,
    L::Wire: Serialize<S>,
    S: Fallible + Allocator + Writer + ?Sized,
{
    fn serialize_with(list: &L, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<<L::Wire as Archive>::Archived>::serialize_from_iter::<L::Wire, _, S>(list.wires(), serializer)
    }
}

impl<'a> List for Tags<'a> {
    type Wire = WireTag<'a>;

    fn wires(&self) -> impl ExactSizeIterator<Item = WireTag<'a>> + Clone {
        self.iter().map(|(key, value)| WireTag { key, value })
    }
}

impl<'a> List for Option<InfoRef<'a>> {
    type Wire = WireInfo<'a>;

    fn wires(&self) -> impl ExactSizeIterator<Item = WireInfo<'a>> + Clone {
        self.as_slice().iter().map(|&InfoRef { user, client, conn_info, chan_info }| WireInfo {
            user,
            client,
            conn_info,
            chan_info,
        })
    }
}

impl<'a> List for &'a [PublicationRef<'a>] {
    type Wire = WirePublication<'a>;

    fn wires(&self) -> impl ExactSizeIterator<Item = WirePublication<'a>> + Clone {
        self.iter().map(|publication| WirePublication {
            hash: publication.hash.0,
            origin_micros: publication.origin_micros,
            channel: publication.channel,
            data: publication.data,
            info: publication.info,
            tags: publication.tags,
            json: u8::from(publication.json),
        })
    }
}

#[cfg(test)]
mod tests;
