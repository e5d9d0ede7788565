//! The client against a scripted server, and its codec against the server's: each encodes what the other decodes.

mod codec;
mod socket;

use super::*;
use crate::protocol::{
    ClientInfo, Connected, Disconnect, Error, Publication, Push, Reply, Subscribed, UnsubscribeCode,
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

/// A client, and the server's hand.
struct Pair {
    client: Client,
    encoding: Encoding,
}

impl Pair {
    fn new(encoding: Encoding) -> Self {
        let options = Options { encoding, token: "t".into(), name: "skein".into() };
        Pair { client: Client::new(options), encoding }
    }

    fn connected(encoding: Encoding) -> Self {
        let mut pair = Pair::new(encoding);
        let id = pair.client.connect_request();
        pair.client.poll_transmit().unwrap();
        let result = Connected { client: "c", version: "1", ping: 25, pong: true, ..Connected::default() };
        let events = pair.reply(id, Reply::Connect(result));
        assert_eq!(events, [Event::Connected { client: "c".into(), version: "1".into(), ping: 25, pong: true }]);
        pair
    }

    fn reply(&mut self, id: u32, reply: Reply<'_>) -> Vec<Event> {
        let mut frame = Vec::new();
        batch::encode_reply(self.encoding, id, &reply, &mut frame);
        self.frame(&frame)
    }

    fn push(&mut self, channel: &str, push: Push<'_>) -> Vec<Event> {
        let mut frame = Vec::new();
        batch::encode_push(self.encoding, channel, &push, &mut frame);
        self.frame(&frame)
    }

    fn frame(&mut self, frame: &[u8]) -> Vec<Event> {
        self.client.on_frame(frame).unwrap();
        self.events()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

#[test]
fn commands_queued_before_the_answer_follow_connect_in_one_frame() {
    let mut pair = Pair::new(Encoding::Json);
    assert_eq!(pair.client.connect_request(), 1);
    assert_eq!(pair.client.subscribe("a"), Ok(2));
    assert_eq!(pair.client.publish("a", b"[1]"), Ok(3));
    assert_eq!(
        String::from_utf8(pair.client.poll_transmit().unwrap()).unwrap(),
        "{\"id\":1,\"connect\":{\"token\":\"t\",\"name\":\"skein\"}}\n\
         {\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n\
         {\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":[1]}}"
    );
    assert_eq!(pair.client.poll_transmit(), None);
}

#[test]
fn many_commands_are_spread_over_frames_that_servers_accept() {
    for encoding in ENCODINGS {
        let mut pair = Pair::connected(encoding);
        let long = format!("\"{}\"", "x".repeat(20_000));
        for _ in 0..40 {
            pair.client.publish("a", b"1").unwrap();
        }
        for _ in 0..4 {
            pair.client.publish("a", long.as_bytes()).unwrap();
        }
        let limits = crate::protocol::DecodeLimits { json_depth_max: 8, commands_max: 16 };
        let mut ids = Vec::new();
        while let Some(frame) = pair.client.poll_transmit() {
            assert!(frame.len() <= FRAME_BYTES_FULL + 1);
            ids.extend(batch::decode(encoding, &frame, limits).map(|command| command.unwrap().id));
        }
        assert!(ids.into_iter().eq(2..46));
    }
}

#[test]
fn every_answer_becomes_the_event_of_its_question() {
    for encoding in ENCODINGS {
        let mut pair = Pair::connected(encoding);
        let subscribe = pair.client.subscribe("a").unwrap();
        let denied = pair.client.subscribe_with_token("b", "t").unwrap();
        let publish = pair.client.publish("a", b"1").unwrap();
        let refused = pair.client.publish("a", b"1").unwrap();
        let rpc = pair.client.rpc("m", b"1").unwrap();
        let unsubscribe = pair.client.unsubscribe("a").unwrap();
        let refresh = pair.client.refresh("t").unwrap();
        assert_eq!(pair.client.pending(), 7);

        assert_eq!(pair.reply(publish, Reply::Publish), [Event::Published { id: publish }]);
        assert_eq!(
            pair.reply(subscribe, Reply::Subscribe(Subscribed::default())),
            [Event::Subscribed { channel: "a".into() }]
        );
        assert_eq!(
            pair.reply(denied, Reply::Error(Error::PermissionDenied)),
            [Event::SubscribeError {
                channel: "b".into(),
                code: 103,
                message: "permission denied".into(),
                temporary: false
            }]
        );
        assert_eq!(
            pair.reply(refused, Reply::Error(Error::TooManyRequests)),
            [Event::Error { id: refused, code: 111, message: "too many requests".into(), temporary: true }]
        );
        assert_eq!(pair.reply(rpc, Reply::Rpc { data: b"[2]" }), [Event::Answered { id: rpc, data: b"[2]".to_vec() }]);
        assert_eq!(pair.reply(unsubscribe, Reply::Unsubscribe), [Event::Unsubscribed { channel: "a".into(), code: 0 }]);
        assert_eq!(
            pair.reply(refresh, Reply::Refresh { client: "c", version: "", expires: true, ttl: 1 }),
            [Event::Answered { id: refresh, data: Vec::new() }]
        );
        assert_eq!(pair.client.pending(), 0);
    }
}

#[test]
fn every_push_becomes_an_event() {
    let info = ClientInfo { user: "42", client: "c", conn_info: b"{}", chan_info: b"" };
    let told = Info { user: "42".into(), client: "c".into(), conn_info: b"{}".to_vec(), chan_info: Vec::new() };
    for encoding in ENCODINGS {
        let mut pair = Pair::connected(encoding);
        let publication = Publication { data: b"[1]", info: Some(info), tags: &[("k", "v")], offset: 7 };
        assert_eq!(
            pair.push("a", Push::Publication(publication)),
            [Event::Publication {
                channel: "a".into(),
                data: b"[1]".to_vec(),
                info: Some(told.clone()),
                offset: 7,
                tags: [("k".into(), "v".into())].into(),
            }]
        );
        assert_eq!(pair.push("a", Push::Join(info)), [Event::Joined { channel: "a".into(), info: told.clone() }]);
        assert_eq!(pair.push("a", Push::Leave(info)), [Event::Left { channel: "a".into(), info: told.clone() }]);
        assert_eq!(pair.push("", Push::Message { data: b"1" }), [Event::Message { data: b"1".to_vec() }]);
        assert_eq!(pair.push("a", Push::Subscribe { data: b"" }), [Event::Subscribed { channel: "a".into() }]);
        assert_eq!(
            pair.push("a", Push::Unsubscribe { code: UnsubscribeCode::InsufficientState }),
            [Event::Unsubscribed { channel: "a".into(), code: 2500 }]
        );
        assert_eq!(
            pair.push("", Push::Disconnect(Disconnect::Stale)),
            [Event::Disconnected { code: 3502, reason: "stale".into(), reconnect: false }]
        );
        // Nothing comes after that.
        assert_eq!(pair.push("", Push::Message { data: b"1" }), []);
    }
}

#[test]
fn pings_are_answered_once_connected() {
    for encoding in ENCODINGS {
        let mut pair = Pair::connected(encoding);
        let mut frame = batch::ping(encoding).to_vec();
        frame.extend_from_slice(batch::separator(encoding));
        batch::encode_push(encoding, "", &Push::Message { data: b"1" }, &mut frame);
        assert_eq!(pair.frame(&frame), [Event::Message { data: b"1".to_vec() }]);
        assert_eq!(pair.client.poll_transmit().as_deref(), Some(batch::ping(encoding)));
        assert_eq!(pair.client.poll_transmit(), None);

        // A server that wants no pongs gets none.
        let mut pair = Pair::new(encoding);
        let id = pair.client.connect_request();
        pair.client.poll_transmit().unwrap();
        let subs = vec![("#1", Subscribed::default())];
        let events = pair.reply(id, Reply::Connect(Connected { client: "c", ping: 25, subs, ..Connected::default() }));
        assert_eq!(events.last(), Some(&Event::Subscribed { channel: "#1".into() }));
        pair.frame(batch::ping(encoding));
        assert_eq!(pair.client.poll_transmit(), None);
    }
}

#[test]
fn a_refused_connect_and_a_close_are_told() {
    let mut pair = Pair::new(Encoding::Json);
    let id = pair.client.connect_request();
    assert_eq!(
        pair.reply(id, Reply::Error(Error::TokenExpired)),
        [Event::Error { id, code: 109, message: "token expired".into(), temporary: false }]
    );
    assert!(!pair.client.connected());
    for (code, expected, reconnect) in [
        (Some(3001), 3001, true),
        (Some(3501), 3501, false),
        (Some(1000), 1000, true),
        (None, 1006, true),
        (Some(4500), 4500, false),
    ] {
        let mut pair = Pair::connected(Encoding::Json);
        pair.client.subscribe("a").unwrap();
        pair.client.on_close(code, "why");
        pair.client.on_close(Some(1000), "again");
        assert_eq!(pair.events(), [Event::Disconnected { code: expected, reason: "why".into(), reconnect }]);
        assert_eq!(pair.client.poll_transmit(), None);
    }
}

#[test]
fn what_is_no_frame_or_answers_nothing_ends_the_connection() {
    let unasked = b"{\"id\":9,\"publish\":{}}";
    for (frame, expected) in [
        (&b"x"[..], BadFrame::NotDecodable),
        (b"", BadFrame::NotDecodable),
        (b"{}\n\n{}", BadFrame::NotDecodable),
        (b"\xff", BadFrame::NotDecodable),
        (unasked, BadFrame::UnknownReply),
    ] {
        let mut pair = Pair::connected(Encoding::Json);
        assert_eq!(pair.client.on_frame(frame), Err(expected));
        assert!(matches!(pair.client.poll_event(), Some(Event::Disconnected { .. })));
        assert_eq!(pair.client.on_frame(frame), Ok(()));
    }
    let mut pair = Pair::connected(Encoding::Json);
    pair.client.subscribe("a").unwrap();
    assert_eq!(pair.client.on_frame(b"{\"id\":2,\"publish\":{}}"), Err(BadFrame::UnknownReply));
    let mut pair = Pair::connected(Encoding::Protobuf);
    assert_eq!(pair.client.on_frame(&[5, 1]), Err(BadFrame::NotDecodable));
}

#[test]
fn commands_that_cannot_be_sent_are_refused_and_leave_no_trace() {
    let mut pair = Pair::connected(Encoding::Json);
    assert_eq!(pair.client.publish("a", b"{"), Err(Refused::NotJson));
    assert_eq!(pair.client.publish("a", b"\xff"), Err(Refused::NotJson));
    assert_eq!((pair.client.pending(), pair.client.poll_transmit()), (0, None));
    assert_eq!(Pair::connected(Encoding::Protobuf).client.publish("a", b"{\xff"), Ok(2));

    for _ in 0..PENDING_MAX {
        pair.client.publish("a", b"1").unwrap();
    }
    assert_eq!(pair.client.publish("a", b"1"), Err(Refused::Full));
    // What was sent still waits for its reply.
    while pair.client.poll_transmit().is_some() {}
    assert_eq!(pair.client.publish("a", b"1"), Err(Refused::Full));
    assert_eq!(pair.reply(2, Reply::Publish), [Event::Published { id: 2 }]);
    assert!(pair.client.publish("a", b"1").is_ok());
}
