//! Bounded reading and writing of small hand-made messages: HELLO, identities in gossip, addresses.
//!
//! All integers are little-endian. A read past the end is `Truncated`, never a panic, and nothing is allocated for a
//! length that the input does not hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::id::NodeId;
use crate::limits::NODE_ADDRESSES_MAX;

/// The input does not say what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    Truncated,
    /// A text that is not UTF-8, not a node's name, or longer than its bound.
    Text,
    /// An address of an unknown family, or too many of them.
    Address,
}

/// A cursor over bytes from outside.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.rest.len() {
            return Err(Malformed::Truncated);
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text of at most 255 bytes behind a length byte.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u8()?;
        std::str::from_utf8(self.bytes(usize::from(length))?).map_err(|_| Malformed::Text)
    }

    pub fn node_id(&mut self) -> Result<NodeId, Malformed> {
        NodeId::parse(self.text()?).map_err(|_| Malformed::Text)
    }

    pub fn address(&mut self) -> Result<SocketAddr, Malformed> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(Malformed::Address),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    /// At most `NODE_ADDRESSES_MAX` of them behind a count.
    pub fn addresses(&mut self) -> Result<Vec<SocketAddr>, Malformed> {
        let count = usize::from(self.u8()?);
        if count > NODE_ADDRESSES_MAX {
            return Err(Malformed::Address);
        }
        (0..count).map(|_| self.address()).collect()
    }
}

/// A text of at most 255 bytes, its length before it. Asserts the bound: callers hold texts that were checked.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).expect("a text of at most 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

/// Family, address, port. Scope and flow of an IPv6 address mean nothing elsewhere and stay behind.
pub fn put_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

/// The first `NODE_ADDRESSES_MAX` of them behind a count.
pub fn put_addresses(addresses: &[SocketAddr], out: &mut Vec<u8>) {
    let told = &addresses[..addresses.len().min(NODE_ADDRESSES_MAX)];
    out.push(u8::try_from(told.len()).expect("NODE_ADDRESSES_MAX is small"));
    for address in told {
        put_address(address, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(addresses) = Reader::new(&bytes).addresses() {
                let mut out = Vec::new();
                put_addresses(&addresses, &mut out);
                prop_assert_eq!(&out[..], &bytes[..out.len()]);
            }
            if let Ok(text) = Reader::new(&bytes).text() {
                prop_assert_eq!(text.len(), usize::from(bytes[0]));
            }
        }
    }

    #[test]
    fn more_addresses_than_the_bound_are_not_written_and_not_read() {
        let many = vec![SocketAddr::from(([127, 0, 0, 1], 7001)); NODE_ADDRESSES_MAX + 3];
        let mut out = Vec::new();
        put_addresses(&many, &mut out);
        assert_eq!(Reader::new(&out).addresses().map(|read| read.len()), Ok(NODE_ADDRESSES_MAX));
        out[0] += 1;
        assert_eq!(Reader::new(&out).addresses(), Err(Malformed::Address));
    }
}
