//! The commands of a connected client: for each, what is checked, in the order that decides which refusal is told.
//!
//! A channel's name is looked at first, then whether the thing exists at all in this release, then the permission.
//! What is not built is refused by the protocol's own "not available", never granted in part without a word.

use super::expiry::{Expiry, NEVER, Past};
use super::subscriptions::Granted;
use super::{ChannelRef, Environment, Session, Step, Subscription, SubscriptionIndex, connection_expiry, refuse};
use crate::auth::{self, SubscriptionGrant};
use crate::base::time::Now;
use crate::protocol::{Data, Disconnect, Error, Method, Reply, Subscribe, Text};
use crate::rules::{NameError, Refusal};

/// Bit of a subscribe command's `flag`: rather no subscription than one that could not recover.
const REJECT_UNRECOVERED: i64 = 2;

impl Session {
    pub(super) fn on_live_command<'a>(
        &mut self,
        now: Now,
        env: &Environment,
        id: u32,
        method: Method<'a>,
        channel: Option<ChannelRef>,
    ) -> Step<'a> {
        match method {
            Method::Pong => self.on_pong(env),
            Method::Subscribe(request) => self.on_subscribe(now, env, id, request, channel),
            Method::Unsubscribe { .. } => self.on_unsubscribe(id, channel),
            Method::Publish { channel: name, data, kind } => self.on_publish(env, id, name, data, kind, channel),
            Method::Refresh { token } => self.on_refresh(now, env, id, &token),
            Method::SubRefresh { channel: name, token } => self.on_sub_refresh(now, env, id, &name, &token, channel),
            Method::Presence { channel: name } | Method::PresenceStats { channel: name } => not_built(env, id, &name),
            Method::History(request) => not_built(env, id, &request.channel),
            Method::Rpc { .. } => refuse(id, Error::NotAvailable),
            // It has no reply, so this is the only way to say that nobody takes it.
            Method::Send { .. } => self.end(Disconnect::NotAvailable),
            Method::Connect(_) | Method::Ping => self.end(Disconnect::BadRequest),
        }
    }

    fn on_pong<'a>(&mut self, env: &Environment) -> Step<'a> {
        // Who asked for WebSocket pings was never asked for the protocol's pong.
        if !self.frame_pings && self.keepalive.on_pong(&env.options) {
            return Step::Nothing;
        }
        self.end(Disconnect::BadRequest)
    }

    fn on_subscribe<'a>(
        &mut self,
        now: Now,
        env: &Environment,
        id: u32,
        request: Subscribe<'a>,
        channel: Option<ChannelRef>,
    ) -> Step<'a> {
        if let Err(error) = env.rules.channel(&request.channel) {
            return refuse(id, name_error(error));
        }
        if channel.is_some_and(|channel| self.find(channel).is_some()) {
            return refuse(id, Error::AlreadySubscribed);
        }
        let limit = env.options.channel_limit;
        if limit > 0 && self.subscriptions.len() >= limit {
            return refuse(id, Error::LimitExceeded);
        }
        // A filter that is not applied would deliver what the client must not see. Wishes that only add something
        // (positions, recovery, join and leave, delta, numeric ids) are refused by their absence from the answer.
        if request.kind != 0 || request.filtered {
            return refuse(id, Error::NotAvailable);
        }
        if request.recover.is_some() && request.flag & REJECT_UNRECOVERED != 0 {
            return refuse(id, Error::UnrecoverablePosition);
        }
        let grant = match request.token.is_empty() {
            true => None,
            false => match env.verifier.subscription(&request.token, now.wall) {
                Ok(grant) => Some(grant),
                Err(auth::Refused::Expired) => return refuse(id, Error::TokenExpired),
                Err(auth::Refused::Invalid | auth::Refused::NotConfigured) => {
                    return refuse(id, Error::PermissionDenied);
                }
            },
        };
        if let Err(refusal) = self.may_subscribe(env, &request.channel, grant.as_ref()) {
            return self.refuse_for(id, refusal);
        }
        let grant = grant.unwrap_or_default();
        match Expiry::granted(grant.expires_at, now.wall) {
            Ok(expiry) => Step::Subscribe {
                id,
                channel: request.channel,
                expires_at: expiry.map(Expiry::secs),
                info: grant.info,
                data: grant.data,
            },
            Err(Past) => refuse(id, Error::Expired),
        }
    }

    /// What was never subscribed is unsubscribed already, whatever its name.
    fn on_unsubscribe<'a>(&self, id: u32, channel: Option<ChannelRef>) -> Step<'a> {
        match channel.and_then(|channel| self.find(channel)) {
            Some(subscription) => Step::Unsubscribe { id, subscription },
            None => Step::Reply { id, reply: Reply::Unsubscribe },
        }
    }

    fn on_publish<'a>(
        &mut self,
        env: &Environment,
        id: u32,
        name: Text<'a>,
        data: Data<'a>,
        kind: i32,
        channel: Option<ChannelRef>,
    ) -> Step<'a> {
        if let Err(error) = env.rules.channel(&name) {
            return refuse(id, name_error(error));
        }
        if data.is_empty() {
            return refuse(id, Error::BadRequest);
        }
        if kind != 0 {
            return refuse(id, Error::NotAvailable);
        }
        let subscribed = self.live(channel).is_some();
        match env.rules.may_publish(&name, &self.user, subscribed) {
            Ok(()) => Step::Publish { id, channel: name, data },
            Err(refusal) => self.refuse_for(id, refusal),
        }
    }

    fn on_refresh<'a>(&mut self, now: Now, env: &Environment, id: u32, token: &str) -> Step<'a> {
        if token.is_empty() {
            return self.end(Disconnect::BadRequest);
        }
        let grant = match env.verifier.connection(token, now.wall) {
            Ok(grant) => grant,
            Err(auth::Refused::Expired) => return self.end(Disconnect::ConnectionExpired),
            Err(auth::Refused::Invalid | auth::Refused::NotConfigured) => return self.end(Disconnect::InvalidToken),
        };
        if grant.user != self.user {
            return self.end(Disconnect::InvalidToken);
        }
        // Its server-side subscriptions changed: the client is to connect anew, which tells it that they are not built.
        if !grant.channels.is_empty() {
            return self.end(Disconnect::InsufficientState);
        }
        let expiry = match connection_expiry(env, now, grant.expires_at) {
            Ok(expiry) => expiry,
            Err(Past) => return refuse(id, Error::Expired),
        };
        self.expiry = expiry;
        self.over = expiry.map_or(NEVER, |expiry| expiry.over(now, env.options.expired_close_delay));
        if !grant.info.is_empty() {
            self.info = grant.info;
        }
        let ttl = expiry.map_or(0, |expiry| expiry.ttl(now.wall));
        // Client and version are as the answer to connect had them, and no client looks: left out, as the reference does.
        Step::Reply { id, reply: Reply::Refresh { client: "", version: "", expires: expiry.is_some(), ttl } }
    }

    fn on_sub_refresh<'a>(
        &mut self,
        now: Now,
        env: &Environment,
        id: u32,
        name: &str,
        token: &str,
        channel: Option<ChannelRef>,
    ) -> Step<'a> {
        if let Err(error) = env.rules.channel(name) {
            return refuse(id, name_error(error));
        }
        let Some(index) = self.live(channel) else {
            return refuse(id, Error::PermissionDenied);
        };
        if token.is_empty() {
            return refuse(id, Error::BadRequest);
        }
        let grant = match env.verifier.subscription(token, now.wall) {
            Ok(grant) => grant,
            Err(auth::Refused::Expired) => return refuse(id, Error::TokenExpired),
            Err(auth::Refused::Invalid | auth::Refused::NotConfigured) => return self.end(Disconnect::InvalidToken),
        };
        if let Err(refusal) = self.may_subscribe(env, name, Some(&grant)) {
            return self.refuse_for(id, refusal);
        }
        let expiry = match Expiry::granted(grant.expires_at, now.wall) {
            Ok(expiry) => expiry,
            Err(Past) => return refuse(id, Error::Expired),
        };
        let over = expiry.map_or(NEVER, |expiry| expiry.over(now, env.options.expired_sub_close_delay));
        let subscription = self.subscriptions.get_mut(index).expect("found above");
        // The data went out with the answer to subscribe and is of no use any more.
        subscription.granted = (expiry.is_some() || !grant.info.is_empty())
            .then(|| Box::new(Granted { expiry, over, info: grant.info, data: Box::default() }));
        self.subscription_over = self.subscriptions.deadline();
        let ttl = expiry.map_or(0, |expiry| expiry.ttl(now.wall));
        Step::Reply { id, reply: Reply::SubRefresh { expires: expiry.is_some(), ttl } }
    }

    fn live(&self, channel: Option<ChannelRef>) -> Option<SubscriptionIndex> {
        let index = self.find(channel?)?;
        self.subscription(index).is_some_and(Subscription::is_live).then_some(index)
    }

    fn may_subscribe(&self, env: &Environment, name: &str, grant: Option<&SubscriptionGrant>) -> Result<(), Refusal> {
        env.rules.may_subscribe(name, &self.user, grant, self.client.text().as_str())
    }

    fn refuse_for<'a>(&mut self, id: u32, refusal: Refusal) -> Step<'a> {
        match refusal {
            Refusal::Name(error) => refuse(id, name_error(error)),
            Refusal::Denied => refuse(id, Error::PermissionDenied),
            Refusal::WrongToken => self.end(Disconnect::InvalidToken),
        }
    }
}

fn not_built<'a>(env: &Environment, id: u32, name: &str) -> Step<'a> {
    let error = env.rules.channel(name).map_or_else(name_error, |_| Error::NotAvailable);
    refuse(id, error)
}

const fn name_error(error: NameError) -> Error {
    match error {
        NameError::Empty | NameError::TooLong | NameError::NotAscii => Error::BadRequest,
        NameError::UnknownNamespace => Error::UnknownChannel,
    }
}
