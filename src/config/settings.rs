//! What a node was told to do, in types. Plain data: machines get options made from it, never the thing itself.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::id::NodeId;
use crate::{auth, rules};

#[derive(Clone, Debug)]
pub struct Settings {
    pub node: Node,
    pub http: Http,
    pub api: Api,
    pub client: Client,
    pub limits: Limits,
    pub rules: rules::Options,
    pub auth: auth::Options,
    /// Without it the node runs alone.
    pub mesh: Option<Mesh>,
    pub proxy: Proxy,
    pub log: Log,
    pub shutdown_timeout: Duration,
    /// Nothing was said about who may connect, so that everybody may who reaches the loopback address.
    pub open: bool,
    /// What the operator should know, one sentence each, to be logged at start.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// `None`: the name in the certificate, or else the machine's.
    pub name: Option<NodeId>,
    /// `None`: one for each core that the process may use.
    pub workers: Option<u16>,
    pub pin: bool,
    pub driver: Driver,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Driver {
    #[default]
    Auto,
    IoUring,
    Epoll,
}

#[derive(Clone, Debug)]
pub struct Http {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// Where API, health and metrics are served instead.
    pub internal: Option<SocketAddr>,
    /// From accept to the end of the request's head.
    pub handshake_timeout: Duration,
    pub websocket_path: String,
    /// Beside the own origin. Patterns with stars.
    pub allowed_origins: Vec<String>,
}

#[derive(Clone)]
pub struct Api {
    /// Without a key, and not `insecure`, nobody may call it.
    pub key: Option<String>,
    pub insecure: bool,
    pub body_bytes_max: usize,
    /// Channels of one broadcast.
    pub channels_max: usize,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("key", &self.key.as_ref().map(|_| ".."))
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// Times of a client's connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Zero: no pings.
    pub ping_interval: Duration,
    /// Below the interval. Zero: no pongs.
    pub pong_timeout: Duration,
    pub stale_close_delay: Duration,
    pub expired_close_delay: Duration,
    pub expired_sub_close_delay: Duration,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub message_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub channels_per_client_max: u16,
    pub json_depth_max: u32,
    pub commands_per_frame_max: u32,
    /// Of this node; 0: no limit but the file descriptors. Likewise below: no limit.
    pub connections_max: u32,
    pub user_connections_max: u32,
    pub address_connections_max: u32,
}

#[derive(Clone, Debug)]
pub struct Mesh {
    pub bundle: PathBuf,
    /// Worker k listens on the port plus k.
    pub listen: SocketAddr,
    pub advertise: HostPort,
    pub seeds: Vec<HostPort>,
    pub join_timeout: Duration,
    /// For each lane.
    pub queue_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Proxy {
    /// Addresses, or networks with the length of their prefix; each is known to be one.
    pub trusted: Vec<String>,
    pub header: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    pub level: Level,
    pub format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: Level::Info, format: Format::Text }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Text,
    Json,
}

/// A host, by name or address, and a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// `name:port`, `1.2.3.4:port` or `[::1]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then(|| address.into());
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        // Underscores are not for host names, but container networks have them.
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let good = !host.is_empty() && host.len() <= 253 && host.bytes().all(inner);
        good.then(|| HostPort { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        HostPort { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_and_written_alike() {
        for text in ["game-1.internal:7800", "10.0.0.1:1", "[::1]:7800", "my_service:65535"] {
            assert_eq!(HostPort::parse(text).map(|parsed| parsed.to_string()), Some(text.to_owned()));
        }
        for text in ["", ":7800", "game-1", "game-1:", "game-1:0", "game-1:65536", "::1", "a b:1", "[x]:1", "1.2.3.4:0"]
        {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }
}
