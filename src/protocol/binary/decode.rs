//! One Protobuf message to one command.
//!
//! Everything is borrowed from the message. Unknown fields are skipped. A field that comes twice counts as its last value
//! (Protobuf would merge messages; no encoder sends them in pieces). The order in which methods are looked for decides
//! which one a command with several has.

use super::wire::{Reader, Value};
use crate::protocol::key::Key;
use crate::protocol::{BadFrame, Command, Connect, Data, History, Method, Recover, Subscribe, Text};

pub(in crate::protocol) fn command(message: &[u8]) -> Result<Command<'_>, BadFrame> {
    let mut id = 0;
    let mut first: Option<(Key, &[u8])> = None;
    let mut fields = Reader::new(message);
    while let Some((number, value)) = fields.field()? {
        let Some(key) = Key::of_field(number) else {
            if number == 1 {
                id = value.number()? as u32;
            }
            continue;
        };
        let body = value.bytes()?;
        if first.is_none_or(|(earlier, _)| key <= earlier) {
            first = Some((key, body));
        }
    }
    // Only now is a method read, where it is returned: a command is some 200 bytes, and moving it about took most of the
    // time of a publish.
    let Some((key, body)) = first else { return Command::without_method(id) };
    let id = key.checked_id(id)?;
    let method = match key {
        Key::Connect => Method::Connect(connect(body)?),
        Key::Ping => Method::Ping,
        Key::Subscribe => Method::Subscribe(subscribe(body)?),
        Key::Unsubscribe => Method::Unsubscribe { channel: text(body)? },
        Key::Publish => {
            let (channel, data, kind) = publish(body)?;
            Method::Publish { channel, data, kind }
        }
        Key::Presence => Method::Presence { channel: text(body)? },
        Key::PresenceStats => Method::PresenceStats { channel: text(body)? },
        Key::History => Method::History(history(body)?),
        Key::Rpc => {
            let (method, data) = rpc(body)?;
            Method::Rpc { method, data }
        }
        Key::Send => Method::Send { data: data(body)? },
        Key::Refresh => Method::Refresh { token: text(body)? },
        Key::SubRefresh => {
            let (channel, token) = sub_refresh(body)?;
            Method::SubRefresh { channel, token }
        }
    };
    Ok(Command { id, method })
}

impl Key {
    fn of_field(number: u32) -> Option<Key> {
        Some(match number {
            4 => Key::Connect,
            5 => Key::Subscribe,
            6 => Key::Unsubscribe,
            7 => Key::Publish,
            8 => Key::Presence,
            9 => Key::PresenceStats,
            10 => Key::History,
            11 => Key::Ping,
            12 => Key::Send,
            13 => Key::Rpc,
            14 => Key::Refresh,
            15 => Key::SubRefresh,
            _ => return None,
        })
    }
}

fn connect(message: &[u8]) -> Result<Connect<'_>, BadFrame> {
    let mut it = Connect::default();
    each(message, |number, value| {
        match number {
            1 => it.token = value.text()?.into(),
            2 => it.data = value.bytes()?.into(),
            3 => it.subs.extend(server_side_subscription(value.bytes()?)?),
            4 => it.name = value.text()?.into(),
            5 => it.version = value.text()?.into(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

/// An entry of `subs`: a key and a subscribe request. One that does not ask for recovery has no position.
fn server_side_subscription(entry: &[u8]) -> Result<Option<(Text<'_>, Recover<'_>)>, BadFrame> {
    let mut name = "";
    let mut recover = None;
    each(entry, |number, value| {
        match number {
            1 => name = value.text()?,
            2 => recover = subscribe(value.bytes()?)?.recover,
            _ => {}
        }
        Ok(())
    })?;
    Ok(recover.map(|recover| (name.into(), recover)))
}

fn subscribe(message: &[u8]) -> Result<Subscribe<'_>, BadFrame> {
    let mut it = Subscribe::default();
    let mut recover = false;
    let mut position = Recover::default();
    each(message, |number, value| {
        match number {
            1 => it.channel = value.text()?.into(),
            2 => it.token = value.text()?.into(),
            3 => recover = value.truth()?,
            6 => position.epoch = value.text()?.into(),
            7 => position.offset = value.number()?,
            8 => it.data = value.bytes()?.into(),
            9 => it.positioned = value.truth()?,
            10 => it.recoverable = value.truth()?,
            11 => it.join_leave = value.truth()?,
            12 => it.delta = value.text()?.into(),
            13 => it.filtered = value.bytes().map(|_| true)?,
            14 => it.flag = value.number()? as i64,
            15 => it.kind = value.number()? as i32,
            _ => {}
        }
        Ok(())
    })?;
    it.recover = recover.then_some(position);
    Ok(it)
}

#[inline]
fn publish(message: &[u8]) -> Result<(Text<'_>, Data<'_>, i32), BadFrame> {
    let (mut channel, mut data, mut kind) = ("", &[][..], 0);
    each(message, |number, value| {
        match number {
            1 => channel = value.text()?,
            2 => data = value.bytes()?,
            3 => kind = value.number()? as i32,
            _ => {}
        }
        Ok(())
    })?;
    Ok((channel.into(), data.into(), kind))
}

fn history(message: &[u8]) -> Result<History<'_>, BadFrame> {
    let mut it = History::default();
    each(message, |number, value| {
        match number {
            1 => it.channel = value.text()?.into(),
            7 => it.limit = value.number()? as i32,
            8 => it.since = Some(position(value.bytes()?)?),
            9 => it.reverse = value.truth()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn position(message: &[u8]) -> Result<Recover<'_>, BadFrame> {
    let mut it = Recover::default();
    each(message, |number, value| {
        match number {
            1 => it.offset = value.number()?,
            2 => it.epoch = value.text()?.into(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn rpc(message: &[u8]) -> Result<(Text<'_>, Data<'_>), BadFrame> {
    let (mut method, mut data) = ("", &[][..]);
    each(message, |number, value| {
        match number {
            1 => data = value.bytes()?,
            2 => method = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((method.into(), data.into()))
}

/// The one payload, field 1, of a message that has no other.
fn data(message: &[u8]) -> Result<Data<'_>, BadFrame> {
    let mut data = &[][..];
    each(message, |number, value| {
        if number == 1 {
            data = value.bytes()?;
        }
        Ok(())
    })?;
    Ok(data.into())
}

fn sub_refresh(message: &[u8]) -> Result<(Text<'_>, Text<'_>), BadFrame> {
    let (mut channel, mut token) = ("", "");
    each(message, |number, value| {
        match number {
            1 => channel = value.text()?,
            2 => token = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((channel.into(), token.into()))
}

/// The one text, field 1, of a message that has no other.
fn text(message: &[u8]) -> Result<Text<'_>, BadFrame> {
    let mut text = "";
    each(message, |number, value| {
        if number == 1 {
            text = value.text()?;
        }
        Ok(())
    })?;
    Ok(text.into())
}

#[inline]
fn each<'a>(
    message: &'a [u8],
    mut on_field: impl FnMut(u32, Value<'a>) -> Result<(), BadFrame>,
) -> Result<(), BadFrame> {
    let mut fields = Reader::new(message);
    while let Some((number, value)) = fields.field()? {
        on_field(number, value)?;
    }
    Ok(())
}
