//! Our decoder and tungstenite's read the same streams, sound and damaged, and must tell the same messages and refuse
//! at the same place.
//!
//! Where they differ on purpose:
//! - a length in a longer form than needed: taken there; section 5.2 wants the shortest (`LengthNotMinimal`, or
//!   `ControlTooLong` for a control frame, whose shortest form is always the two-byte head);
//! - a close with a code that may not be sent: a message there, told as 1002; a violation here (`BadClose`);
//! - code 1014 is younger than tungstenite's list: told as 1002 there;
//! - a rule of a head, of UTF-8 or of a size is judged there when the frame is whole, here at the byte that breaks it.
//!   So damaged streams are read there with as many zeros behind them as any frame may want.

use std::io::{self, Read, Write};
use std::iter;

use proptest::prelude::*;
use proptest::sample::Index;
use tungstenite::Error;
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use super::{Got, any_stream, decode, frame, split};
use crate::ws::decoder::Limits;
use crate::ws::violation::Violation;

const LIMITS: Limits = Limits { message_bytes_max: 1000 };

/// Bytes that were received; what is sent goes nowhere.
struct Received<'a>(&'a [u8]);

impl Read for Received<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Received<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum End {
    /// Waits for more, or was closed.
    Sound,
    Refused(String),
}

fn theirs(bytes: &[u8]) -> (Vec<Got>, End) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut stream = Received(bytes);
    let mut got = Vec::new();
    loop {
        match context.read(&mut stream) {
            Ok(Message::Text(text)) => got.push(Got::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => got.push(Got::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => got.push(Got::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => got.push(Got::Pong(bytes.to_vec())),
            Ok(Message::Close(None)) => got.push(Got::Close(None, String::new())),
            Ok(Message::Close(Some(close))) => {
                got.push(Got::Close(Some(close.code.into()), close.reason.to_string()));
            }
            Ok(Message::Frame(_)) => unreachable!("only written"),
            Err(Error::ConnectionClosed) => return (got, End::Sound),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (got, End::Sound),
            Err(error) => return (got, End::Refused(error.to_string())),
        }
    }
}

fn check(bytes: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let (ours, violation) = decode(split(bytes, cuts), LIMITS);
    match violation {
        None => {
            let (theirs, end) = theirs(bytes);
            if let End::Refused(reason) = end {
                panic!("refused only there: {reason}");
            }
            let same = match ours.last() {
                Some(Got::Close(Some(1014), _)) => ours.len() - 1,
                _ => ours.len(),
            };
            prop_assert_eq!(&ours[..same], &theirs[..same]);
            prop_assert_eq!(ours.len(), theirs.len());
        }
        // They go on, and what follows is theirs alone.
        Some(Violation::LengthNotMinimal | Violation::ControlTooLong | Violation::BadClose) => {
            let (theirs, _) = theirs(bytes);
            prop_assert_eq!(&ours, &theirs[..ours.len()]);
        }
        Some(violation) => {
            let (theirs, end) = theirs(&[bytes, &[0; LIMITS.message_bytes_max + 14]].concat());
            let End::Refused(reason) = end else { panic!("refused only here: {violation:?}") };
            prop_assert_eq!(&ours, &theirs, "{:?} here, {:?} there", violation, reason);
        }
    }
    Ok(())
}

prop_compose! {
    /// A frame of which any part may be wrong, but mostly none is.
    fn any_frame()(
        opcode in prop_oneof![6 => 0u8..3, 2 => 8u8..11, 1 => 0u8..16],
        last in prop::bool::weighted(0.6),
        reserved in prop_oneof![30 => Just(0u8), 1 => 0u8..8],
        masked in prop::bool::weighted(0.97),
        form in prop_oneof![30 => Just(0u8), 1 => 126u8..128],
        payload in prop_oneof![
            3 => ".{0,6}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..3),
            // Pieces of characters, some of which fit together.
            2 => prop::sample::select(vec![&b"\xe2"[..], b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xed", b"\xa0", b"a"])
                .prop_map(<[u8]>::to_vec),
            1 => (0usize..600).prop_map(|bytes| vec![b'x'; bytes]),
            1 => (900u16..5100).prop_map(|code| code.to_be_bytes().to_vec()),
        ],
        key in any::<[u8; 4]>(),
    ) -> Vec<u8> {
        let last = last || (opcode >= 8 && key[0] < 250);
        let first = u8::from(last) << 7 | reserved << 4 | opcode;
        let mut bytes = frame(first, &payload, key);
        if form > 0 && bytes[1] < 0x80 | 126 {
            let short = bytes[1] & 0x7f;
            let zeros = if form == 126 { 1 } else { 7 };
            bytes.splice(1..2, [0x80 | form].into_iter().chain(iter::repeat_n(0, zeros)).chain([short]));
        }
        if !masked {
            bytes[1] &= 0x7f;
        }
        bytes
    }
}

proptest! {
    #[test]
    fn sound_streams_are_read_alike((bytes, _) in any_stream(), cuts in any_cuts()) {
        check(&bytes, &cuts)?;
    }

    #[test]
    fn damaged_streams_are_read_and_refused_alike(
        (mut bytes, _) in any_stream(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in any_cuts(),
    ) {
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        check(&bytes, &cuts)?;
    }

    #[test]
    fn frames_in_any_order_are_read_and_refused_alike(
        frames in prop::collection::vec(any_frame(), 1..8),
        missing in prop_oneof![3 => Just(0usize), 1 => 0usize..8],
        cuts in any_cuts(),
    ) {
        let bytes = frames.concat();
        check(&bytes[..bytes.len().saturating_sub(missing)], &cuts)?;
    }
}

fn any_cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}
