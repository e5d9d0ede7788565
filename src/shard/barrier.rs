//! The subscribe barrier: a subscriber is answered when every peer in view knows that this node wants the channel, so
//! that no publish which begins afterwards passes it by.
//!
//! A worker asks the channel's home worker once; the home worker tells the flows and counts their
//! acknowledgements; the confirmation comes back and lets everyone who waited in. A channel that nobody follows any more
//! lingers before it is given back, so that a client that comes and goes costs the peers nothing.
//!
//! Always true: a member of the hub has a live subscription and an answer on its way; a waiter has a pending one.

use std::collections::BTreeMap;

use super::Shard;
use super::mail::Mail;
use super::outlet::ConnectionKey;
use crate::backplane::interest::{Asked, Ticket, WorkerSet};
use crate::base::hash::ChannelHash;
use crate::base::id::WorkerIndex;
use crate::base::time::Now;
use crate::hub::{ChannelIndex, Interest, Member, Waiter};
use crate::protocol::{Error, Push, Reply, UnsubscribeCode};
use crate::session::SubscriptionIndex;

use super::delivery::group_of;

impl Shard {
    // ---- the subscriber's worker

    /// A pending subscription goes live now, or when the interest is confirmed.
    pub(super) fn enter(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        subscription: SubscriptionIndex,
        index: ChannelIndex,
    ) {
        let waiter = Waiter { connection, subscription };
        match self.hub.channel(index).interest {
            Interest::Confirmed => self.join(now, waiter, index),
            Interest::Asked => self.hub.wait(index, waiter),
            Interest::None => {
                self.hub.wait(index, waiter);
                let channel = self.hub.channel_mut(index);
                channel.interest = Interest::Asked;
                let mail = Mail::Ask { channel: channel.name.clone(), hash: channel.hash };
                let home = channel.hash.home(self.workers);
                self.post(now, home, mail);
            }
        }
    }

    pub(super) fn on_confirmed(&mut self, now: Now, channel: &str, hash: ChannelHash) {
        let Some(index) = self.hub.find(channel, hash) else { return };
        let channel = self.hub.channel_mut(index);
        channel.interest = Interest::Confirmed;
        for waiter in std::mem::take(&mut channel.waiters) {
            self.join(now, waiter, index);
        }
        self.hub.release(index, now.mono + self.options.interest_linger);
    }

    fn join(&mut self, now: Now, waiter: Waiter, index: ChannelIndex) {
        let Waiter { connection, subscription } = waiter;
        // What was published before belongs to those who were members then.
        self.settle(index);
        let entry = self.connections.get_mut(connection).expect("a waiter is taken back when its connection ends");
        let encoding = entry.session.encoding();
        let Some((id, subscribed)) = entry.session.on_subscribed(now, subscription, &self.environment) else {
            unreachable!("a waiter has a pending subscription in a session that lives");
        };
        let (out, frames) = self.replies.begin(connection, encoding, &mut self.outboxes);
        crate::protocol::batch::encode_reply(encoding, id, &Reply::Subscribe(subscribed), out);
        self.counters.frames_out += frames;
        let member = Member { connection: connection.index, subscription };
        let position = self.hub.join(index, group_of(encoding), member);
        entry.session.set_position(subscription, position);
        self.arm(connection);
    }

    /// Takes a subscription out of session and hub, whatever its state.
    pub(super) fn leave(&mut self, now: Now, connection: ConnectionKey, subscription: SubscriptionIndex) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        let group = group_of(entry.session.encoding());
        let Some(ended) = entry.session.end_subscription(subscription) else { return };
        let index = ended.channel.0;
        let unanswered = ended.pending();
        if ended.is_live() {
            self.settle(index);
            if let Some(moved) = self.hub.leave(index, group, ended.position) {
                let other = self.connections.at_mut(moved.connection).expect("members are connections");
                other.session.set_position(moved.subscription, ended.position);
            }
        } else {
            let waiters = &mut self.hub.channel_mut(index).waiters;
            waiters.retain(|waiter| (waiter.connection, waiter.subscription) != (connection, subscription));
        }
        self.hub.release(index, now.mono + self.options.interest_linger);
        if let Some(id) = unanswered {
            // Its command still waits for an answer. A temporary error: a second attempt of the client goes on.
            self.reply(connection, id, &Reply::Error(Error::Internal));
        }
    }

    /// Unasked: the client is told and may subscribe again, if the code says so.
    pub(super) fn drop_subscription(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        subscription: SubscriptionIndex,
        code: UnsubscribeCode,
    ) {
        let Some(entry) = self.connections.get(connection) else { return };
        let Some(ended) = entry.session.subscription(subscription) else { return };
        let name = self.hub.channel(ended.channel.0).name.clone();
        self.leave(now, connection, subscription);
        self.push(connection, &name, &Push::Unsubscribe { code });
    }

    /// Publications of these channels may be missing: whoever follows them is told.
    pub(super) fn on_gap(&mut self, now: Now, channels: &[(Box<str>, ChannelHash)]) {
        for (name, hash) in channels {
            let Some(index) = self.hub.find(name, *hash) else { continue };
            self.settle(index);
            let channel = self.hub.channel(index);
            let members: Vec<Member> =
                (0..crate::hub::GROUPS).flat_map(|group| channel.group(group).iter().copied()).collect();
            for member in members {
                let connection = self.connections.key_at(member.connection).expect("members are connections");
                self.drop_subscription(now, connection, member.subscription, UnsubscribeCode::InsufficientState);
            }
        }
    }

    // ---- the home worker

    pub(super) fn on_asked(&mut self, now: Now, from: WorkerIndex, channel: &str, hash: ChannelHash) {
        match self.interest.ask(from, channel, hash) {
            Asked::Confirmed => self.post(now, from, Mail::Confirmed { channel: channel.into(), hash }),
            Asked::Waiting => {}
            Asked::Ask { ticket, new } => {
                if new {
                    self.peers.on_wanted(hash, true);
                }
                let missing = self.peers.wait(ticket, hash);
                let confirmed = self.interest.wait(ticket, missing).map(|(_, workers)| workers);
                if let Some(workers) = confirmed {
                    self.confirm(now, channel, hash, workers);
                }
            }
        }
    }

    pub(super) fn on_given_back(&mut self, from: WorkerIndex, channel: &str, hash: ChannelHash) {
        if let Some(hash) = self.interest.give_back(from, channel, hash) {
            self.peers.on_wanted(hash, false);
        }
    }

    /// Peers have acknowledged, or left the view.
    pub(super) fn on_tickets(&mut self, now: Now, tickets: Vec<Ticket>) {
        for ticket in tickets {
            let confirmed =
                self.interest.on_acknowledged(ticket).map(|(name, hash, workers)| (name.to_owned(), hash, workers));
            if let Some((name, hash, workers)) = confirmed {
                self.confirm(now, &name, hash, workers);
            }
        }
    }

    fn confirm(&mut self, now: Now, channel: &str, hash: ChannelHash, workers: WorkerSet) {
        for worker in workers.iter() {
            self.post(now, worker, Mail::Confirmed { channel: channel.into(), hash });
        }
    }

    pub(super) fn tells_gaps(&self, channel: &str) -> bool {
        self.environment.rules.channel(channel).is_ok_and(|rule| rule.options.tell_gap)
    }

    /// Publications of a peer may be missing in the channels that the filter takes.
    pub(super) fn tell_gap(&mut self, now: Now, filter: impl Fn(ChannelHash) -> bool) {
        let mut by_worker: BTreeMap<WorkerIndex, Vec<(Box<str>, ChannelHash)>> = BTreeMap::new();
        for (name, hash, workers) in self.interest.matching(filter) {
            if !self.environment.rules.channel(name).is_ok_and(|rule| rule.options.tell_gap) {
                continue;
            }
            for worker in workers.iter() {
                by_worker.entry(worker).or_default().push((name.into(), hash));
            }
        }
        for (worker, channels) in by_worker {
            self.post(now, worker, Mail::Gap { channels });
        }
    }
}
