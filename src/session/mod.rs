//! One client: who it is, what it may do, when it must speak. A command goes in, at most one step comes out.
//!
//! It knows neither sockets nor WebSocket nor who else is subscribed; channels are references that the shard resolves.
//! The shard carries the step out and reports back where the answer needs the rest of the system
//! (`on_admitted`, `on_subscribed`). `commands` has the rules of each command of a connected client, `keepalive` and
//! `expiry` what happens when it says nothing, `subscriptions` what it follows.
//!
//! Always true: nothing is answered to a client before the answer to its connect command, and after `Step::Close`
//! nothing at all.

mod commands;
mod expiry;
mod keepalive;
mod subscriptions;

use std::time::Duration;

use crate::auth::{Refused, Verifier};
use crate::base::id::{ClientId, ClientIdText};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};
use crate::protocol::refusal::EXPIRY_GRACE;
use crate::protocol::{
    Command, Connect, Connected, Data, Disconnect, Encoding, Error, Method, Reply, Subscribed, Text, UnsubscribeCode,
};
use crate::rules::Rules;
use expiry::{Expiry, NEVER, Past};
use keepalive::{Due, Keepalive};
use subscriptions::{Granted, Subscriptions};

pub use subscriptions::Subscription;

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
    Reply {
        id: u32,
        reply: Reply<'a>,
    },
    /// The connect command with `id` is in order: count the client in with its user's home, then `on_admitted`.
    Admit {
        id: u32,
    },
    /// Enter the channel (find or make its reference), call `begin_subscription`, then get interest; `on_subscribed` when confirmed.
    Subscribe {
        id: u32,
        channel: Text<'a>,
        expires_at: Option<u64>,
        info: Box<[u8]>,
        data: Box<[u8]>,
    },
    /// Leave the channel and answer.
    Unsubscribe {
        id: u32,
        subscription: SubscriptionIndex,
    },
    /// Publish; answer the command when `id` is not zero.
    Publish {
        id: u32,
        channel: Text<'a>,
        data: Data<'a>,
    },
    /// Send the protocol's ping (or a WebSocket ping where the client asked for that).
    Ping,
    /// Unasked: leave the channel and push an unsubscribe.
    Drop {
        subscription: SubscriptionIndex,
        code: UnsubscribeCode,
    },
    Close(Disconnect),
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Zero: no pings. Told to clients in whole seconds, rounded up.
    pub ping_interval: Duration,
    /// How long the pong may take; should be below the interval. Zero: no pongs are asked for.
    pub pong_timeout: Duration,
    /// From the connection's start to its accepted connect command.
    pub stale_close_delay: Duration,
    /// Subscriptions of one client, pending ones included. Zero: as many as there are indices (65,535).
    pub channel_limit: u16,
    /// How long after its expiry a connection may still be refreshed.
    pub expired_close_delay: Duration,
    /// The same for a subscription.
    pub expired_sub_close_delay: Duration,
    /// Told in the answer to connect; empty: not told.
    pub version: Box<str>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            channel_limit: 128,
            expired_close_delay: EXPIRY_GRACE,
            expired_sub_close_delay: EXPIRY_GRACE,
            version: Box::default(),
        }
    }
}

impl Options {
    fn expects_pong(&self) -> bool {
        !self.ping_interval.is_zero() && !self.pong_timeout.is_zero()
    }

    /// For a client's timer: rounded up, since a shorter promise than the truth would end healthy connections.
    fn ping_secs(&self) -> u32 {
        let rounded = self.ping_interval.as_secs() + u64::from(self.ping_interval.subsec_nanos() > 0);
        u32::try_from(rounded).unwrap_or(u32::MAX)
    }
}

/// What all sessions of a worker share.
pub struct Environment {
    pub options: Options,
    pub rules: Rules,
    pub verifier: Verifier,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing was said yet.
    New,
    Admitting,
    /// The connect command was answered with an error: nothing but silence can follow.
    Failed,
    Live,
    Closed,
}

pub struct Session {
    client: ClientId,
    user: Box<str>,
    info: Box<[u8]>,
    subscriptions: Subscriptions,
    keepalive: Keepalive,
    expiry: Option<Expiry>,
    /// When the connection is closed unless something happens: stale at first, expired once it lives.
    over: Instant,
    /// No later than the first end of a subscription; earlier when that one has left meanwhile.
    subscription_over: Instant,
    connect_id: u32,
    state: State,
    encoding: Encoding,
    frame_pings: bool,
}

// A million idle clients: every byte here is a megabyte there.
const _: () = assert!(size_of::<Session>() <= 128);
const _: () = assert!(size_of::<Option<Subscription>>() <= 24);

impl Session {
    /// `frame_pings`: the client asked for WebSocket pings instead of the protocol's own.
    pub fn new(client: ClientId, encoding: Encoding, frame_pings: bool, now: Now, env: &Environment) -> Self {
        Session {
            client,
            user: Box::default(),
            info: Box::default(),
            subscriptions: Subscriptions::default(),
            keepalive: Keepalive::silent(),
            expiry: None,
            over: now.mono + env.options.stale_close_delay,
            subscription_over: NEVER,
            connect_id: 0,
            state: State::New,
            encoding,
            frame_pings,
        }
    }

    /// `channel`: the reference of the command's channel where this worker's hub knows it.
    ///
    /// While `is_admitting` the shard keeps commands back, in order, and brings them after `on_admitted`: an answer to
    /// any of them would precede the answer to connect.
    pub fn on_command<'a>(
        &mut self,
        now: Now,
        env: &Environment,
        command: Command<'a>,
        channel: Option<ChannelRef>,
    ) -> Step<'a> {
        assert!(self.state != State::Admitting, "commands wait until the client is admitted");
        match (self.state, command.method) {
            (State::New, Method::Connect(connect)) => self.on_connect(now, env, command.id, &connect),
            (State::New | State::Failed, _) => self.end(Disconnect::BadRequest),
            (State::Live, method) => self.on_live_command(now, env, command.id, method, channel),
            (State::Closed | State::Admitting, _) => Step::Nothing,
        }
    }

    /// A WebSocket pong came. Counts only where WebSocket pings are sent, and unasked ones are allowed (RFC 6455, 5.5.3).
    pub fn on_frame_pong(&mut self, env: &Environment) {
        if self.frame_pings {
            self.keepalive.on_pong(&env.options);
        }
    }

    // ---- connecting

    fn on_connect<'a>(&mut self, now: Now, env: &Environment, id: u32, connect: &Connect<'_>) -> Step<'a> {
        if connect.token.is_empty() {
            if !env.rules.may_connect_without_token() {
                return self.end(Disconnect::BadRequest);
            }
            return self.admit(id);
        }
        let grant = match env.verifier.connection(&connect.token, now.wall) {
            Ok(grant) => grant,
            Err(Refused::Expired) => return self.fail(id, Error::TokenExpired),
            Err(Refused::Invalid | Refused::NotConfigured) => return self.end(Disconnect::InvalidToken),
        };
        // Server-side subscriptions are not built. Leaving them out would be a success that lacks what was granted.
        if !grant.channels.is_empty() {
            return self.fail(id, Error::NotAvailable);
        }
        self.expiry = match connection_expiry(env, now, grant.expires_at) {
            Ok(expiry) => expiry,
            Err(Past) => return self.fail(id, Error::Expired),
        };
        self.user = grant.user;
        self.info = grant.info;
        // `connect.subs` asks to go on with server-side subscriptions. The answer names none, by which clients learn
        // that they are gone.
        self.admit(id)
    }

    fn admit<'a>(&mut self, id: u32) -> Step<'a> {
        self.state = State::Admitting;
        self.connect_id = id;
        Step::Admit { id }
    }

    fn fail<'a>(&mut self, id: u32, error: Error) -> Step<'a> {
        self.state = State::Failed;
        refuse(id, error)
    }

    /// The client was counted in: answer its connect command with `connected`, then bring the commands kept back.
    /// False: it was closed meanwhile, and nothing may be said to it.
    pub fn on_admitted(&mut self, now: Now, env: &Environment, rng: &mut Rng) -> bool {
        if self.state != State::Admitting {
            return false;
        }
        self.state = State::Live;
        self.over = self.expiry.map_or(NEVER, |expiry| expiry.over(now, env.options.expired_close_delay));
        self.keepalive.start(now.mono, &env.options, rng);
        true
    }

    /// The node, or the user, has too many connections.
    pub fn on_refused(&mut self) -> Disconnect {
        self.state = State::Closed;
        Disconnect::ConnectionLimit
    }

    /// The answer to the connect command, whose id is `connect_id`.
    pub fn connected<'a>(&self, now: Now, env: &'a Environment, text: &'a ClientIdText) -> Connected<'a> {
        let pings = !self.frame_pings && !env.options.ping_interval.is_zero();
        Connected {
            client: text.as_str(),
            version: &env.options.version,
            expires: self.expiry.is_some(),
            ttl: self.expiry.map_or(0, |expiry| expiry.ttl(now.wall)),
            data: &[],
            ping: if pings { env.options.ping_secs() } else { 0 },
            pong: pings && env.options.expects_pong(),
            subs: Vec::new(),
        }
    }

    // ---- subscriptions

    /// For a `Step::Subscribe`, whose fields these are. Error 105 also while the first one is pending.
    pub fn begin_subscription(
        &mut self,
        channel: ChannelRef,
        id: u32,
        expires_at: Option<u64>,
        info: Box<[u8]>,
        data: Box<[u8]>,
    ) -> Result<SubscriptionIndex, Error> {
        let expiry = expires_at.and_then(Expiry::new);
        let granted = (expiry.is_some() || !info.is_empty() || !data.is_empty())
            .then(|| Box::new(Granted { expiry, over: NEVER, info, data }));
        self.subscriptions.insert(channel, id, granted).map_err(|refused| match refused {
            subscriptions::Refused::Twice => Error::AlreadySubscribed,
            subscriptions::Refused::Full => Error::LimitExceeded,
        })
    }

    /// The interest is confirmed: from pending to live, with the id and the answer of its command. `None` when there is
    /// nothing pending under the index.
    pub fn on_subscribed(
        &mut self,
        now: Now,
        index: SubscriptionIndex,
        env: &Environment,
    ) -> Option<(u32, Subscribed<'_>)> {
        if self.state == State::Closed {
            return None;
        }
        let id = self.subscriptions.get(index)?.pending()?;
        let subscription = self.subscriptions.go_live(index)?;
        let expiry = subscription.expiry();
        if let (Some(granted), Some(expiry)) = (&mut subscription.granted, expiry) {
            granted.over = expiry.over(now, env.options.expired_sub_close_delay);
            self.subscription_over = self.subscription_over.min(granted.over);
        }
        let subscribed = Subscribed {
            expires: expiry.is_some(),
            ttl: expiry.map_or(0, |expiry| expiry.ttl(now.wall)),
            data: subscription.data(),
            was_recovering: false,
        };
        Some((id, subscribed))
    }

    /// For `Step::Unsubscribe` and `Step::Drop`, for a subscription that could not be made, and whenever the shard has
    /// reasons of its own. One that was still pending says so: its command has not been answered.
    pub fn end_subscription(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        self.subscriptions.remove(index)
    }

    pub fn find(&self, channel: ChannelRef) -> Option<SubscriptionIndex> {
        self.subscriptions.find(channel)
    }

    pub fn subscription(&self, index: SubscriptionIndex) -> Option<&Subscription> {
        self.subscriptions.get(index)
    }

    /// Where the hub's member list has this subscription. It must exist.
    pub fn set_position(&mut self, index: SubscriptionIndex, position: u32) {
        self.subscriptions.get_mut(index).expect("a member of the hub has a subscription").position = position;
    }

    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionIndex, &Subscription)> {
        self.subscriptions.iter()
    }

    // ---- time

    pub fn poll_deadline(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let first = self.over.min(self.keepalive.deadline()).min(self.subscription_over);
        (first < NEVER).then_some(first)
    }

    /// Called again until it has nothing.
    pub fn on_deadline(&mut self, now: Now, env: &Environment) -> Step<'static> {
        if self.state == State::Closed {
            return Step::Nothing;
        }
        if self.over <= now.mono {
            return self.end(match self.state {
                State::Live => Disconnect::ConnectionExpired,
                // It asked in time and we were slow: it may come again, which "stale" would forbid.
                State::Admitting => Disconnect::InternalError,
                State::New | State::Failed | State::Closed => Disconnect::Stale,
            });
        }
        match self.keepalive.on_deadline(now.mono, &env.options) {
            Due::Ping => return Step::Ping,
            Due::NoPong => return self.end(Disconnect::NoPong),
            Due::Nothing => {}
        }
        if self.subscription_over <= now.mono {
            let over = self.subscriptions.poll_over(now.mono);
            self.subscription_over = self.subscriptions.deadline();
            if let Some(subscription) = over {
                return Step::Drop { subscription, code: UnsubscribeCode::Expired };
            }
        }
        Step::Nothing
    }

    /// The shard closes the connection for a reason of its own. Nothing comes out of this session any more.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    fn end<'a>(&mut self, disconnect: Disconnect) -> Step<'a> {
        self.state = State::Closed;
        Step::Close(disconnect)
    }

    // ---- what it is

    pub const fn client(&self) -> ClientId {
        self.client
    }

    /// Empty for the anonymous user. Known from `Step::Admit` on.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What others see as `conn_info`: JSON, or empty.
    pub fn info(&self) -> &[u8] {
        &self.info
    }

    /// What others see as `chan_info`: JSON, or empty.
    pub fn chan_info(&self, index: SubscriptionIndex) -> &[u8] {
        self.subscriptions.get(index).map_or(&[], Subscription::info)
    }

    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether `Step::Ping` means a WebSocket ping.
    pub const fn frame_pings(&self) -> bool {
        self.frame_pings
    }

    pub const fn connect_id(&self) -> u32 {
        self.connect_id
    }

    pub fn is_admitting(&self) -> bool {
        self.state == State::Admitting
    }

    /// Admitted, and not closed.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }
}

/// In insecure mode tokens are checked, but no connection ends because of one.
fn connection_expiry(env: &Environment, now: Now, expires_at: Option<u64>) -> Result<Option<Expiry>, Past> {
    let expiry = Expiry::granted(expires_at, now.wall)?;
    Ok(expiry.filter(|_| !env.rules.insecure()))
}

fn refuse<'a>(id: u32, error: Error) -> Step<'a> {
    Step::Reply { id, reply: Reply::Error(error) }
}

#[cfg(test)]
mod tests;
