//! Bytes that no client should send: each kind has its close code, and the node goes on as if nothing had been.

use serde_json::json;

use crate::support::{Encoding, Message, Node, PATH, Socket, frame};

/// What the node says to these bytes behind a good upgrade.
fn check(node: &Node, bytes: &[u8], code: u16) {
    let mut socket = Socket::connect(node.address, PATH, "");
    socket.send_bytes(bytes);
    assert_eq!(socket.closed().0, code, "{}", bytes[..bytes.len().min(40)].escape_ascii());
}

#[test]
fn frames_against_the_rfc_end_in_1002() {
    let node = Node::open();
    let files = node.open_files();
    let reserved = |bit: u8| frame(0x81 | bit, b"{}");
    for bytes in [
        // Not masked.
        vec![0x81, 0x02, b'{', b'}'],
        reserved(0x40),
        reserved(0x20),
        reserved(0x10),
        // Opcodes that are none.
        frame(0x83, b"{}"),
        frame(0x8b, b"{}"),
        // Control frames in pieces, or too long.
        frame(0x09, b"{}"),
        frame(0x89, &[0; 126]),
        // A continuation of nothing, and a message within a message.
        frame(0x80, b"{}"),
        [frame(0x01, b"{"), frame(0x81, b"{}")].concat(),
        // Close codes that may not be sent.
        frame(0x88, &999_u16.to_be_bytes()),
        frame(0x88, &1005_u16.to_be_bytes()),
        frame(0x88, &[3]),
    ] {
        check(&node, &bytes, 1002);
    }
    node.is_clean(files);
}

#[test]
fn text_that_is_not_utf8_ends_in_1007() {
    let node = Node::open();
    check(&node, &frame(0x81, b"{\"a\":\"\xff\"}"), 1007);
    check(&node, &[frame(0x01, b"\xe2\x82"), frame(0x80, b"\x28")].concat(), 1007);
    check(&node, &frame(0x88, b"\x03\xe8\xff"), 1007);
}

#[test]
fn what_is_no_command_ends_in_3501() {
    let node = Node::open();
    for text in [
        &b""[..],
        b"\n",
        b"null",
        b"[]",
        b"1",
        b"{",
        b"{}{}",
        b"{\"id\":-1,\"connect\":{}}",
        b"{\"id\":4294967296,\"connect\":{}}",
        b"{\"id\":\"1\",\"connect\":{}}",
        b"{\"id\":1,\"connect\":[]}",
        b"{\"id\":1,\"connect\":{\"token\":1}}",
        b"{\"id\":1,\"connect\":{}}\n\n{}",
        b"\x00",
    ] {
        check(&node, &frame(0x81, text), 3501);
    }
    let mut binary = node.client(Encoding::Protobuf);
    for bytes in
        [&b""[..], b"\x05", b"\x02\x08", b"\x01\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x00\x00"]
    {
        binary.socket.send(&Message::Binary(bytes.to_vec()));
        assert_eq!(binary.close_code(), 3501, "{}", bytes.escape_ascii());
        binary = node.client(Encoding::Protobuf);
    }
}

#[test]
fn garbage_of_any_kind_gets_an_end_and_leaves_nothing() {
    let node = Node::open();
    let files = node.open_files();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut witness = node.connected(Encoding::Json);
    witness.subscribe("room");
    for round in 0..300 {
        let length = random(300) as usize + 1;
        let noise: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
        let mut socket = Socket::open(node.address);
        match round % 4 {
            // Instead of a request, instead of a frame, within a frame, and within a frame after connect.
            0 => socket.send_bytes([&noise[..], b"\r\n\r\n"].concat()),
            kind => {
                assert_eq!(socket.upgrade(PATH, "").status, 101);
                match kind {
                    1 => socket.send_bytes(&noise),
                    2 => socket.send_frame(0x82, &noise),
                    _ => {
                        socket.send(&Message::Text(json!({ "id": 1, "connect": {} }).to_string()));
                        socket.send_frame(0x82, &noise);
                    }
                }
            }
        }
        // Some noise begins a frame that never ends.
        socket.send(&Message::End);
        if round % 4 != 0 {
            socket.rest();
        }
    }
    witness.publish("room", json!("still here"));
    assert_eq!(witness.publication("room")["data"], "still here");
    witness.leave();
    node.is_clean(files);
}
