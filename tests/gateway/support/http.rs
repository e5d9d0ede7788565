//! An HTTP client that sends exactly what it is told to, and reads answers one by one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

pub struct Http {
    pub stream: TcpStream,
    pub input: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node accepts");
        stream.set_nodelay(true).expect("a socket takes options");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
        Http { stream, input: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the node reads");
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.receive()
    }

    /// `headers`: whole lines.
    pub fn post(&mut self, path: &str, headers: &str, body: &str) -> Response {
        self.send(post(path, headers, body));
        self.receive()
    }

    /// The next answer.
    pub fn receive(&mut self) -> Response {
        loop {
            if let Some((response, bytes)) = Response::parse(&self.input) {
                self.input.drain(..bytes);
                return response;
            }
            assert!(self.read(), "the node hung up in the middle of an answer: {:?}", self.input.escape_ascii());
        }
    }

    /// Whether something has come.
    pub fn has_input(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket takes options");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket takes options");
        peeked.is_ok()
    }

    /// The node hangs up without another word.
    pub fn assert_ended(&mut self) {
        while self.read() {}
        assert!(self.input.is_empty(), "more came: {:?}", self.input.escape_ascii());
    }

    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(bytes) => {
                self.input.extend_from_slice(&piece[..bytes]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the node does not answer: {error}"),
        }
    }
}

pub fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("answers are text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// And how many bytes it has, when it is complete.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let head_bytes = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = str::from_utf8(&bytes[..head_bytes]).expect("a head is text");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("a status line");
        let status: u16 = status[..3].parse().expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse::<usize>());
        let length = match status {
            100..200 => 0,
            _ => length.expect("every answer says its length").expect("as a number"),
        };
        let body = bytes.get(head_bytes..head_bytes + length)?.to_vec();
        Some((Response { status, headers, body }, head_bytes + length))
    }
}
