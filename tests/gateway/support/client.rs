//! A client of the protocol, in either encoding. Commands and replies are JSON values to the tests; in Protobuf they
//! are translated on their way, so that one test shows a property of both.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Message, PATIENCE, Socket, binary};

pub const PATH: &str = "/connection/websocket";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];
}

pub struct Client {
    pub socket: Socket,
    encoding: Encoding,
    last_id: u64,
    /// Replies that nobody has asked for yet.
    replies: Vec<Value>,
    pushes: VecDeque<Value>,
    pub pings: u32,
    /// As the SDKs do.
    pub answers_pings: bool,
}

impl Client {
    pub fn open(address: SocketAddr, encoding: Encoding) -> Self {
        let headers = match encoding {
            Encoding::Json => "",
            Encoding::Protobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
        };
        Client::over(Socket::connect(address, PATH, headers), encoding)
    }

    /// Over a WebSocket that is open already.
    pub fn over(socket: Socket, encoding: Encoding) -> Self {
        let (replies, pushes) = (Vec::new(), VecDeque::new());
        Client { socket, encoding, last_id: 0, replies, pushes, pings: 0, answers_pings: true }
    }

    // ---- commands

    /// Connects with a token, or with none when it is empty. The result.
    pub fn connect(&mut self, token: &str) -> Value {
        let request = if token.is_empty() { json!({}) } else { json!({ "token": token }) };
        self.succeed("connect", request)
    }

    pub fn subscribe(&mut self, channel: &str) -> Value {
        self.succeed("subscribe", json!({ "channel": channel }))
    }

    pub fn publish(&mut self, channel: &str, data: Value) {
        self.succeed("publish", json!({ "channel": channel, "data": data }));
    }

    /// The result of a command that succeeds.
    pub fn succeed(&mut self, method: &str, request: Value) -> Value {
        let mut reply = self.call(method, request);
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        let result = reply.get_mut(method).unwrap_or_else(|| panic!("{method}: no result")).take();
        assert!(result.is_object());
        result
    }

    /// The code of the error that a command gets.
    pub fn fail(&mut self, method: &str, request: Value) -> u64 {
        let reply = self.call(method, request);
        let error = reply.get("error").unwrap_or_else(|| panic!("{method}: no error but {reply}"));
        assert!(error["message"].is_string(), "{error}");
        error["code"].as_u64().expect("an error has a code")
    }

    /// The whole reply.
    pub fn call(&mut self, method: &str, request: Value) -> Value {
        let id = self.command(method, request);
        self.reply(id)
    }

    /// Sends a command and does not wait. Its id.
    pub fn command(&mut self, method: &str, request: Value) -> u64 {
        self.commands([(method, request)])[0]
    }

    /// Several, in one frame.
    pub fn commands<const N: usize>(&mut self, commands: [(&str, Value); N]) -> [u64; N] {
        let mut ids = [0; N];
        let mut values = Vec::new();
        for (at, (method, request)) in commands.into_iter().enumerate() {
            self.last_id += 1;
            ids[at] = self.last_id;
            values.push(json!({ "id": self.last_id, method: request }));
        }
        self.send(&values);
        ids
    }

    /// These very objects, in one frame.
    pub fn send(&mut self, commands: &[Value]) {
        let message = match self.encoding {
            Encoding::Json => {
                let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
                Message::Text(lines.join("\n"))
            }
            Encoding::Protobuf => Message::Binary(
                commands.iter().flat_map(|c| binary::delimited(binary::encode(c, &binary::COMMAND))).collect(),
            ),
        };
        self.socket.send(&message);
    }

    // ---- replies and pushes

    pub fn reply(&mut self, id: u64) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["id"] == id) {
                // Everything is answered in order.
                assert_eq!(at, 0, "an earlier reply is missing");
                return self.replies.remove(at);
            }
            assert!(self.read_within(end.saturating_duration_since(Instant::now())), "no reply to command {id}");
        }
    }

    /// The next push, whatever it is.
    pub fn push(&mut self) -> Value {
        self.push_within(PATIENCE).expect("a push comes")
    }

    pub fn push_within(&mut self, time: Duration) -> Option<Value> {
        let end = Instant::now() + time;
        while self.pushes.is_empty() && self.read_within(end.saturating_duration_since(Instant::now())) {}
        self.pushes.pop_front()
    }

    /// The next push is a publication of that channel: its content.
    pub fn publication(&mut self, channel: &str) -> Value {
        let push = self.push();
        assert_eq!(push["channel"], channel, "{push}");
        assert!(push["pub"].is_object(), "{push}");
        push["pub"].clone()
    }

    /// Waits for so long, answering pings, and nothing else comes.
    pub fn hears_nothing_for(&mut self, time: Duration) {
        let push = self.push_within(time);
        assert_eq!(push, None);
        assert_eq!(self.replies, Vec::<Value>::new());
    }

    /// Waits for pings until there were so many.
    pub fn hears_pings(&mut self, count: u32) {
        while self.pings < count {
            assert!(self.read_within(PATIENCE), "no ping comes");
        }
    }

    /// The code and the text of the close frame, whatever comes before it.
    pub fn closed(&mut self) -> (u16, String) {
        self.socket.closed()
    }

    /// The code alone.
    pub fn close_code(&mut self) -> u16 {
        self.closed().0
    }

    /// Leaves, as the SDKs do.
    pub fn leave(mut self) {
        self.socket.send(&Message::Close(1000, String::new()));
        assert_eq!(self.close_code(), 1000);
    }

    fn read_within(&mut self, time: Duration) -> bool {
        let Some(message) = self.socket.receive_within(time) else { return false };
        let values: Vec<Value> = match (message, self.encoding) {
            (Message::Text(text), Encoding::Json) => text
                .strip_suffix('\n')
                .unwrap_or(&text)
                .split('\n')
                .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
                .collect(),
            (Message::Binary(bytes), Encoding::Protobuf) => {
                binary::split(&bytes).into_iter().map(|bytes| binary::decode(bytes, &binary::REPLY)).collect()
            }
            (other, encoding) => panic!("{encoding:?} client got {other:?}"),
        };
        for mut value in values {
            if value.get("id").is_some() {
                self.replies.push(value);
            } else if value.get("push").is_some() {
                self.pushes.push_back(value["push"].take());
            } else {
                assert_eq!(value, json!({}), "an empty reply is a ping");
                self.pings += 1;
                if self.answers_pings {
                    self.send(&[json!({})]);
                }
            }
        }
        true
    }
}
