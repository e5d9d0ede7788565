//! One client: who it is, what it may do, when it must speak. A command goes in, at most one step comes out.
//!
//! It knows neither sockets nor WebSocket nor who else is subscribed; channels are references that the shard resolves.
//! The shard carries the step out and reports back where the answer needs the rest of the system
//! (`on_admitted`, `on_subscribed`).
//!
//! Always true: nothing is answered to a client before its connect reply, and after `Step::Close` nothing at all.

use crate::base::time::{Instant, Now};
use crate::protocol::{Command, Data, Disconnect, Error, Reply, Text, UnsubscribeCode};

/// A channel of this worker's hub, opaque here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelRef(pub u32);

/// Index of a subscription in its session; stable while the subscription lives.
pub type SubscriptionIndex = u16;

/// What the shard has to do for a command.
#[derive(Debug)]
pub enum Step<'a> {
    Nothing,
    /// Answer the command with `id`.
    Reply { id: u32, reply: Reply<'a> },
    /// The connect command with `id` is in order: count the client in with its user's home, then `on_admitted`.
    Admit { id: u32 },
    /// Enter the channel (find or make its reference), call `begin_subscription`, then get interest; `on_subscribed` when confirmed.
    Subscribe { id: u32, channel: Text<'a>, expires_at: Option<u64>, info: Box<[u8]>, data: Box<[u8]> },
    /// Leave the channel and answer.
    Unsubscribe { id: u32, subscription: SubscriptionIndex },
    /// Publish; answer the command when `id` is not zero.
    Publish { id: u32, channel: Text<'a>, data: Data<'a> },
    /// Send the protocol's ping (or a WebSocket ping where the client asked for that).
    Ping,
    /// Unasked: leave the channel and push an unsubscribe.
    Drop { subscription: SubscriptionIndex, code: UnsubscribeCode },
    Close(Disconnect),
}
