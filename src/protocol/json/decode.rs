//! One JSON object to one command.
//!
//! Fields are borrowed from the line. Unknown fields are skipped, `null` stands for an absent field, and a value of
//! another type than the protocol says makes the line no command. The order in which methods are looked for decides which
//! one a command with several has.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use serde_json::value::RawValue;

use super::payload::{deeper_than, without_newlines};
use crate::protocol::key::Key;
use crate::protocol::{BadFrame, Command, Connect, Data, History, Method, Recover, Subscribe, Text};

pub(in crate::protocol) fn command(line: &str, depth_max: u32) -> Result<Command<'_>, BadFrame> {
    if deeper_than(line.as_bytes(), depth_max) {
        return Err(BadFrame::TooDeep);
    }
    let mut id = 0;
    let mut first = None;
    let mut input = serde_json::Deserializer::from_str(line);
    let read = Line { id: &mut id, first: &mut first }.deserialize(&mut input).and_then(|()| input.end());
    read.map_err(|_| BadFrame::NotJson)?;
    match first {
        None => Command::without_method(id),
        Some((key, method)) => Ok(Command { id: key.checked_id(id)?, method }),
    }
}

/// Fills what it borrows: a method is some 200 bytes, and moving it up through serde's layers took a third of the time of a
/// publish.
struct Line<'s, 'a> {
    id: &'s mut u32,
    first: &'s mut Option<(Key, Method<'a>)>,
}

/// Names of a command's fields.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Id,
    Connect,
    Ping,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Line<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Line<'_, 'de> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Id => *self.id = map.next_value::<Option<u32>>()?.unwrap_or(0),
                Field::Other => _ = map.next_value::<IgnoredAny>()?,
                Field::Connect => self.body(&mut map, Key::Connect, |it: ConnectBody| Method::Connect(it.into()))?,
                Field::Ping => self.body(&mut map, Key::Ping, |_: Nothing| Method::Ping)?,
                Field::Subscribe => {
                    self.body(&mut map, Key::Subscribe, |it: SubscribeBody| Method::Subscribe(it.into()))?;
                }
                Field::Unsubscribe => {
                    self.body(&mut map, Key::Unsubscribe, |ChannelBody { channel }| Method::Unsubscribe { channel })?
                }
                Field::Publish => self.body(&mut map, Key::Publish, |PublishBody { channel, data, kind }| {
                    Method::Publish { channel, data, kind }
                })?,
                Field::Presence => {
                    self.body(&mut map, Key::Presence, |ChannelBody { channel }| Method::Presence { channel })?;
                }
                Field::PresenceStats => self
                    .body(&mut map, Key::PresenceStats, |ChannelBody { channel }| Method::PresenceStats { channel })?,
                Field::History => self.body(&mut map, Key::History, |it: HistoryBody| Method::History(it.into()))?,
                Field::Rpc => {
                    self.body(&mut map, Key::Rpc, |RpcBody { method, data }| Method::Rpc { method, data })?;
                }
                Field::Send => self.body(&mut map, Key::Send, |SendBody { data }| Method::Send { data })?,
                Field::Refresh => {
                    self.body(&mut map, Key::Refresh, |RefreshBody { token }| Method::Refresh { token })?;
                }
                Field::SubRefresh => self.body(&mut map, Key::SubRefresh, |SubRefreshBody { channel, token }| {
                    Method::SubRefresh { channel, token }
                })?,
            }
        }
        Ok(())
    }
}

impl<'a> Line<'_, 'a> {
    #[inline]
    fn body<A: MapAccess<'a>, T: Deserialize<'a>>(
        &mut self,
        map: &mut A,
        key: Key,
        method: impl FnOnce(T) -> Method<'a>,
    ) -> Result<(), A::Error> {
        if let Some(Object(body)) = map.next_value::<Option<Object<T>>>()?
            && self.first.as_ref().is_none_or(|(earlier, _)| key <= *earlier)
        {
            *self.first = Some((key, method(body)));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Nothing {}

#[derive(Deserialize)]
struct ChannelBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    channel: Text<'a>,
}

#[derive(Deserialize)]
struct PublishBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    channel: Text<'a>,
    #[serde(borrow, default, deserialize_with = "payload")]
    data: Data<'a>,
    #[serde(rename = "type", default, deserialize_with = "nullable")]
    kind: i32,
}

#[derive(Deserialize)]
struct RpcBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    method: Text<'a>,
    #[serde(borrow, default, deserialize_with = "payload")]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct SendBody<'a> {
    #[serde(borrow, default, deserialize_with = "payload")]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct RefreshBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    token: Text<'a>,
}

#[derive(Deserialize)]
struct SubRefreshBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    channel: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    token: Text<'a>,
}

#[derive(Deserialize)]
struct ConnectBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    token: Text<'a>,
    #[serde(borrow, default, deserialize_with = "optional_payload")]
    data: Data<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    version: Text<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    subs: Subs<'a>,
}

impl<'a> From<ConnectBody<'a>> for Connect<'a> {
    fn from(it: ConnectBody<'a>) -> Self {
        Connect { token: it.token, data: it.data, name: it.name, version: it.version, subs: it.subs.0 }
    }
}

#[derive(Deserialize)]
struct SubscribeBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    channel: Text<'a>,
    #[serde(borrow, default, deserialize_with = "text")]
    token: Text<'a>,
    #[serde(borrow, default, deserialize_with = "optional_payload")]
    data: Data<'a>,
    #[serde(default, deserialize_with = "nullable")]
    recover: bool,
    #[serde(borrow, default, deserialize_with = "text")]
    epoch: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    offset: u64,
    #[serde(default, deserialize_with = "nullable")]
    positioned: bool,
    #[serde(default, deserialize_with = "nullable")]
    recoverable: bool,
    #[serde(default, deserialize_with = "nullable")]
    join_leave: bool,
    #[serde(borrow, default, deserialize_with = "text")]
    delta: Text<'a>,
    tf: Option<Object<Nothing>>,
    #[serde(default, deserialize_with = "nullable")]
    flag: i64,
    #[serde(rename = "type", default, deserialize_with = "nullable")]
    kind: i32,
}

impl<'a> From<SubscribeBody<'a>> for Subscribe<'a> {
    fn from(it: SubscribeBody<'a>) -> Self {
        Subscribe {
            channel: it.channel,
            token: it.token,
            data: it.data,
            recover: it.recover.then_some(Recover { epoch: it.epoch, offset: it.offset }),
            positioned: it.positioned,
            recoverable: it.recoverable,
            join_leave: it.join_leave,
            delta: it.delta,
            filtered: it.tf.is_some(),
            flag: it.flag,
            kind: it.kind,
        }
    }
}

#[derive(Deserialize)]
struct HistoryBody<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    channel: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    limit: i32,
    #[serde(borrow)]
    since: Option<Object<PositionBody<'a>>>,
    #[serde(default, deserialize_with = "nullable")]
    reverse: bool,
}

#[derive(Deserialize)]
struct PositionBody<'a> {
    #[serde(default, deserialize_with = "nullable")]
    offset: u64,
    #[serde(borrow, default, deserialize_with = "text")]
    epoch: Text<'a>,
}

impl<'a> From<HistoryBody<'a>> for History<'a> {
    fn from(it: HistoryBody<'a>) -> Self {
        let since = it.since.map(|Object(position)| Recover { epoch: position.epoch, offset: position.offset });
        History { channel: it.channel, limit: it.limit, since, reverse: it.reverse }
    }
}

/// A struct from a JSON object and nothing else: what serde derives would also take an array, by position.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Positions of `connect.subs`. An entry that does not ask for recovery has none and is left out.
#[derive(Default)]
struct Subs<'a>(Vec<(Text<'a>, Recover<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Subs<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(SubsVisitor(PhantomData))
    }
}

struct SubsVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for SubsVisitor<'a> {
    type Value = Subs<'a>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of subscriptions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Subs<'a>, A::Error> {
        let mut subs = Vec::new();
        while let Some((Str(channel), subscription)) =
            map.next_entry::<Str<'de>, Option<Object<SubscribeBody<'de>>>>()?
        {
            if let Some(Object(SubscribeBody { recover: true, epoch, offset, .. })) = subscription {
                subs.push((channel, Recover { epoch, offset }));
            }
        }
        Ok(Subs(subs))
    }
}

/// Text that is borrowed wherever it held no escapes. (`Cow` alone is borrowed only as a direct field of a struct.)
struct Str<'a>(Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(StrVisitor(PhantomData))
    }
}

struct StrVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for StrVisitor<'a> {
    type Value = Str<'a>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Str<'a>, E> {
        Ok(Str(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Str<'a>, E> {
        Ok(Str(Cow::Owned(text.to_owned())))
    }
}

fn text<'de: 'a, 'a, D: Deserializer<'de>>(input: D) -> Result<Text<'a>, D::Error> {
    Ok(Option::<Str<'a>>::deserialize(input)?.map(|Str(text)| text).unwrap_or_default())
}

/// `null` is a payload like any other.
fn payload<'de: 'a, 'a, D: Deserializer<'de>>(input: D) -> Result<Data<'a>, D::Error> {
    Ok(without_newlines(<&'de RawValue>::deserialize(input)?.get()))
}

/// `null` is no payload.
fn optional_payload<'de: 'a, 'a, D: Deserializer<'de>>(input: D) -> Result<Data<'a>, D::Error> {
    Ok(Option::<&'de RawValue>::deserialize(input)?.map(|value| without_newlines(value.get())).unwrap_or_default())
}

fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}
