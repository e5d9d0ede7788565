//! A WebSocket that does what it is told to, right or wrong: frames of any shape, bytes of any kind.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{PATIENCE, Response};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Socket {
    pub stream: TcpStream,
    input: Vec<u8>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// 1005: without a code.
    Close(u16, String),
    /// No close frame came before it.
    End,
}

impl Socket {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node accepts");
        stream.set_nodelay(true).expect("a socket takes options");
        Socket { stream, input: Vec::new() }
    }

    /// `headers`: whole lines besides those that every upgrade has.
    pub fn upgrade(&mut self, target: &str, headers: &str) -> Response {
        self.send_bytes(upgrade(target, headers));
        self.response()
    }

    /// An upgrade that is accepted.
    pub fn connect(address: SocketAddr, target: &str, headers: &str) -> Self {
        let mut socket = Socket::open(address);
        let response = socket.upgrade(target, headers);
        assert_eq!(response.status, 101, "{}", String::from_utf8_lossy(&response.body));
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
        socket
    }

    // ---- sending

    /// Errors are left for the reader to find: a node that has said its last word may not read ours.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = self.stream.write_all(bytes.as_ref());
    }

    pub fn send(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.send_frame(0x81, text.as_bytes()),
            Message::Binary(bytes) => self.send_frame(0x82, bytes),
            Message::Ping(bytes) => self.send_frame(0x89, bytes),
            Message::Pong(bytes) => self.send_frame(0x8a, bytes),
            Message::Close(code, reason) => {
                self.send_frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
            }
            Message::End => self.stream.shutdown(Shutdown::Write).expect("it is open"),
        }
    }

    /// A masked one, with this first byte.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(frame(first, payload));
    }

    // ---- receiving

    pub fn response(&mut self) -> Response {
        loop {
            if let Some((response, bytes)) = Response::parse(&self.input) {
                self.input.drain(..bytes);
                return response;
            }
            assert!(self.read(PATIENCE) == Some(true), "no answer but {:?}", self.input.escape_ascii());
        }
    }

    pub fn receive(&mut self) -> Message {
        self.receive_within(PATIENCE).expect("the node says something")
    }

    pub fn receive_within(&mut self, time: Duration) -> Option<Message> {
        let end = Instant::now() + time;
        loop {
            if let Some(message) = self.take_message() {
                return Some(message);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.read(left) {
                Some(true) => {}
                Some(false) => return Some(Message::End),
                None => return None,
            }
        }
    }

    /// Everything until the node hangs up. The last one is a close frame, or the end without one.
    pub fn rest(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.receive();
            let last = matches!(message, Message::Close(..) | Message::End);
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// The code and the text of the close frame, whatever comes before it; then nothing but the end.
    pub fn closed(&mut self) -> (u16, String) {
        let Some(Message::Close(code, reason)) = self.rest().pop() else { panic!("it ended without a close frame") };
        // A client answers, and the server hangs up.
        self.send_frame(0x88, &code.to_be_bytes());
        assert_eq!(self.receive(), Message::End, "nothing follows a close frame");
        (code, reason)
    }

    /// Whether something came. None: not in time.
    fn read(&mut self, time: Duration) -> Option<bool> {
        // Zero would mean for ever.
        self.stream.set_read_timeout(Some(time.max(Duration::from_millis(1)))).expect("a socket takes options");
        let mut piece = vec![0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => Some(false),
            Ok(bytes) => {
                self.input.extend_from_slice(&piece[..bytes]);
                Some(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(_) => Some(false),
        }
    }

    /// A server's frames are whole and not masked.
    fn take_message(&mut self) -> Option<Message> {
        let head = self.input.get(..2)?;
        let (first, second) = (head[0], head[1]);
        assert_eq!(first & 0xf0, 0x80, "a whole message without extensions");
        let (length, head_bytes) = match second {
            126 => (u16::from_be_bytes(self.input.get(2..4)?.try_into().expect("two")).into(), 4),
            127 => (u64::from_be_bytes(self.input.get(2..10)?.try_into().expect("eight")), 10),
            short => {
                assert!(short < 126, "a server does not mask");
                (short.into(), 2)
            }
        };
        let end = head_bytes + usize::try_from(length).expect("it fits");
        let payload = self.input.get(head_bytes..end)?.to_vec();
        self.input.drain(..end);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Some(match first & 0x0f {
            1 => Message::Text(text(&payload)),
            2 => Message::Binary(payload),
            8 if payload.is_empty() => Message::Close(1005, String::new()),
            8 => Message::Close(u16::from_be_bytes([payload[0], payload[1]]), text(&payload[2..])),
            9 => Message::Ping(payload),
            10 => Message::Pong(payload),
            other => panic!("there is no opcode {other}"),
        })
    }
}

pub fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
