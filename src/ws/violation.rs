//! What a peer did against RFC 6455, each with the close code that answers it.

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    ReservedBits,
    ReservedOpcode,
    Unmasked,
    ControlTooLong,
    ControlFragmented,
    ContinuationWithoutStart,
    DataInsideFragments,
    LengthNotMinimal,
    NotUtf8,
    BadClose,
    TooLarge,
}

impl Violation {
    pub const fn close_code(self) -> u16 {
        match self {
            Violation::NotUtf8 => 1007,
            Violation::TooLarge => 1009,
            _ => 1002,
        }
    }
}
