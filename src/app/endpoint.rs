//! Where the node is that a command talks to: the host, port and path of a URL, and a connection to them.
//!
//! Always true: a command that cannot reach its node says so with the exit code for it, and has tried every address
//! that the host's name has.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::exit::{Exit, Failure};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Host and port as they stand in the URL, for the header `Host`.
    pub authority: String,
    /// As it is looked up, and so without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Begins with a slash; with the query where there is one.
    pub path: String,
}

impl Endpoint {
    /// `scheme`: what the URL must begin with, as `ws://`. Its port is 80 unless the URL has one.
    pub fn parse(url: &str, scheme: &str) -> Option<Endpoint> {
        let rest = url.strip_prefix(scheme)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path.split('#').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // A colon of an IPv6 address stands within its brackets.
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']')?,
            None if host.contains([':', '@']) => return None,
            None => host,
        };
        // Nothing that would end a header early.
        if host.is_empty() || port == 0 || url.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return None;
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Endpoint { authority: authority.to_owned(), host: host.to_owned(), port, path })
    }

    /// A connection whose reads and writes block without a limit.
    pub fn connect(&self, timeout: Duration) -> Result<TcpStream, Failure> {
        let unreachable = |why: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Unreachable,
                format!("{} cannot be reached: {why}; is a node running there?", self.authority),
            )
        };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| unreachable(&error))?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                // The kernel may have given us, as the port to come from, the very one that nobody listens on.
                Ok(stream) if is_itself(&stream, address) => last = Some(std::io::ErrorKind::ConnectionRefused.into()),
                Ok(stream) => {
                    // Small messages should not wait for each other; a socket that refuses is only slower.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => unreachable(&error),
            None => unreachable(&"its name has no address"),
        })
    }
}

fn is_itself(stream: &TcpStream, address: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|local| local == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let parts = |url| {
            let found = Endpoint::parse(url, "ws://")?;
            Some((found.authority, found.host, found.port, found.path))
        };
        let expected = |authority: &str, host: &str, port, path: &str| {
            Some((authority.to_owned(), host.to_owned(), port, path.to_owned()))
        };
        assert_eq!(parts("ws://a:1/b?c=d#e"), expected("a:1", "a", 1, "/b?c=d"));
        assert_eq!(parts("ws://a"), expected("a", "a", 80, "/"));
        assert_eq!(parts("ws://a?b"), expected("a", "a", 80, "/?b"));
        assert_eq!(parts("ws://[::1]:80/"), expected("[::1]:80", "::1", 80, "/"));
        assert_eq!(parts("ws://[::1]"), expected("[::1]", "::1", 80, "/"));
        for bad in [
            "",
            "wss://a",
            "ws://",
            "ws:///b",
            "ws://:1",
            "ws://a:0",
            "ws://a:x",
            "ws://a:70000",
            "ws://[::1",
            "ws://::1:5",
            "ws://u@a",
            "ws://a/\r\nX: y",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_port_where_nobody_listens_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint::parse(&format!("http://{address}"), "http://").unwrap();
        assert!(endpoint.connect(Duration::from_secs(5)).is_ok());
        drop(listener);
        let failure = endpoint.connect(Duration::from_secs(5)).expect_err("nobody listens");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains(&address.to_string()), "{failure}");
    }
}
