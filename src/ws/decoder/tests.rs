//! Each rule with its violation, and what must hold for any split of the bytes.

mod against_tungstenite;

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

const LIMITS: Limits = Limits { message_bytes_max: 1 << 17 };

#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Got {
    fn from(message: Message<'_>) -> Got {
        match message {
            Message::Text(text) => Got::Text(text.into()),
            Message::Binary(bytes) => Got::Binary(bytes.into()),
            Message::Ping(bytes) => Got::Ping(bytes.into()),
            Message::Pong(bytes) => Got::Pong(bytes.into()),
            Message::Close(code, reason) => Got::Close(code, reason.into()),
        }
    }
}

type Outcome = (Vec<Got>, Option<Violation>);

/// Feeds the pieces one after the other and checks what must hold between them.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> Outcome {
    let mut decoder = Decoder::default();
    let mut got = Vec::new();
    let mut violation = None;
    for piece in pieces {
        // Apart, so that whatever a decoder keeps of an earlier piece is gone.
        let fed = decoder.feed(&mut piece.to_vec(), limits, |message| {
            got.push(Got::from(message));
            true
        });
        assert!(violation.is_none() || fed.is_ok(), "a violation is told once");
        violation = violation.or(fed.err());
        assert!(decoder.carried_bytes() <= limits.message_bytes_max + CARRIED_BYTES_BESIDES_MESSAGE_MAX);
        assert!(!decoder.is_done() || decoder.carried_bytes() == 0);
    }
    (got, violation)
}

/// A client's frame.
fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    bytes
}

fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

/// Decodes the bytes at once and byte by byte, and expects the same.
fn check(bytes: &[u8], messages: &[Got], violation: Option<Violation>) {
    let want = (messages.to_vec(), violation);
    assert_eq!(decode([bytes], LIMITS), want, "at once");
    assert_eq!(decode(bytes.chunks(1), LIMITS), want, "byte by byte");
}

fn refused(bytes: &[u8], violation: Violation) {
    check(bytes, &[], Some(violation));
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    check(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[Got::Text("Hello".into())], None);
    let fragments = [client(0x01, b"Hel"), client(0x80, b"lo")].concat();
    check(&fragments, &[Got::Text("Hello".into())], None);
}

#[test]
fn every_kind_of_message_is_told() {
    let bytes = [
        client(0x82, &[7; 70_000]),
        client(0x89, b"ping"),
        client(0x8a, b""),
        client(0x81, b""),
        client(0x88, b"\x03\xe8bye"),
    ];
    let messages = [
        Got::Binary(vec![7; 70_000]),
        Got::Ping(b"ping".into()),
        Got::Pong(vec![]),
        Got::Text(String::new()),
        Got::Close(Some(1000), "bye".into()),
    ];
    check(&bytes.concat(), &messages, None);
    check(&client(0x88, b""), &[Got::Close(None, String::new())], None);
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let bytes = [
        client(0x01, b"a\xe2"),
        client(0x89, b"1"),
        client(0x00, b""),
        client(0x8a, &[2; 125]),
        client(0x00, b"\x82"),
        client(0x80, b"\xacb"),
    ];
    let messages = [Got::Ping(b"1".into()), Got::Pong(vec![2; 125]), Got::Text("a€b".into())];
    check(&bytes.concat(), &messages, None);
}

#[test]
fn reserved_bits_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        refused(&client(0x81 | bit, b"x"), Violation::ReservedBits);
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        refused(&client(0x80 | opcode, b"x"), Violation::ReservedOpcode);
    }
}

#[test]
fn an_unmasked_frame_is_refused() {
    refused(b"\x81\x01x", Violation::Unmasked);
}

#[test]
fn a_control_frame_is_short_and_whole() {
    refused(&client(0x89, &[0; 126]), Violation::ControlTooLong);
    refused(b"\x89\xff", Violation::ControlTooLong);
    refused(&client(0x09, b"x"), Violation::ControlFragmented);
}

#[test]
fn fragments_come_in_their_order() {
    refused(&client(0x80, b"x"), Violation::ContinuationWithoutStart);
    refused(&[client(0x01, b"x"), client(0x81, b"y")].concat(), Violation::DataInsideFragments);
    let over = [client(0x01, b"x"), client(0x80, b"y"), client(0x00, b"z")].concat();
    check(&over, &[Got::Text("xy".into())], Some(Violation::ContinuationWithoutStart));
}

#[test]
fn a_length_has_its_shortest_form() {
    refused(b"\x82\xfe\x00\x7d", Violation::LengthNotMinimal);
    refused(b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", Violation::LengthNotMinimal);
}

#[test]
fn text_is_refused_at_the_first_byte_that_no_character_has() {
    let invalid = b"\xce\xba\xed\xa0\x80edited";
    refused(&client(0x81, invalid), Violation::NotUtf8);
    refused(&[client(0x01, &invalid[..3]), client(0x80, &invalid[3..])].concat(), Violation::NotUtf8);
    // Neither the rest of the frame nor that of the message is waited for.
    refused(&client(0x81, invalid)[..6 + 4], Violation::NotUtf8);
    refused(&client(0x01, &invalid[..4]), Violation::NotUtf8);
    check(&client(0x81, invalid)[..6 + 3], &[], None);
    // A character that never becomes whole.
    refused(&client(0x81, b"\xce"), Violation::NotUtf8);
    refused(&[client(0x01, b"a\xe2\x82"), client(0x80, b"")].concat(), Violation::NotUtf8);
}

#[test]
fn a_close_is_well_formed() {
    refused(&client(0x88, b"\x03"), Violation::BadClose);
    refused(&client(0x88, &1005u16.to_be_bytes()), Violation::BadClose);
    refused(&client(0x88, b"\x03\xe8\xff"), Violation::NotUtf8);
}

#[test]
fn a_message_above_the_limit_is_refused_before_anything_is_held_for_it() {
    let limits = Limits { message_bytes_max: 1000 };
    let whole = client(0x82, &[0; 1000]);
    assert_eq!(decode([&whole[..]], limits), (vec![Got::Binary(vec![0; 1000])], None));
    let above = client(0x82, &[0; 1001]);
    assert_eq!(decode([&above[..4]], limits), (vec![], Some(Violation::TooLarge)));
    let huge = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(decode([&huge[..]], limits), (vec![], Some(Violation::TooLarge)));

    let begin = client(0x02, &[0; 990]);
    let fits = [begin.clone(), client(0x80, &[0; 10])].concat();
    assert_eq!(decode([&fits[..]], limits), (vec![Got::Binary(vec![0; 1000])], None));
    let above = [begin, client(0x00, &[0; 11])[..2].to_vec()].concat();
    assert_eq!(decode([&above[..]], limits), (vec![], Some(Violation::TooLarge)));
}

#[test]
fn every_violation_has_its_close_code() {
    assert_eq!(Violation::TooLarge.close_code(), 1009);
    assert_eq!(Violation::NotUtf8.close_code(), 1007);
    assert_eq!(Violation::ReservedBits.close_code(), 1002);
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::default();
    let mut bytes = [client(0x81, b"a"), client(0x01, b"b"), client(0x80, b"c")].concat();
    let (front, behind) = bytes.split_at_mut(9);
    decoder.feed(front, LIMITS, |_| true).unwrap();
    assert!(decoder.carried_bytes() > 0);
    decoder.feed(behind, LIMITS, |_| true).unwrap();
    assert_eq!(decoder.carried_bytes(), 0);
}

#[test]
fn what_is_held_follows_what_has_arrived_and_not_what_was_announced() {
    let mut decoder = Decoder::default();
    decoder.feed(&mut client(0x82, &[0; 100_000])[..20], LIMITS, |_| true).unwrap();
    assert!(decoder.carried_bytes() <= OPEN_BYTES_MIN + CARRIED_BYTES_BESIDES_MESSAGE_MAX);
}

#[test]
fn a_buffer_grows_by_doubling_and_never_beyond_its_message() {
    let payload = vec![0; 100_000];
    let fragments: Vec<u8> = payload.iter().flat_map(|byte| client(0x00, &[*byte])).collect();
    for bytes in [client(0x82, &payload), [client(0x02, b""), fragments].concat()] {
        let mut decoder = Decoder::default();
        let limits = Limits { message_bytes_max: payload.len() };
        let mut sizes = std::collections::BTreeSet::new();
        for byte in &bytes[..bytes.len() - 1] {
            decoder.feed(&mut [*byte], limits, |_| true).unwrap();
            sizes.insert(decoder.carried_bytes());
        }
        assert!(sizes.len() < 16, "each size is a copy: {sizes:?}");
        assert_eq!(sizes.last(), Some(&(payload.len() + size_of::<Carried>())));
    }
}

#[test]
fn the_reader_may_end_it() {
    for split in 0..18 {
        let mut bytes = [client(0x81, b"1"), client(0x81, b"2"), client(0x81, b"3")].concat();
        let mut decoder = Decoder::default();
        let mut seen = 0;
        let (front, behind) = bytes.split_at_mut(split);
        for piece in [front, behind] {
            decoder
                .feed(piece, LIMITS, |_| {
                    seen += 1;
                    seen < 2
                })
                .unwrap();
        }
        assert_eq!(seen, 2);
        assert!(decoder.is_done());
        assert_eq!(decoder.carried_bytes(), 0);
    }
}

#[test]
fn nothing_follows_a_close_or_a_violation() {
    let bytes = [client(0x88, b""), client(0x81, b"x")].concat();
    check(&bytes, &[Got::Close(None, String::new())], None);
    let bytes = [client(0x83, b""), client(0x88, b"")].concat();
    refused(&bytes, Violation::ReservedOpcode);
}

#[test]
fn a_million_tiny_pieces_cost_time_in_proportion() {
    // Were a message copied, searched or checked anew for each piece, this would take minutes.
    let limits = Limits { message_bytes_max: 1 << 21 };
    let text = "ä".repeat(1 << 20);
    let one_frame = client(0x81, text.as_bytes());
    assert_eq!(decode(one_frame.chunks(2), limits).0, [Got::Text(text.clone())]);
    let mut fragments: Vec<u8> = client(0x01, b"");
    for byte in text.as_bytes() {
        fragments.extend(client(0x00, &[*byte]));
    }
    fragments.extend(client(0x80, b""));
    assert_eq!(decode(fragments.chunks(7), limits).0, [Got::Text(text)]);
}

/// A message of a client, and in how many fragments.
fn any_message() -> impl Strategy<Value = Got> {
    let small = || prop::collection::vec(any::<u8>(), 0..126);
    let code = prop_oneof![1000u16..1004, 1007u16..1015, 3000u16..5000];
    prop_oneof![
        4 => ".{0,40}".prop_map(Got::Text),
        4 => prop_oneof![small(), prop::collection::vec(any::<u8>(), 120..300)].prop_map(Got::Binary),
        1 => small().prop_map(Got::Ping),
        1 => small().prop_map(Got::Pong),
        1 => (code, ".{0,20}").prop_map(|(code, reason)| Got::Close(Some(code), reason)),
    ]
}

/// As a client may send it: data in fragments with pings between them.
fn send(message: &Got, cuts: &[Index], key: [u8; 4]) -> (Vec<u8>, Vec<Got>) {
    let (first, payload) = match message {
        Got::Text(text) => (0x1, text.as_bytes().to_vec()),
        Got::Binary(bytes) => (0x2, bytes.clone()),
        Got::Ping(bytes) => return (frame(0x89, bytes, key), vec![message.clone()]),
        Got::Pong(bytes) => return (frame(0x8a, bytes, key), vec![message.clone()]),
        Got::Close(code, reason) => {
            let payload = [&code.unwrap().to_be_bytes(), reason.as_bytes()].concat();
            return (frame(0x88, &payload, key), vec![message.clone()]);
        }
    };
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut bytes, mut told, mut from) = (Vec::new(), Vec::new(), 0);
    let mut first = first;
    for to in cuts {
        bytes.extend(frame(first, &payload[from..to], key));
        if to % 2 == 0 {
            bytes.extend(frame(0x89, b"between", key));
            told.push(Got::Ping(b"between".to_vec()));
        }
        (first, from) = (0x0, to);
    }
    bytes.extend(frame(0x80 | first, &payload[from..], key));
    told.push(message.clone());
    (bytes, told)
}

prop_compose! {
    /// The bytes of some messages, and the messages that they are.
    fn any_stream()(
        messages in prop::collection::vec((any_message(), prop::collection::vec(any::<Index>(), 0..3), any::<[u8; 4]>()), 1..6)
    ) -> (Vec<u8>, Vec<Got>) {
        let (mut bytes, mut told) = (Vec::new(), Vec::new());
        for (message, cuts, key) in messages {
            let (more, further) = send(&message, &cuts, key);
            bytes.extend(more);
            told.extend(further);
        }
        if let Some(end) = told.iter().position(|message| matches!(message, Got::Close(..))) {
            told.truncate(end + 1);
        }
        (bytes, told)
    }
}

fn split<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for to in cuts {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces.push(&bytes[from..]);
    pieces
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_yields_the_same_messages(
        (bytes, told) in any_stream(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        prop_assert_eq!(&decode([&bytes[..]], LIMITS), &(told.clone(), None));
        prop_assert_eq!(&decode(split(&bytes, &cuts), LIMITS), &(told.clone(), None));
        prop_assert_eq!(&decode(bytes.chunks(1), LIMITS), &(told, None));
    }

    #[test]
    fn any_split_of_damaged_bytes_yields_the_same_messages_and_the_same_violation(
        (mut bytes, _) in any_stream(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        message_bytes_max in 0usize..400,
    ) {
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        let limits = Limits { message_bytes_max };
        let want = decode([&bytes[..]], limits);
        let split = decode(split(&bytes, &cuts), limits);
        let bytewise = decode(bytes.chunks(1), limits);
        prop_assert_eq!(&split.0, &bytewise.0);
        prop_assert_eq!(&split.1, &bytewise.1);
        prop_assert_eq!(&want.0, &split.0);
        prop_assert_eq!(&want.1, &split.1);
    }

    #[test]
    fn what_the_encoder_writes_the_decoder_reads_once_it_is_masked(message in any_message(), key in any::<[u8; 4]>()) {
        use crate::ws::encoder::{self, Opcode};
        let mut out = Vec::new();
        match &message {
            Got::Text(text) => encoder::frame(Opcode::Text, text.as_bytes(), &mut out),
            Got::Binary(bytes) => encoder::frame(Opcode::Binary, bytes, &mut out),
            Got::Ping(bytes) => encoder::frame(Opcode::Ping, bytes, &mut out),
            Got::Pong(bytes) => encoder::frame(Opcode::Pong, bytes, &mut out),
            Got::Close(code, reason) => close::frame(code.unwrap(), reason, &mut out),
        }
        let head_bytes = match out[1] { 127 => 10, 126 => 4, _ => 2 };
        let (head, payload) = out.split_at_mut(head_bytes);
        head[1] |= 0x80;
        Mask::new(key).apply(payload);
        let masked = [&*head, &key, &*payload].concat();
        prop_assert_eq!(decode([&masked[..]], LIMITS), (vec![message], None));
    }
}
