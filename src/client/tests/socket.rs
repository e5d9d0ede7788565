//! The client's WebSocket against tungstenite's server in memory, and against what no server may send.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use proptest::prelude::*;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use super::super::ws::{Incoming, MESSAGE_BYTES_MAX, Socket, Trouble, masked_frame};
use crate::base::rng::Rng;
use crate::protocol::Encoding;
use crate::ws;
use crate::ws::decoder::{self, Decoder};
use crate::ws::encoder::{self, Opcode};
use crate::ws::upgrade::{self, OriginRule, Parse, Subprotocol, parse_head};

/// The server's end of a wire in memory.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<(Vec<u8>, Vec<u8>)>>);

impl Wire {
    fn give(&self, bytes: &[u8]) {
        self.0.borrow_mut().0.extend_from_slice(bytes);
    }

    fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().1)
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let given = &mut self.0.borrow_mut().0;
        if given.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes = given.len().min(into.len());
        into[..bytes].copy_from_slice(&given[..bytes]);
        given.drain(..bytes);
        Ok(bytes)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn socket(encoding: Encoding) -> Socket {
    Socket::new(encoding, "localhost", "/connection/websocket", Rng::seeded(7))
}

/// The answer to the upgrade request of a fresh socket.
fn answer(socket: &mut Socket) -> (Wire, WebSocket<Wire>, Vec<u8>) {
    let wire = Wire::default();
    wire.give(&socket.poll_transmit().unwrap());
    let server = match tungstenite::accept(wire.clone()) {
        Ok(server) => server,
        Err(HandshakeError::Interrupted(_)) => panic!("the request is not whole"),
        Err(HandshakeError::Failure(error)) => panic!("{error}"),
    };
    let answer = wire.written();
    (wire, server, answer)
}

fn open() -> Socket {
    let mut socket = socket(Encoding::Json);
    let (_, _, answer) = answer(&mut socket);
    socket.on_bytes(&answer).unwrap();
    assert_eq!(socket.poll_incoming(), Some(Incoming::Opened));
    socket
}

fn incoming(socket: &mut Socket) -> Vec<Incoming> {
    std::iter::from_fn(|| socket.poll_incoming()).collect()
}

#[test]
fn the_request_is_a_browsers_upgrade() {
    let mut socket = Socket::with_headers(
        Encoding::Protobuf,
        "localhost:8000",
        "/connection/websocket",
        "Origin: http://localhost\r\n",
        Rng::seeded(1),
    );
    let request = String::from_utf8(socket.poll_transmit().unwrap()).unwrap();
    assert!(request.starts_with("GET /connection/websocket HTTP/1.1\r\nHost: localhost:8000\r\n"), "{request}");
    assert!(request.contains("\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\nOrigin: http://localhost\r\n"));
    assert!(request.ends_with("\r\n\r\n"));
    assert!(!socket.send(b"{}"));
    assert_eq!(socket.poll_transmit(), None);
    let mut json = self::socket(Encoding::Json);
    assert!(!String::from_utf8(json.poll_transmit().unwrap()).unwrap().contains("Protocol"));
}

#[test]
fn only_the_right_answer_opens() {
    let mut socket = socket(Encoding::Json);
    let (.., answer) = answer(&mut socket);
    let answer = String::from_utf8(answer).unwrap();
    let refusals = [
        ("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(), Trouble::Status(403)),
        ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), Trouble::Status(200)),
        (answer.replace("ccept: ", "ccept: x"), Trouble::NotUpgraded),
        ("\u{1}\u{2}\u{3}\r\n".to_owned(), Trouble::NotUpgraded),
        (format!("HTTP/1.1 101 Yes\r\nX: {}", "x".repeat(20_000)), Trouble::NotUpgraded),
    ];
    for (bytes, expected) in refusals {
        let mut socket = self::socket(Encoding::Json);
        assert_eq!(socket.on_bytes(bytes.as_bytes()), Err(expected));
        assert_eq!(socket.on_bytes(answer.as_bytes()), Ok(()));
        assert_eq!(socket.poll_incoming(), None);
    }
}

#[test]
fn frames_go_both_ways_and_pings_are_answered() {
    let mut socket = socket(Encoding::Json);
    let (wire, mut server, answer) = answer(&mut socket);
    socket.on_bytes(&answer).unwrap();
    for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
        let text = "x".repeat(length);
        assert!(socket.send(text.as_bytes()));
        wire.give(&socket.poll_transmit().unwrap());
        assert_eq!(server.read().unwrap(), Message::text(text.clone()));
        server.send(Message::text(text.clone())).unwrap();
        server.send(Message::Ping(b"p"[..].to_vec().into())).unwrap();
        socket.on_bytes(&wire.written()).unwrap();
        assert_eq!(incoming(&mut socket).last(), Some(&Incoming::Frame(text.into_bytes())));
        wire.give(&socket.poll_transmit().unwrap());
        assert_eq!(server.read().unwrap(), Message::Pong(b"p"[..].to_vec().into()));
    }
    socket.ping(b"q");
    wire.give(&socket.poll_transmit().unwrap());
    server.read().unwrap();
    server.flush().unwrap();
    socket.on_bytes(&wire.written()).unwrap();
    assert_eq!(incoming(&mut socket), [Incoming::Pong(b"q".to_vec())]);
}

#[test]
fn a_close_is_told_and_echoed_whoever_begins() {
    let mut socket = socket(Encoding::Protobuf);
    let (wire, mut server, answer) = answer(&mut socket);
    socket.on_bytes(&answer).unwrap();
    assert!(socket.send(b"\0"));
    wire.give(&socket.poll_transmit().unwrap());
    assert_eq!(server.read().unwrap(), Message::binary(&b"\0"[..]));
    server.close(Some(CloseFrame { code: 3001.into(), reason: "shutdown".into() })).unwrap();
    socket.on_bytes(&wire.written()).unwrap();
    let closed = Incoming::Closed { code: Some(3001), reason: "shutdown".into() };
    assert_eq!(incoming(&mut socket), [Incoming::Opened, closed]);
    wire.give(&socket.poll_transmit().unwrap());
    assert!(matches!(server.read().unwrap(), Message::Close(Some(CloseFrame { .. }))));
    assert!(!socket.send(b"\0"));

    let mut socket = self::socket(Encoding::Json);
    let (wire, mut server, answer) = self::answer(&mut socket);
    socket.on_bytes(&answer).unwrap();
    socket.close(1000, "bye");
    socket.close(1000, "bye");
    assert!(!socket.send(b"{}"));
    wire.give(&socket.poll_transmit().unwrap());
    assert!(matches!(server.read().unwrap(), Message::Close(Some(frame)) if frame.reason == "bye"));
    server.flush().unwrap_or_default();
    socket.on_bytes(&wire.written()).unwrap();
    assert!(matches!(incoming(&mut socket).last(), Some(Incoming::Closed { code: Some(1000), .. })));
    assert_eq!(socket.poll_transmit(), None);
}

#[test]
fn the_gateways_own_codec_understands_it_and_is_understood() {
    for (encoding, subprotocol) in [(Encoding::Json, Subprotocol::Json), (Encoding::Protobuf, Subprotocol::Protobuf)] {
        let mut socket = socket(encoding);
        let request = socket.poll_transmit().unwrap();
        let Ok(Parse::Complete(head, head_bytes)) = parse_head(&request) else { panic!("no head") };
        assert_eq!(head_bytes, request.len());
        let upgrade = upgrade::check(&head, &OriginRule::default()).unwrap();
        assert_eq!(upgrade.encoding, subprotocol);

        let mut answer = Vec::new();
        upgrade::response(&upgrade, &mut answer);
        encoder::frame(Opcode::Text, b"{}", &mut answer);
        encoder::frame(Opcode::Ping, b"p", &mut answer);
        socket.on_bytes(&answer).unwrap();
        assert_eq!(incoming(&mut socket), [Incoming::Opened, Incoming::Frame(b"{}".to_vec())]);

        let long = "x".repeat(70_000);
        socket.send(long.as_bytes());
        socket.close(3000, &"é".repeat(100));
        let mut told = Vec::new();
        let limits = decoder::Limits { message_bytes_max: 100_000 };
        Decoder::default()
            .feed(&mut socket.poll_transmit().unwrap(), limits, |message| {
                told.push(match message {
                    decoder::Message::Text(text) => format!("frame {}", text == long),
                    decoder::Message::Binary(bytes) => format!("frame {}", bytes == long.as_bytes()),
                    other => format!("{other:?}"),
                });
                true
            })
            .unwrap();
        let close = format!("Close(Some(3000), \"{}\")", "é".repeat(61));
        assert_eq!(told, ["Pong([112])", "frame true", &close]);

        let mut close = Vec::new();
        ws::close::frame(3001, "shutdown", &mut close);
        socket.on_bytes(&close).unwrap();
        assert_eq!(incoming(&mut socket), [Incoming::Closed { code: Some(3001), reason: "shutdown".into() }]);
    }
}

#[track_caller]
fn refused(bytes: &[u8], expected: Trouble) {
    let mut socket = open();
    assert_eq!(socket.on_bytes(bytes), Err(expected), "{bytes:02x?}");
    assert_eq!(socket.on_bytes(b"\x81\x00"), Ok(()));
    assert_eq!(socket.poll_incoming(), None);
}

#[test]
fn what_no_server_may_send_is_refused() {
    refused(b"\xc1\x00", Trouble::BadFrame); // a reserved bit
    refused(b"\x81\x80\0\0\0\0", Trouble::BadFrame); // masked
    refused(b"\x83\x00", Trouble::BadFrame); // a reserved opcode
    refused(b"\x8b\x00", Trouble::BadFrame); // a reserved control opcode
    refused(b"\x80\x00", Trouble::BadFrame); // a continuation of nothing
    refused(b"\x01\x00\x81\x00", Trouble::BadFrame); // a message inside another
    refused(b"\x09\x00", Trouble::BadFrame); // a fragmented ping
    refused(b"\x89\x7e\x00\x7e", Trouble::BadFrame); // a long ping
    refused(b"\x88\x01\x03", Trouble::BadFrame); // half a code
    refused(b"\x88\x03\x03\xe8\xff", Trouble::BadFrame); // a reason that is no text
    refused(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", Trouble::TooLarge);
    refused(&[&b"\x81\x7f"[..], &(MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes()].concat(), Trouble::TooLarge);
}

#[test]
fn fragments_are_put_together_around_a_ping_and_bounded() {
    let mut socket = open();
    socket.on_bytes(b"\x01\x02ab\x89\x01p\x00\x01c\x80\x01d\x82\x01e").unwrap();
    assert_eq!(incoming(&mut socket), [Incoming::Frame(b"abcd".to_vec()), Incoming::Frame(b"e".to_vec())]);
    assert!(socket.poll_transmit().is_some_and(|pong| pong[0] == 0x8a));

    let half = MESSAGE_BYTES_MAX / 2 + 1;
    let fragment = [&[0x01, 127][..], &(half as u64).to_be_bytes(), &vec![b'x'; half]].concat();
    socket.on_bytes(&fragment).unwrap();
    let mut rest = fragment;
    rest[0] = 0x80;
    assert_eq!(socket.on_bytes(&rest), Err(Trouble::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_may_be_cut_anywhere(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let mut socket = socket(Encoding::Json);
        let (wire, mut server, mut bytes) = answer(&mut socket);
        for payload in &payloads {
            server.send(Message::binary(payload.clone())).unwrap();
        }
        bytes.extend(wire.written());
        let mut cuts = cuts.iter().cycle();
        while !bytes.is_empty() {
            let rest = bytes.split_off(bytes.len().min(*cuts.next().unwrap()));
            socket.on_bytes(&bytes).unwrap();
            bytes = rest;
        }
        let mut expected = vec![Incoming::Opened];
        expected.extend(payloads.into_iter().map(Incoming::Frame));
        prop_assert_eq!(incoming(&mut socket), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), opened in any::<bool>()) {
        let mut socket = if opened { open() } else { socket(Encoding::Json) };
        // Refused or not: only that it returns counts here.
        _ = socket.on_bytes(&bytes);
        _ = socket.on_bytes(&bytes);
    }

    #[test]
    fn a_masked_frame_holds_its_payload(payload in prop::collection::vec(any::<u8>(), 0..70_000), mask in any::<[u8; 4]>()) {
        let mut frame = Vec::new();
        masked_frame(2, &payload, mask, &mut frame);
        let tail = frame.split_off(frame.len() - payload.len());
        prop_assert_eq!(frame.last_chunk(), Some(&mask));
        prop_assert!(tail.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).eq(payload));
    }
}
