//! Golden bytes, round trips, and bytes from nowhere.

use proptest::prelude::*;

use super::*;

/// What `PublicationRef` borrows from.
#[derive(Clone, Debug)]
struct Owned {
    hash: u64,
    origin_micros: u64,
    channel: String,
    data: Vec<u8>,
    json: bool,
    info: Option<(String, String, Vec<u8>, Vec<u8>)>,
    tags: Vec<(String, String)>,
}

fn with_batch<T>(owned: &[Owned], read: impl FnOnce(&[PublicationRef<'_>]) -> T) -> T {
    let tags: Vec<Vec<(&str, &str)>> =
        owned.iter().map(|one| one.tags.iter().map(|(key, value)| (&**key, &**value)).collect()).collect();
    let batch: Vec<PublicationRef<'_>> = owned
        .iter()
        .zip(&tags)
        .map(|(one, tags)| PublicationRef {
            hash: ChannelHash(one.hash),
            origin_micros: one.origin_micros,
            channel: &one.channel,
            data: &one.data,
            json: one.json,
            info: one.info.as_ref().map(|(user, client, conn_info, chan_info)| InfoRef {
                user,
                client,
                conn_info,
                chan_info,
            }),
            tags: Tags::new(tags),
        })
        .collect();
    read(&batch)
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let info = proptest::option::of((".{0,8}", ".{0,8}", bytes(), bytes()));
    let tags = proptest::collection::vec((".{0,5}", ".{0,5}"), 0..4);
    (any::<u64>(), any::<u64>(), ".{0,20}", bytes(), any::<bool>(), info, tags).prop_map(
        |(hash, origin_micros, channel, data, json, info, tags)| Owned {
            hash,
            origin_micros,
            channel,
            data,
            json,
            info,
            tags,
        },
    )
}

fn members() -> Vec<Member> {
    vec![
        Member {
            id: NodeId::parse("a.one").unwrap(),
            generation: Generation(7),
            workers: 2,
            addresses: vec!["127.0.0.1:7001".parse().unwrap(), "[::1]:7001".parse().unwrap()],
        },
        Member { id: NodeId::parse("b").unwrap(), generation: Generation(u64::MAX), workers: 128, addresses: vec![] },
    ]
}

/// One frame of each kind, with its golden bytes.
fn golden() -> Vec<(Vec<u8>, &'static str)> {
    fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }
    let publication = PublicationRef {
        hash: ChannelHash(0x0102_0304_0506_0708),
        origin_micros: 0x1112_1314_1516_1718,
        channel: "room:1",
        data: b"{}",
        json: true,
        info: Some(InfoRef { user: "u", client: "c", conn_info: b"1", chan_info: b"2" }),
        tags: Tags::new(&[("k", "v")]),
    };
    let bare = PublicationRef { info: None, tags: Tags::NONE, json: false, ..publication };
    vec![
        (
            frame(|out| encode_publications(3, 4, &[publication, bare], out)),
            "b80000000101030004000000726f6f6d3a317b7d75633132fcffffff01000000f5ffffff01000000eeffffff01000000e7ffffff010000006b76feffffff01000000f7ffffff01000000726f6f6d3a317b7d08070605040302011817161514131211aaffffff06000000a8ffffff02000000a6ffffff01000000c0ffffff010000000108070605040302011817161514131211b7ffffff06000000b5ffffff02000000afffffff00000000a7ffffff00000000009effffff02000000",
        ),
        (
            frame(|out| encode_gap(1, 2, &Gap { whole_flow: false, hashes: &[5, 6], dropped: 9 }, out)),
            "290000000201010002000000050000000000000006000000000000000900000000000000e8ffffff0200000000",
        ),
        (
            frame(|out| {
                let interest = Interest { sequence: 2, phase: Phase::Delta, add: &[1, 2], remove: &[3] };
                encode_interest(1, 2, &interest, out);
            }),
            "3900000010010100020000000100000000000000020000000000000003000000000000000200000000000000e0ffffff02000000e8ffffff0100000002",
        ),
        (frame(|out| encode_interest_ack(127, 0, 0x0a0b, out)), "1000000011017f00000000000b0a000000000000"),
        (frame(encode_members_request), "080000001201000000000000"),
        (
            frame(|out| encode_members(&members(), out)),
            "660000001301000000000000612e6f6e6502047f000001591b0600000000000000000000000000000001591b62000700000000000000d6ffffff05000000d3ffffff1b0000000200ffffffffffffffffdcffffff01000000d5ffffff010000008000ccffffff02000000",
        ),
        (frame(encode_goodbye), "080000001401000000000000"),
        (
            frame(|out| {
                let report = Report {
                    clients: 1,
                    users: 2,
                    subscriptions: 3,
                    channels: 4,
                    uptime_secs: 5,
                    version: "0.1.0",
                    view: "b,c",
                    workers: 6,
                    ready: true,
                };
                encode_report(&report, out);
            }),
            "4b0000001501000000000000302e312e30622c6301000000000000000200000000000000030000000000000004000000000000000500000000000000d0ffffff05000000cdffffff03000000060001",
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_is_written_as_it_always_was() {
    for (frame, expected) in golden() {
        assert_eq!(hex(&frame), expected);
        assert!(decode(&frame).is_ok());
    }
}

#[test]
fn the_layout_hash_follows_the_bytes() {
    let all: Vec<u8> = golden().into_iter().flat_map(|(frame, _)| frame).collect();
    let digest = HashKey::new([0; 16]).of(&all);
    assert!(LAYOUT.ends_with(&format!("golden {digest:016x}")), "the golden digest is now {digest:016x}");
    assert_eq!(layout_hash(), 0x19e3e498d3ee6af4);
}

#[test]
fn fields_come_back_as_they_went() {
    let mut out = Vec::new();
    encode_members(&members(), &mut out);
    let Ok((_, Frame::Members(read))) = decode(&out) else { panic!("members") };
    assert_eq!(read, members());

    let mut out = Vec::new();
    encode_interest(
        5,
        6,
        &Interest { sequence: 8, phase: Phase::SnapshotEnd, add: &[1, u64::MAX], remove: &[2] },
        &mut out,
    );
    let (header, frame) = decode(&out).unwrap();
    assert_eq!((header.kind, header.from, header.to), (Kind::Interest, 5, 6));
    let Frame::Interest { sequence: 8, phase: Phase::SnapshotEnd, add, remove } = frame else { panic!("{frame:?}") };
    assert_eq!(add.iter().collect::<Vec<_>>(), [1, u64::MAX]);
    assert_eq!(remove.iter().collect::<Vec<_>>(), [2]);

    let mut out = Vec::new();
    encode_gap(0, 1, &Gap { whole_flow: true, hashes: &[], dropped: 3 }, &mut out);
    let Ok((_, Frame::Gap { whole_flow: true, hashes, dropped: 3 })) = decode(&out) else { panic!("gap") };
    assert!(hashes.is_empty());
}

#[test]
fn the_largest_frames_of_each_kind_fit() {
    let hashes = vec![1; HASHES_PER_FRAME_MAX];
    let mut out = Vec::new();
    encode_interest(
        0,
        0,
        &Interest { sequence: 0, phase: Phase::SnapshotPart, add: &hashes, remove: &hashes },
        &mut out,
    );
    assert!(decode(&out).is_ok());

    let many = vec![members()[0].clone(); PEERS_MAX + 1];
    out.clear();
    encode_members(&many, &mut out);
    assert!(decode(&out).is_ok());

    let mut publication = PublicationRef {
        hash: ChannelHash(0),
        origin_micros: 0,
        channel: "c",
        data: b"",
        json: false,
        info: None,
        tags: Tags::NONE,
    };
    let data = vec![0; BATCH_BYTES_MAX - publication.wire_bytes()];
    publication.data = &data;
    out.clear();
    encode_publications(0, 0, &[publication], &mut out);
    assert_eq!(out.len(), MESH_FRAME_BYTES_MAX);
    assert!(decode(&out).is_ok());
}

#[test]
fn headers_that_say_something_impossible_are_refused() {
    let mut good = Vec::new();
    encode_goodbye(&mut good);
    let spoilt = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        decode(&frame).map(|_| ()).unwrap_err()
    };
    assert_eq!(spoilt(0, 7), BadFrame::TooShort);
    assert_eq!(spoilt(0, 9), BadFrame::Length);
    assert_eq!(spoilt(3, 1), BadFrame::TooLong);
    assert_eq!(spoilt(4, 3), BadFrame::Kind);
    assert_eq!(spoilt(5, 2), BadFrame::Version);
    assert_eq!(spoilt(6, WORKERS_MAX as u8), BadFrame::Header);
    assert_eq!(spoilt(9, 1), BadFrame::Header);
    assert_eq!(spoilt(11, 1), BadFrame::Header);
    assert_eq!(decode(&good[..11]).map(|_| ()), Err(BadFrame::TooShort));
    let mut frame = good.clone();
    frame.push(0);
    frame[0] += 1;
    assert_eq!(decode(&frame).map(|_| ()), Err(BadFrame::Body));
}

#[test]
fn a_splitter_refuses_a_length_before_it_holds_anything_for_it() {
    for length in [u32::MAX, MESH_FRAME_BYTES_MAX as u32 - 3, 7, 0] {
        let mut splitter = Splitter::default();
        let bytes = length.to_le_bytes();
        assert!(splitter.feed(&bytes[..3], |_| ControlFlow::Continue(())).is_ok());
        assert!(splitter.feed(&bytes[3..], |_| ControlFlow::Continue(())).is_err());
        assert_eq!(splitter.carry.capacity(), 0);
        // And what follows is not looked at.
        assert!(splitter.feed(&[0; 100], |_| panic!("no frame")).is_ok());
    }
    let mut splitter = Splitter::default();
    let promise = (MESH_FRAME_BYTES_MAX as u32 - 4).to_le_bytes();
    assert!(splitter.feed(&promise, |_| ControlFlow::Continue(())).is_ok());
    assert!(splitter.carry.capacity() < 64);
}

#[test]
fn a_splitter_stops_where_its_reader_breaks() {
    let mut stream = Vec::new();
    for _ in 0..3 {
        encode_goodbye(&mut stream);
    }
    let mut splitter = Splitter::default();
    let mut seen = 0;
    let stop = |_: &[u8]| {
        seen += 1;
        ControlFlow::Break(())
    };
    assert!(splitter.feed(&stream, stop).is_ok());
    assert_eq!(seen, 1);
    assert!(splitter.feed(&stream, |_| panic!("no frame")).is_ok());
}

#[test]
fn a_large_partial_frame_does_not_leave_its_room_behind() {
    let data = vec![0; 500_000];
    let publication = PublicationRef {
        hash: ChannelHash(0),
        origin_micros: 0,
        channel: "c",
        data: &data,
        json: false,
        info: None,
        tags: Tags::NONE,
    };
    let mut frame = Vec::new();
    encode_publications(0, 0, &[publication], &mut frame);
    let mut splitter = Splitter::default();
    let mut seen = 0;
    for piece in frame.chunks(1000) {
        let count = |_: &[u8]| {
            seen += 1;
            ControlFlow::Continue(())
        };
        splitter.feed(piece, count).unwrap();
    }
    assert_eq!(seen, 1);
    assert!(splitter.carry.capacity() <= CARRY_BYTES_KEPT);
}

/// Reads everything that a frame lends, so that a bad pointer inside would be met.
fn touch(frame: &Frame<'_>) -> usize {
    match frame {
        Frame::Publications(batch) => batch
            .iter()
            .map(|publication| {
                let info = publication.info.map_or(0, |info| info.user.len() + info.conn_info.len());
                let tags: usize = publication.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
                publication.channel.chars().count() + publication.data.len() + info + tags
            })
            .sum(),
        Frame::Gap { hashes, .. } => hashes.iter().count(),
        Frame::Interest { add, remove, .. } => add.iter().chain(remove.iter()).count(),
        Frame::Members(members) => members.len(),
        Frame::Report(report) => report.version.len(),
        Frame::InterestAck { .. } | Frame::MembersRequest | Frame::Goodbye => 0,
    }
}

/// The entry of the fuzz target: whatever the bytes, an answer and no more memory than they have.
fn decode_anything(bytes: &[u8]) {
    if let Ok((_, frame)) = decode(bytes) {
        assert!(touch(&frame) <= bytes.len());
    }
    let mut splitter = Splitter::default();
    let mut lent = 0;
    let count = |frame: &[u8]| {
        lent += frame.len();
        ControlFlow::Continue(())
    };
    if splitter.feed(bytes, count).is_ok() {
        assert_eq!(lent + splitter.carried_bytes(), bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn publications_come_back_as_they_went_at_any_alignment(
        batch in proptest::collection::vec(owned(), 0..6),
        before in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        with_batch(&batch, |batch| {
            let mut out = before.clone();
            encode_publications(1, 2, batch, &mut out);
            let (header, frame) = decode(&out[before.len()..]).unwrap();
            assert_eq!((header.from, header.to), (1, 2));
            let Frame::Publications(read) = frame else { panic!("{frame:?}") };
            assert_eq!(read.iter().collect::<Vec<_>>(), batch);

            // What was read can be written again, and costs what it says it costs.
            let mut again = Vec::new();
            encode_publications(1, 2, &read.iter().collect::<Vec<_>>(), &mut again);
            assert_eq!(again, &out[before.len()..]);
            let told: usize = batch.iter().map(PublicationRef::wire_bytes).sum();
            assert_eq!(again.len(), told + MESH_FRAME_BYTES_MAX - BATCH_BYTES_MAX);
        });
    }

    #[test]
    fn any_bytes_behind_a_good_header_are_a_frame_or_refused(
        kind in proptest::sample::select(vec![1u8, 2, 16, 17, 18, 19, 20, 21]),
        body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0xf0)], 0..300),
    ) {
        let mut frame = (body.len() as u32 + 8).to_le_bytes().to_vec();
        frame.extend_from_slice(&[kind, WIRE_VERSION, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&body);
        decode_anything(&frame);
    }

    #[test]
    fn a_damaged_frame_is_a_frame_or_refused(
        which in 0..8usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut frame = golden().swap_remove(which).0;
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        decode_anything(&frame);
        frame.truncate(cut.index(frame.len() + 1));
        decode_anything(&frame);
    }

    #[test]
    fn any_split_of_a_stream_yields_the_same_frames(
        batches in proptest::collection::vec(proptest::collection::vec(owned(), 0..3), 0..5),
        cuts in proptest::collection::vec(1..80usize, 1..40),
    ) {
        let mut stream = Vec::new();
        let mut frames = Vec::new();
        for batch in &batches {
            let start = stream.len();
            with_batch(batch, |batch| encode_publications(0, 0, batch, &mut stream));
            frames.push(stream[start..].to_vec());
        }
        let mut seen = Vec::new();
        let mut splitter = Splitter::default();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            rest = after;
            let keep = |frame: &[u8]| {
                seen.push(frame.to_vec());
                ControlFlow::Continue(())
            };
            splitter.feed(piece, keep).unwrap();
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, frames);
        prop_assert_eq!(splitter.carried_bytes(), 0);
    }
}
