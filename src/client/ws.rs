//! The client's side of a WebSocket, sans-io: the upgrade, masked frames out, server frames in.
//!
//! Small rather than fast, and apart from the server's codec so that each is tested against the other. No extensions;
//! fragmented messages are put together. Pings of the WebSocket itself are answered here.
//!
//! Always true: what is buffered is bounded by `HEAD_BYTES_MAX` and `MESSAGE_BYTES_MAX`.

use std::collections::VecDeque;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::RngCore;

use crate::base::rng::Rng;
use crate::limits::CLOSE_REASON_BYTES_MAX;
use crate::protocol::Encoding;

/// Bytes of the server's answer to the upgrade. More is `Trouble::NotUpgraded`.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one message from the server, all its fragments together. More is `Trouble::TooLarge`.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why the connection is of no more use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The server answered the upgrade with this status instead of 101.
    Status(u16),
    /// The answer was no answer to this upgrade.
    NotUpgraded,
    /// A frame that no server may send.
    BadFrame,
    TooLarge,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// The upgrade is done.
    Opened,
    /// Text or binary: one frame of the client protocol.
    Frame(Vec<u8>),
    /// A pong to a ping of ours.
    Pong(Vec<u8>),
    /// The last one. Without a code the server gave none.
    Closed { code: Option<u16>, reason: String },
}

pub struct Socket {
    encoding: Encoding,
    rng: Rng,
    state: State,
    received: Vec<u8>,
    /// What has come of a fragmented message.
    fragments: Option<Vec<u8>>,
    incoming: VecDeque<Incoming>,
    outgoing: Vec<u8>,
}

enum State {
    /// The `Sec-WebSocket-Accept` that must come.
    Upgrading(String),
    Open,
    /// A close frame was sent: only the server's is awaited.
    Closing,
    Closed,
}

impl Socket {
    /// Begins the upgrade. `host` and `path` go into the request as they are: `127.0.0.1:8000`, `/connection/websocket`.
    /// `rng` makes the key and the masks.
    pub fn new(encoding: Encoding, host: &str, path: &str, rng: Rng) -> Self {
        Socket::with_headers(encoding, host, path, "", rng)
    }

    /// The same with more headers, each ending in CR LF (an `Origin`, say).
    pub fn with_headers(encoding: Encoding, host: &str, path: &str, headers: &str, mut rng: Rng) -> Self {
        let mut key = [0; 16];
        rng.fill_bytes(&mut key);
        let key = BASE64_STANDARD.encode(key);
        Socket {
            encoding,
            rng,
            state: State::Upgrading(tungstenite::handshake::derive_accept_key(key.as_bytes())),
            received: Vec::new(),
            fragments: None,
            incoming: VecDeque::new(),
            outgoing: upgrade_request(encoding, host, path, &key, headers).into_bytes(),
        }
    }

    /// Queues one frame of the client protocol. Before the upgrade is done and after a close it is dropped: `false`.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let opcode = match self.encoding {
            Encoding::Json => TEXT,
            Encoding::Protobuf => BINARY,
        };
        self.write(opcode, frame)
    }

    /// Queues a ping of the WebSocket itself. `payload` holds at most 125 bytes.
    pub fn ping(&mut self, payload: &[u8]) -> bool {
        assert!(payload.len() <= 125);
        self.write(PING, payload)
    }

    /// Queues a close frame. The text is cut at a character border to what a control frame holds.
    pub fn close(&mut self, code: u16, reason: &str) {
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        if self.write(CLOSE, &payload) {
            self.state = State::Closing;
        }
    }

    /// All bytes to be written, in order.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.outgoing.is_empty()).then(|| std::mem::take(&mut self.outgoing))
    }

    pub fn poll_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// Bytes as they came, cut anywhere. After trouble or a close they are ignored.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if matches!(self.state, State::Closed) {
            return Ok(());
        }
        self.received.extend_from_slice(bytes);
        let progress = self.progress();
        if progress.is_err() {
            self.state = State::Closed;
        }
        if matches!(self.state, State::Closed) {
            self.received = Vec::new();
            self.fragments = None;
        }
        progress
    }

    fn write(&mut self, opcode: u8, payload: &[u8]) -> bool {
        let open = matches!(self.state, State::Open);
        if open {
            let mask = self.rng.next_u32().to_ne_bytes();
            masked_frame(opcode, payload, mask, &mut self.outgoing);
        }
        open
    }

    fn progress(&mut self) -> Result<(), Trouble> {
        if let State::Upgrading(accept) = &self.state {
            let Some(head_bytes) = upgraded(&self.received, accept)? else { return Ok(()) };
            self.received.drain(..head_bytes);
            self.state = State::Open;
            self.incoming.push_back(Incoming::Opened);
        }
        // Frames are taken where they lie, and what is left moves once; not at all while a long frame is incomplete.
        let mut received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some((frame, behind)) = server_frame(rest)? {
            rest = behind;
            self.on_frame(frame)?;
            if matches!(self.state, State::Closed) {
                return Ok(());
            }
        }
        let consumed = received.len() - rest.len();
        received.drain(..consumed);
        self.received = received;
        Ok(())
    }

    fn on_frame(&mut self, frame: ServerFrame<'_>) -> Result<(), Trouble> {
        let ServerFrame { opcode, last, payload } = frame;
        match (opcode, self.fragments.take()) {
            (TEXT | BINARY, None) => self.on_fragment(Vec::new(), payload, last)?,
            (CONTINUATION, Some(begun)) => self.on_fragment(begun, payload, last)?,
            (CONTINUATION, None) | (TEXT | BINARY, Some(_)) => return Err(Trouble::BadFrame),
            (_, begun) => {
                self.fragments = begun;
                self.on_control(opcode, payload)?;
            }
        }
        Ok(())
    }

    fn on_fragment(&mut self, mut message: Vec<u8>, payload: &[u8], last: bool) -> Result<(), Trouble> {
        if message.len() + payload.len() > MESSAGE_BYTES_MAX {
            return Err(Trouble::TooLarge);
        }
        message.extend_from_slice(payload);
        if last {
            self.incoming.push_back(Incoming::Frame(message));
        } else {
            self.fragments = Some(message);
        }
        Ok(())
    }

    fn on_control(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Trouble> {
        match opcode {
            PING => _ = self.write(PONG, payload),
            PONG => self.incoming.push_back(Incoming::Pong(payload.to_vec())),
            CLOSE => {
                let (code, reason) = match payload {
                    [] => (None, ""),
                    [high, low, reason @ ..] => (
                        Some(u16::from_be_bytes([*high, *low])),
                        std::str::from_utf8(reason).map_err(|_| Trouble::BadFrame)?,
                    ),
                    [_] => return Err(Trouble::BadFrame),
                };
                // The echo that ends the closing handshake; nothing is written if the close was ours.
                self.write(CLOSE, &payload[..payload.len().min(2)]);
                self.state = State::Closed;
                self.incoming.push_back(Incoming::Closed { code, reason: reason.to_owned() });
            }
            _ => return Err(Trouble::BadFrame),
        }
        Ok(())
    }
}

/// The head of the request. A JSON client offers no subprotocol, as the official ones.
fn upgrade_request(encoding: Encoding, host: &str, path: &str, key: &str, headers: &str) -> String {
    let subprotocol = match encoding {
        Encoding::Json => "",
        Encoding::Protobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{subprotocol}{headers}\r\n"
    )
}

/// The length of the response's head once it is whole and says that the upgrade succeeded.
fn upgraded(received: &[u8], accept: &str) -> Result<Option<usize>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(received).map_err(|_| Trouble::NotUpgraded)? {
        httparse::Status::Complete(head_bytes) => head_bytes,
        httparse::Status::Partial if received.len() > HEAD_BYTES_MAX => return Err(Trouble::NotUpgraded),
        httparse::Status::Partial => return Ok(None),
    };
    match response.code {
        Some(101) => {}
        Some(status) => return Err(Trouble::Status(status)),
        None => return Err(Trouble::NotUpgraded),
    }
    let accepted = response
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && header.value == accept.as_bytes());
    if accepted { Ok(Some(head_bytes)) } else { Err(Trouble::NotUpgraded) }
}

/// Appends a final client frame.
pub fn masked_frame(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length @ 126..65_536 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

struct ServerFrame<'a> {
    opcode: u8,
    last: bool,
    payload: &'a [u8],
}

/// The first frame and what lies behind it, `None` while it is not whole.
fn server_frame(bytes: &[u8]) -> Result<Option<(ServerFrame<'_>, &[u8])>, Trouble> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Trouble::BadFrame);
    }
    if opcode >= CLOSE && (!last || *second > 125) {
        return Err(Trouble::BadFrame);
    }
    let (length, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    if length > MESSAGE_BYTES_MAX as u64 {
        return Err(Trouble::TooLarge);
    }
    let whole = rest.split_at_checked(length as usize);
    Ok(whole.map(|(payload, behind)| (ServerFrame { opcode, last, payload }, behind)))
}
