//! A client on a blocking socket. It has no thread: what came is read when somebody waits for something.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use skein::base::rng::Rng;
use skein::client::ws::{Incoming, Socket};
use skein::client::{Client, Event, Options};
use skein::protocol::Encoding;

use super::PATIENCE;

pub struct Ws {
    pub stream: TcpStream,
    socket: Socket,
    client: Client,
    opened: bool,
    ended: bool,
    /// Taken while something else was waited for.
    events: VecDeque<Event>,
    buffer: Vec<u8>,
}

impl Ws {
    pub fn connect(node: SocketAddr) -> Ws {
        Ws::try_connect(node, Encoding::Json).expect("the node takes clients")
    }

    pub fn try_connect(node: SocketAddr, encoding: Encoding) -> io::Result<Ws> {
        let stream = TcpStream::connect_timeout(&node, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        let rng = Rng::seeded(u64::from(stream.local_addr()?.port()));
        let socket = Socket::new(encoding, &node.to_string(), "/connection/websocket", rng);
        let client = Client::new(Options { encoding, token: String::new(), name: "cluster".into() });
        let buffer = vec![0; 64 * 1024];
        let mut ws = Ws { stream, socket, client, opened: false, ended: false, events: VecDeque::new(), buffer };
        ws.client.connect_request();
        match ws.event(Instant::now() + Duration::from_secs(10)) {
            Some(Event::Connected { .. }) => Ok(ws),
            other => Err(io::Error::other(format!("not connected, but {other:?}"))),
        }
    }

    /// The next thing that happens, or nothing by then.
    pub fn event(&mut self, deadline: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.flush();
            if let Some(event) = self.client.poll_event() {
                return Some(event);
            }
            if self.ended || !self.read(deadline) {
                return None;
            }
        }
    }

    /// For who counts on it.
    pub fn next(&mut self) -> Event {
        self.event(Instant::now() + PATIENCE).expect("something happens in time")
    }

    /// Queued until `flush` or the next wait.
    pub fn ask_subscribe(&mut self, channel: &str) {
        self.client.subscribe(channel).expect("there is room");
    }

    pub fn ask_unsubscribe(&mut self, channel: &str) {
        self.client.unsubscribe(channel).expect("there is room");
    }

    pub fn ask_publish(&mut self, channel: &str, data: &str) -> u32 {
        self.client.publish(channel, data.as_bytes()).expect("there is room")
    }

    /// Answered with success; other events are kept. Says how long it took.
    pub fn subscribe(&mut self, channel: &str) -> Duration {
        let began = Instant::now();
        self.ask_subscribe(channel);
        self.until(|event| match event {
            Event::Subscribed { channel: of } => of == channel,
            Event::SubscribeError { .. } => panic!("{event:?}"),
            _ => false,
        });
        began.elapsed()
    }

    pub fn publish(&mut self, channel: &str, data: &str) {
        let asked = self.ask_publish(channel, data);
        self.until(|event| match event {
            Event::Published { id } => *id == asked,
            Event::Error { .. } => panic!("{event:?}"),
            _ => false,
        });
    }

    fn until(&mut self, is_it: impl Fn(&Event) -> bool) {
        let mut others = VecDeque::new();
        loop {
            let event = self.next();
            if is_it(&event) {
                break;
            }
            assert!(!matches!(event, Event::Disconnected { .. }), "{event:?}");
            others.push_back(event);
        }
        // They came before whatever is behind them.
        others.append(&mut self.events);
        self.events = others;
    }

    /// The text of the next publication, whatever its channel.
    pub fn publication(&mut self, deadline: Instant) -> Option<String> {
        while let Some(event) = self.event(deadline) {
            match event {
                Event::Publication { data, .. } => return Some(String::from_utf8(data).expect("JSON")),
                Event::Disconnected { .. } => return None,
                _ => {}
            }
        }
        None
    }

    /// The connection is over, and this was said of it, after anything else that came.
    pub fn disconnected(&mut self, deadline: Instant) -> Option<u32> {
        while let Some(event) = self.event(deadline) {
            if let Event::Disconnected { code, .. } = event {
                return Some(code);
            }
        }
        None
    }

    pub fn flush(&mut self) {
        while self.opened
            && let Some(frame) = self.client.poll_transmit()
        {
            self.socket.send(&frame);
        }
        while let Some(bytes) = self.socket.poll_transmit() {
            if self.stream.write_all(&bytes).is_err() {
                self.end(None, "write failed");
            }
        }
    }

    /// False: nothing came in time.
    fn read(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        self.stream.set_read_timeout(Some(left)).expect("not zero");
        match self.stream.read(&mut self.buffer) {
            Ok(0) => self.end(None, "end"),
            Ok(length) => {
                let buffer = std::mem::take(&mut self.buffer);
                self.socket.on_bytes(&buffer[..length]).expect("a WebSocket");
                self.buffer = buffer;
                self.take_frames();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.end(None, &error.to_string()),
        }
        true
    }

    fn take_frames(&mut self) {
        while let Some(incoming) = self.socket.poll_incoming() {
            match incoming {
                Incoming::Opened => self.opened = true,
                Incoming::Frame(frame) => self.client.on_frame(&frame).expect("the protocol"),
                Incoming::Closed { code, reason } => self.end(code, &reason),
                Incoming::Pong(_) => {}
            }
        }
    }

    fn end(&mut self, code: Option<u16>, reason: &str) {
        self.ended = true;
        self.client.on_close(code, reason);
    }
}
