//! The client protocol on one page: what a client may ask, what it is told.
//!
//! Commands are borrowed from the frame they came in; replies borrow what they say. Two encodings, JSON and Protobuf,
//! carry the same types: `json` and `binary` turn bytes into a `Command` and a `Reply` or `Push` into bytes, `batch`
//! knows how several of them share one frame, `refusal` has the error and close codes. What is not built yet is here as a
//! command all the same, so that it gets the protocol's own answer.
//!
//! Always true: `data` that a JSON encoder writes is one valid JSON value without raw newlines.

pub mod batch;
pub mod binary;
pub mod json;
mod key;
pub mod refusal;

pub use batch::{Commands, decode};
pub use json::validate_json;
pub use refusal::{Disconnect, Error, UnsubscribeCode};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// One thing that a client asks. `id` is zero for `Send` and `Pong`, which get no reply.
#[derive(Clone, PartialEq, Debug)]
pub struct Command<'a> {
    pub id: u32,
    pub method: Method<'a>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Method<'a> {
    Pong,
    Connect(Connect<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe {
        channel: Text<'a>,
    },
    Publish {
        channel: Text<'a>,
        data: Data<'a>,
        kind: i32,
    },
    Presence {
        channel: Text<'a>,
    },
    PresenceStats {
        channel: Text<'a>,
    },
    History(History<'a>),
    Rpc {
        method: Text<'a>,
        data: Data<'a>,
    },
    Send {
        data: Data<'a>,
    },
    Refresh {
        token: Text<'a>,
    },
    SubRefresh {
        channel: Text<'a>,
        token: Text<'a>,
    },
    /// Clients never send it; the reference closes with 3501.
    Ping,
}

/// Text of a command: borrowed from the frame unless it held escapes.
pub type Text<'a> = std::borrow::Cow<'a, str>;

/// A payload as it came. In JSON it is one valid value; raw newlines inside are removed when decoded
/// (they can only be white space there), which is when it is owned.
pub type Data<'a> = std::borrow::Cow<'a, [u8]>;

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Connect<'a> {
    pub token: Text<'a>,
    pub data: Data<'a>,
    pub name: Text<'a>,
    pub version: Text<'a>,
    /// Server-side subscriptions whose position the client still has: channel, position.
    pub subs: Vec<(Text<'a>, Recover<'a>)>,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Subscribe<'a> {
    pub channel: Text<'a>,
    pub token: Text<'a>,
    pub data: Data<'a>,
    pub recover: Option<Recover<'a>>,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    /// "" or "fossil".
    pub delta: Text<'a>,
    /// A tag filter was sent.
    pub filtered: bool,
    pub flag: i64,
    /// 0 is an ordinary stream; maps and shared polls are not built.
    pub kind: i32,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Recover<'a> {
    pub epoch: Text<'a>,
    pub offset: u64,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct History<'a> {
    pub channel: Text<'a>,
    pub limit: i32,
    pub since: Option<Recover<'a>>,
    pub reverse: bool,
}

/// The answer to one command.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply<'a> {
    Error(Error),
    Connect(Connected<'a>),
    Subscribe(Subscribed<'a>),
    Unsubscribe,
    Publish,
    Rpc { data: &'a [u8] },
    Refresh { client: &'a str, version: &'a str, expires: bool, ttl: u32 },
    SubRefresh { expires: bool, ttl: u32 },
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Connected<'a> {
    pub client: &'a str,
    pub version: &'a str,
    pub expires: bool,
    /// Seconds.
    pub ttl: u32,
    pub data: &'a [u8],
    /// Seconds; zero: no pings.
    pub ping: u32,
    pub pong: bool,
    pub subs: Vec<(&'a str, Subscribed<'a>)>,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Subscribed<'a> {
    pub expires: bool,
    pub ttl: u32,
    pub data: &'a [u8],
    pub was_recovering: bool,
}

/// What a client is told unasked. A server ping is `None` of these: see `batch`.
#[derive(Clone, PartialEq, Debug)]
pub enum Push<'a> {
    Publication(Publication<'a>),
    Join(ClientInfo<'a>),
    Leave(ClientInfo<'a>),
    Unsubscribe { code: UnsubscribeCode },
    Message { data: &'a [u8] },
    Subscribe { data: &'a [u8] },
    Disconnect(Disconnect),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Publication<'a> {
    pub data: &'a [u8],
    /// Who published: only for a publication of a client.
    pub info: Option<ClientInfo<'a>>,
    pub tags: &'a [(&'a str, &'a str)],
    /// Zero: a channel without history.
    pub offset: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ClientInfo<'a> {
    pub user: &'a str,
    pub client: &'a str,
    /// Empty, or JSON.
    pub conn_info: &'a [u8],
    pub chan_info: &'a [u8],
}

/// Bounds of a frame that a client sent; bytes are bounded by the message size before.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// How deep arrays and objects may nest in a JSON command, payload included.
    pub json_depth_max: u32,
    /// Commands in one frame.
    pub commands_max: u32,
}

/// A frame that is no protocol: the client is closed with 3501.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFrame {
    Empty,
    NotJson,
    NotProtobuf,
    NotUtf8,
    TooDeep,
    TooManyCommands,
    NoMethod,
    /// An ordinary command with id 0.
    NoId,
}

#[cfg(test)]
mod tests;
