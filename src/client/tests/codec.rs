//! Round trips between two codecs that share no code: this client's and the server's.

use std::borrow::Cow;

use proptest::prelude::*;
use prost::Message;

use super::super::*;
use super::ENCODINGS;
use crate::protocol::{
    ClientInfo, Command, Connected, Data, DecodeLimits, Disconnect, Error, History, Publication, Push, Recover, Reply,
    Subscribed, Text, UnsubscribeCode, validate_json,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z:#$]{0,12}", any::<String>()]
}

/// One JSON value as another writer would write it, or nothing.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        text().prop_map(|text| serde_json::to_vec(&text).unwrap()),
        (text(), any::<f64>())
            .prop_map(|(key, number)| format!("{{ {} : [ {number:?}, null]}}", serde_json::json!(key)))
            .prop_filter("finite", |json| !json.contains("inf") && !json.contains("NaN"))
            .prop_map(String::into_bytes),
    ]
}

fn position() -> impl Strategy<Value = Recover<'static>> {
    (text(), any::<u64>()).prop_map(|(epoch, offset)| Recover { epoch: epoch.into(), offset })
}

fn connect() -> impl Strategy<Value = Method<'static>> {
    let subs = prop::collection::btree_map(text(), position(), 0..4);
    (text(), payload(), text(), text(), subs).prop_map(|(token, data, name, version, subs)| {
        Method::Connect(Connect {
            token: token.into(),
            data: some(data),
            name: name.into(),
            version: version.into(),
            subs: subs.into_iter().map(|(channel, position)| (channel.into(), position)).collect(),
        })
    })
}

fn subscribe() -> impl Strategy<Value = Method<'static>> {
    let wishes = any::<[bool; 4]>();
    (text(), text(), payload(), prop::option::of(position()), wishes, text(), any::<(i64, i32)>()).prop_map(
        |(channel, token, data, recover, [positioned, recoverable, join_leave, filtered], delta, (flag, kind))| {
            Method::Subscribe(Subscribe {
                channel: channel.into(),
                token: token.into(),
                data: some(data),
                recover,
                positioned,
                recoverable,
                join_leave,
                delta: delta.into(),
                filtered,
                flag,
                kind,
            })
        },
    )
}

/// In connect and subscribe `null` stands for no payload.
fn some(data: Vec<u8>) -> Data<'static> {
    Cow::Owned(if data == b"null" { Vec::new() } else { data })
}

fn method() -> impl Strategy<Value = Method<'static>> {
    let texts = || (text().prop_map(Text::from), text().prop_map(Text::from));
    let data = || payload().prop_map(Data::from);
    prop_oneof![
        Just(Method::Pong),
        Just(Method::Ping),
        connect(),
        subscribe(),
        text().prop_map(|channel| Method::Unsubscribe { channel: channel.into() }),
        (text(), data(), any::<i32>()).prop_map(|(channel, data, kind)| Method::Publish {
            channel: channel.into(),
            data,
            kind
        }),
        text().prop_map(|channel| Method::Presence { channel: channel.into() }),
        text().prop_map(|channel| Method::PresenceStats { channel: channel.into() }),
        (text(), any::<i32>(), prop::option::of(position()), any::<bool>()).prop_map(
            |(channel, limit, since, reverse)| Method::History(History {
                channel: channel.into(),
                limit,
                since,
                reverse
            })
        ),
        (text(), data()).prop_map(|(method, data)| Method::Rpc { method: method.into(), data }),
        data().prop_map(|data| Method::Send { data }),
        text().prop_map(|token| Method::Refresh { token: token.into() }),
        texts().prop_map(|(channel, token)| Method::SubRefresh { channel, token }),
    ]
}

/// Owned parts of what the server says; `Reply` and `Push` borrow them.
#[derive(Clone, Debug)]
struct Parts {
    texts: [String; 4],
    data: [Vec<u8>; 3],
    tags: BTreeMap<String, String>,
    subs: BTreeMap<String, (bool, u32, Vec<u8>, bool)>,
    numbers: (u32, u32, u64),
    truths: [bool; 3],
}

fn parts() -> impl Strategy<Value = Parts> {
    let subscribed = (any::<bool>(), any::<u32>(), payload(), any::<bool>());
    (
        [text(), text(), text(), text()],
        [payload(), payload(), payload()],
        prop::collection::btree_map(text(), text(), 0..4),
        prop::collection::btree_map(text(), subscribed, 0..4),
        any::<(u32, u32, u64)>(),
        any::<[bool; 3]>(),
    )
        .prop_map(|(texts, data, tags, subs, numbers, truths)| Parts { texts, data, tags, subs, numbers, truths })
}

const ERRORS: [Error; 13] = [
    Error::Internal,
    Error::Unauthorized,
    Error::UnknownChannel,
    Error::PermissionDenied,
    Error::MethodNotFound,
    Error::AlreadySubscribed,
    Error::LimitExceeded,
    Error::BadRequest,
    Error::NotAvailable,
    Error::TokenExpired,
    Error::Expired,
    Error::TooManyRequests,
    Error::UnrecoverablePosition,
];

/// What the server would say, and the same as this client's own table has it.
fn replies(parts: &Parts) -> Vec<(Reply<'_>, schema::Reply)> {
    let Parts { texts: [client, version, ..], data: [data, ..], subs, numbers: (ttl, ping, _), truths, .. } = parts;
    let [expires, pong, was_recovering] = *truths;
    let (ttl, ping) = (*ttl, *ping);
    let subscribed = Subscribed { expires, ttl, data, was_recovering };
    let subscribe_result = |it: &Subscribed<'_>| schema::SubscribeResult {
        expires: it.expires,
        ttl: it.ttl,
        data: it.data.to_vec(),
        was_recovering: it.was_recovering,
    };
    let server_side = subs.iter().map(|(channel, (expires, ttl, data, was_recovering))| {
        (&channel[..], Subscribed { expires: *expires, ttl: *ttl, data, was_recovering: *was_recovering })
    });
    let connected = Connected { client, version, expires, ttl, data, ping, pong, subs: server_side.collect() };
    let connect_result = schema::ConnectResult {
        client: client.clone(),
        version: version.clone(),
        expires,
        ttl,
        data: data.clone(),
        subs: connected.subs.iter().map(|(channel, it)| (channel.to_string(), subscribe_result(it))).collect(),
        ping,
        pong,
    };
    let refresh_result = schema::RefreshResult { client: client.clone(), version: version.clone(), expires, ttl };
    let none = schema::Reply::default;
    let mut all = vec![
        (
            Reply::Subscribe(subscribed.clone()),
            schema::Reply { subscribe: Some(subscribe_result(&subscribed)), ..none() },
        ),
        (Reply::Connect(connected), schema::Reply { connect: Some(connect_result), ..none() }),
        (Reply::Unsubscribe, schema::Reply { unsubscribe: Some(schema::Empty {}), ..none() }),
        (Reply::Publish, schema::Reply { publish: Some(schema::Empty {}), ..none() }),
        (Reply::Rpc { data }, schema::Reply { rpc: Some(schema::RpcResult { data: data.clone() }), ..none() }),
        (Reply::Refresh { client, version, expires, ttl }, schema::Reply { refresh: Some(refresh_result), ..none() }),
        (
            Reply::SubRefresh { expires, ttl },
            schema::Reply { sub_refresh: Some(schema::SubRefreshResult { expires, ttl }), ..none() },
        ),
    ];
    all.extend(ERRORS.map(|error| {
        let (code, message, temporary) = (error.code(), error.message().to_owned(), error.temporary());
        (Reply::Error(error), schema::Reply { error: Some(schema::Error { code, message, temporary }), ..none() })
    }));
    all
}

fn pushes<'a>(parts: &'a Parts, tags: &'a [(&'a str, &'a str)]) -> Vec<(Push<'a>, schema::Push)> {
    let Parts { texts: [user, client, ..], data: [data, conn_info, chan_info], numbers: (.., offset), .. } = parts;
    let info = ClientInfo { user, client, conn_info, chan_info };
    let told = schema::ClientInfo {
        user: user.clone(),
        client: client.clone(),
        conn_info: conn_info.clone(),
        chan_info: chan_info.clone(),
    };
    let with_info = parts.truths[0];
    let publication = Publication { data, info: with_info.then_some(info), tags, offset: *offset };
    let told_publication = schema::Publication {
        data: data.clone(),
        info: with_info.then(|| told.clone()),
        offset: *offset,
        tags: parts.tags.clone(),
    };
    let join_or_leave = Some(schema::JoinOrLeave { info: Some(told) });
    let none = schema::Push::default;
    let mut all = vec![
        (Push::Publication(publication), schema::Push { publication: Some(told_publication), ..none() }),
        (Push::Join(info), schema::Push { join: join_or_leave.clone(), ..none() }),
        (Push::Leave(info), schema::Push { leave: join_or_leave, ..none() }),
        (
            Push::Message { data },
            schema::Push { message: Some(schema::PushedMessage { data: data.clone() }), ..none() },
        ),
        (
            Push::Subscribe { data },
            schema::Push { subscribe: Some(schema::PushedSubscribe { data: data.clone() }), ..none() },
        ),
    ];
    let codes = [
        UnsubscribeCode::Server,
        UnsubscribeCode::InsufficientState,
        UnsubscribeCode::Expired,
        UnsubscribeCode::StateInvalidated,
    ];
    all.extend(codes.map(|code| {
        let unsubscribe = Some(schema::Unsubscribe { code: code.code(), reason: code.reason().to_owned() });
        (Push::Unsubscribe { code }, schema::Push { unsubscribe, ..none() })
    }));
    all.extend(Disconnect::ALL.map(|it| {
        let (code, reason) = (u32::from(it.code()), it.reason().to_owned());
        let disconnect = Some(schema::Disconnect { code, reason, reconnect: code < 3500 });
        (Push::Disconnect(it), schema::Push { disconnect, ..none() })
    }));
    all
}

/// Our own bytes are those of prost to the last one, and our JSON is one line that means the same.
fn same(encoding: Encoding, ours: &[u8], expected: schema::Reply) -> Result<(), TestCaseError> {
    match encoding {
        Encoding::Json => {
            prop_assert!(validate_json(ours, 16).is_some_and(|kept| kept == ours), "{}", ours.escape_ascii());
            prop_assert!(serde_json::from_slice::<serde_json::Value>(ours).unwrap().is_object());
        }
        Encoding::Protobuf => prop_assert_eq!(ours, expected.encode_length_delimited_to_vec()),
    }
    prop_assert_eq!(schema::decode_replies(encoding, ours), Some(vec![expected]));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_command_that_the_client_encodes_is_what_the_server_decodes(
        methods in prop::collection::vec((1..u32::MAX, method()), 1..5),
    ) {
        for encoding in ENCODINGS {
            let mut frame = Vec::new();
            let mut expected = Vec::new();
            for (id, method) in &methods {
                let id = if matches!(method, Method::Send { .. } | Method::Pong) { 0 } else { *id };
                if !frame.is_empty() {
                    frame.extend_from_slice(batch::separator(encoding));
                }
                schema::encode_command(encoding, id, method, &mut frame).unwrap();
                expected.push(Ok(Command { id, method: method.clone() }));
            }
            let limits = DecodeLimits { json_depth_max: 8, commands_max: 5 };
            prop_assert_eq!(batch::decode(encoding, &frame, limits).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_reply_that_the_server_encodes_is_what_the_client_decodes(id in 1u32.., parts in parts()) {
        for encoding in ENCODINGS {
            for (reply, expected) in replies(&parts) {
                let mut ours = Vec::new();
                batch::encode_reply(encoding, id, &reply, &mut ours);
                same(encoding, &ours, schema::Reply { id, ..expected })?;
            }
        }
    }

    #[test]
    fn a_push_that_the_server_encodes_is_what_the_client_decodes(parts in parts()) {
        let tags: Vec<(&str, &str)> = parts.tags.iter().map(|(tag, value)| (&tag[..], &value[..])).collect();
        let channel = parts.texts[3].clone();
        for encoding in ENCODINGS {
            for (push, expected) in pushes(&parts, &tags) {
                let mut ours = Vec::new();
                batch::encode_push(encoding, &channel, &push, &mut ours);
                let push = Some(schema::Push { channel: channel.clone(), ..expected });
                same(encoding, &ours, schema::Reply { push, ..Default::default() })?;
            }
        }
    }

    #[test]
    fn no_bytes_from_a_server_make_the_client_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4),
        commands in prop::collection::vec(method(), 0..3),
    ) {
        for encoding in ENCODINGS {
            let mut client = Client::new(Options { encoding, token: String::new(), name: String::new() });
            client.connect_request();
            for command in &commands {
                prop_assert!(client.ask(command).is_ok());
            }
            for frame in &frames {
                // Refused or not: only that it returns counts here.
                _ = client.on_frame(frame);
            }
            prop_assert!(client.pending() <= 4);
        }
    }
}
