//! Server frames: never masked, never fragmented.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The longest head of a server frame.
pub const HEAD_BYTES_MAX: usize = 10;

/// Appends the head of a final frame whose payload of `payload_bytes` follows. The payload of a control frame has at
/// most 125 bytes.
pub fn head(opcode: Opcode, payload_bytes: usize, out: &mut Vec<u8>) {
    let first = 0x80 | opcode as u8;
    match payload_bytes {
        0..=125 => out.extend_from_slice(&[first, payload_bytes as u8]),
        126..=0xffff => {
            let [a, b] = (payload_bytes as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, a, b]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (payload_bytes as u64).to_be_bytes();
            out.extend_from_slice(&[first, 127, a, b, c, d, e, f, g, h]);
        }
    }
}

/// Appends a whole frame.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    head(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    #[test]
    fn heads_are_those_of_another_implementation() {
        let opcodes = [
            (Opcode::Text, OpCode::Data(Data::Text)),
            (Opcode::Binary, OpCode::Data(Data::Binary)),
            (Opcode::Close, OpCode::Control(Control::Close)),
            (Opcode::Ping, OpCode::Control(Control::Ping)),
            (Opcode::Pong, OpCode::Control(Control::Pong)),
        ];
        for (opcode, theirs) in opcodes {
            for payload_bytes in [0, 1, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537, 1 << 32] {
                let mut out = vec![7];
                head(opcode, payload_bytes, &mut out);
                assert!(out.len() <= 1 + HEAD_BYTES_MAX);
                let (parsed, length) = FrameHeader::parse(&mut Cursor::new(&out[1..])).unwrap().unwrap();
                assert_eq!(length, payload_bytes as u64);
                assert_eq!(parsed, FrameHeader { is_final: true, opcode: theirs, ..FrameHeader::default() });
                let mut shortest = vec![7];
                parsed.format(length, &mut shortest).unwrap();
                assert_eq!(out, shortest);
            }
        }
    }

    #[test]
    fn a_frame_is_its_head_and_its_payload() {
        let mut out = Vec::new();
        frame(Opcode::Text, b"hi", &mut out);
        assert_eq!(out, b"\x81\x02hi");
    }
}
