//! What the nodes say of each other, asked over HTTP: whether every node has all others in view.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;

/// A node that does not answer so fast on loopback is not ready.
const PATIENCE: Duration = Duration::from_millis(1500);
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What one node says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    pub ready: bool,
    /// Names of the nodes that it has in view, on all lanes.
    pub in_view: BTreeSet<String>,
}

/// None: no answer, or one that is not understood.
pub fn ask(client: &str) -> Option<Seen> {
    let answer = get(client, "/cluster").ok()?;
    understand(&answer)
}

/// Whether each of these nodes is ready and has all others in view.
pub fn is_complete(nodes: &[(&str, Option<&Seen>)]) -> bool {
    nodes.iter().all(|(name, seen)| {
        seen.is_some_and(|seen| {
            seen.ready && nodes.iter().all(|(other, _)| other == name || seen.in_view.contains(*other))
        })
    })
}

/// A sentence on what is missing, for who waits in vain.
pub fn missing(nodes: &[(&str, Option<&Seen>)]) -> String {
    let of_one = |(name, seen): &(&str, Option<&Seen>)| match seen {
        None => Some(format!("{name} does not answer")),
        Some(seen) => {
            let others: Vec<&str> =
                nodes.iter().map(|(other, _)| *other).filter(|o| o != name && !seen.in_view.contains(*o)).collect();
            match (seen.ready, others.is_empty()) {
                (_, false) => Some(format!("{name} does not see {}", others.join(" and "))),
                (false, true) => Some(format!("{name} is not ready")),
                (true, true) => None,
            }
        }
    };
    nodes.iter().filter_map(of_one).collect::<Vec<_>>().join(", ")
}

fn get(client: &str, path: &str) -> io::Result<Vec<u8>> {
    let address: SocketAddr = client.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {client}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn understand(answer: &[u8]) -> Option<Seen> {
    #[derive(Deserialize)]
    struct Status {
        ready: bool,
        members: Vec<Member>,
    }
    #[derive(Deserialize)]
    struct Member {
        name: String,
        in_view: bool,
    }
    let body_at = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return None;
    }
    let status: Status = serde_json::from_slice(&answer[body_at..]).ok()?;
    let in_view = status.members.into_iter().filter(|member| member.in_view).map(|member| member.name).collect();
    Some(Seen { ready: status.ready, in_view })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(in_view: &[&str]) -> Seen {
        Seen { ready: true, in_view: in_view.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn it_is_complete_when_everybody_sees_everybody() {
        let (a, b, c) = (seen(&["b", "c"]), seen(&["a", "c"]), seen(&["a", "b"]));
        assert!(is_complete(&[("a", Some(&a)), ("b", Some(&b)), ("c", Some(&c))]));
        assert!(is_complete(&[("a", Some(&a))]));
        let blind = seen(&["a"]);
        let nodes = [("a", Some(&a)), ("b", Some(&b)), ("c", Some(&blind))];
        assert!(!is_complete(&nodes));
        assert_eq!(missing(&nodes), "c does not see b");
        let waiting = Seen { ready: false, ..b.clone() };
        assert!(!is_complete(&[("a", Some(&a)), ("b", Some(&waiting)), ("c", Some(&c))]));
        assert_eq!(missing(&[("a", None), ("b", Some(&waiting))]), "a does not answer, b is not ready");
    }

    #[test]
    fn an_answer_is_understood_or_counts_as_none() {
        let body =
            r#"{"node":"a","ready":true,"members":[{"name":"b","in_view":true,"x":1},{"name":"c","in_view":false}]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(understand(answer.as_bytes()), Some(seen(&["b"])));
        for bad in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{\"ready\":1}"]
        {
            assert_eq!(understand(bad.as_bytes()), None, "{bad}");
        }
    }
}
