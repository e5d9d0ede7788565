//! The protocol as a table: each message once, its names for JSON and its numbers for Protobuf.
//!
//! serde and prost do the rest. Plain owned values, for a client that handles few messages; the server's codec is
//! `protocol`.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::protocol::{Encoding, Method, Recover, Subscribe};

/// A payload that cannot stand in a JSON message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotJson;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$attribute:meta])* $field:ident: $type:ty = $tag:tt $($kind:ident)+ $(($($argument:tt)*))?;)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
            #[serde(default)]
            pub struct $name {
                $(
                    $(#[$attribute])*
                    #[serde(skip_serializing_if = "is_default")]
                    #[prost($($kind),+ $(= $($argument)*)?, tag = $tag)]
                    pub $field: $type,
                )*
            }
        )*
    };
}

messages! {
    Command {
        id: u32 = "1" uint32;
        connect: Option<ConnectRequest> = "4" message optional;
        subscribe: Option<SubscribeRequest> = "5" message optional;
        unsubscribe: Option<ChannelRequest> = "6" message optional;
        publish: Option<PublishRequest> = "7" message optional;
        presence: Option<ChannelRequest> = "8" message optional;
        presence_stats: Option<ChannelRequest> = "9" message optional;
        history: Option<HistoryRequest> = "10" message optional;
        ping: Option<Empty> = "11" message optional;
        send: Option<SendRequest> = "12" message optional;
        rpc: Option<RpcRequest> = "13" message optional;
        refresh: Option<RefreshRequest> = "14" message optional;
        sub_refresh: Option<SubRefreshRequest> = "15" message optional;
    }

    ConnectRequest {
        token: String = "1" string;
        #[serde(with = "raw")]
        data: Vec<u8> = "2" bytes ("vec");
        subs: BTreeMap<String, SubscribeRequest> = "3" btree_map ("string, message");
        name: String = "4" string;
        version: String = "5" string;
    }

    SubscribeRequest {
        channel: String = "1" string;
        token: String = "2" string;
        recover: bool = "3" bool;
        epoch: String = "6" string;
        offset: u64 = "7" uint64;
        #[serde(with = "raw")]
        data: Vec<u8> = "8" bytes ("vec");
        positioned: bool = "9" bool;
        recoverable: bool = "10" bool;
        join_leave: bool = "11" bool;
        delta: String = "12" string;
        #[serde(rename = "tf")]
        filter: Option<FilterNode> = "13" message optional;
        flag: i64 = "14" int64;
        #[serde(rename = "type")]
        kind: i32 = "15" int32;
    }

    /// Only as much as shows that there is one.
    FilterNode {
        op: String = "1" string;
        key: String = "2" string;
    }

    /// Unsubscribe, presence and presence stats ask alike.
    ChannelRequest {
        channel: String = "1" string;
    }

    PublishRequest {
        channel: String = "1" string;
        #[serde(with = "raw")]
        data: Vec<u8> = "2" bytes ("vec");
        #[serde(rename = "type")]
        kind: i32 = "3" int32;
    }

    HistoryRequest {
        channel: String = "1" string;
        limit: i32 = "7" int32;
        since: Option<StreamPosition> = "8" message optional;
        reverse: bool = "9" bool;
    }

    StreamPosition {
        offset: u64 = "1" uint64;
        epoch: String = "2" string;
    }

    SendRequest {
        #[serde(with = "raw")]
        data: Vec<u8> = "1" bytes ("vec");
    }

    RpcRequest {
        #[serde(with = "raw")]
        data: Vec<u8> = "1" bytes ("vec");
        method: String = "2" string;
    }

    RefreshRequest {
        token: String = "1" string;
    }

    SubRefreshRequest {
        channel: String = "1" string;
        token: String = "2" string;
    }

    Empty {}

    Reply {
        id: u32 = "1" uint32;
        error: Option<Error> = "2" message optional;
        push: Option<Push> = "4" message optional;
        connect: Option<ConnectResult> = "5" message optional;
        subscribe: Option<SubscribeResult> = "6" message optional;
        unsubscribe: Option<Empty> = "7" message optional;
        publish: Option<Empty> = "8" message optional;
        rpc: Option<RpcResult> = "13" message optional;
        refresh: Option<RefreshResult> = "14" message optional;
        sub_refresh: Option<SubRefreshResult> = "15" message optional;
    }

    Error {
        code: u32 = "1" uint32;
        message: String = "2" string;
        temporary: bool = "3" bool;
    }

    ConnectResult {
        client: String = "1" string;
        version: String = "2" string;
        expires: bool = "3" bool;
        ttl: u32 = "4" uint32;
        #[serde(with = "raw")]
        data: Vec<u8> = "5" bytes ("vec");
        subs: BTreeMap<String, SubscribeResult> = "6" btree_map ("string, message");
        ping: u32 = "7" uint32;
        pong: bool = "8" bool;
    }

    SubscribeResult {
        expires: bool = "1" bool;
        ttl: u32 = "2" uint32;
        #[serde(with = "raw")]
        data: Vec<u8> = "11" bytes ("vec");
        was_recovering: bool = "12" bool;
    }

    RpcResult {
        #[serde(with = "raw")]
        data: Vec<u8> = "1" bytes ("vec");
    }

    RefreshResult {
        client: String = "1" string;
        version: String = "2" string;
        expires: bool = "3" bool;
        ttl: u32 = "4" uint32;
    }

    SubRefreshResult {
        expires: bool = "1" bool;
        ttl: u32 = "2" uint32;
    }

    Push {
        channel: String = "2" string;
        #[serde(rename = "pub")]
        publication: Option<Publication> = "4" message optional;
        join: Option<JoinOrLeave> = "5" message optional;
        leave: Option<JoinOrLeave> = "6" message optional;
        unsubscribe: Option<Unsubscribe> = "7" message optional;
        message: Option<PushedMessage> = "8" message optional;
        subscribe: Option<PushedSubscribe> = "9" message optional;
        disconnect: Option<Disconnect> = "11" message optional;
    }

    Publication {
        #[serde(with = "raw")]
        data: Vec<u8> = "4" bytes ("vec");
        info: Option<ClientInfo> = "5" message optional;
        offset: u64 = "6" uint64;
        tags: BTreeMap<String, String> = "7" btree_map ("string, string");
    }

    ClientInfo {
        user: String = "1" string;
        client: String = "2" string;
        #[serde(with = "raw")]
        conn_info: Vec<u8> = "3" bytes ("vec");
        #[serde(with = "raw")]
        chan_info: Vec<u8> = "4" bytes ("vec");
    }

    JoinOrLeave {
        info: Option<ClientInfo> = "1" message optional;
    }

    Unsubscribe {
        code: u32 = "2" uint32;
        reason: String = "3" string;
    }

    PushedMessage {
        #[serde(with = "raw")]
        data: Vec<u8> = "1" bytes ("vec");
    }

    PushedSubscribe {
        #[serde(with = "raw")]
        data: Vec<u8> = "7" bytes ("vec");
    }

    Disconnect {
        code: u32 = "1" uint32;
        reason: String = "2" string;
        reconnect: bool = "3" bool;
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Payloads are themselves JSON in JSON and opaque bytes in Protobuf.
mod raw {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
    use serde_json::value::RawValue;

    pub fn serialize<S: Serializer>(payload: &[u8], output: S) -> Result<S::Ok, S::Error> {
        serde_json::from_slice::<&RawValue>(payload).map_err(ser::Error::custom)?.serialize(output)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        Ok(<&RawValue>::deserialize(input)?.get().as_bytes().to_vec())
    }
}

/// Appends one message, in Protobuf with its length before it.
pub fn encode_command(encoding: Encoding, id: u32, method: &Method<'_>, out: &mut Vec<u8>) -> Result<(), NotJson> {
    let command = command(id, method);
    match encoding {
        // Nothing but a payload can fail: all else is strings and numbers.
        Encoding::Json => serde_json::to_writer(&mut *out, &command).map_err(|_| NotJson)?,
        Encoding::Protobuf => out.extend_from_slice(&command.encode_length_delimited_to_vec()),
    }
    Ok(())
}

/// The messages of one frame, `None` if it is no frame of this encoding.
pub fn decode_replies(encoding: Encoding, mut frame: &[u8]) -> Option<Vec<Reply>> {
    match encoding {
        Encoding::Json => {
            let text = std::str::from_utf8(frame).ok()?;
            let lines = text.strip_suffix('\n').unwrap_or(text);
            lines.split('\n').map(|line| serde_json::from_str(line).ok()).collect()
        }
        Encoding::Protobuf => {
            let mut replies = Vec::new();
            while !frame.is_empty() {
                replies.push(Reply::decode_length_delimited(&mut frame).ok()?);
            }
            (!replies.is_empty()).then_some(replies)
        }
    }
}

fn command(id: u32, method: &Method<'_>) -> Command {
    let mut command = Command { id, ..Command::default() };
    let channel_request = |channel: &str| Some(ChannelRequest { channel: channel.into() });
    match method {
        Method::Pong => {}
        Method::Connect(it) => {
            let subs = it.subs.iter().map(|(channel, position)| {
                let Recover { epoch, offset } = position;
                let request =
                    SubscribeRequest { recover: true, epoch: epoch[..].into(), offset: *offset, ..Default::default() };
                (channel[..].into(), request)
            });
            command.connect = Some(ConnectRequest {
                token: it.token[..].into(),
                data: it.data[..].into(),
                subs: subs.collect(),
                name: it.name[..].into(),
                version: it.version[..].into(),
            });
        }
        Method::Subscribe(it) => command.subscribe = Some(subscribe_request(it)),
        Method::Unsubscribe { channel } => command.unsubscribe = channel_request(channel),
        Method::Publish { channel, data, kind } => {
            command.publish = Some(PublishRequest { channel: channel[..].into(), data: data[..].into(), kind: *kind });
        }
        Method::Presence { channel } => command.presence = channel_request(channel),
        Method::PresenceStats { channel } => command.presence_stats = channel_request(channel),
        Method::History(it) => {
            let since = it.since.as_ref();
            command.history = Some(HistoryRequest {
                channel: it.channel[..].into(),
                limit: it.limit,
                since: since.map(|it| StreamPosition { offset: it.offset, epoch: it.epoch[..].into() }),
                reverse: it.reverse,
            });
        }
        Method::Rpc { method, data } => {
            command.rpc = Some(RpcRequest { data: data[..].into(), method: method[..].into() });
        }
        Method::Send { data } => command.send = Some(SendRequest { data: data[..].into() }),
        Method::Refresh { token } => command.refresh = Some(RefreshRequest { token: token[..].into() }),
        Method::SubRefresh { channel, token } => {
            command.sub_refresh = Some(SubRefreshRequest { channel: channel[..].into(), token: token[..].into() });
        }
        Method::Ping => command.ping = Some(Empty {}),
    }
    command
}

fn subscribe_request(it: &Subscribe<'_>) -> SubscribeRequest {
    let Recover { epoch, offset } = it.recover.clone().unwrap_or_default();
    SubscribeRequest {
        channel: it.channel[..].into(),
        token: it.token[..].into(),
        recover: it.recover.is_some(),
        epoch: epoch.into_owned(),
        offset,
        data: it.data[..].into(),
        positioned: it.positioned,
        recoverable: it.recoverable,
        join_leave: it.join_leave,
        delta: it.delta[..].into(),
        filter: it.filtered.then(FilterNode::default),
        flag: it.flag,
        kind: it.kind,
    }
}
