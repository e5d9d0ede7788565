//! A connection of the terminal client: the sans-io client over a blocking socket, whose reads a thread of its own does.
//!
//! That thread, and any other that has something to say (the one that reads standard input), tells it through one
//! bounded channel, so whoever owns the connection waits in one place.
//!
//! Always true: a server that has gone silent for longer than its pings allow counts as lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::super::endpoint::Endpoint;
use super::super::exit::{Exit, Failure};
use super::Target;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::client::ws::{Incoming, Socket, Trouble};
use crate::client::{self, Client, Event};
use crate::protocol;
use crate::shell::clock;

/// How much later than announced a ping may come: what official clients allow.
const PING_DELAY_MAX: Duration = Duration::from_secs(10);
/// What waits between the threads; a full channel makes the socket's window close.
const NOTICES_MAX: usize = 64;
const READ_BYTES: usize = 64 * 1024;
/// A node that does not take what we write for so long is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The close frame of the node is awaited no longer than this: we are done with it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What other threads say.
pub enum Notice {
    Bytes(Vec<u8>),
    /// The socket's end, and why where it has a reason.
    Ended(String),
    /// A line of standard input, without its end.
    Line(Vec<u8>),
    /// The end of standard input.
    InputEnded,
}

/// What the owner waits for.
pub enum Heard {
    Event(Event),
    Line(Vec<u8>),
    InputEnded,
    /// The deadline has come first.
    Nothing,
}

pub struct Connection {
    pub client: Client,
    socket: Socket,
    stream: TcpStream,
    tell: SyncSender<Notice>,
    notices: Receiver<Notice>,
    /// Of a server that pings.
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// The upgrade is done.
    opened: bool,
    /// The client's last event says why.
    ended: bool,
}

impl Connection {
    /// Connected and accepted, or refused.
    pub fn open(target: &Target, rng: Rng) -> Result<Connection, Failure> {
        let endpoint = Endpoint::parse(&target.url, "ws://").expect("checked with the options");
        let stream = endpoint.connect(target.timeout)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(unusable)?;
        let encoding = match target.encoding {
            super::Encoding::Json => protocol::Encoding::Json,
            super::Encoding::Protobuf => protocol::Encoding::Protobuf,
        };
        let options = client::Options { encoding, token: target.token.clone(), name: "skein".into() };
        let (tell, notices) = mpsc::sync_channel(NOTICES_MAX);
        let reader = stream.try_clone().map_err(unusable)?;
        let told = tell.clone();
        std::thread::Builder::new().name("socket".into()).spawn(move || read(reader, &told)).map_err(unusable)?;
        let mut connection = Connection {
            client: Client::new(options),
            socket: Socket::new(encoding, &endpoint.authority, &endpoint.path, rng),
            stream,
            tell,
            notices,
            silence_max: None,
            heard_at: clock::mono(),
            opened: false,
            ended: false,
        };
        connection.client.connect_request();
        connection.accepted(clock::mono() + target.timeout, &endpoint.authority)?;
        Ok(connection)
    }

    /// For threads that have something to say.
    pub fn teller(&self) -> SyncSender<Notice> {
        self.tell.clone()
    }

    /// Sends what is queued and waits for the next thing to happen, until the deadline if there is one.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Heard {
        loop {
            self.transmit();
            if let Some(event) = self.client.poll_event() {
                return Heard::Event(event);
            }
            if self.ended {
                // The last event was taken before; there is nothing more to come.
                return Heard::Nothing;
            }
            let silent = self.silence_max.map(|silence| self.heard_at + silence);
            let until = [deadline, silent].into_iter().flatten().min();
            let notice = match until {
                None => self.notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.notices.recv_timeout(until.since(clock::mono())),
            };
            match notice {
                Ok(Notice::Bytes(bytes)) => self.on_bytes(&bytes),
                Ok(Notice::Ended(why)) => self.end(None, &why),
                Ok(Notice::Line(line)) => return Heard::Line(line),
                Ok(Notice::InputEnded) => return Heard::InputEnded,
                Err(RecvTimeoutError::Timeout) if silent.is_some_and(|silent| silent <= clock::mono()) => {
                    self.end(None, "the node has gone silent");
                }
                Err(RecvTimeoutError::Timeout) => return Heard::Nothing,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
        }
    }

    /// In good order, so that the node does not count it as lost.
    pub fn close(mut self) {
        self.transmit();
        self.socket.close(1000, "");
        let until = clock::mono() + CLOSE_TIMEOUT;
        while !self.ended && clock::mono() < until {
            if matches!(self.wait(Some(until)), Heard::Nothing) {
                break;
            }
        }
    }

    fn accepted(&mut self, deadline: Instant, authority: &str) -> Result<(), Failure> {
        loop {
            match self.wait(Some(deadline)) {
                Heard::Event(Event::Connected { ping, .. }) => {
                    self.silence_max = (ping > 0).then(|| Duration::from_secs(ping.into()) + PING_DELAY_MAX);
                    return Ok(());
                }
                Heard::Event(Event::Error { code, message, .. }) => {
                    return Err(Failure::new(
                        Exit::Refused,
                        format!("{authority} refused the connection: {message} ({code}){}", advice(code)),
                    ));
                }
                Heard::Event(Event::Disconnected { code, reason, .. }) => {
                    // Below are codes of the WebSocket itself: it was not a node's decision.
                    let exit = if code >= 3000 { Exit::Refused } else { Exit::Unreachable };
                    return Err(Failure::new(exit, format!("{authority} ended the connection: {reason} ({code})")));
                }
                Heard::Event(_) | Heard::Line(_) | Heard::InputEnded => {}
                Heard::Nothing => {
                    return Err(Failure::new(Exit::Unreachable, format!("{authority} did not answer in time")));
                }
            }
        }
    }

    fn transmit(&mut self) {
        // Before the upgrade the socket would drop it.
        while self.opened
            && let Some(frame) = self.client.poll_transmit()
        {
            self.socket.send(&frame);
        }
        while let Some(bytes) = self.socket.poll_transmit() {
            if let Err(error) = self.stream.write_all(&bytes) {
                self.end(None, &error.to_string());
                return;
            }
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        self.heard_at = clock::mono();
        if let Err(trouble) = self.socket.on_bytes(bytes) {
            self.end(None, &sentence(&trouble));
        }
        while let Some(incoming) = self.socket.poll_incoming() {
            match incoming {
                // An error makes the client's last event, which says what was wrong.
                Incoming::Frame(frame) => _ = self.client.on_frame(&frame),
                Incoming::Closed { code, reason } => self.end(code, &reason),
                Incoming::Opened => self.opened = true,
                Incoming::Pong(_) => {}
            }
        }
    }

    fn end(&mut self, code: Option<u16>, reason: &str) {
        self.ended = true;
        self.client.on_close(code, reason);
    }
}

/// The reader's thread ends with the socket.
impl Drop for Connection {
    fn drop(&mut self) {
        // It fails for a socket that the node has closed, which is as good.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn read(mut stream: TcpStream, tell: &SyncSender<Notice>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let notice = match stream.read(&mut buffer) {
            Ok(0) => Notice::Ended("the node closed the connection".into()),
            Ok(length) => Notice::Bytes(buffer[..length].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Notice::Ended(error.to_string()),
        };
        let last = matches!(notice, Notice::Ended(_));
        if tell.send(notice).is_err() || last {
            return;
        }
    }
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::failed(format!("the connection cannot be used: {error}"))
}

fn sentence(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Status(404) => "there is no WebSocket at this path (status 404)".into(),
        Trouble::Status(status) => format!("it answered with status {status} instead of a WebSocket"),
        Trouble::NotUpgraded => "it does not speak WebSocket".into(),
        Trouble::BadFrame => "it sent a broken frame".into(),
        Trouble::TooLarge => "it sent a message that is too long".into(),
    }
}

/// What to do about an error of the protocol, where it is clear.
pub fn advice(code: u32) -> &'static str {
    match code {
        101 | 103 | 109 => "; `skein token` makes a token, for --token or --subscription-token",
        102 => "; its namespace is not configured",
        _ => "",
    }
}
