//! One connection: WebSocket codec and session of one socket, and how its bytes become steps.
//!
//! Bytes go through the decoder to messages, messages to commands, commands to the session, and the session's step is
//! carried out here. A connection that is being closed reads nothing any more: it sends what is left, says FIN, and is
//! aborted when the peer takes too long to hang up.
//!
//! Always true: a connection has its outbox for as long as its key lives; a closing one has no subscriptions and is
//! counted nowhere.

use std::cmp::Reverse;

use super::mail::{Mail, Origin};
use super::outlet::ConnectionKey;
use super::{Opened, Shard, admission};
use crate::backplane::envelope::{InfoRef, PublicationRef, Tags};
use crate::base::id::ClientId;
use crate::base::time::{Instant, Now};
use crate::limits::CLOSE_REASON_BYTES_MAX;
use crate::metrics::{DropReason, Source};
use crate::protocol::{self, Command, Disconnect, Encoding, Method, Push, Reply};
use crate::session::{ChannelRef, Session, Step};
use crate::ws::decoder::{Decoder, Limits, Message};
use crate::ws::encoder::{self, Opcode};
use crate::ws::violation::Violation;

pub struct Connection {
    decoder: Decoder,
    pub session: Session,
    socket: i32,
    phase: Phase,
    /// The earliest of its alarms that are set.
    armed: Option<Instant>,
    /// Its user's key, once it is counted; else 0.
    user_key: u64,
    /// Its address's key where addresses are limited, else 0. Counted exactly while `let_in`.
    address_key: u64,
    let_in: bool,
    /// Frames that came while the client was being admitted.
    held: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Aborted at this time.
    Closing(Instant),
}

impl Shard {
    pub fn on_open(&mut self, now: Now, opened: Opened<'_>) -> ConnectionKey {
        let client = ClientId::random(&mut self.rng);
        let session = Session::new(client, opened.encoding, opened.frame_pings, now, &self.environment);
        let address_key = match self.options.address_connections_max {
            0 => 0,
            _ => admission::address_key(self.hash_key.of(opened.address.to_string().as_bytes())),
        };
        let connection = self.connections.insert(Connection {
            decoder: Decoder::default(),
            session,
            socket: opened.socket,
            phase: Phase::Open,
            armed: None,
            user_key: 0,
            address_key,
            let_in: false,
            held: Vec::new(),
        });
        self.outboxes.open(connection, opened.socket);
        let arena = self.outboxes.arena();
        let start = arena.len() as u32;
        arena.extend_from_slice(opened.response);
        let end = arena.len() as u32;
        self.outboxes.append(connection.index, start..end);
        self.counters.connections += 1;
        self.counters.connections_total += 1;
        self.arm(connection);
        if self.stopping {
            self.disconnect(now, connection, Disconnect::Shutdown);
        }
        connection
    }

    /// What one `recv` brought, at most `limits::READ_BYTES_MAX`. Ignored for a connection that is being closed.
    pub fn on_bytes(&mut self, now: Now, connection: ConnectionKey, bytes: &mut [u8]) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        if entry.phase != Phase::Open {
            return;
        }
        self.counters.bytes_in += bytes.len() as u64;
        let mut decoder = std::mem::take(&mut entry.decoder);
        let limits = Limits { message_bytes_max: self.options.message_bytes_max };
        let fed = decoder.feed(bytes, limits, |message| self.on_message(now, connection, message));
        if let Some(entry) = self.connections.get_mut(connection)
            && entry.phase == Phase::Open
        {
            entry.decoder = decoder;
            if let Err(violation) = fed {
                self.on_violation(now, connection, violation);
            }
        }
        self.commit_replies();
    }

    /// The socket has room again after a short send.
    pub fn on_writable(&mut self, _now: Now, connection: ConnectionKey) {
        if self.connections.get(connection).is_some() {
            self.outboxes.writable(connection);
        }
    }

    /// The peer is gone (end of file, error, or after our own `Finish`). Afterwards the key finds nothing and the
    /// shell may close the socket at once.
    pub fn on_hangup(&mut self, now: Now, connection: ConnectionKey) {
        let Some(entry) = self.connections.get(connection) else { return };
        if entry.phase == Phase::Open {
            self.counters.disconnects.count(Disconnect::ConnectionClosed.code());
            self.retire(now, connection);
        }
        // Its answers were gathered for an outbox that ends here.
        self.commit_replies();
        self.connections.remove(connection);
        self.outboxes.close(connection);
        self.counters.connections -= 1;
    }

    // ---- messages

    /// Whether more messages are welcome.
    fn on_message(&mut self, now: Now, connection: ConnectionKey, message: Message<'_>) -> bool {
        self.counters.frames_in += 1;
        match message {
            Message::Text(text) => self.on_data(now, connection, text.as_bytes(), Opcode::Text),
            Message::Binary(bytes) => self.on_data(now, connection, bytes, Opcode::Binary),
            Message::Ping(payload) => self.send_frame(connection, Opcode::Pong, payload),
            Message::Pong(_) => {
                if let Some(entry) = self.connections.get_mut(connection) {
                    entry.session.on_frame_pong(&self.environment);
                }
            }
            Message::Close(code, _) => {
                self.counters.disconnects.count(Disconnect::ConnectionClosed.code());
                self.close(now, connection, code, "");
            }
        }
        self.connections.get(connection).is_some_and(|entry| entry.phase == Phase::Open)
    }

    fn on_data(&mut self, now: Now, connection: ConnectionKey, bytes: &[u8], opcode: Opcode) {
        if self.echo {
            self.send_frame(connection, opcode, bytes);
            return;
        }
        let entry = self.connections.get_mut(connection).expect("messages come from a connection that lives");
        if entry.session.is_admitting() {
            // One more message of full size at the most: a client has no reason to say so much before it is let in.
            let held: usize = entry.held.iter().map(|bytes| bytes.len()).sum();
            if held + bytes.len() > self.options.message_bytes_max {
                self.disconnect(now, connection, Disconnect::BadRequest);
                return;
            }
            entry.held.push(bytes.into());
            return;
        }
        let encoding = entry.session.encoding();
        let mut commands = protocol::decode(encoding, bytes, self.options.decode);
        while let Some(command) = commands.next() {
            match command {
                Ok(command) => self.on_command(now, connection, command),
                Err(_) => {
                    self.disconnect(now, connection, Disconnect::BadRequest);
                    return;
                }
            }
            match self.connections.get_mut(connection) {
                Some(entry) if entry.phase == Phase::Open => {
                    if entry.session.is_admitting() {
                        let rest = commands.rest();
                        if !rest.is_empty() {
                            entry.held.push(rest.into());
                        }
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    fn on_command(&mut self, now: Now, connection: ConnectionKey, command: Command<'_>) {
        self.counters.commands_in += 1;
        let channel = channel_of(&command.method)
            .and_then(|name| self.hub.find(name, self.hash_key.channel(name)))
            .map(ChannelRef);
        let entry = self.connections.get_mut(connection).expect("commands come from a connection that lives");
        match entry.session.on_command(now, &self.environment, command, channel) {
            Step::Nothing => {}
            Step::Reply { id, reply } => {
                // The session lends parts of the answer out of what the worker shares, so it is encoded while it does.
                let encoding = entry.session.encoding();
                if let Reply::Error(error) = &reply {
                    self.counters.errors.count(error.code() as u16);
                }
                let (out, frames) = self.replies.begin(connection, encoding, &mut self.outboxes);
                protocol::batch::encode_reply(encoding, id, &reply, out);
                self.counters.frames_out += frames;
                self.arm(connection);
            }
            Step::Admit { .. } => self.admit(now, connection),
            Step::Subscribe { id, channel, expires_at, info, data } => {
                let hash = self.hash_key.channel(&channel);
                let index = self.hub.enter(&channel, hash);
                match entry.session.begin_subscription(ChannelRef(index), id, expires_at, info, data) {
                    Ok(subscription) => self.enter(now, connection, subscription, index),
                    Err(error) => {
                        self.hub.release(index, now.mono);
                        self.reply(connection, id, &Reply::Error(error));
                    }
                }
            }
            Step::Unsubscribe { id, subscription } => {
                self.leave(now, connection, subscription);
                self.reply(connection, id, &Reply::Unsubscribe);
            }
            Step::Publish { id, channel, data } => self.on_publish(now, connection, id, &channel, &data),
            Step::Ping => self.ping(connection),
            Step::Drop { subscription, code } => self.drop_subscription(now, connection, subscription, code),
            Step::Close(disconnect) => self.disconnect(now, connection, disconnect),
        }
    }

    fn on_publish(&mut self, now: Now, connection: ConnectionKey, id: u32, channel: &str, data: &[u8]) {
        let entry = self.connections.get(connection).expect("commands come from a connection that lives");
        let session = &entry.session;
        // A Protobuf client may send anything; whether JSON clients can take it is found out once, here.
        let mut checked = std::borrow::Cow::Borrowed(data);
        let mut json = true;
        if session.encoding() == Encoding::Protobuf {
            match protocol::json::validate_json(data, self.options.decode.json_depth_max) {
                Some(valid) => checked = valid,
                None => json = false,
            }
        }
        let hash = self.hash_key.channel(channel);
        let client = session.client().text();
        let user: Box<str> = session.user().into();
        let conn_info: Box<[u8]> = session.info().into();
        let subscription = self.hub.find(channel, hash).and_then(|index| session.find(ChannelRef(index)));
        let chan_info: Box<[u8]> = subscription.map(|index| session.chan_info(index)).unwrap_or_default().into();
        let publication = PublicationRef {
            hash,
            origin_micros: now.wall.0 * 1000,
            channel,
            data: &checked,
            json,
            info: Some(InfoRef { user: &user, client: client.as_str(), conn_info: &conn_info, chan_info: &chan_info }),
            tags: Tags::NONE,
        };
        self.counters.published(Source::Client);
        match self.publish(&publication, Origin::Client { connection, id }) {
            Some(Ok(())) if id != 0 => self.reply(connection, id, &Reply::Publish),
            Some(Err(error)) if id != 0 => self.reply(connection, id, &Reply::Error(error)),
            Some(_) | None => {}
        }
    }

    // ---- admission

    fn admit(&mut self, now: Now, connection: ConnectionKey) {
        let entry = self.connections.get_mut(connection).expect("a connect comes from a connection that lives");
        let user = entry.session.user();
        if !user.is_empty() {
            let key = admission::user_key(self.hash_key.of(user.as_bytes()));
            let home = admission::home(key, self.workers);
            let limit = self.options.user_connections_max;
            self.post(now, home, Mail::Admit { connection, key, limit });
        } else {
            self.admit_address(now, connection);
        }
    }

    fn admit_address(&mut self, now: Now, connection: ConnectionKey) {
        let Some(entry) = self.connections.get(connection) else { return };
        let key = entry.address_key;
        if key == 0 {
            self.let_in(now, connection);
            return;
        }
        let home = admission::home(key, self.workers);
        let limit = self.options.address_connections_max;
        self.post(now, home, Mail::Admit { connection, key, limit });
    }

    pub(super) fn on_admitted(&mut self, now: Now, connection: ConnectionKey, key: u64, admitted: bool) {
        let waiting = self
            .connections
            .get_mut(connection)
            .filter(|entry| entry.phase == Phase::Open && entry.session.is_admitting());
        let Some(entry) = waiting else {
            // It is gone: what was counted for it is given back.
            if admitted {
                self.post(now, admission::home(key, self.workers), Mail::Release { key });
            }
            return;
        };
        if !admitted {
            let refusal = entry.session.on_refused();
            self.disconnect(now, connection, refusal);
            return;
        }
        if key == entry.address_key {
            self.let_in(now, connection);
        } else {
            entry.user_key = key;
            self.admit_address(now, connection);
        }
    }

    fn let_in(&mut self, now: Now, connection: ConnectionKey) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        if !entry.session.on_admitted(now, &self.environment, &mut self.rng) {
            return;
        }
        entry.let_in = true;
        let text = entry.session.client().text();
        let id = entry.session.connect_id();
        let encoding = entry.session.encoding();
        let connected = entry.session.connected(now, &self.environment, &text);
        let (out, frames) = self.replies.begin(connection, encoding, &mut self.outboxes);
        protocol::batch::encode_reply(encoding, id, &Reply::Connect(connected), out);
        self.counters.frames_out += frames;
        self.counters.sessions += 1;
        self.counters.sessions_total += 1;
        self.arm(connection);
        let held = std::mem::take(&mut self.connections.get_mut(connection).expect("still there").held);
        for bytes in held {
            if self.connections.get(connection).is_none_or(|entry| entry.phase != Phase::Open) {
                break;
            }
            self.on_data(now, connection, &bytes, Opcode::Binary);
        }
    }

    // ---- what is said to it

    pub(super) fn reply(&mut self, connection: ConnectionKey, id: u32, reply: &Reply<'_>) {
        let Some(entry) = self.connections.get(connection) else { return };
        if entry.phase != Phase::Open {
            return;
        }
        if let Reply::Error(error) = reply {
            self.counters.errors.count(error.code() as u16);
        }
        let encoding = entry.session.encoding();
        let (out, frames) = self.replies.begin(connection, encoding, &mut self.outboxes);
        protocol::batch::encode_reply(encoding, id, reply, out);
        self.counters.frames_out += frames;
    }

    pub(super) fn push(&mut self, connection: ConnectionKey, channel: &str, push: &Push<'_>) {
        let Some(entry) = self.connections.get(connection) else { return };
        if entry.phase != Phase::Open {
            return;
        }
        let encoding = entry.session.encoding();
        let (out, frames) = self.replies.begin(connection, encoding, &mut self.outboxes);
        protocol::batch::encode_push(encoding, channel, push, out);
        self.counters.frames_out += frames;
    }

    fn ping(&mut self, connection: ConnectionKey) {
        let Some(entry) = self.connections.get(connection) else { return };
        let session = &entry.session;
        if session.frame_pings() {
            self.send_frame(connection, Opcode::Ping, b"");
        } else {
            let opcode = super::replies::opcode(session.encoding());
            self.send_frame(connection, opcode, protocol::batch::ping(session.encoding()));
        }
    }

    fn send_frame(&mut self, connection: ConnectionKey, opcode: Opcode, payload: &[u8]) {
        self.commit_replies();
        let arena = self.outboxes.arena();
        let start = arena.len() as u32;
        encoder::frame(opcode, payload, arena);
        let end = arena.len() as u32;
        self.outboxes.append(connection.index, start..end);
        self.counters.frames_out += 1;
    }

    // ---- the end of it

    fn on_violation(&mut self, now: Now, connection: ConnectionKey, violation: Violation) {
        self.counters.disconnects.count(violation.close_code());
        let reason = match violation {
            Violation::TooLarge => "message size limit exceeded",
            _ => "",
        };
        self.close(now, connection, Some(violation.close_code()), reason);
    }

    pub(super) fn disconnect(&mut self, now: Now, connection: ConnectionKey, why: Disconnect) {
        let Some(entry) = self.connections.get(connection) else { return };
        if entry.phase != Phase::Open {
            return;
        }
        self.counters.disconnects.count(why.code());
        self.close(now, connection, Some(why.code()), why.reason());
    }

    /// What waits for it is dropped first: it is closed because it did not read.
    pub(super) fn on_slow(&mut self, now: Now, connection: ConnectionKey) {
        if self.connections.get(connection).is_some_and(|entry| entry.phase == Phase::Open) {
            self.counters.dropped(DropReason::OutboxSlow, 1);
            self.outboxes.drop_unsent(connection);
            self.disconnect(now, connection, Disconnect::Slow);
        }
    }

    /// Says goodbye: a close frame behind what is under way, then FIN, then patience.
    fn close(&mut self, now: Now, connection: ConnectionKey, code: Option<u16>, reason: &str) {
        self.retire(now, connection);
        self.commit_replies();
        let arena = self.outboxes.arena();
        let start = arena.len() as u32;
        match code {
            Some(code) => {
                assert!(reason.len() <= CLOSE_REASON_BYTES_MAX);
                crate::ws::close::frame(code, reason, arena);
            }
            None => encoder::frame(Opcode::Close, b"", arena),
        }
        let end = arena.len() as u32;
        self.outboxes.append(connection.index, start..end);
        self.counters.frames_out += 1;
        self.outboxes.end(connection);
        let deadline = now.mono + self.options.close_timeout;
        let entry = self.connections.get_mut(connection).expect("only a connection that lives is closed");
        entry.phase = Phase::Closing(deadline);
        entry.armed = None;
        entry.decoder = Decoder::default();
        entry.held = Vec::new();
        self.arm(connection);
    }

    /// Takes it out of everything that counts it or sends to it.
    fn retire(&mut self, now: Now, connection: ConnectionKey) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        let subscriptions: smallvec::SmallVec<[u16; 8]> =
            entry.session.subscriptions().map(|(subscription, _)| subscription).collect();
        let mut keys = [std::mem::take(&mut entry.user_key), 0];
        if std::mem::take(&mut entry.let_in) {
            self.counters.sessions -= 1;
            keys[1] = entry.address_key;
        }
        entry.session.close();
        for subscription in subscriptions {
            self.leave(now, connection, subscription);
        }
        for key in keys.into_iter().filter(|&key| key != 0) {
            self.post(now, admission::home(key, self.workers), Mail::Release { key });
        }
    }

    /// Everything was sent: FIN follows.
    pub(super) fn on_finished(&mut self, now: Now, connection: ConnectionKey) {
        // The peer has as long again to hang up by itself.
        let deadline = now.mono + self.options.close_timeout;
        if let Some(entry) = self.connections.get_mut(connection) {
            entry.phase = Phase::Closing(deadline);
            self.arm(connection);
        }
    }

    // ---- time

    /// Sees to it that an alarm is set for the connection's next deadline.
    pub(super) fn arm(&mut self, connection: ConnectionKey) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        let deadline = match entry.phase {
            Phase::Open => entry.session.poll_deadline(),
            Phase::Closing(at) => Some(at),
        };
        let Some(deadline) = deadline else { return };
        if entry.armed.is_none_or(|armed| deadline < armed) {
            entry.armed = Some(deadline);
            self.alarms.push(Reverse((deadline, connection)));
        }
    }

    pub(super) fn on_alarm(&mut self, now: Now, at: Instant, connection: ConnectionKey) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        if entry.armed != Some(at) {
            return;
        }
        entry.armed = None;
        if let Phase::Closing(deadline) = entry.phase {
            if deadline <= now.mono {
                self.aborts.push((connection, entry.socket));
            } else {
                self.arm(connection);
            }
            return;
        }
        loop {
            let Some(entry) = self.connections.get_mut(connection) else { return };
            if entry.phase != Phase::Open {
                return;
            }
            match entry.session.on_deadline(now, &self.environment) {
                Step::Nothing => break,
                Step::Ping => self.ping(connection),
                Step::Drop { subscription, code } => self.drop_subscription(now, connection, subscription, code),
                Step::Close(disconnect) => self.disconnect(now, connection, disconnect),
                Step::Reply { .. }
                | Step::Admit { .. }
                | Step::Subscribe { .. }
                | Step::Unsubscribe { .. }
                | Step::Publish { .. } => unreachable!("only commands lead to these"),
            }
        }
        self.arm(connection);
    }
}

/// The channel that a command is about, as far as its session wants to know whether it is subscribed.
fn channel_of<'c>(method: &'c Method<'_>) -> Option<&'c str> {
    match method {
        Method::Subscribe(subscribe) => Some(&subscribe.channel),
        Method::Unsubscribe { channel }
        | Method::Publish { channel, .. }
        | Method::Presence { channel }
        | Method::PresenceStats { channel }
        | Method::SubRefresh { channel, .. } => Some(channel),
        Method::History(history) => Some(&history.channel),
        _ => None,
    }
}
