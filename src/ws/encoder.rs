//! Server frames: never masked, never fragmented.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The longest head of a server frame.
pub const HEAD_BYTES_MAX: usize = 10;

/// Appends the head of a final frame whose payload of `payload_bytes` follows.
pub fn head(_opcode: Opcode, _payload_bytes: usize, _out: &mut Vec<u8>) {
    todo!()
}

/// Appends a whole frame.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    head(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}
