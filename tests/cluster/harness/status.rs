//! What a node says of the cluster.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Node, http};

#[derive(Deserialize, Debug)]
pub struct Status {
    pub ready: bool,
    pub complete: bool,
    pub members: Vec<Member>,
    pub lanes: Vec<Lane>,
    pub flows: Vec<Flow>,
    pub disagreements: Vec<String>,
}

#[derive(Deserialize, Debug)]
pub struct Member {
    pub name: String,
    pub generation: u64,
    pub state: String,
    pub in_view: bool,
}

#[derive(Deserialize, Debug)]
pub struct Lane {
    pub peer: String,
    pub up: bool,
}

#[derive(Deserialize, Debug)]
pub struct Flow {
    pub peer: String,
    pub gap_open: bool,
    pub gaps: u64,
    pub interest: usize,
}

impl Status {
    /// None while it does not answer.
    pub fn of(client: SocketAddr) -> Option<Status> {
        let (status, body) = http::get(client, "/cluster").ok()?;
        assert_eq!(status, 200, "{body}");
        Some(serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    pub fn in_view(&self, name: &str) -> bool {
        self.member(name).is_some_and(|member| member.in_view)
    }

    /// One lane for each worker of the node that has more of them.
    pub fn lanes_up(&self, peer: &Node, node: &Node) -> bool {
        let up = self.lanes.iter().filter(|lane| lane.peer == peer.name && lane.up).count();
        up == usize::from(peer.workers.max(node.workers))
    }

    pub fn gaps(&self, peer: &str) -> u64 {
        self.flows.iter().filter(|flow| flow.peer == peer).map(|flow| flow.gaps).sum()
    }

    /// Channels that the peer wants.
    pub fn interest(&self, peer: &str) -> usize {
        self.flows.iter().filter(|flow| flow.peer == peer).map(|flow| flow.interest).sum()
    }
}
