//! Replies and pushes as JSON, appended to a buffer.
//!
//! Empty, zero and false fields are left out, but for those that clients count on: `user` and `client` of a client's
//! info, and the result itself, however empty. Fields stand in the order of their Protobuf numbers.
//!
//! Always true: a message has no raw newline, given payloads without one; nothing is allocated but what `out` needs.

use crate::protocol::{ClientInfo, Connected, Error, Publication, Push, Reply, Subscribed};

pub(in crate::protocol) fn reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let mut message = Object::open(out);
    message.number("id", u64::from(id));
    match reply {
        Reply::Error(error) => error_body(*error, message.value("error")),
        Reply::Connect(result) => connected(result, message.value("connect")),
        Reply::Subscribe(result) => subscribed(result, message.value("subscribe")),
        Reply::Unsubscribe => Object::open(message.value("unsubscribe")).close(),
        Reply::Publish => Object::open(message.value("publish")).close(),
        Reply::Rpc { data } => {
            let mut result = Object::open(message.value("rpc"));
            result.raw("data", data);
            result.close();
        }
        Reply::Refresh { client, version, expires, ttl } => {
            let mut result = Object::open(message.value("refresh"));
            result.text("client", client);
            result.text("version", version);
            result.truth("expires", *expires);
            result.number("ttl", u64::from(*ttl));
            result.close();
        }
        Reply::SubRefresh { expires, ttl } => {
            let mut result = Object::open(message.value("sub_refresh"));
            result.truth("expires", *expires);
            result.number("ttl", u64::from(*ttl));
            result.close();
        }
    }
    message.close();
}

pub(in crate::protocol) fn push(channel: &str, push: &Push<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"push\":");
    let mut body = Object::open(out);
    body.text("channel", channel);
    match push {
        Push::Publication(it) => publication(it, body.value("pub")),
        Push::Join(info) => presence_change(info, body.value("join")),
        Push::Leave(info) => presence_change(info, body.value("leave")),
        Push::Unsubscribe { code } => {
            let mut it = Object::open(body.value("unsubscribe"));
            it.number("code", u64::from(code.code()));
            it.text("reason", code.reason());
            it.close();
        }
        Push::Message { data } => {
            let mut it = Object::open(body.value("message"));
            it.raw("data", data);
            it.close();
        }
        Push::Subscribe { data } => {
            let mut it = Object::open(body.value("subscribe"));
            it.raw("data", data);
            it.close();
        }
        Push::Disconnect(disconnect) => {
            let mut it = Object::open(body.value("disconnect"));
            it.number("code", u64::from(disconnect.code()));
            it.text("reason", disconnect.reason());
            it.truth("reconnect", !disconnect.terminal());
            it.close();
        }
    }
    body.close();
    out.push(b'}');
}

fn error_body(error: Error, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    it.number("code", u64::from(error.code()));
    it.text("message", error.message());
    it.truth("temporary", error.temporary());
    it.close();
}

fn connected(result: &Connected<'_>, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    it.text("client", result.client);
    it.text("version", result.version);
    it.truth("expires", result.expires);
    it.number("ttl", u64::from(result.ttl));
    it.raw("data", result.data);
    if !result.subs.is_empty() {
        let mut subs = Object::open(it.value("subs"));
        for (channel, subscription) in &result.subs {
            subscribed(subscription, subs.entry(channel));
        }
        subs.close();
    }
    it.number("ping", u64::from(result.ping));
    it.truth("pong", result.pong);
    it.close();
}

fn subscribed(result: &Subscribed<'_>, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    it.truth("expires", result.expires);
    it.number("ttl", u64::from(result.ttl));
    it.raw("data", result.data);
    it.truth("was_recovering", result.was_recovering);
    it.close();
}

fn publication(publication: &Publication<'_>, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    it.raw("data", publication.data);
    if let Some(info) = &publication.info {
        client_info(info, it.value("info"));
    }
    it.number("offset", publication.offset);
    if !publication.tags.is_empty() {
        let mut tags = Object::open(it.value("tags"));
        for (tag, value) in publication.tags {
            text(value, tags.entry(tag));
        }
        tags.close();
    }
    it.close();
}

fn presence_change(info: &ClientInfo<'_>, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    client_info(info, it.value("info"));
    it.close();
}

fn client_info(info: &ClientInfo<'_>, out: &mut Vec<u8>) {
    let mut it = Object::open(out);
    text(info.user, it.value("user"));
    text(info.client, it.value("client"));
    it.raw("conn_info", info.conn_info);
    it.raw("chan_info", info.chan_info);
    it.close();
}

/// An object being written: it knows whether a comma is due, and leaves out what is empty.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    fresh: bool,
}

impl<'o> Object<'o> {
    #[inline]
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, fresh: true }
    }

    #[inline]
    fn close(self) {
        self.out.push(b'}');
    }

    #[inline]
    fn comma(&mut self) {
        if !self.fresh {
            self.out.push(b',');
        }
        self.fresh = false;
    }

    /// The buffer, ready for the value of a field of ours, whose name needs no escapes.
    #[inline]
    fn value(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// The same for a key of a map, which is anything.
    fn entry(&mut self, key: &str) -> &mut Vec<u8> {
        self.comma();
        text(key, self.out);
        self.out.push(b':');
        self.out
    }

    #[inline]
    fn raw(&mut self, name: &'static str, json: &[u8]) {
        if !json.is_empty() {
            self.value(name).extend_from_slice(json);
        }
    }

    #[inline]
    fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            text(value, self.value(name));
        }
    }

    #[inline]
    fn number(&mut self, name: &'static str, value: u64) {
        if value != 0 {
            decimal(value, self.value(name));
        }
    }

    #[inline]
    fn truth(&mut self, name: &'static str, value: bool) {
        if value {
            self.value(name).extend_from_slice(b"true");
        }
    }
}

fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// A JSON string. Runs that need no escape, which is nearly always the whole, are copied at once.
fn text(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cold]
fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}
