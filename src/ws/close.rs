//! Close frames (RFC 6455, sections 5.5.1 and 7.4).

use super::encoder::{self, Opcode};
use super::violation::Violation;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Stands for a close frame without a code; never sent as one.
pub const NO_STATUS: u16 = 1005;

/// Appends a close frame. The text is cut at a character border to what a control frame holds.
///
/// With a code that may not be sent (`NO_STATUS` above all, the answer to a close without a code) the frame is empty.
pub fn frame(code: u16, reason: &str, out: &mut Vec<u8>) {
    if !may_be_sent(code) {
        return encoder::frame(Opcode::Close, &[], out);
    }
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    encoder::head(Opcode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Codes that a peer may send in a close frame: those of the RFC and of its registry, and the open ranges. The others
/// are reserved, or name what happens without a close frame (1005, 1006, 1015).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a client's close frame: the code, if one was sent, and the text behind it.
pub(super) fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Violation::BadClose) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Violation::BadClose);
    }
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_code_stands_before_its_text() {
        let mut out = Vec::new();
        frame(3008, "slow", &mut out);
        assert_eq!(out, b"\x88\x06\x0b\xc0slow");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut out = Vec::new();
        frame(1000, &"ä".repeat(100), &mut out);
        assert_eq!(out[..2], [0x88, 124]);
        assert_eq!(parse(&out[2..]), Ok((Some(1000), "ä".repeat(61).as_str())));
    }

    #[test]
    fn a_code_that_may_not_be_sent_is_not() {
        for code in [0, 999, 1004, NO_STATUS, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            let mut out = Vec::new();
            frame(code, "text", &mut out);
            assert_eq!(out, b"\x88\x00", "{code}");
        }
    }

    #[test]
    fn what_a_peer_may_not_close_with_is_refused() {
        for (payload, violation) in [
            (&b"\x03"[..], Violation::BadClose),
            (b"\x00\x00", Violation::BadClose),
            (b"\x03\xe7", Violation::BadClose),
            (b"\x03\xedtext", Violation::BadClose),
            (b"\x0b\xb7", Violation::BadClose),
            (b"\x13\x88", Violation::BadClose),
            (b"\x03\xe8\xc3", Violation::NotUtf8),
        ] {
            assert_eq!(parse(payload), Err(violation), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn a_peer_reads_what_was_sent(code in prop_oneof![1000u16..1004, 1007u16..1015, 3000u16..5000], reason in ".{0,60}") {
            let mut out = Vec::new();
            frame(code, &reason, &mut out);
            prop_assert!(out.len() <= 127);
            let (got, text) = parse(&out[2..]).unwrap();
            prop_assert_eq!(got, Some(code));
            prop_assert!(reason.starts_with(text));
            prop_assert!(text.len() == reason.len() || text.len() + 4 > CLOSE_REASON_BYTES_MAX);
        }
    }
}
