//! Golden texts and bytes of both encodings, what is refused, and that no bytes whatever make the decoder panic.

use proptest::prelude::*;

use super::batch::{decode, encode_push, encode_reply, ping, separator};
use super::*;

const LIMITS: DecodeLimits = DecodeLimits { json_depth_max: 16, commands_max: 8 };

fn commands<'a>(encoding: Encoding, frame: &'a [u8]) -> Result<Vec<Command<'a>>, BadFrame> {
    decode(encoding, frame, LIMITS).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Both spellings of one command.
#[track_caller]
fn check(json: &str, protobuf: &str, id: u32, method: Method<'_>) {
    let expected = Ok(vec![Command { id, method }]);
    assert_eq!(commands(Encoding::Json, json.as_bytes()), expected, "{json}");
    assert_eq!(commands(Encoding::Protobuf, &hex(protobuf)), expected, "{protobuf}");
}

#[test]
fn an_empty_command_is_a_pong() {
    check("{}", "00", 0, Method::Pong);
    check("{}\n", "00", 0, Method::Pong);
    check(r#"{"later":{"a":[1]}}"#, "04 ba0101 61", 0, Method::Pong);
    check(r#"{"id":null,"publish":null}"#, "02 0800", 0, Method::Pong);
}

#[test]
fn connect_is_read_with_the_positions_it_brings() {
    let connect = Connect {
        token: "t".into(),
        data: b"{}"[..].into(),
        name: "js".into(),
        version: "5".into(),
        subs: vec![("#7".into(), Recover { epoch: "e".into(), offset: 300 })],
    };
    check(
        r##"{"id":1,"connect":{"token":"t","data":{},"subs":{"#7":{"recover":true,"epoch":"e","offset":300},"a":{},"b":null},
            "name":"js","version":"5","headers":{"h":"v"},"flag":3}}"##
            .replace('\n', "")
            .as_str(),
        "31 0801 222d 0a0174 12027b7d 1a0e 0a022337 1208 1801 320165 38ac02 1a03 0a0161 22026a73 2a0135 3206 0a0168 120176 3803",
        1,
        Method::Connect(connect),
    );
    check(r#"{"id":1,"connect":{}}"#, "04 0801 2200", 1, Method::Connect(Connect::default()));
    let nulls = r#"{"id":1,"connect":{"token":null,"data":null,"subs":null,"name":null,"version":null}}"#;
    check(nulls, "04 0801 2200", 1, Method::Connect(Connect::default()));
}

#[test]
fn subscribe_is_read_with_every_wish() {
    let subscribe = Subscribe {
        channel: "news".into(),
        token: "t".into(),
        data: b"7"[..].into(),
        recover: Some(Recover { epoch: "e".into(), offset: u64::MAX }),
        positioned: true,
        recoverable: true,
        join_leave: true,
        delta: "fossil".into(),
        filtered: true,
        flag: -1,
        kind: 4,
    };
    check(
        r#"{"id":2,"subscribe":{"channel":"news","token":"t","data":7,"recover":true,"epoch":"e",
            "offset":18446744073709551615,"positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil",
            "tf":{"op":"and","nodes":[{"key":"k"}]},"flag":-1,"type":4,"phase":1,"cursor":"c"}}"#
            .replace('\n', "")
            .as_str(),
        "47 0802 2a43 0a046e657773 120174 1801 320165 38ffffffffffffffffff01 420137 4801 5001 5801 6206666f7373696c
         6a03 0a016f 70ffffffffffffffffff01 7804 800101 8a010163",
        2,
        Method::Subscribe(subscribe),
    );
    // A position without `recover` is none.
    let plain = Subscribe { channel: "news".into(), flag: 1, ..Subscribe::default() };
    check(
        r#"{"id":2,"subscribe":{"channel":"news","offset":5,"epoch":"e","flag":1,"tf":null}}"#,
        "11 0802 2a0d 0a046e657773 320165 3805 7001",
        2,
        Method::Subscribe(plain),
    );
}

#[test]
fn the_other_methods_are_read() {
    let channel = || Text::from("a");
    let data = || Data::from(&b"[1]"[..]);
    check(
        r#"{"id":3,"unsubscribe":{"channel":"a"}}"#,
        "07 0803 3203 0a0161",
        3,
        Method::Unsubscribe { channel: channel() },
    );
    check(
        r#"{"id":4294967295,"publish":{"channel":"a","data":[1],"type":1}}"#,
        "12 08ffffffff0f 3a0a 0a0161 12035b315d 1801",
        u32::MAX,
        Method::Publish { channel: channel(), data: data(), kind: 1 },
    );
    check(r#"{"id":5,"presence":{"channel":"a"}}"#, "07 0805 4203 0a0161", 5, Method::Presence { channel: channel() });
    check(
        r#"{"id":6,"presence_stats":{"channel":"a"}}"#,
        "07 0806 4a03 0a0161",
        6,
        Method::PresenceStats { channel: channel() },
    );
    check(
        r#"{"id":7,"history":{"channel":"a","limit":-1,"since":{"offset":9,"epoch":"e"},"reverse":true}}"#,
        "1b 0807 5217 0a0161 38ffffffffffffffffff01 4205 0809 120165 4801",
        7,
        Method::History(History {
            channel: channel(),
            limit: -1,
            since: Some(Recover { epoch: "e".into(), offset: 9 }),
            reverse: true,
        }),
    );
    check(r#"{"id":8,"ping":{}}"#, "04 0808 5a00", 8, Method::Ping);
    check(
        r#"{"id":9,"rpc":{"method":"a","data":[1]}}"#,
        "0c 0809 6a08 0a035b315d 120161",
        9,
        Method::Rpc { method: channel(), data: data() },
    );
    check(r#"{"send":{"data":[1]}}"#, "07 6205 0a035b315d", 0, Method::Send { data: data() });
    check(r#"{"id":9,"send":{"data":[1]}}"#, "09 0809 6205 0a035b315d", 0, Method::Send { data: data() });
    check(r#"{"id":10,"refresh":{"token":"a"}}"#, "07 080a 7203 0a0161", 10, Method::Refresh { token: channel() });
    check(
        r#"{"id":11,"sub_refresh":{"channel":"a","token":"t"}}"#,
        "0a 080b 7a06 0a0161 120174",
        11,
        Method::SubRefresh { channel: channel(), token: "t".into() },
    );
}

#[test]
fn of_several_methods_the_one_looked_for_first_counts() {
    check(
        r#"{"send":{},"presence":{},"unsubscribe":{},"id":1,"history":{}}"#,
        "0a 6200 4200 3200 0801 5200",
        1,
        Method::Unsubscribe { channel: "".into() },
    );
    check(
        r#"{"id":1,"send":{},"rpc":{}}"#,
        "06 0801 6200 6a00",
        1,
        Method::Rpc { method: "".into(), data: (&b""[..]).into() },
    );
}

#[test]
fn a_frame_holds_several_commands_in_order() {
    let ids = |encoding, frame: &[u8]| -> Vec<Result<u32, BadFrame>> {
        decode(encoding, frame, LIMITS).map(|command| command.map(|command| command.id)).collect()
    };
    let json = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\r\n{}\n";
    assert_eq!(ids(Encoding::Json, json), [Ok(1), Ok(2), Ok(0)]);
    assert_eq!(ids(Encoding::Protobuf, &hex("04 0801 2200 04 0802 2a00 00")), [Ok(1), Ok(2), Ok(0)]);

    // What stands before the fault is yielded, nothing behind it.
    assert_eq!(ids(Encoding::Json, b"{}\nx\n{}"), [Ok(0), Err(BadFrame::NotJson)]);
    assert_eq!(ids(Encoding::Json, b"{}\n\n{}"), [Ok(0), Err(BadFrame::NotJson)]);
    assert_eq!(ids(Encoding::Json, b"{}\n\n"), [Ok(0), Err(BadFrame::NotJson)]);
    assert_eq!(ids(Encoding::Protobuf, &hex("00 05 0801")), [Ok(0), Err(BadFrame::NotProtobuf)]);
    assert_eq!(ids(Encoding::Protobuf, &hex("00 02 0801 00")), [Ok(0), Err(BadFrame::NoMethod)]);

    assert_eq!(ids(Encoding::Protobuf, &[0; 8]), [Ok(0); 8]);
    assert_eq!(ids(Encoding::Protobuf, &[0; 9]).last(), Some(&Err(BadFrame::TooManyCommands)));
    assert_eq!(ids(Encoding::Json, "{}\n".repeat(8).as_bytes()), [Ok(0); 8]);
    assert_eq!(ids(Encoding::Json, "{}\n".repeat(9).as_bytes()).len(), 9);
    assert_eq!(ids(Encoding::Json, "{}\n".repeat(9).as_bytes()).last(), Some(&Err(BadFrame::TooManyCommands)));
}

#[test]
fn text_and_payloads_are_lent_from_the_frame() {
    let json = br#"{"id":1,"publish":{"channel":"caf\u00e9 a","data":{ "a" : 1 }}}"#;
    let plain = br#"{"id":1,"publish":{"channel":"cafe","data":{ "a" : 1 }}}"#;
    let protobuf = hex("0c 0801 3a08 0a0161 12035b315d");
    for (encoding, frame) in [(Encoding::Json, &plain[..]), (Encoding::Protobuf, &protobuf)] {
        let Method::Publish { channel: Text::Borrowed(_), data: Data::Borrowed(_), .. } =
            commands(encoding, frame).unwrap().remove(0).method
        else {
            panic!("{encoding:?} copies");
        };
    }
    let Method::Publish { channel, data, .. } = commands(Encoding::Json, json).unwrap().remove(0).method else {
        panic!("no publish");
    };
    assert_eq!((&*channel, &*data), ("café a", &b"{ \"a\" : 1 }"[..]));
}

#[test]
fn a_payload_is_kept_byte_for_byte_but_for_raw_newlines() {
    let data = |frame: &str| match commands(Encoding::Json, frame.as_bytes()).unwrap().remove(0).method {
        Method::Publish { data, .. } | Method::Rpc { data, .. } | Method::Send { data } => {
            String::from_utf8(data.into_owned()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        data(r#"{"id":1,"publish":{"data": {"z":1.50,"a":"\u0041\n","a":1e999} }}"#),
        r#"{"z":1.50,"a":"\u0041\n","a":1e999}"#
    );
    assert_eq!(data("{\"id\":1,\"publish\":{\"data\":[1,\r2]}}"), "[1,2]");
    assert_eq!(data(r#"{"id":1,"publish":{"data":null}}"#), "null");
    assert_eq!(data(r#"{"id":1,"rpc":{"data":null}}"#), "null");
    assert_eq!(data(r#"{"send":{"data":"x"}}"#), r#""x""#);
    assert_eq!(data(r#"{"id":1,"publish":{}}"#), "");
}

#[track_caller]
fn refused(encoding: Encoding, frame: &[u8], expected: BadFrame) {
    let mut commands = decode(encoding, frame, LIMITS);
    assert_eq!(commands.next(), Some(Err(expected)), "{}", frame.escape_ascii());
    assert_eq!(commands.next(), None);
}

#[test]
fn what_is_no_json_command_is_refused() {
    for frame in [
        "x",
        "null",
        "[]",
        "1",
        "\"a\"",
        "{",
        "{}{}",
        "{} x",
        r#"{"id":"1","connect":{}}"#,
        r#"{"id":1.0,"connect":{}}"#,
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":4294967296,"connect":{}}"#,
        r#"{"id":1,"connect":[]}"#,
        r#"{"id":1,"connect":["t",{}]}"#,
        r#"{"id":1,"connect":true}"#,
        r#"{"id":1,"connect":{"token":1}}"#,
        r#"{"id":1,"connect":{"subs":[]}}"#,
        r#"{"id":1,"connect":{"subs":{"a":1}}}"#,
        r#"{"id":1,"subscribe":{"channel":{}}}"#,
        r#"{"id":1,"subscribe":{"recover":"true"}}"#,
        r#"{"id":1,"subscribe":{"offset":-1}}"#,
        r#"{"id":1,"subscribe":{"offset":"1"}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":[1,]}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":01}}"#,
        r#"{"id":1,"publish":{"channel":"\ud800","data":1}}"#,
        r#"{"id":1,"presence":{},"publish":{"channel":7}}"#,
        r#"{"id":1,"ping":[]}"#,
        "{\"id\":1,\"publish\":{\"channel\":\"a\tb\"}}",
    ] {
        refused(Encoding::Json, frame.as_bytes(), BadFrame::NotJson);
    }
    refused(Encoding::Json, b"", BadFrame::Empty);
    refused(Encoding::Json, b"\n", BadFrame::Empty);
    refused(Encoding::Json, b"{\"a\":\"\xff\"}", BadFrame::NotUtf8);
    refused(Encoding::Json, br#"{"id":1}"#, BadFrame::NoMethod);
    refused(Encoding::Json, br#"{"id":1,"walk":{}}"#, BadFrame::NoMethod);
    refused(Encoding::Json, br#"{"id":1,"publish":null}"#, BadFrame::NoMethod);
    refused(Encoding::Json, br#"{"publish":{"channel":"a"}}"#, BadFrame::NoId);
    refused(Encoding::Json, br#"{"id":0,"connect":{}}"#, BadFrame::NoId);
}

#[test]
fn what_is_no_protobuf_command_is_refused() {
    for frame in [
        "01",                     // a length without its message
        "80",                     // half a length
        "ffffffffffffffffff01",   // a length beyond everything
        "ffffffffffffffffffff01", // a length of eleven bytes
        "02 0880",                // half an id
        "02 0a00",                // an id that is text
        "04 0801 3801",           // a publish that is a number
        "06 0801 3a05 0a0161",    // a publish longer than its message
        "06 0801 3a02 0801",      // a channel that is a number
        "04 0801 2b2c",           // a group
        "01 00",                  // field zero
    ] {
        refused(Encoding::Protobuf, &hex(frame), BadFrame::NotProtobuf);
    }
    refused(Encoding::Protobuf, b"", BadFrame::Empty);
    refused(Encoding::Protobuf, &hex("07 0801 3a03 0a01ff"), BadFrame::NotUtf8);
    refused(Encoding::Protobuf, &hex("02 0801"), BadFrame::NoMethod);
    refused(Encoding::Protobuf, &hex("02 3a00"), BadFrame::NoId);
}

#[test]
fn a_deep_command_is_refused_whatever_is_deep_in_it() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    // The command and the method are two levels.
    let publish = |levels| format!(r#"{{"id":1,"publish":{{"channel":"a","data":{}}}}}"#, deep(levels));
    assert!(commands(Encoding::Json, publish(14).as_bytes()).is_ok());
    refused(Encoding::Json, publish(15).as_bytes(), BadFrame::TooDeep);
    refused(Encoding::Json, publish(1_000_000).as_bytes(), BadFrame::TooDeep);
    refused(Encoding::Json, format!(r#"{{"later":{}}}"#, deep(16)).as_bytes(), BadFrame::TooDeep);
    refused(Encoding::Json, "[".repeat(1_000_000).as_bytes(), BadFrame::TooDeep);
    refused(Encoding::Json, "{\"a\":".repeat(1_000_000).as_bytes(), BadFrame::TooDeep);
    // Brackets in text are no depth, and many brackets side by side are none either.
    let wide =
        format!(r#"{{"id":1,"publish":{{"channel":"[[[[[[[[[[[[[[[[[[[[","data":[{}0]}}}}"#, "[[]],".repeat(100));
    assert!(commands(Encoding::Json, wide.as_bytes()).is_ok());

    // Where the operator allows any depth, skipping does not recurse.
    let limits = DecodeLimits { json_depth_max: u32::MAX, commands_max: 1 };
    let frame = publish(500_000);
    assert!(decode(Encoding::Json, frame.as_bytes(), limits).next().unwrap().is_ok());
    let frame = format!(r#"{{"id":1,"subscribe":{{"channel":"a","later":{0},"tf":{{"nodes":{0}}}}}}}"#, deep(500_000));
    assert!(decode(Encoding::Json, frame.as_bytes(), limits).next().unwrap().is_ok());
    let frame = format!(r#"{{"id":1,"subscribe":{}}}"#, "{\"tf\":".repeat(500_000));
    assert_eq!(decode(Encoding::Json, frame.as_bytes(), limits).next(), Some(Err(BadFrame::NotJson)));
}

#[track_caller]
fn check_reply(id: u32, reply: Reply<'_>, json: &str, protobuf: &str) {
    let mut out = Vec::new();
    encode_reply(Encoding::Json, id, &reply, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), json);
    let mut out = b"before".to_vec();
    encode_reply(Encoding::Protobuf, id, &reply, &mut out);
    assert_eq!(out.strip_prefix(b"before").unwrap(), hex(protobuf), "{json}");
}

#[track_caller]
fn check_push(channel: &str, push: Push<'_>, json: &str, protobuf: &str) {
    let mut out = Vec::new();
    encode_push(Encoding::Json, channel, &push, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), json);
    let mut out = b"before".to_vec();
    encode_push(Encoding::Protobuf, channel, &push, &mut out);
    assert_eq!(out.strip_prefix(b"before").unwrap(), hex(protobuf), "{json}");
}

#[test]
fn every_reply_has_its_golden_form() {
    check_reply(
        1,
        Reply::Error(Error::TooManyRequests),
        r#"{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}"#,
        "1b 0801 1217 086f 1211 746f6f206d616e79207265717565737473 1801",
    );
    check_reply(
        2,
        Reply::Error(Error::BadRequest),
        r#"{"id":2,"error":{"code":107,"message":"bad request"}}"#,
        "13 0802 120f 086b 120b 6261642072657175657374",
    );
    check_reply(1, Reply::Connect(Connected::default()), r#"{"id":1,"connect":{}}"#, "04 0801 2a00");
    check_reply(
        1,
        Reply::Connect(Connected {
            client: "c",
            version: "0.1",
            expires: true,
            ttl: 300,
            data: b"{}",
            ping: 25,
            pong: true,
            subs: vec![
                ("a", Subscribed::default()),
                ("b", Subscribed { was_recovering: true, ..Subscribed::default() }),
            ],
        }),
        r#"{"id":1,"connect":{"client":"c","version":"0.1","expires":true,"ttl":300,"data":{},"subs":{"a":{},"b":{"was_recovering":true}},"ping":25,"pong":true}}"#,
        "29 0801 2a25 0a0163 1203302e31 1801 20ac02 2a027b7d 3205 0a0161 1200 3207 0a0162 1202 6001 3819 4001",
    );
    check_reply(2, Reply::Subscribe(Subscribed::default()), r#"{"id":2,"subscribe":{}}"#, "04 0802 3200");
    check_reply(
        2,
        Reply::Subscribe(Subscribed { expires: true, ttl: 60, data: b"[1]", was_recovering: true }),
        r#"{"id":2,"subscribe":{"expires":true,"ttl":60,"data":[1],"was_recovering":true}}"#,
        "0f 0802 320b 0801 103c 5a035b315d 6001",
    );
    check_reply(7, Reply::Unsubscribe, r#"{"id":7,"unsubscribe":{}}"#, "04 0807 3a00");
    check_reply(7, Reply::Publish, r#"{"id":7,"publish":{}}"#, "04 0807 4200");
    check_reply(u32::MAX, Reply::Publish, r#"{"id":4294967295,"publish":{}}"#, "08 08ffffffff0f 4200");
    check_reply(8, Reply::Rpc { data: b"" }, r#"{"id":8,"rpc":{}}"#, "04 0808 6a00");
    check_reply(8, Reply::Rpc { data: b"[1]" }, r#"{"id":8,"rpc":{"data":[1]}}"#, "09 0808 6a05 0a035b315d");
    check_reply(
        9,
        Reply::Refresh { client: "c", version: "v", expires: true, ttl: 300 },
        r#"{"id":9,"refresh":{"client":"c","version":"v","expires":true,"ttl":300}}"#,
        "0f 0809 720b 0a0163 120176 1801 20ac02",
    );
    check_reply(
        9,
        Reply::SubRefresh { expires: true, ttl: 300 },
        r#"{"id":9,"sub_refresh":{"expires":true,"ttl":300}}"#,
        "09 0809 7a05 0801 10ac02",
    );
    check_reply(9, Reply::SubRefresh { expires: false, ttl: 0 }, r#"{"id":9,"sub_refresh":{}}"#, "04 0809 7a00");
}

#[test]
fn every_push_has_its_golden_form() {
    let plain = Publication { data: br#"{"a":1}"#, info: None, tags: &[], offset: 0 };
    let info = ClientInfo { user: "42", client: "c", conn_info: b"{}", chan_info: b"" };
    let anonymous = ClientInfo { user: "", client: "", conn_info: b"", chan_info: b"1" };
    check_push(
        "news",
        Push::Publication(plain.clone()),
        r#"{"push":{"channel":"news","pub":{"data":{"a":1}}}}"#,
        "13 2211 12046e657773 2209 2207 7b2261223a317d",
    );
    check_push(
        "news",
        Push::Publication(Publication { offset: 7, ..plain }),
        r#"{"push":{"channel":"news","pub":{"data":{"a":1},"offset":7}}}"#,
        "15 2213 12046e657773 220b 2207 7b2261223a317d 3007",
    );
    check_push(
        "a",
        Push::Publication(Publication { data: b"1", info: Some(info), tags: &[("k", "v"), ("\"", "")], offset: 300 }),
        r#"{"push":{"channel":"a","pub":{"data":1,"info":{"user":"42","client":"c","conn_info":{}},"offset":300,"tags":{"k":"v","\"":""}}}}"#,
        "27 2225 120161 2220 220131 2a0b 0a023432 120163 1a027b7d 30ac02 3a06 0a016b 120176 3a03 0a0122",
    );
    check_push(
        "news",
        Push::Join(info),
        r#"{"push":{"channel":"news","join":{"info":{"user":"42","client":"c","conn_info":{}}}}}"#,
        "17 2215 12046e657773 2a0d 0a0b 0a023432 120163 1a027b7d",
    );
    check_push(
        "news",
        Push::Leave(anonymous),
        r#"{"push":{"channel":"news","leave":{"info":{"user":"","client":"","chan_info":1}}}}"#,
        "0f 220d 12046e657773 3205 0a03 220131",
    );
    check_push(
        "news",
        Push::Unsubscribe { code: UnsubscribeCode::InsufficientState },
        r#"{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        "21 221f 12046e657773 3a17 10c413 1a12 696e73756666696369656e74207374617465",
    );
    check_push("", Push::Message { data: b"[1]" }, r#"{"push":{"message":{"data":[1]}}}"#, "09 2207 4205 0a035b315d");
    check_push("a", Push::Subscribe { data: b"" }, r#"{"push":{"channel":"a","subscribe":{}}}"#, "07 2205 120161 4a00");
    check_push(
        "a",
        Push::Subscribe { data: b"1" },
        r#"{"push":{"channel":"a","subscribe":{"data":1}}}"#,
        "0a 2208 120161 4a03 3a0131",
    );
    check_push(
        "",
        Push::Disconnect(Disconnect::Slow),
        r#"{"push":{"disconnect":{"code":3008,"reason":"slow","reconnect":true}}}"#,
        "0f 220d 5a0b 08c017 1204736c6f77 1801",
    );
    check_push(
        "",
        Push::Disconnect(Disconnect::Stale),
        r#"{"push":{"disconnect":{"code":3502,"reason":"stale"}}}"#,
        "0e 220c 5a0a 08ae1b 12057374616c65",
    );
}

#[test]
fn a_ping_is_an_empty_reply() {
    assert_eq!(ping(Encoding::Json), b"{}");
    assert_eq!(ping(Encoding::Protobuf), [0]);
    assert_eq!(separator(Encoding::Json), b"\n");
    assert_eq!(separator(Encoding::Protobuf), b"");
}

/// Frames that hold every method and every kind of field.
const JSON_FRAMES: [&str; 4] = [
    r#"{"id":1,"connect":{"token":"t","data":{"a":[null]},"subs":{"a":{"recover":true,"epoch":"e","offset":5}},"name":"js"}}"#,
    "{\"id\":2,\"subscribe\":{\"channel\":\"caf\\u00e9\",\"tf\":{\"op\":\"and\"},\"flag\":-1,\"type\":0,\"join_leave\":true}}\n{}",
    "{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":{\"b\":\"\\\"é\"},\"type\":0}}\n{\"send\":{\"data\":[1,2.5e3]}}\n",
    r#"{"id":4,"history":{"channel":"a","limit":-1,"since":{"offset":9,"epoch":"e"}},"rpc":{"method":"m","data":"x"}}"#,
];
const PROTOBUF_FRAMES: [&str; 3] = [
    "31 0801 222d 0a0174 12027b7d 1a0e 0a022337 1208 1801 320165 38ac02 1a03 0a0161 22026a73 2a0135 3206 0a0168 120176 3803",
    "47 0802 2a43 0a046e657773 120174 1801 320165 38ffffffffffffffffff01 420137 4801 5001 5801 6206666f7373696c
     6a03 0a016f 70ffffffffffffffffff01 7804 800101 8a010163 00",
    "1b 0807 5217 0a0161 38ffffffffffffffffff01 4205 0809 120165 4801 0c 0801 3a08 0a0161 12035b315d",
];

/// What holds for any bytes: the iterator ends, an error is its last item, and no payload of JSON is anything else.
fn any_frame(encoding: Encoding, frame: &[u8]) -> Result<(), TestCaseError> {
    let mut failed = false;
    let mut seen = 0;
    for command in decode(encoding, frame, LIMITS) {
        prop_assert!(!failed);
        seen += 1;
        match command {
            Err(_) => failed = true,
            Ok(Command { method: Method::Publish { data, .. } | Method::Send { data }, .. })
                if encoding == Encoding::Json && !data.is_empty() =>
            {
                prop_assert!(!data.contains(&b'\n'));
                let kept = validate_json(&data, LIMITS.json_depth_max);
                prop_assert_eq!(kept.as_deref(), Some(&*data));
            }
            Ok(_) => {}
        }
    }
    prop_assert!((1..=LIMITS.commands_max + 1).contains(&seen));
    Ok(())
}

/// Overwrites, removals and doublings of a valid frame.
fn mutated(mut frame: Vec<u8>, edits: &[(u8, prop::sample::Index, u8)]) -> Vec<u8> {
    for (kind, index, byte) in edits {
        if frame.is_empty() {
            break;
        }
        let at = index.index(frame.len());
        match kind % 4 {
            0 => frame[at] = *byte,
            1 => frame.truncate(at),
            2 => frame.insert(at, *byte),
            _ => {
                let tail = frame[at..].to_vec();
                frame.extend(tail);
            }
        }
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        any_frame(Encoding::Json, &frame)?;
        any_frame(Encoding::Protobuf, &frame)?;
    }

    #[test]
    fn mutated_json_never_panics(
        which in 0..JSON_FRAMES.len(),
        edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), prop_oneof![
            prop::sample::select(b"{}[]\",:\\0123456789.-null\n\r \x00\xff".to_vec()),
            any::<u8>(),
        ]), 1..6),
    ) {
        any_frame(Encoding::Json, &mutated(JSON_FRAMES[which].as_bytes().to_vec(), &edits))?;
    }

    #[test]
    fn mutated_protobuf_never_panics(
        which in 0..PROTOBUF_FRAMES.len(),
        edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        any_frame(Encoding::Protobuf, &mutated(hex(PROTOBUF_FRAMES[which]), &edits))?;
    }
}
