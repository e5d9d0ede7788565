//! The head of an HTTP/1 request, with what decides where its body ends and which request it is.
//!
//! It reads nothing in two ways: a head that another HTTP implementation in front of us could understand otherwise
//! (RFC 9112, section 11.2: two lengths, a length beside a transfer coding, two hosts) is refused here, for every
//! endpoint alike.

use std::fmt;

use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parse<'a> {
    /// More bytes are needed, and may come.
    Incomplete,
    /// The head and its length in bytes; the body, if any, begins there.
    Complete(Head<'a>, usize),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Begins with `/`. Not percent-decoded.
    pub path: &'a str,
    /// What is behind the first `?`; empty if there is none. Not percent-decoded.
    pub query: &'a str,
    pub version: Version,
    /// The value of Host; empty if there is none, which only HTTP/1.0 may do.
    pub host: &'a str,
    pub keep_alive: bool,
    pub body: Body,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    headers: Vec<(&'a str, &'a [u8])>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Http10,
    Http11,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    None,
    /// Content-Length, above zero.
    Length(u64),
    Chunked,
}

/// What is wrong with a request head.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeadError {
    Malformed,
    /// More bytes or more headers than `limits` has.
    TooLarge,
    /// Not of the form `/path?query`.
    Target,
    Version,
    /// A header that may stand only once, twice; or a Host that is missing.
    Host,
    Repeated,
    /// Content-Length is no number, or contradicts another one or a transfer coding.
    BodyLength,
    TransferCoding,
}

impl HeadError {
    pub const fn status(self) -> u16 {
        match self {
            HeadError::TooLarge => 431,
            HeadError::Version => 505,
            HeadError::TransferCoding => 501,
            _ => 400,
        }
    }

    pub const fn text(self) -> &'static str {
        match self {
            HeadError::Malformed => "The request head is not HTTP/1.1.",
            HeadError::TooLarge => "The request head is too large.",
            HeadError::Target => "The request target must have the form /path?query.",
            HeadError::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here.",
            HeadError::Host => "A request must have exactly one Host header.",
            HeadError::Repeated => "A header that may stand only once stands twice.",
            HeadError::BodyLength => "The length of the body is not clear.",
            HeadError::TransferCoding => "The only transfer coding understood is chunked.",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for HeadError {}

/// Headers whose second occurrence would be read by one and overlooked by another. Those of Host and of the body's
/// length are looked at where they are read.
const ONCE: [&str; 4] = ["origin", "sec-websocket-key", "sec-websocket-version", "authorization"];

/// Reads a head from the begin of `bytes`. To be called again with more bytes while it is incomplete.
pub fn parse_head(bytes: &[u8]) -> Result<Parse<'_>, HeadError> {
    let visible = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(visible) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if visible.len() < HTTP_HEAD_BYTES_MAX => return Ok(Parse::Incomplete),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    if !target.starts_with('/') {
        return Err(HeadError::Target);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Head {
        method,
        path,
        query,
        version: if minor == 0 { Version::Http10 } else { Version::Http11 },
        host: "",
        keep_alive: false,
        body: Body::None,
        expect_continue: false,
        headers: request.headers.iter().map(|header| (header.name, header.value.trim_ascii())).collect(),
    };
    for name in ONCE {
        if head.values(name).count() > 1 {
            return Err(HeadError::Repeated);
        }
    }
    head.host = host(&head)?;
    head.body = body(&head)?;
    head.keep_alive = match head.version {
        Version::Http10 => head.has_token("connection", "keep-alive"),
        Version::Http11 => !head.has_token("connection", "close"),
    };
    head.expect_continue = head.version == Version::Http11 && head.has_token("expect", "100-continue");
    Ok(Parse::Complete(head, head_bytes))
}

fn host<'a>(head: &Head<'a>) -> Result<&'a str, HeadError> {
    let mut hosts = head.values("host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => str::from_utf8(host).map_err(|_| HeadError::Host),
        (None, None) if head.version == Version::Http10 => Ok(""),
        _ => Err(HeadError::Host),
    }
}

fn body(head: &Head<'_>) -> Result<Body, HeadError> {
    let mut codings = head.values("transfer-encoding");
    let mut lengths = head.values("content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Body::None),
        (Some(coding), None) => {
            // Before 1.1 there were none, so a proxy may have overlooked it (RFC 9112, section 6.1).
            if head.version == Version::Http10 || codings.next().is_some() {
                return Err(HeadError::BodyLength);
            }
            if coding.eq_ignore_ascii_case(b"chunked") { Ok(Body::Chunked) } else { Err(HeadError::TransferCoding) }
        }
        (None, Some(length)) => {
            // Two that say the same are the sender's slip, not an ambiguity.
            if lengths.any(|other| other != length) {
                return Err(HeadError::BodyLength);
            }
            match number(length).ok_or(HeadError::BodyLength)? {
                0 => Ok(Body::None),
                length => Ok(Body::Length(length)),
            }
        }
        (Some(_), Some(_)) => Err(HeadError::BodyLength),
    }
}

/// Digits and nothing else: `u64::from_str` would take a sign.
fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

impl<'a> Head<'a> {
    /// The first header of that name, in any case, without white space around it. None also if it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.values(name).next().and_then(|value| str::from_utf8(value).ok())
    }

    /// The values of all headers of that name, in any case, without white space around them.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// The members of a comma-separated list, over all headers of that name. Empty members are left out.
    pub fn tokens(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }

    /// Whether a list has that member, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|other| other.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The first parameter of that name in the query, as it was sent.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
            (key, value) if key == name => Some(value),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(head: &str) -> Result<Head<'_>, HeadError> {
        match parse_head(head.as_bytes())? {
            Parse::Complete(parsed, head_bytes) => {
                assert_eq!(head_bytes, head.len());
                Ok(parsed)
            }
            Parse::Incomplete => panic!("incomplete: {head:?}"),
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let head = check(
            "POST /api/publish?key=1&flag&key=2 HTTP/1.1\r\nHost: example.com:8000\r\nX-Name: \t one \r\n\
             content-LENGTH: 12\r\nExpect: 100-Continue\r\n\r\n",
        )
        .unwrap();
        assert_eq!((head.method, head.path, head.query), ("POST", "/api/publish", "key=1&flag&key=2"));
        assert_eq!((head.version, head.host), (Version::Http11, "example.com:8000"));
        assert_eq!((head.body, head.keep_alive, head.expect_continue), (Body::Length(12), true, true));
        assert_eq!((head.header("x-name"), head.header("X-NAME"), head.header("x")), (Some("one"), Some("one"), None));
        assert_eq!((head.query_value("key"), head.query_value("flag")), (Some("1"), Some("")));
        assert_eq!(head.query_value("ke"), None);
    }

    #[test]
    fn the_connection_stays_open_by_the_rules_of_its_version() {
        let check = |version: &str, connection: &str| {
            check(&format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n")).unwrap().keep_alive
        };
        assert!(check("1.1", "x"));
        assert!(!check("1.1", "x, Close"));
        assert!(!check("1.0", "x"));
        assert!(check("1.0", "Keep-Alive"));
    }

    #[test]
    fn the_end_of_a_body_is_clear_or_the_request_refused() {
        let check = |version: &str, headers: &str| {
            check(&format!("POST / HTTP/{version}\r\nHost: a\r\n{headers}\r\n")).map(|head| head.body)
        };
        assert_eq!(check("1.1", ""), Ok(Body::None));
        assert_eq!(check("1.1", "Content-Length: 0\r\n"), Ok(Body::None));
        assert_eq!(check("1.1", "Content-Length: 5\r\nContent-Length: 5\r\n"), Ok(Body::Length(5)));
        assert_eq!(check("1.1", "Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
        for headers in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(check("1.1", headers), Err(HeadError::BodyLength), "{headers}");
        }
        assert_eq!(check("1.0", "Transfer-Encoding: chunked\r\n"), Err(HeadError::BodyLength));
        assert_eq!(check("1.1", "Transfer-Encoding: gzip, chunked\r\n"), Err(HeadError::TransferCoding));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (head, error) in [
            ("GET / HTTP/1.1\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", HeadError::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nOrigin: a\r\nOrigin: b\r\n\r\n", HeadError::Repeated),
            ("GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Key: a\r\n\r\n", HeadError::Repeated),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Target),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Target),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", HeadError::Version),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", HeadError::Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", HeadError::Malformed),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", HeadError::Malformed),
        ] {
            assert_eq!(check(head).unwrap_err(), error, "{head}");
        }
        assert_eq!(check("GET / HTTP/1.0\r\n\r\n").unwrap().host, "");
    }

    #[test]
    fn a_head_is_bounded() {
        let fill = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes));
        let besides = fill(0).len();
        let largest = fill(HTTP_HEAD_BYTES_MAX - besides);
        assert!(check(&largest).is_ok());
        assert_eq!(parse_head(&largest.as_bytes()[..largest.len() - 1]), Ok(Parse::Incomplete));
        let larger = fill(HTTP_HEAD_BYTES_MAX - besides + 1);
        assert_eq!(parse_head(larger.as_bytes()), Err(HeadError::TooLarge));
        assert_eq!(parse_head(&larger.as_bytes()[..HTTP_HEAD_BYTES_MAX]), Err(HeadError::TooLarge));

        let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(count - 1));
        assert!(check(&headers(HTTP_HEADERS_MAX)).is_ok());
        assert_eq!(check(&headers(HTTP_HEADERS_MAX + 1)), Err(HeadError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Random bytes are never a request; what matters is that we get here.
            prop_assert!(!matches!(parse_head(&bytes), Ok(Parse::Complete(..))));
        }

        #[test]
        fn a_begin_of_a_head_is_incomplete_and_what_follows_it_is_left(cut in 0usize..60, behind in ".{0,20}") {
            let head = "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n";
            let cut = cut.min(head.len() - 1);
            prop_assert_eq!(parse_head(&head.as_bytes()[..cut]), Ok(Parse::Incomplete));
            let with = format!("{head}{behind}");
            let Ok(Parse::Complete(_, head_bytes)) = parse_head(with.as_bytes()) else { panic!("incomplete") };
            prop_assert_eq!(head_bytes, head.len());
        }
    }
}
