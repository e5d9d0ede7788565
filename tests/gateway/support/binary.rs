//! The protocol's Protobuf encoding, by tables: between bytes and the JSON values of the other encoding.
//!
//! Only the fields that tests use. A payload is JSON text in both; one that is not is `{"$hex": …}` here.

use serde_json::{Map, Value, json};

pub struct Schema(&'static [(u64, &'static str, Kind)]);

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Bool,
    Text,
    Payload,
    Of(&'static Schema),
    Texts,
}

use Kind::{Bool, Number, Of, Payload, Text, Texts};

const EMPTY: Schema = Schema(&[]);
const CHANNEL: Schema = Schema(&[(1, "channel", Text)]);
const TOKEN: Schema = Schema(&[(1, "token", Text)]);
const DATA: Schema = Schema(&[(1, "data", Payload)]);

pub const COMMAND: Schema = Schema(&[
    (1, "id", Number),
    (4, "connect", Of(&CONNECT)),
    (5, "subscribe", Of(&SUBSCRIBE)),
    (6, "unsubscribe", Of(&CHANNEL)),
    (7, "publish", Of(&Schema(&[(1, "channel", Text), (2, "data", Payload), (3, "type", Number)]))),
    (8, "presence", Of(&CHANNEL)),
    (9, "presence_stats", Of(&CHANNEL)),
    (10, "history", Of(&Schema(&[(1, "channel", Text), (7, "limit", Number)]))),
    (11, "ping", Of(&EMPTY)),
    (12, "send", Of(&DATA)),
    (13, "rpc", Of(&Schema(&[(1, "data", Payload), (2, "method", Text)]))),
    (14, "refresh", Of(&TOKEN)),
    (15, "sub_refresh", Of(&Schema(&[(1, "channel", Text), (2, "token", Text)]))),
]);

const CONNECT: Schema =
    Schema(&[(1, "token", Text), (2, "data", Payload), (4, "name", Text), (5, "version", Text), (7, "flag", Number)]);

const SUBSCRIBE: Schema = Schema(&[
    (1, "channel", Text),
    (2, "token", Text),
    (3, "recover", Bool),
    (6, "epoch", Text),
    (7, "offset", Number),
    (9, "positioned", Bool),
    (10, "recoverable", Bool),
    (11, "join_leave", Bool),
    (12, "delta", Text),
    (14, "flag", Number),
    (15, "type", Number),
]);

const EXPIRY: Schema = Schema(&[(1, "expires", Bool), (2, "ttl", Number)]);

pub const REPLY: Schema = Schema(&[
    (1, "id", Number),
    (2, "error", Of(&Schema(&[(1, "code", Number), (2, "message", Text), (3, "temporary", Bool)]))),
    (4, "push", Of(&PUSH)),
    (
        5,
        "connect",
        Of(&Schema(&[
            (1, "client", Text),
            (2, "version", Text),
            (3, "expires", Bool),
            (4, "ttl", Number),
            (5, "data", Payload),
            (7, "ping", Number),
            (8, "pong", Bool),
        ])),
    ),
    (
        6,
        "subscribe",
        Of(&Schema(&[
            (1, "expires", Bool),
            (2, "ttl", Number),
            (3, "recoverable", Bool),
            (8, "recovered", Bool),
            (10, "positioned", Bool),
            (11, "data", Payload),
            (12, "was_recovering", Bool),
            (13, "delta", Bool),
            (14, "id", Number),
        ])),
    ),
    (7, "unsubscribe", Of(&EMPTY)),
    (8, "publish", Of(&EMPTY)),
    (13, "rpc", Of(&DATA)),
    (
        14,
        "refresh",
        Of(&Schema(&[(1, "client", Text), (2, "version", Text), (3, "expires", Bool), (4, "ttl", Number)])),
    ),
    (15, "sub_refresh", Of(&EXPIRY)),
]);

const PUSH: Schema = Schema(&[
    (1, "id", Number),
    (2, "channel", Text),
    (4, "pub", Of(&PUBLICATION)),
    (7, "unsubscribe", Of(&Schema(&[(2, "code", Number), (3, "reason", Text)]))),
    (8, "message", Of(&DATA)),
]);

const PUBLICATION: Schema = Schema(&[
    (4, "data", Payload),
    (
        5,
        "info",
        Of(&Schema(&[(1, "user", Text), (2, "client", Text), (3, "conn_info", Payload), (4, "chan_info", Payload)])),
    ),
    (6, "offset", Number),
    (7, "tags", Texts),
    (8, "delta", Bool),
]);

/// An entry of a map of texts.
const ENTRY: Schema = Schema(&[(1, "key", Text), (2, "value", Text)]);

// ---- encoding

pub fn encode(value: &Value, schema: &Schema) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().expect("a message is an object") {
        let field = schema.0.iter().find(|(_, other, _)| other == name);
        let &(number, _, kind) = field.unwrap_or_else(|| panic!("no field {name}"));
        let mut bytes = |bytes: &[u8]| {
            varint(number << 3 | 2, &mut out);
            varint(bytes.len() as u64, &mut out);
            out.extend_from_slice(bytes);
        };
        match kind {
            Number | Bool => {
                let integer = value.as_u64().unwrap_or_else(|| u64::from(value.as_bool().expect("a number or a bool")));
                varint(number << 3, &mut out);
                varint(integer, &mut out);
            }
            Text => bytes(value.as_str().expect("a text").as_bytes()),
            Payload => bytes(&match value.get("$hex") {
                Some(hex) => from_hex(hex.as_str().expect("a text")),
                None => value.to_string().into_bytes(),
            }),
            Of(schema) => bytes(&encode(value, schema)),
            Texts => panic!("no command has such a field"),
        }
    }
    out
}

pub fn delimited(message: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(message.len() as u64, &mut out);
    out.extend(message);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

// ---- decoding

/// The messages of a frame.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        messages.push(chunk(&mut bytes));
    }
    messages
}

/// Absent fields are absent. A field that the tables do not have is a failure: nothing goes unnoticed.
pub fn decode(mut bytes: &[u8], schema: &Schema) -> Value {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes);
        let field = schema.0.iter().find(|(number, ..)| *number == tag >> 3);
        let &(_, name, kind) = field.unwrap_or_else(|| panic!("an unknown field {}", tag >> 3));
        assert_eq!(tag & 7, if matches!(kind, Number | Bool) { 0 } else { 2 }, "wire type of {name}");
        match kind {
            Number => drop(object.insert(name.into(), take_varint(&mut bytes).into())),
            Bool => drop(object.insert(name.into(), (take_varint(&mut bytes) == 1).into())),
            Text => drop(object.insert(name.into(), text(chunk(&mut bytes)).into())),
            Payload => drop(object.insert(name.into(), payload(chunk(&mut bytes)))),
            Of(schema) => drop(object.insert(name.into(), decode(chunk(&mut bytes), schema))),
            Texts => {
                let entry = decode(chunk(&mut bytes), &ENTRY);
                let map = object.entry(name).or_insert_with(|| json!({}));
                map[entry["key"].as_str().unwrap_or_default()] = entry["value"].clone();
            }
        }
    }
    Value::Object(object)
}

fn payload(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| json!({ "$hex": to_hex(bytes) }))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn chunk<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(take_varint(bytes)).expect("it fits");
    let (chunk, rest) = bytes.split_at(length);
    *bytes = rest;
    chunk
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number of more than 64 bits");
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("digits"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")).collect()
}
