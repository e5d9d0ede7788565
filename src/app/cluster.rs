//! `skein cluster status`: the cluster as one node sees it.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config;
use crate::shell::clock;

const PATH: &str = "/cluster";
/// A cluster of the largest size says no more than this.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `http://host:port`, of the node's internal address where it has one.
    pub url: String,
    pub json: bool,
    pub timeout: Duration,
}

pub fn command() -> Command {
    let status = Command::new("status")
        .about("Show members, lanes, round-trip times, queue depths and disagreements, as one node sees them")
        .arg(
            Arg::new("url")
                .long("url")
                .short('u')
                .value_name("URL")
                .default_value("http://127.0.0.1:8000")
                .help("The node; its internal address, where it has one"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("TIME")
                .default_value("5s")
                .help("How long to wait for the node"),
        );
    Command::new("cluster")
        .about("Look at a cluster")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(status)
}

pub fn options(matches: &ArgMatches) -> Result<Options, Failure> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let url = text("url");
    if url.starts_with("https://") {
        return Err(Failure::usage(
            "TLS is not built into this command: name the node itself, by its http:// address, instead of the proxy in front",
        ));
    }
    if Endpoint::parse(&url, "http://").is_none() {
        return Err(Failure::usage(format!("--url must be as http://127.0.0.1:8000, and '{url}' is not")));
    }
    let timeout = config::parse_time(&text("timeout")).filter(|timeout| !timeout.is_zero());
    let timeout = timeout.ok_or_else(|| Failure::usage("--timeout must be a time with its unit, as 5s"))?;
    Ok(Options { url, json: matches.get_flag("json"), timeout })
}

pub fn status(options: Options) -> Result<(), Failure> {
    let body = get(&options)?;
    if options.json {
        let line = body.strip_suffix(b"\n").unwrap_or(&body);
        return terminal::print(&format!("{}\n", String::from_utf8_lossy(line)));
    }
    let status: Status = serde_json::from_slice(&body)
        .map_err(|error| Failure::failed(format!("{} answered, but not as a node does: {error}", options.url)))?;
    terminal::print(&status.table())
}

fn get(options: &Options) -> Result<Vec<u8>, Failure> {
    let Endpoint { authority, path, .. } = &options.endpoint();
    let deadline = clock::mono() + options.timeout;
    let mut stream = options.endpoint().connect(options.timeout)?;
    let unreachable =
        |why: &dyn fmt::Display| Failure::new(Exit::Unreachable, format!("{authority} did not answer: {why}"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| unreachable(&error))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.since(clock::mono());
        if left.is_zero() {
            return Err(unreachable(&"its time is over"));
        }
        stream.set_read_timeout(Some(left)).map_err(|error| unreachable(&error))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(unreachable(&"its time is over")),
            Err(error) => return Err(unreachable(&error)),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Failure::failed(format!("{authority} answers without an end")));
        }
    }
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let head = head_end.and_then(|end| std::str::from_utf8(&answer[..end]).ok()).unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200) => Ok(answer.split_off(head.len() + 4)),
        Some(404) => Err(Failure::new(
            Exit::Refused,
            format!(
                "{authority} does not tell there: a node with an internal address tells it there only, name that with --url"
            ),
        )),
        Some(status) => Err(Failure::new(Exit::Refused, format!("{authority} answered with status {status}"))),
        None => Err(Failure::failed(format!("{authority} answered, but not in HTTP"))),
    }
}

impl Options {
    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::parse(&self.url, "http://").expect("checked with the options");
        endpoint.path = format!("{}{PATH}", endpoint.path.trim_end_matches('/'));
        endpoint
    }
}

/// What a node tells, as far as it is shown here. What a node of another version leaves out is shown as nothing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    node: String,
    generation: u64,
    version: String,
    workers: u16,
    missing_workers: u16,
    ready: bool,
    complete: bool,
    uptime_secs: u64,
    clients: u64,
    subscriptions: u64,
    channels: u64,
    outbox_bytes_high: u64,
    mailbox_high: u64,
    lane_queue_bytes_high: u64,
    members: Vec<Member>,
    lanes: Vec<Lane>,
    flows: Vec<Flow>,
    disagreements: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Member {
    name: String,
    generation: u64,
    state: String,
    in_view: bool,
    addresses: Vec<String>,
    workers: u16,
    client: String,
    told: Option<Told>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    clients: u64,
    subscriptions: u64,
    channels: u64,
    uptime_secs: u64,
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Lane {
    peer: String,
    lane: u16,
    worker: u16,
    up: bool,
    rtt_micros: u64,
    lost_packets: u64,
    queued_bytes: u64,
    queued_bytes_high: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Flow {
    peer: String,
    worker: u16,
    synced: bool,
    gap_open: bool,
    gaps: u64,
    gap_publications: u64,
    interest: u64,
}

impl Status {
    fn table(&self) -> String {
        let mut text = self.head();
        text += "\n";
        if self.members.is_empty() {
            text += "No other nodes.\n";
            return text;
        }
        text += &columns(
            "MEMBER STATE VIEW WORKERS CLIENTS SUBSCRIPTIONS CHANNELS UP VERSION GENERATION CLIENT-ADDRESS MESH",
            self.members.iter().map(Member::row),
        );
        text += "\n";
        text += &columns(
            "LANE-TO LANE WORKER STATE ROUND-TRIP LOST-PACKETS QUEUED QUEUED-HIGH",
            self.lanes.iter().map(Lane::row),
        );
        text += "\n";
        text += &columns("FLOW-WITH WORKER STATE GAPS LOST WANTED", self.flows.iter().map(Flow::row));
        text += "\n";
        match &self.disagreements[..] {
            [] => text += "No disagreements.\n",
            found => {
                text += "Disagreements:\n";
                found.iter().for_each(|sentence| text += &format!("  {sentence}\n"));
            }
        }
        text
    }

    fn head(&self) -> String {
        let state = match (self.ready, self.complete) {
            (false, _) => "not ready",
            (true, true) => "ready, all live members in view",
            (true, false) => "ready, but not all live members are in view",
        };
        let missing = match self.missing_workers {
            0 => String::new(),
            missing => format!(", {missing} of them silent"),
        };
        format!(
            "{} is {state}.\nVersion {}, generation {}, {} workers{missing}, up {}.\n\
             {} clients, {} subscriptions, {} channels.\n\
             High water: outbox {}, mailbox {}, lane queue {}.\n",
            self.node,
            self.version,
            self.generation,
            self.workers,
            time(self.uptime_secs),
            self.clients,
            self.subscriptions,
            self.channels,
            bytes(self.outbox_bytes_high),
            self.mailbox_high,
            bytes(self.lane_queue_bytes_high),
        )
    }
}

impl Member {
    fn row(&self) -> Vec<String> {
        let told = |text: &dyn Fn(&Told) -> String| self.told.as_ref().map_or("-".into(), text);
        vec![
            self.name.clone(),
            self.state.clone(),
            yes(self.in_view),
            self.workers.to_string(),
            told(&|told| told.clients.to_string()),
            told(&|told| told.subscriptions.to_string()),
            told(&|told| told.channels.to_string()),
            told(&|told| time(told.uptime_secs)),
            told(&|told| told.version.clone()),
            self.generation.to_string(),
            if self.client.is_empty() { "-".into() } else { self.client.clone() },
            self.addresses.join(","),
        ]
    }
}

impl Lane {
    fn row(&self) -> Vec<String> {
        vec![
            self.peer.clone(),
            self.lane.to_string(),
            self.worker.to_string(),
            if self.up { "up" } else { "down" }.into(),
            format!("{:.2} ms", self.rtt_micros as f64 / 1000.0),
            self.lost_packets.to_string(),
            bytes(self.queued_bytes),
            bytes(self.queued_bytes_high),
        ]
    }
}

impl Flow {
    fn row(&self) -> Vec<String> {
        let state = match (self.synced, self.gap_open) {
            (true, false) => "in order",
            (_, true) => "gap open",
            (false, false) => "not in order",
        };
        vec![
            self.peer.clone(),
            self.worker.to_string(),
            state.into(),
            self.gaps.to_string(),
            self.gap_publications.to_string(),
            self.interest.to_string(),
        ]
    }
}

/// A heading, its words with spaces for hyphens, over rows, each column as wide as it must be.
fn columns(heading: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let heading = heading.split(' ').map(|word| word.replace('-', " ")).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text += "\n";
    }
    text
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.into()
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count / 1024),
        _ => format!("{} MiB", count / 1024 / 1024),
    }
}

fn time(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_as_tables() {
        let status = r#"{"node":"a","generation":5,"version":"1","workers":2,"ready":true,"complete":false,"uptime_secs":130,
            "lane_queue_bytes_high":20480,"new_field":1,
            "members":[{"name":"b","generation":6,"state":"alive","in_view":false,"addresses":["1.2.3.4:7800"],"workers":1,"client":"",
                "told":{"clients":3,"version":"1"}},
                {"name":"long-name","state":"down","in_view":false}],
            "lanes":[{"peer":"b","lane":1,"worker":1,"up":true,"rtt_micros":1234,"lost_packets":2,"queued_bytes":0,"queued_bytes_high":20480}],
            "flows":[{"peer":"b","worker":0,"synced":true,"gap_open":true,"gaps":2,"gap_publications":9,"interest":4}],
            "disagreements":["b is a live member but not in view of a"]}"#;
        let text = serde_json::from_str::<Status>(status).unwrap().table();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        for expected in [
            "a is ready, but not all live members are in view.",
            "Version 1, generation 5, 2 workers, up 2 min.",
            "High water: outbox 0 B, mailbox 0, lane queue 20 KiB.",
            "b alive no 1 3 0 0 0 s 1 6 - 1.2.3.4:7800",
            "b 1 1 up 1.23 ms 2 0 B 20 KiB",
            "b 0 gap open 2 9 4",
            "b is a live member but not in view of a",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\n{text}");
        }
        assert!(text.contains("MEMBER     STATE  VIEW"), "columns are as wide as they must be\n{text}");
        assert!(Status::default().table().contains("No other nodes."));
    }

    #[test]
    fn the_path_is_added_to_the_nodes_address() {
        let path = |url: &str| Options { url: url.into(), json: false, timeout: Duration::ZERO }.endpoint().path;
        assert_eq!(path("http://a:1"), "/cluster");
        assert_eq!(path("http://a:1/"), "/cluster");
        assert_eq!(path("http://a:1/skein/"), "/skein/cluster");
    }
}
