//! A small client of our own: for `skein pub` and `skein sub`, for tests and for the simulator.
//!
//! `Client` speaks the client protocol in frames: calls queue commands, `poll_transmit` gives the next frame to send,
//! `on_frame` takes one that came, `poll_event` says what it meant. `ws::Socket` turns frames into the bytes of a
//! WebSocket and back. Neither knows sockets or clocks: who drives them watches for silence (an `Event::Connected` says how
//! often the server pings) and dials again.
//!
//! Its codec shares nothing with the server's (`schema` is the protocol as a table, for serde and prost), so that the two
//! check each other in `tests`.
//!
//! Always true: a reply yields exactly one event or, if nobody asked, an error. What the server sends never panics.

pub mod schema;
pub mod ws;

use std::collections::{BTreeMap, VecDeque};

use crate::limits::MESSAGES_PER_FRAME_MAX;
use crate::protocol::{Connect, Encoding, Method, Subscribe, batch};

/// Commands without a reply, and likewise commands not yet sent. One more is refused.
pub const PENDING_MAX: usize = 65_536;
/// A frame is closed once it is this long, well below what servers accept by default. A longer command goes alone.
const FRAME_BYTES_FULL: usize = 32 * 1024;

#[derive(Clone, Debug)]
pub struct Options {
    pub encoding: Encoding,
    /// Empty: anonymous.
    pub token: String,
    /// Tells the server what kind of client this is.
    pub name: String,
}

/// A command that was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// `PENDING_MAX` others wait.
    Full,
    /// A JSON client's payload is one JSON value.
    NotJson,
}

/// A frame that is no protocol, or an answer to what was not asked. The connection is of no more use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFrame {
    NotDecodable,
    UnknownReply,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    Connected {
        client: String,
        version: String,
        /// Seconds between the server's pings; zero: none.
        ping: u32,
        /// Pings are answered.
        pong: bool,
    },
    /// The answer to `subscribe`, or a subscription that the server made.
    Subscribed {
        channel: String,
    },
    SubscribeError {
        channel: String,
        code: u32,
        message: String,
        temporary: bool,
    },
    /// The answer to `unsubscribe` (code 0), or the server ended the subscription. 2500 and above ask to subscribe again.
    Unsubscribed {
        channel: String,
        code: u32,
    },
    Published {
        id: u32,
    },
    /// The answer to any other command.
    Answered {
        id: u32,
        data: Vec<u8>,
    },
    /// The command, other than `subscribe`, was refused.
    Error {
        id: u32,
        code: u32,
        message: String,
        temporary: bool,
    },
    Publication {
        channel: String,
        data: Vec<u8>,
        info: Option<Info>,
        offset: u64,
        tags: BTreeMap<String, String>,
    },
    Joined {
        channel: String,
        info: Info,
    },
    Left {
        channel: String,
        info: Info,
    },
    Message {
        data: Vec<u8>,
    },
    /// The last event. `reconnect`: the server, or the absence of its word, invites to try again.
    Disconnected {
        code: u32,
        reason: String,
        reconnect: bool,
    },
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Info {
    pub user: String,
    pub client: String,
    pub conn_info: Vec<u8>,
    pub chan_info: Vec<u8>,
}

pub struct Client {
    options: Options,
    id: u32,
    /// Commands that have no reply yet.
    asked: BTreeMap<u32, Asked>,
    /// Encoded messages, not yet sent.
    unsent: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    pongs: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Commands that are queued now follow `connect` in its frame.
    Connecting,
    Connected,
    Disconnected,
}

enum Asked {
    Connect,
    Subscribe(String),
    Unsubscribe(String),
    Publish,
    Other,
}

impl Client {
    pub fn new(options: Options) -> Self {
        Client {
            options,
            id: 0,
            asked: BTreeMap::new(),
            unsent: VecDeque::new(),
            events: VecDeque::new(),
            pongs: false,
            state: State::Connecting,
        }
    }

    /// The first command. Those that follow may be queued at once, as the official clients do.
    pub fn connect_request(&mut self) -> u32 {
        let Options { token, name, .. } = self.options.clone();
        let connect = Connect { token: token.into(), name: name.into(), ..Connect::default() };
        match self.ask(&Method::Connect(connect)) {
            Ok(id) => id,
            Err(refused) => unreachable!("the first command was refused: {refused:?}"),
        }
    }

    pub fn subscribe(&mut self, channel: &str) -> Result<u32, Refused> {
        self.ask(&Method::Subscribe(Subscribe { channel: channel.into(), ..Subscribe::default() }))
    }

    pub fn subscribe_with_token(&mut self, channel: &str, token: &str) -> Result<u32, Refused> {
        let subscribe = Subscribe { channel: channel.into(), token: token.into(), ..Subscribe::default() };
        self.ask(&Method::Subscribe(subscribe))
    }

    pub fn unsubscribe(&mut self, channel: &str) -> Result<u32, Refused> {
        self.ask(&Method::Unsubscribe { channel: channel.into() })
    }

    /// `data`: for a JSON client one JSON value.
    pub fn publish(&mut self, channel: &str, data: &[u8]) -> Result<u32, Refused> {
        self.ask(&Method::Publish { channel: channel.into(), data: data.into(), kind: 0 })
    }

    pub fn rpc(&mut self, method: &str, data: &[u8]) -> Result<u32, Refused> {
        self.ask(&Method::Rpc { method: method.into(), data: data.into() })
    }

    pub fn refresh(&mut self, token: &str) -> Result<u32, Refused> {
        self.ask(&Method::Refresh { token: token.into() })
    }

    /// Any command of the protocol, be it one that servers refuse. The id that its reply will carry; zero for `Send` and
    /// `Pong`, which have none.
    pub fn ask(&mut self, method: &Method<'_>) -> Result<u32, Refused> {
        if self.asked.len() >= PENDING_MAX || self.unsent.len() >= PENDING_MAX {
            return Err(Refused::Full);
        }
        let id = match method {
            Method::Send { .. } | Method::Pong => 0,
            // Wraps after four thousand million commands, past zero.
            _ => self.id.checked_add(1).unwrap_or(1),
        };
        let mut message = Vec::new();
        schema::encode_command(self.options.encoding, id, method, &mut message)
            .map_err(|schema::NotJson| Refused::NotJson)?;
        self.unsent.push_back(message);
        if id != 0 {
            self.id = id;
            self.asked.insert(id, Asked::from(method));
        }
        Ok(id)
    }

    /// The payload of the next frame to send: several commands where there are several.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.unsent.pop_front()?;
        let separator = batch::separator(self.options.encoding);
        for _ in 1..MESSAGES_PER_FRAME_MAX {
            let Some(next) = self.unsent.front() else { break };
            if frame.len() + next.len() > FRAME_BYTES_FULL {
                break;
            }
            frame.extend_from_slice(separator);
            frame.extend_from_slice(next);
            self.unsent.pop_front();
        }
        Some(frame)
    }

    /// Events wait here until polled: as many as the frames since the last poll had messages.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Commands that have no reply yet.
    pub fn pending(&self) -> usize {
        self.asked.len()
    }

    pub fn connected(&self) -> bool {
        self.state == State::Connected
    }

    /// One frame from the server. After an error, or a disconnect, frames are ignored.
    pub fn on_frame(&mut self, frame: &[u8]) -> Result<(), BadFrame> {
        if self.state == State::Disconnected {
            return Ok(());
        }
        let heard = self.read(frame);
        if heard.is_err() {
            self.on_close(None, "bad frame");
        }
        heard
    }

    /// The connection has ended: by a close frame with a code, or without one.
    pub fn on_close(&mut self, code: Option<u16>, reason: &str) {
        // 1006 is what a client says to itself when it was told nothing.
        let code = u32::from(code.unwrap_or(1006));
        self.disconnected(code, reason.to_owned(), !matches!(code, 1009 | 3500..4000 | 4500..5000));
    }

    fn disconnected(&mut self, code: u32, reason: String, reconnect: bool) {
        if self.state != State::Disconnected {
            self.state = State::Disconnected;
            self.asked.clear();
            self.unsent.clear();
            self.events.push_back(Event::Disconnected { code, reason, reconnect });
        }
    }

    fn read(&mut self, frame: &[u8]) -> Result<(), BadFrame> {
        let replies = schema::decode_replies(self.options.encoding, frame).ok_or(BadFrame::NotDecodable)?;
        for reply in replies {
            match reply {
                schema::Reply { id: 0, push: Some(push), .. } => self.on_push(push),
                schema::Reply { id: 0, push: None, .. } => self.on_ping(),
                reply => self.on_reply(reply)?,
            }
        }
        Ok(())
    }

    fn on_ping(&mut self) {
        // A full queue of unsent messages has a pong in it already, or a reader who will notice soon enough.
        if self.pongs && self.unsent.len() < PENDING_MAX {
            self.unsent.push_back(batch::ping(self.options.encoding).to_vec());
        }
    }

    fn on_reply(&mut self, reply: schema::Reply) -> Result<(), BadFrame> {
        let id = reply.id;
        let asked = self.asked.remove(&id).ok_or(BadFrame::UnknownReply)?;
        if let Some(schema::Error { code, message, temporary }) = reply.error {
            self.events.push_back(match asked {
                Asked::Subscribe(channel) => Event::SubscribeError { channel, code, message, temporary },
                _ => Event::Error { id, code, message, temporary },
            });
            return Ok(());
        }
        match asked {
            Asked::Connect => {
                let result = reply.connect.ok_or(BadFrame::UnknownReply)?;
                self.pongs = result.pong;
                self.state = State::Connected;
                let schema::ConnectResult { client, version, ping, pong, subs, .. } = result;
                self.events.push_back(Event::Connected { client, version, ping, pong });
                self.events.extend(subs.into_keys().map(|channel| Event::Subscribed { channel }));
            }
            Asked::Subscribe(channel) => {
                reply.subscribe.ok_or(BadFrame::UnknownReply)?;
                self.events.push_back(Event::Subscribed { channel });
            }
            Asked::Unsubscribe(channel) => {
                reply.unsubscribe.ok_or(BadFrame::UnknownReply)?;
                self.events.push_back(Event::Unsubscribed { channel, code: 0 });
            }
            Asked::Publish => {
                reply.publish.ok_or(BadFrame::UnknownReply)?;
                self.events.push_back(Event::Published { id });
            }
            Asked::Other => {
                let data = reply.rpc.unwrap_or_default().data;
                self.events.push_back(Event::Answered { id, data });
            }
        }
        Ok(())
    }

    fn on_push(&mut self, push: schema::Push) {
        let channel = push.channel;
        if let Some(it) = push.publication {
            let info = it.info.map(Info::from);
            self.events.push_back(Event::Publication {
                channel,
                data: it.data,
                info,
                offset: it.offset,
                tags: it.tags,
            });
        } else if let Some(it) = push.join {
            self.events.push_back(Event::Joined { channel, info: it.info.unwrap_or_default().into() });
        } else if let Some(it) = push.leave {
            self.events.push_back(Event::Left { channel, info: it.info.unwrap_or_default().into() });
        } else if let Some(it) = push.unsubscribe {
            self.events.push_back(Event::Unsubscribed { channel, code: it.code });
        } else if push.subscribe.is_some() {
            self.events.push_back(Event::Subscribed { channel });
        } else if let Some(it) = push.message {
            self.events.push_back(Event::Message { data: it.data });
        } else if let Some(it) = push.disconnect {
            self.disconnected(it.code, it.reason, it.reconnect);
        }
        // Other pushes are of later protocols, and as optional for a client as unknown fields.
    }
}

impl From<schema::ClientInfo> for Info {
    fn from(it: schema::ClientInfo) -> Self {
        Info { user: it.user, client: it.client, conn_info: it.conn_info, chan_info: it.chan_info }
    }
}

impl From<&Method<'_>> for Asked {
    fn from(method: &Method<'_>) -> Self {
        match method {
            Method::Connect(_) => Asked::Connect,
            Method::Subscribe(subscribe) => Asked::Subscribe(subscribe.channel.clone().into_owned()),
            Method::Unsubscribe { channel } => Asked::Unsubscribe(channel.clone().into_owned()),
            Method::Publish { .. } => Asked::Publish,
            _ => Asked::Other,
        }
    }
}

#[cfg(test)]
mod tests;
