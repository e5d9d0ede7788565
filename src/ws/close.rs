//! Close frames.

/// Appends a close frame. The text is cut at a character border to what a control frame holds.
pub fn frame(_code: u16, _reason: &str, _out: &mut Vec<u8>) {
    todo!()
}

/// Codes that a peer may send in a close frame.
pub fn may_be_sent(_code: u16) -> bool {
    todo!()
}
