//! Names of things: a node, one life of a node, a client, a worker.

use std::fmt;
use std::sync::Arc;

use super::rng::Rng;

/// The name of a node, equal to the name in its certificate. Cheap to clone; compared by text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

/// Why a text is not a node's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadNodeId {
    Empty,
    TooLong,
    /// Only `a-z`, `0-9`, `-` and `.` (a certificate's name has to hold it), not at the ends.
    Character,
}

impl fmt::Display for BadNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadNodeId::Empty => "a node's name must not be empty",
            BadNodeId::TooLong => "a node's name has at most 63 characters",
            BadNodeId::Character => {
                "a node's name has only a-z, 0-9, '-' and '.', and begins and ends with a letter or digit"
            }
        })
    }
}

impl NodeId {
    pub fn parse(text: &str) -> Result<Self, BadNodeId> {
        if text.is_empty() {
            return Err(BadNodeId::Empty);
        }
        if text.len() > crate::limits::NODE_ID_BYTES_MAX {
            return Err(BadNodeId::TooLong);
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        if !bytes.iter().all(|&b| inner(b)) || !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) || text.contains("..") {
            return Err(BadNodeId::Character);
        }
        Ok(NodeId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a node: milliseconds at its start, at least the last one seen. Higher is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

/// Index of a worker in its node.
pub type WorkerIndex = u16;

/// A client's id on the wire: the text of a version 4 UUID, made once per connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    pub fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        ClientId(bytes)
    }

    /// The 36 ASCII characters of the UUID.
    pub fn text(&self) -> ClientIdText {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        ClientIdText(text)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

pub struct ClientIdText([u8; 36]);

impl ClientIdText {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits and dashes are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_version_4_uuids() {
        let mut rng = Rng::seeded(1);
        for _ in 0..100 {
            let text = ClientId::random(&mut rng).text();
            let text = text.as_str();
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "4");
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
            assert_eq!(text.matches('-').count(), 4);
        }
    }

    #[test]
    fn node_names_are_what_a_certificate_can_hold() {
        assert!(NodeId::parse("game-1.eu").is_ok());
        assert_eq!(NodeId::parse(""), Err(BadNodeId::Empty));
        assert_eq!(NodeId::parse("A"), Err(BadNodeId::Character));
        assert_eq!(NodeId::parse("-a"), Err(BadNodeId::Character));
        assert_eq!(NodeId::parse("a..b"), Err(BadNodeId::Character));
        assert_eq!(NodeId::parse(&"a".repeat(64)), Err(BadNodeId::TooLong));
    }
}
