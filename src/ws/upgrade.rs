//! The opening handshake: an HTTP request head to an upgrade, an upgrade to its 101.
//!
//! Strict where RFC 6455, section 4.2 is; lenient where real clients need it: an empty Sec-WebSocket-Protocol counts
//! as none, and offers of extensions and of unknown subprotocols are passed over.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use tungstenite::handshake::derive_accept_key;

pub use super::request::{Body, Head, HeadError, Parse, Version, parse_head};

/// The two encodings of the client protocol, by the names they have in an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subprotocol {
    Json,
    Protobuf,
}

impl Subprotocol {
    pub const fn name(self) -> &'static str {
        match self {
            Subprotocol::Json => "centrifuge-json",
            Subprotocol::Protobuf => "centrifuge-protobuf",
        }
    }

    fn from_name(name: &[u8]) -> Option<Subprotocol> {
        [Subprotocol::Json, Subprotocol::Protobuf].into_iter().find(|subprotocol| subprotocol.name().as_bytes() == name)
    }
}

/// An upgrade request that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    pub encoding: Subprotocol,
    /// Echoed: the first known one that the client offered.
    pub offered: Option<Subprotocol>,
    /// The client asked for native WebSocket pings instead of the protocol's own.
    pub frame_ping_pong: bool,
    /// The answer to Sec-WebSocket-Key.
    pub accept: String,
}

/// Why a request is not an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    Method,
    Version,
    /// Neither Upgrade nor Connection ask for a WebSocket: an ordinary request went astray.
    NotAnUpgrade,
    /// Only one of the two does: often a proxy in between that does not pass them on.
    HalfAnUpgrade,
    WebSocketVersion,
    Key,
    Body,
    Origin,
}

impl Refusal {
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Method => 405,
            Refusal::NotAnUpgrade | Refusal::WebSocketVersion => 426,
            Refusal::Origin => 403,
            Refusal::Version | Refusal::HalfAnUpgrade | Refusal::Key | Refusal::Body => 400,
        }
    }

    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Method => "A WebSocket upgrade is a GET.",
            Refusal::Version => "A WebSocket upgrade needs HTTP/1.1.",
            Refusal::NotAnUpgrade => "This address speaks WebSocket: the request must ask for an upgrade.",
            Refusal::HalfAnUpgrade => {
                "A WebSocket upgrade needs both Upgrade: websocket and Connection: Upgrade; a proxy may have dropped one."
            }
            Refusal::WebSocketVersion => "The only WebSocket version spoken here is 13.",
            Refusal::Key => "Sec-WebSocket-Key must be 16 bytes in base64.",
            Refusal::Body => "A WebSocket upgrade has no body.",
            Refusal::Origin => "Pages of this origin may not connect: see allowed_origins.",
        }
    }

    /// What the response must say besides.
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Refusal::Method => &[("Allow", "GET")],
            Refusal::NotAnUpgrade | Refusal::WebSocketVersion => {
                &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            }
            _ => &[],
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}

/// Which pages may connect. A browser names the page's origin and no page can forge it; other clients name none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OriginRule {
    patterns: Vec<String>,
}

impl OriginRule {
    /// Beside the own origin, those that match a pattern: `*` stands for any characters, also none. In any case.
    pub fn new<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> OriginRule {
        let patterns = patterns.into_iter().map(|pattern| pattern.into().to_ascii_lowercase()).collect();
        OriginRule { patterns }
    }

    /// `host` is the value of the request's Host header: the own origin is the one with the same host and port.
    pub fn allows(&self, origin: &str, host: &str) -> bool {
        let is_own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        let origin = origin.to_ascii_lowercase();
        is_own || self.patterns.iter().any(|pattern| matches(pattern, &origin))
    }
}

/// Each part between two stars is looked for behind the one before; leftmost is best, since all that matters to the
/// next part is how much is left.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((front, pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(front) else { return false };
    let mut parts = pattern.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

/// Whether a request may become a WebSocket, and what it wants. Which path it must have is the caller's matter.
pub fn check(head: &Head<'_>, origins: &OriginRule) -> Result<Upgrade, Refusal> {
    if head.method != "GET" {
        return Err(Refusal::Method);
    }
    let asks = head.has_token("upgrade", "websocket");
    match (asks, head.has_token("connection", "upgrade")) {
        (true, true) => {}
        (false, false) => return Err(Refusal::NotAnUpgrade),
        _ => return Err(Refusal::HalfAnUpgrade),
    }
    if head.version != Version::Http11 {
        return Err(Refusal::Version);
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(Refusal::WebSocketVersion);
    }
    // Bytes behind the head would be frames to us and a body to a proxy in between.
    if head.body != Body::None {
        return Err(Refusal::Body);
    }
    let key = head.values("sec-websocket-key").next().filter(|key| is_key(key)).ok_or(Refusal::Key)?;
    check_origin(head, origins)?;

    let offered = head.tokens("sec-websocket-protocol").find_map(Subprotocol::from_name);
    let asks_protobuf = ["cf_protocol", "format"].iter().any(|name| head.query_value(name) == Some("protobuf"));
    let encoding = match offered {
        _ if asks_protobuf => Subprotocol::Protobuf,
        Some(offered) => offered,
        None => Subprotocol::Json,
    };
    Ok(Upgrade {
        encoding,
        offered,
        frame_ping_pong: head.query_value("cf_ws_frame_ping_pong") == Some("true"),
        accept: derive_accept_key(key),
    })
}

fn is_key(key: &[u8]) -> bool {
    // The key is echoed, not used, so the two bits behind its sixteenth byte are nobody's matter.
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let mut decoded = [0; 18];
    let is_key = GeneralPurpose::new(&STANDARD, config).decode_slice(key, &mut decoded) == Ok(16);
    key.len() == 24 && is_key
}

fn check_origin(head: &Head<'_>, origins: &OriginRule) -> Result<(), Refusal> {
    let Some(origin) = head.values("origin").next().filter(|origin| !origin.is_empty()) else { return Ok(()) };
    match str::from_utf8(origin) {
        Ok(origin) if origins.allows(origin, head.host) => Ok(()),
        _ => Err(Refusal::Origin),
    }
}

/// Appends the 101.
pub fn response(upgrade: &Upgrade, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(upgrade.accept.as_bytes());
    if let Some(offered) = upgrade.offered {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(offered.name().as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests;
