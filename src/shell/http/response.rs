//! An answer as bytes. Its length is always said, so the connection can go on behind it.

use std::borrow::Cow;

use crate::ws::upgrade::{Head, Version};

/// What is said to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    pub status: u16,
    /// Empty: no such header.
    pub content_type: &'a str,
    pub body: Cow<'a, [u8]>,
    /// Headers besides.
    pub extra: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Response<'a> {
    pub fn new(status: u16, content_type: &'a str, body: &'a [u8]) -> Self {
        Response { status, content_type, body: body.into(), extra: Vec::new() }
    }

    /// For a person who looks at it with a terminal.
    pub fn sentence(status: u16, sentence: &str) -> Self {
        let body = format!("{sentence}\n").into_bytes().into();
        Response { status, content_type: "text/plain; charset=utf-8", body, extra: Vec::new() }
    }
}

/// How an answer must be framed for the request that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framing {
    pub version: Version,
    /// The request was a HEAD: everything but the body.
    pub head_only: bool,
    pub keep_alive: bool,
}

impl Framing {
    pub fn of(head: &Head<'_>) -> Self {
        Framing { version: head.version, head_only: head.method == "HEAD", keep_alive: head.keep_alive }
    }

    /// For a request that could not be read: nobody knows where it ends.
    pub const LAST: Framing = Framing { version: Version::Http11, head_only: false, keep_alive: false };
}

pub fn write(response: &Response<'_>, framing: Framing, out: &mut Vec<u8>) {
    let mut text = |part: &str| out.extend_from_slice(part.as_bytes());
    text("HTTP/1.1 ");
    text(&response.status.to_string());
    text(" ");
    text(reason(response.status));
    if !response.content_type.is_empty() {
        text("\r\nContent-Type: ");
        text(response.content_type);
    }
    text("\r\nContent-Length: ");
    text(&response.body.len().to_string());
    text("\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff");
    for (name, value) in &response.extra {
        assert!(!value.contains(['\r', '\n']), "a header's value ends its line");
        text("\r\n");
        text(name);
        text(": ");
        text(value);
    }
    match (framing.keep_alive, framing.version) {
        (false, _) => text("\r\nConnection: close"),
        (true, Version::Http10) => text("\r\nConnection: keep-alive"),
        (true, Version::Http11) => {}
    }
    text("\r\n\r\n");
    if !framing.head_only {
        out.extend_from_slice(&response.body);
    }
}

pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty (RFC 9112, section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, framing: Framing) -> String {
        let mut out = Vec::new();
        let mut response = Response::new(status, "text/plain", b"hello");
        response.extra.push(("Allow", "GET".into()));
        write(&response, framing, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_its_length_and_whether_the_connection_goes_on() {
        let framing = Framing { version: Version::Http11, head_only: false, keep_alive: true };
        let text = check(200, framing);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: GET\r\n") && text.ends_with("\r\n\r\nhello") && !text.contains("Connection"));
        assert!(check(200, Framing { version: Version::Http10, ..framing }).contains("\r\nConnection: keep-alive\r\n"));
        assert!(check(200, Framing::LAST).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn the_answer_to_a_head_has_the_length_and_no_body() {
        let text = check(404, Framing { version: Version::Http11, head_only: true, keep_alive: true });
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"));
    }
}
