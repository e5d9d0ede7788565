//! Which method a command has, and what must hold between it and the command's id, in whichever encoding.

use super::{BadFrame, Command, Method};

/// Methods in the order in which they are looked for: the first one present is the command's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
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
}

impl Key {
    /// The command's id: `send` has none, whatever was sent, and every other method has one.
    pub(super) fn checked_id(self, id: u32) -> Result<u32, BadFrame> {
        match (self, id) {
            (Key::Send, _) => Ok(0),
            (_, 0) => Err(BadFrame::NoId),
            (_, id) => Ok(id),
        }
    }
}

impl Command<'_> {
    /// Without an id too it is a pong, even if it has fields that we do not know.
    pub(super) fn without_method(id: u32) -> Result<Self, BadFrame> {
        match id {
            0 => Ok(Command { id: 0, method: Method::Pong }),
            _ => Err(BadFrame::NoMethod),
        }
    }
}
