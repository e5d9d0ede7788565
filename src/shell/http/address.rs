//! The client's address where proxies stand in between.
//!
//! A header is believed only as far back as it was written by trusted proxies: anybody can send one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that share their first `prefix` bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadNetwork;

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network is an address, or an address and the length of its prefix: 10.0.0.0/8")
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| BadNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(BadNetwork);
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let ignored = bits - u32::from(self.prefix);
            // A shift by the whole width is no number's business: no prefix contains everything.
            self.prefix == 0 || a >> ignored == b >> ignored
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// The last address of the list that no trusted proxy has, since each proxy appends whom it heard; the socket's own where
/// that is not a trusted proxy. `header` is the value of X-Forwarded-For or one like it.
pub fn client_address(socket: IpAddr, header: Option<&str>, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = socket.to_canonical();
    let mut hops = header.unwrap_or("").rsplit(',').map(str::trim);
    while is_trusted(client) {
        // A word that is no address ends what can be believed.
        let Some(hop) = hops.next().and_then(parse_hop) else { break };
        client = hop;
    }
    client
}

/// Some proxies write the port too.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(socket: &str, header: &str, trusted: &[&str]) -> String {
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client_address(socket.parse().unwrap(), Some(header), &trusted).to_string()
    }

    #[test]
    fn a_header_counts_only_behind_a_trusted_proxy() {
        assert_eq!(check("9.9.9.9", "1.1.1.1", &[]), "9.9.9.9");
        assert_eq!(check("9.9.9.9", "1.1.1.1", &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(check("10.1.2.3", "1.1.1.1", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(check("10.1.2.3", "", &["10.0.0.0/8"]), "10.1.2.3");
    }

    #[test]
    fn what_the_client_wrote_itself_is_not_believed() {
        assert_eq!(check("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(check("10.0.0.1", "6.6.6.6, nonsense, 10.0.0.2", &["10.0.0.0/8"]), "10.0.0.2");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(check("::ffff:10.0.0.1", "1.1.1.1:4711", &["10.0.0.1"]), "1.1.1.1");
        assert_eq!(check("::1", "[2001:db8::1]:80", &["::1"]), "2001:db8::1");
        assert_eq!(check("::1", "[2001:db8::1]", &["::1/128"]), "2001:db8::1");
    }

    #[test]
    fn a_network_is_its_prefix() {
        let has = |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(has("0.0.0.0/0", "8.8.8.8"));
        assert!(!has("0.0.0.0/0", "::1"));
        assert!(has("192.168.4.0/22", "192.168.7.255"));
        assert!(!has("192.168.4.0/22", "192.168.8.0"));
        assert!(has("fd00::/8", "fdff::1"));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "a/8"] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }
}
