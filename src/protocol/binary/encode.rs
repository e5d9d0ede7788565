//! Replies and pushes as Protobuf, appended to a buffer with their length before them.
//!
//! Always true: nothing is allocated but what `out` needs.

use super::wire::{Empty, Message, Sink};
use crate::protocol::{
    ClientInfo, Connected, Disconnect, Error, Publication, Push, Reply, Subscribed, UnsubscribeCode,
};

pub(in crate::protocol) fn reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    delimited(&ReplyMessage { id, reply }, out);
}

pub(in crate::protocol) fn push(channel: &str, push: &Push<'_>, out: &mut Vec<u8>) {
    delimited(&PushReply(PushMessage { channel, push }), out);
}

#[inline]
fn delimited(message: &impl Message, out: &mut Vec<u8>) {
    out.varint(message.length());
    message.write(out);
}

struct ReplyMessage<'a> {
    id: u32,
    reply: &'a Reply<'a>,
}

impl Message for ReplyMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.number(1, self.id);
        match self.reply {
            Reply::Error(error) => sink.message(2, error),
            Reply::Connect(result) => sink.message(5, result),
            Reply::Subscribe(result) => sink.message(6, result),
            Reply::Unsubscribe => sink.message(7, &Empty),
            Reply::Publish => sink.message(8, &Empty),
            Reply::Rpc { data } => sink.message(13, &DataMessage { field: 1, data }),
            Reply::Refresh { client, version, expires, ttl } => {
                sink.message(14, &Refreshed { client, version, expires: *expires, ttl: *ttl });
            }
            Reply::SubRefresh { expires, ttl } => {
                sink.message(15, &SubRefreshed { expires: *expires, ttl: *ttl });
            }
        }
    }
}

/// A reply without an id, whose only field is the push.
struct PushReply<'a>(PushMessage<'a>);

impl Message for PushReply<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.message(4, &self.0);
    }
}

struct PushMessage<'a> {
    channel: &'a str,
    push: &'a Push<'a>,
}

impl Message for PushMessage<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.text(2, self.channel);
        match self.push {
            Push::Publication(publication) => sink.message(4, publication),
            Push::Join(info) => sink.message(5, &InfoMessage(info)),
            Push::Leave(info) => sink.message(6, &InfoMessage(info)),
            Push::Unsubscribe { code } => sink.message(7, code),
            Push::Message { data } => sink.message(8, &DataMessage { field: 1, data }),
            Push::Subscribe { data } => sink.message(9, &DataMessage { field: 7, data }),
            Push::Disconnect(disconnect) => sink.message(11, disconnect),
        }
    }
}

impl Message for Publication<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(4, self.data);
        if let Some(info) = &self.info {
            sink.message(5, info);
        }
        sink.number(6, self.offset);
        for (tag, value) in self.tags {
            sink.message(7, &TagMessage { tag, value });
        }
    }
}

struct TagMessage<'a> {
    tag: &'a str,
    value: &'a str,
}

impl Message for TagMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text(1, self.tag);
        sink.text(2, self.value);
    }
}

impl Message for ClientInfo<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.text(1, self.user);
        sink.text(2, self.client);
        sink.bytes(3, self.conn_info);
        sink.bytes(4, self.chan_info);
    }
}

/// Join and leave hold an info and nothing else.
struct InfoMessage<'a>(&'a ClientInfo<'a>);

impl Message for InfoMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.message(1, self.0);
    }
}

/// A message of which we set only the payload.
struct DataMessage<'a> {
    field: u32,
    data: &'a [u8],
}

impl Message for DataMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(self.field, self.data);
    }
}

impl Message for Error {
    fn write(&self, sink: &mut impl Sink) {
        sink.number(1, self.code());
        sink.text(2, self.message());
        sink.truth(3, self.temporary());
    }
}

impl Message for UnsubscribeCode {
    fn write(&self, sink: &mut impl Sink) {
        // Field 1 was of an older protocol.
        sink.number(2, self.code());
        sink.text(3, self.reason());
    }
}

impl Message for Disconnect {
    fn write(&self, sink: &mut impl Sink) {
        sink.number(1, self.code());
        sink.text(2, self.reason());
        sink.truth(3, !self.terminal());
    }
}

impl Message for Connected<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text(1, self.client);
        sink.text(2, self.version);
        sink.truth(3, self.expires);
        sink.number(4, self.ttl);
        sink.bytes(5, self.data);
        for (channel, subscribed) in &self.subs {
            sink.message(6, &SubscribedEntry { channel, subscribed });
        }
        sink.number(7, self.ping);
        sink.truth(8, self.pong);
    }
}

struct SubscribedEntry<'a> {
    channel: &'a str,
    subscribed: &'a Subscribed<'a>,
}

impl Message for SubscribedEntry<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text(1, self.channel);
        sink.message(2, self.subscribed);
    }
}

impl Message for Subscribed<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.truth(1, self.expires);
        sink.number(2, self.ttl);
        sink.bytes(11, self.data);
        sink.truth(12, self.was_recovering);
    }
}

struct Refreshed<'a> {
    client: &'a str,
    version: &'a str,
    expires: bool,
    ttl: u32,
}

impl Message for Refreshed<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text(1, self.client);
        sink.text(2, self.version);
        sink.truth(3, self.expires);
        sink.number(4, self.ttl);
    }
}

struct SubRefreshed {
    expires: bool,
    ttl: u32,
}

impl Message for SubRefreshed {
    fn write(&self, sink: &mut impl Sink) {
        sink.truth(1, self.expires);
        sink.number(2, self.ttl);
    }
}
