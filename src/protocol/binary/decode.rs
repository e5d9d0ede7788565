//! One Protobuf message to one command.
//!
//! Everything is borrowed from the message. Unknown fields are skipped. A field that comes twice counts as its last value
//! (Protobuf would merge messages; no encoder sends them in pieces). The order in which methods are looked for decides
//! which one a command with several has.

use super::wire::{Reader, Value};
use crate::protocol::{BadFrame, Command, Connect, History, Method, Recover, Subscribe, Text};

pub(in crate::protocol) fn command(message: &[u8]) -> Result<Command<'_>, BadFrame> {
    let mut id = 0;
    let mut first: Option<(u8, Method<'_>)> = None;
    let mut fields = Reader::new(message);
    while let Some((number, value)) = fields.field()? {
        let (rank, method) = match number {
            1 => {
                id = value.number()? as u32;
                continue;
            }
            4 => (0, Method::Connect(connect(value.bytes()?)?)),
            5 => (2, Method::Subscribe(subscribe(value.bytes()?)?)),
            6 => (3, Method::Unsubscribe { channel: channel(value.bytes()?)? }),
            7 => (4, publish(value.bytes()?)?),
            8 => (5, Method::Presence { channel: channel(value.bytes()?)? }),
            9 => (6, Method::PresenceStats { channel: channel(value.bytes()?)? }),
            10 => (7, Method::History(history(value.bytes()?)?)),
            11 => (1, value.bytes().map(|_| Method::Ping)?),
            12 => (9, send(value.bytes()?)?),
            13 => (8, rpc(value.bytes()?)?),
            14 => (10, refresh(value.bytes()?)?),
            15 => (11, sub_refresh(value.bytes()?)?),
            _ => continue,
        };
        if first.as_ref().is_none_or(|(earlier, _)| rank <= *earlier) {
            first = Some((rank, method));
        }
    }
    Command::checked(id, first.map(|(_, method)| method))
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

fn publish(message: &[u8]) -> Result<Method<'_>, BadFrame> {
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
    Ok(Method::Publish { channel: channel.into(), data: data.into(), kind })
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

fn rpc(message: &[u8]) -> Result<Method<'_>, BadFrame> {
    let (mut method, mut data) = ("", &[][..]);
    each(message, |number, value| {
        match number {
            1 => data = value.bytes()?,
            2 => method = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Method::Rpc { method: method.into(), data: data.into() })
}

fn send(message: &[u8]) -> Result<Method<'_>, BadFrame> {
    let mut data = &[][..];
    each(message, |number, value| {
        if number == 1 {
            data = value.bytes()?;
        }
        Ok(())
    })?;
    Ok(Method::Send { data: data.into() })
}

fn refresh(message: &[u8]) -> Result<Method<'_>, BadFrame> {
    // The token is field 1, where others have the channel.
    Ok(Method::Refresh { token: channel(message)? })
}

fn sub_refresh(message: &[u8]) -> Result<Method<'_>, BadFrame> {
    let (mut channel, mut token) = ("", "");
    each(message, |number, value| {
        match number {
            1 => channel = value.text()?,
            2 => token = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Method::SubRefresh { channel: channel.into(), token: token.into() })
}

/// The one text, field 1, of a message that has no other.
fn channel(message: &[u8]) -> Result<Text<'_>, BadFrame> {
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
