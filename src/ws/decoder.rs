//! Client frames to messages.
//!
//! Works in place on the bytes that one `recv` brought: frames are unmasked where they lie and a message that
//! arrived whole is lent from there. Only a partial frame or a fragmented message is carried over, in buffers
//! that exist only while there is something to carry.
//!
//! Always true: each byte is unmasked once and copied at most once (and while its message's buffer doubles), so any
//! split of the bytes costs time in proportion to them; the buffer is never larger than what the message may become.

use super::close;
use super::frame::{CONTROL_BYTES_MAX, Control, HEAD_BYTES_MAX, Head, Kind, Opcode, Situation};
use super::mask::Mask;
use super::violation::Violation;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Checked UTF-8.
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The code, if one was sent, and the text behind it. Nothing follows.
    Close(Option<u16>, &'a str),
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message, all its fragments together.
    pub message_bytes_max: usize,
}

/// Sixteen bytes for a connection between messages.
#[derive(Default, Debug)]
pub struct Decoder {
    carried: Option<Box<Carried>>,
    done: bool,
}

const _: () = assert!(size_of::<Decoder>() <= 16);
const _: () = assert!(size_of::<Carried>() <= CARRIED_BYTES_BESIDES_MESSAGE_MAX);

/// What a decoder may hold beside the bytes of a message: the head or the control frame under way, and its state.
pub const CARRIED_BYTES_BESIDES_MESSAGE_MAX: usize = 256;

impl Decoder {
    /// Calls `on_message` for each message that `bytes` completes, in order, until it answers `false` or the bytes
    /// are used up. After a violation, a close or a `false` the decoder takes no more bytes and holds none.
    ///
    /// The bytes are unmasked in place: their content is of no use afterwards.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        mut on_message: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(), Violation> {
        if self.done {
            return Ok(());
        }
        let mut carried = self.carried.take();
        let outcome = take(&mut carried, bytes, limits, &mut |message| {
            let is_last = matches!(message, Message::Close(..));
            on_message(message) && !is_last
        });
        match outcome {
            Ok(Flow::Further) => {
                self.carried = carried;
                Ok(())
            }
            Ok(Flow::Ended) => {
                self.done = true;
                Ok(())
            }
            Err(violation) => {
                self.done = true;
                Err(violation)
            }
        }
    }

    /// Whether a close, a violation or the reader's `false` has ended the stream of messages.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Bytes of memory held between calls: at most `message_bytes_max` and `CARRIED_BYTES_BESIDES_MESSAGE_MAX`.
    pub fn carried_bytes(&self) -> usize {
        self.carried
            .as_ref()
            .map_or(0, |carried| size_of::<Carried>() + carried.open.as_ref().map_or(0, |open| open.bytes.capacity()))
    }
}

/// What is under way when the bytes are used up in the middle of something.
#[derive(Debug, Default)]
struct Carried {
    /// The message that is being put together.
    open: Option<Open>,
    /// The frame whose head is complete and whose payload is not.
    frame: Option<Payload>,
    /// The begin of a head, or of a control frame's payload: never both.
    small: Small,
}

impl Carried {
    fn is_empty(&self) -> bool {
        self.open.is_none() && self.frame.is_none() && self.small.as_slice().is_empty()
    }
}

#[derive(Debug)]
struct Payload {
    /// None: a part of the open message.
    control: Option<Control>,
    last: bool,
    mask: Mask,
    missing_bytes: usize,
}

enum Flow {
    Further,
    Ended,
}

impl Flow {
    fn from(goes_on: bool) -> Flow {
        if goes_on { Flow::Further } else { Flow::Ended }
    }
}

fn take(
    carried: &mut Option<Box<Carried>>,
    mut rest: &mut [u8],
    limits: Limits,
    on_message: &mut impl FnMut(Message<'_>) -> bool,
) -> Result<Flow, Violation> {
    loop {
        if let Some(state) = carried
            && let Some(frame) = &mut state.frame
        {
            let (piece, behind) = rest.split_at_mut(frame.missing_bytes.min(rest.len()));
            rest = behind;
            frame.mask.apply(piece);
            frame.missing_bytes -= piece.len();
            let flow = state.put(piece, limits, on_message)?;
            if state.is_empty() {
                *carried = None;
            }
            if let Flow::Ended = flow {
                return Ok(Flow::Ended);
            }
        }
        if rest.is_empty() {
            return Ok(Flow::Further);
        }
        let Some(head) = take_head(carried, &mut rest, limits)? else { return Ok(Flow::Further) };
        let has_room = head.payload_bytes <= rest.len();
        match head.opcode {
            Opcode::Control(control) if has_room => {
                if let Flow::Ended = lend(take_payload(&mut rest, head), control, on_message)? {
                    return Ok(Flow::Ended);
                }
            }
            Opcode::Start(kind) if has_room && head.last => {
                let payload = take_payload(&mut rest, head);
                if !on_message(data(kind, payload)?) {
                    return Ok(Flow::Ended);
                }
            }
            // In pieces: carried.
            opcode => carried.get_or_insert_default().begin(head, opcode),
        }
    }
}

/// The next head, if it is complete. Its begin is kept otherwise, and `rest` is used up.
fn take_head(
    carried: &mut Option<Box<Carried>>,
    rest: &mut &mut [u8],
    limits: Limits,
) -> Result<Option<Head>, Violation> {
    let situation = Situation {
        open_bytes: carried.as_ref().and_then(|state| state.open.as_ref()).map(|open| open.bytes.len()),
        message_bytes_max: limits.message_bytes_max,
    };
    let kept = carried.as_ref().map_or(0, |state| state.small.as_slice().len());
    let head = match carried {
        Some(state) if kept > 0 => {
            let room = HEAD_BYTES_MAX - kept;
            state.small.extend(&rest[..room.min(rest.len())]);
            Head::parse(state.small.as_slice(), situation)?
        }
        _ => Head::parse(rest, situation)?,
    };
    match head {
        Some(head) => {
            if let Some(state) = carried {
                state.small.clear();
                if state.is_empty() {
                    *carried = None;
                }
            }
            advance(rest, head.bytes - kept);
        }
        None => {
            if kept == 0 {
                carried.get_or_insert_default().small.extend(rest);
            }
            *rest = &mut [];
        }
    }
    Ok(head)
}

fn advance<'a>(rest: &mut &'a mut [u8], bytes: usize) -> &'a mut [u8] {
    let (front, behind) = std::mem::take(rest).split_at_mut(bytes);
    *rest = behind;
    front
}

/// A payload that arrived whole.
fn take_payload<'a>(rest: &mut &'a mut [u8], head: Head) -> &'a [u8] {
    let payload = advance(rest, head.payload_bytes);
    let mut mask = head.mask;
    mask.apply(payload);
    payload
}

fn data(kind: Kind, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match kind {
        Kind::Text => simdutf8::basic::from_utf8(payload).map(Message::Text).map_err(|_| Violation::NotUtf8),
        Kind::Binary => Ok(Message::Binary(payload)),
    }
}

fn lend(payload: &[u8], control: Control, on_message: &mut impl FnMut(Message<'_>) -> bool) -> Result<Flow, Violation> {
    let message = match control {
        Control::Ping => Message::Ping(payload),
        Control::Pong => Message::Pong(payload),
        Control::Close => {
            let (code, reason) = close::parse(payload)?;
            Message::Close(code, reason)
        }
    };
    Ok(Flow::from(on_message(message)))
}

impl Carried {
    fn begin(&mut self, head: Head, opcode: Opcode) {
        let control = match opcode {
            Opcode::Control(control) => Some(control),
            Opcode::Continuation => None,
            Opcode::Start(kind) => {
                self.open = Some(Open { kind, bytes: Vec::new(), checked_bytes: 0 });
                None
            }
        };
        self.frame = Some(Payload { control, last: head.last, mask: head.mask, missing_bytes: head.payload_bytes });
    }

    /// Adds a piece of the payload under way, whose missing bytes are those behind the piece.
    fn put(
        &mut self,
        piece: &[u8],
        limits: Limits,
        on_message: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<Flow, Violation> {
        let Some(frame) = &self.frame else { return Ok(Flow::Further) };
        let is_whole = frame.missing_bytes == 0;
        let goes_on = match (frame.control, &mut self.open) {
            (Some(control), _) => {
                self.small.extend(piece);
                if !is_whole {
                    return Ok(Flow::Further);
                }
                let flow = lend(self.small.as_slice(), control, on_message)?;
                self.small.clear();
                flow
            }
            (None, Some(open)) => {
                // What the message may become: known when this is its last frame.
                let bytes_max = if frame.last {
                    open.bytes.len() + piece.len() + frame.missing_bytes
                } else {
                    limits.message_bytes_max
                };
                open.add(piece, bytes_max)?;
                if !is_whole {
                    return Ok(Flow::Further);
                }
                if frame.last {
                    let flow = Flow::from(on_message(data(open.kind, &open.bytes)?));
                    self.open = None;
                    flow
                } else {
                    Flow::Further
                }
            }
            (None, None) => unreachable!("a data frame in pieces has an open message"),
        };
        self.frame = None;
        Ok(goes_on)
    }
}

/// A message of which a part has arrived.
#[derive(Debug)]
struct Open {
    kind: Kind,
    bytes: Vec<u8>,
    /// Text: the first so many are whole characters.
    checked_bytes: usize,
}

/// The first buffer of a message.
const OPEN_BYTES_MIN: usize = 64;

impl Open {
    /// Grows by doubling with what has arrived, not by what a head has announced: a peer that announces much and sends
    /// little costs little.
    fn add(&mut self, piece: &[u8], bytes_max: usize) -> Result<(), Violation> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let doubled = (self.bytes.capacity() * 2).max(OPEN_BYTES_MIN).min(bytes_max).max(needed);
            self.bytes.reserve_exact(doubled - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        match self.kind {
            Kind::Text => self.check(),
            Kind::Binary => Ok(()),
        }
    }

    /// Refuses at the first byte that no character can have there, and lets a character that is not yet whole wait.
    fn check(&mut self) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.bytes[self.checked_bytes..]) {
            Ok(_) => self.checked_bytes = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked_bytes += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

/// A head or the payload of a control frame: both fit.
#[derive(Debug)]
struct Small {
    len: u8,
    bytes: [u8; CONTROL_BYTES_MAX],
}

const _: () = assert!(HEAD_BYTES_MAX <= CONTROL_BYTES_MAX);

impl Default for Small {
    fn default() -> Self {
        Small { len: 0, bytes: [0; CONTROL_BYTES_MAX] }
    }
}

impl Small {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn extend(&mut self, more: &[u8]) {
        let len = usize::from(self.len);
        self.bytes[len..][..more.len()].copy_from_slice(more);
        // At most CONTROL_BYTES_MAX, or the line above has panicked.
        self.len = (len + more.len()) as u8;
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests;
