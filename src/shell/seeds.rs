//! Looks the seeds' names up again and again, on a thread of its own, since the system's resolver blocks.
//!
//! What a name stands for just now goes to worker 0, every time: a seed that was down may be back.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::node::{Node, Notice};

/// How often names are looked up.
const INTERVAL: Duration = Duration::from_secs(3);
/// Addresses of all seeds together. What is beyond is ignored: any member leads to all others.
const ADDRESSES_MAX: usize = 256;

/// Ends with the process. Without seeds nothing is started.
pub fn watch(seeds: Vec<String>, node: Arc<Node>) -> std::io::Result<()> {
    if seeds.is_empty() {
        return Ok(());
    }
    let mut names: Vec<Name> = seeds.into_iter().map(|text| Name { text, failed: false }).collect();
    std::thread::Builder::new().name("seeds".to_owned()).spawn(move || {
        loop {
            let addresses = resolve(&mut names);
            if !addresses.is_empty() {
                node.notify(0, Notice::Seeds(addresses));
            }
            std::thread::park_timeout(INTERVAL);
        }
    })?;
    Ok(())
}

/// `host:port`.
struct Name {
    text: String,
    failed: bool,
}

fn resolve(names: &mut [Name]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for name in names {
        match name.text.to_socket_addrs() {
            Ok(found) => {
                addresses.extend(found);
                if std::mem::take(&mut name.failed) {
                    tracing::info!(seed = name.text, "a seed's name is known again");
                }
            }
            Err(error) if !name.failed => {
                name.failed = true;
                tracing::warn!(seed = name.text, %error, "a seed's name cannot be looked up; trying again");
            }
            Err(_) => {}
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_there_once_and_a_bad_name_spoils_nothing() {
        let mut names = ["127.0.0.1:7000", "127.0.0.1:7000", "no such name:1", "[::1]:7001"]
            .map(|text| Name { text: text.to_owned(), failed: false });
        let addresses = resolve(&mut names);
        assert_eq!(addresses, ["127.0.0.1:7000".parse::<SocketAddr>().unwrap(), "[::1]:7001".parse().unwrap()]);
        assert!(names[2].failed);
    }
}
