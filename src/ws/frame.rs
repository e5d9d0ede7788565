//! The head of a client's frame (RFC 6455, section 5.2), with every rule that can be judged from the head and
//! from whether a fragmented message is open.
//!
//! Always true: a rule is judged as soon as the byte that breaks it is there, so a peer cannot hide a bad frame
//! by withholding the rest of its head.

use super::mask::Mask;
use super::violation::Violation;

/// Two bytes, eight of length, four of mask.
pub const HEAD_BYTES_MAX: usize = 14;
/// Payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// The first frame of a message.
    Start(Kind),
    /// A further frame of the open message.
    Continuation,
    Control(Control),
}

#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// No further frame of the message follows. Always so for a control frame.
    pub last: bool,
    pub opcode: Opcode,
    pub mask: Mask,
    pub payload_bytes: usize,
    /// Bytes of the head itself.
    pub bytes: usize,
}

/// What the head is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Bytes of the message whose fragments are being put together, if one is open.
    pub open_bytes: Option<usize>,
    pub message_bytes_max: usize,
}

impl Head {
    /// None when the head goes on behind `bytes`.
    pub fn parse(bytes: &[u8], situation: Situation) -> Result<Option<Head>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let last = first & 0x80 != 0;
        let opcode = opcode(first, last, situation.open_bytes.is_some())?;

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let short = second & 0x7f;
        if matches!(opcode, Opcode::Control(_)) && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::ControlTooLong);
        }

        let Some((length, behind)) = length(short, &bytes[2..])? else { return Ok(None) };
        let room = situation.message_bytes_max.saturating_sub(situation.open_bytes.unwrap_or(0));
        let payload_bytes = match opcode {
            Opcode::Control(_) => usize::from(short),
            _ => usize::try_from(length).ok().filter(|&length| length <= room).ok_or(Violation::TooLarge)?,
        };

        let Some(&key) = behind.first_chunk::<4>() else { return Ok(None) };
        let head_bytes = bytes.len() - behind.len() + key.len();
        Ok(Some(Head { last, opcode, mask: Mask::new(key), payload_bytes, bytes: head_bytes }))
    }
}

fn opcode(first: u8, last: bool, open: bool) -> Result<Opcode, Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Start(Kind::Text),
        0x2 => Opcode::Start(Kind::Binary),
        0x8 => Opcode::Control(Control::Close),
        0x9 => Opcode::Control(Control::Ping),
        0xa => Opcode::Control(Control::Pong),
        _ => return Err(Violation::ReservedOpcode),
    };
    match opcode {
        Opcode::Control(_) if !last => Err(Violation::ControlFragmented),
        Opcode::Continuation if !open => Err(Violation::ContinuationWithoutStart),
        Opcode::Start(_) if open => Err(Violation::DataInsideFragments),
        opcode => Ok(opcode),
    }
}

/// The length of the payload, and the bytes behind it. Only the shortest form is right (section 5.2).
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (length, shortest, behind) = match short {
        126 => {
            let Some((length, behind)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), 126, behind)
        }
        127 => {
            let Some((length, behind)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), 1 << 16, behind)
        }
        short => (u64::from(short), 0, bytes),
    };
    if length < shortest {
        return Err(Violation::LengthNotMinimal);
    }
    Ok(Some((length, behind)))
}
