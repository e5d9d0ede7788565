//! Requests over HTTP: publish and broadcast, and what only all workers together can answer.
//!
//! A survey asks every worker of the node for its report and answers when the last is in, or in time with those
//! that are. Once a second worker 0 surveys for its own sake and tells the peers what the node has.
//!
//! Always true: every request is answered exactly once; what waits is bounded by the requests that the shell has open.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::mail::Origin;
use super::outlet::{Answer, Outlet, RequestKey};
use super::{Request, Shard};
use crate::api::{self, ApiCommand, ApiError, Message, NodeInfo, Published};
use crate::backplane::envelope::{self, PublicationRef, Tags};
use crate::base::id::{Generation, NodeId};
use crate::base::time::{Instant, Now};
use crate::metrics::{Counters, NodeLabels, Source, render_prometheus};
use crate::protocol::Error;
use crate::rules::NameError;

const SURVEY_TIMEOUT: Duration = Duration::from_secs(1);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What one worker tells when asked.
#[derive(Debug)]
pub struct WorkerReport {
    counters: Counters,
    lanes: Vec<LaneStatus>,
    peers: Vec<PeerFlows>,
    /// Worker 0 only.
    members: Vec<MemberStatus>,
    ready: bool,
}

#[derive(Clone, Serialize, Debug)]
pub struct LaneStatus {
    pub peer: String,
    pub lane: u16,
    pub worker: u16,
    pub up: bool,
    pub rtt_micros: u64,
    pub lost_packets: u64,
    pub queued_bytes: u64,
    pub queued_bytes_high: u64,
}

/// A worker's flows with a peer.
#[derive(Clone, Serialize, Debug)]
pub struct PeerFlows {
    pub peer: String,
    pub worker: u16,
    /// In order in both directions.
    pub synced: bool,
    /// A gap is open: publications between the two may have been lost since it opened.
    pub gap_open: bool,
    pub gaps: u64,
    pub gap_publications: u64,
    /// Channel hashes that the peer wants of this worker.
    pub interest: usize,
}

#[derive(Clone, Serialize, Debug)]
pub struct MemberStatus {
    pub name: String,
    pub generation: u64,
    pub state: &'static str,
    pub in_view: bool,
    pub addresses: Vec<String>,
    pub workers: u16,
    pub client: String,
    /// What it last told of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

#[derive(Clone, Serialize, Debug)]
pub struct Told {
    pub clients: u64,
    pub users: u64,
    pub subscriptions: u64,
    pub channels: u64,
    pub uptime_secs: u64,
    pub version: String,
    pub ready: bool,
    /// The nodes that it has in view, itself left out.
    pub view: Vec<String>,
    pub age_millis: u64,
}

struct PeerReport {
    generation: Generation,
    told: Told,
    heard: Instant,
}

enum Purpose {
    Info,
    Metrics,
    Status,
    /// To tell the peers.
    Report,
}

struct Survey {
    purpose: Purpose,
    key: Option<RequestKey>,
    reports: Vec<WorkerReport>,
    missing: u16,
    until: Instant,
}

struct Publishing {
    broadcast: bool,
    transport_errors: bool,
    results: Vec<Option<Result<(), ApiError>>>,
}

#[derive(Default)]
pub struct Surveys {
    open: BTreeMap<u64, Survey>,
    number: u64,
    publishing: BTreeMap<RequestKey, Publishing>,
    peer_reports: BTreeMap<NodeId, PeerReport>,
    report_at: Option<Instant>,
    now: Instant,
}

impl Surveys {
    pub fn poll_deadline(&self) -> Option<Instant> {
        let surveys = self.open.values().map(|survey| survey.until);
        surveys.chain(self.report_at).min()
    }

    pub fn on_peer_report(&mut self, now: Now, id: &NodeId, generation: Generation, report: &envelope::Report<'_>) {
        let told = Told {
            clients: report.clients,
            users: report.users,
            subscriptions: report.subscriptions,
            channels: report.channels,
            uptime_secs: report.uptime_secs,
            version: report.version.to_owned(),
            ready: report.ready,
            view: report.view.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            age_millis: 0,
        };
        self.peer_reports.insert(id.clone(), PeerReport { generation, told, heard: now.mono });
    }

    pub fn forget_peer(&mut self, id: &NodeId) {
        self.peer_reports.remove(id);
    }
}

/// Answers that wait for the end of the turn.
#[derive(Default)]
pub struct Answers {
    waiting: Vec<(RequestKey, Answer)>,
}

impl Answers {
    fn push(&mut self, key: RequestKey, answer: Answer) {
        self.waiting.push((key, answer));
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn flush(&mut self, outlet: &mut impl Outlet) {
        for (key, answer) in self.waiting.drain(..) {
            outlet.answer(key, answer);
        }
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Shard {
    pub fn on_request(&mut self, now: Now, key: RequestKey, request: Request<'_>) {
        match request {
            Request::Ready => {
                let (status, body) = if self.is_ready() {
                    (200, "ready\n")
                } else if self.stopping {
                    (503, "stopping\n")
                } else {
                    (503, "not ready: the node has not joined its cluster yet\n")
                };
                self.answers.push(key, Answer { status, content_type: TEXT, body: body.into() });
            }
            Request::Metrics => self.survey(now, Some(key), Purpose::Metrics),
            Request::Status => self.survey(now, Some(key), Purpose::Status),
            Request::Api { method, body, transport_errors } => {
                let command = match method {
                    "" => api::parse_enveloped(body, self.options.api),
                    _ => api::parse(method, body, self.options.api),
                };
                match command {
                    _ if !self.is_ready() => {
                        let body = b"this node is not ready, or stopping: try another\n".to_vec();
                        self.answers.push(key, Answer { status: 503, content_type: TEXT, body });
                    }
                    Err(error) => self.answer_api(key, api::failed(error, transport_errors)),
                    Ok(ApiCommand::Info) => self.survey(now, Some(key), Purpose::Info),
                    Ok(ApiCommand::Publish { channel, message }) => {
                        self.publish_for(now, key, &[channel], &message, false, transport_errors);
                    }
                    Ok(ApiCommand::Broadcast { channels, message }) => {
                        self.publish_for(now, key, &channels, &message, true, transport_errors);
                    }
                }
            }
        }
    }

    fn answer_api(&mut self, key: RequestKey, answer: api::Answer) {
        self.answers.push(key, Answer { status: answer.status, content_type: JSON, body: answer.body });
    }

    // ---- publish, broadcast

    fn publish_for(
        &mut self,
        now: Now,
        key: RequestKey,
        channels: &[String],
        message: &Message<'_>,
        broadcast: bool,
        transport_errors: bool,
    ) {
        let results = vec![None; channels.len()];
        self.surveys.publishing.insert(key, Publishing { broadcast, transport_errors, results });
        let tags: Vec<(&str, &str)> = message.tags.iter().map(|(key, value)| (&**key, &**value)).collect();
        for (place, channel) in channels.iter().enumerate() {
            let place = place as u32;
            if let Err(error) = self.environment.rules.channel(channel) {
                let error = match error {
                    NameError::UnknownNamespace => Error::UnknownChannel,
                    NameError::Empty | NameError::TooLong | NameError::NotAscii => Error::BadRequest,
                };
                self.on_request_result(key, place, Err(error));
                continue;
            }
            let publication = PublicationRef {
                hash: self.hash_key.channel(channel),
                origin_micros: now.wall.0 * 1000,
                channel,
                data: &message.payload.bytes,
                json: message.payload.json,
                info: None,
                tags: Tags::new(&tags),
            };
            self.counters.published(Source::Api);
            if let Some(outcome) = self.publish(&publication, Origin::Request { key, place }) {
                self.on_request_result(key, place, outcome);
            }
        }
        self.finish_publishing(key);
    }

    pub(super) fn on_request_published(&mut self, key: RequestKey, place: u32, outcome: Result<(), Error>) {
        self.on_request_result(key, place, outcome);
        self.finish_publishing(key);
    }

    fn on_request_result(&mut self, key: RequestKey, place: u32, outcome: Result<(), Error>) {
        if let Some(publishing) = self.surveys.publishing.get_mut(&key) {
            publishing.results[place as usize] = Some(outcome.map_err(ApiError::Refused));
        }
    }

    fn finish_publishing(&mut self, key: RequestKey) {
        let Some(publishing) = self.surveys.publishing.get(&key) else { return };
        if publishing.results.iter().any(Option::is_none) {
            return;
        }
        let publishing = self.surveys.publishing.remove(&key).expect("found above");
        let results: Vec<Result<Published<'_>, ApiError>> =
            publishing.results.into_iter().flatten().map(|result| result.map(|()| Published::default())).collect();
        let answer = if publishing.broadcast {
            api::responses(&results)
        } else {
            match results[0] {
                Ok(published) => api::published(published),
                Err(error) => api::failed(error, publishing.transport_errors),
            }
        };
        self.answer_api(key, answer);
    }

    // ---- surveys

    fn survey(&mut self, now: Now, key: Option<RequestKey>, purpose: Purpose) {
        // What the cluster knows lives on worker 0, which takes part in every survey.
        self.surveys.number += 1;
        let number = self.surveys.number;
        let until = now.mono + SURVEY_TIMEOUT;
        let survey = Survey { purpose, key, reports: Vec::new(), missing: self.workers, until };
        self.surveys.open.insert(number, survey);
        for worker in 0..self.workers {
            self.post(now, worker, super::mail::Mail::Survey { number });
        }
    }

    pub(super) fn report(&mut self, now: Now) -> WorkerReport {
        self.counters.users = self.admissions.users() as u64;
        self.counters.subscriptions = self.hub.subscriptions() as u64;
        self.counters.channels = self.interest.channels() as u64;
        self.counters.ready = u64::from(self.is_ready());
        self.forget_counters();
        let lanes = self.lane_statuses();
        for lane in &lanes {
            let Ok(peer) = NodeId::parse(&lane.peer) else { continue };
            let counters = self.counters.lane_mut(&peer, lane.lane);
            counters.up = lane.up;
            counters.rtt_micros = lane.rtt_micros;
            counters.lost_packets = lane.lost_packets;
            counters.queued(lane.queued_bytes);
        }
        let members = self.member_statuses(now);
        if self.worker == 0 {
            let suspected = members.iter().filter(|member| member.state == "suspect");
            self.counters.members_suspected = suspected.count() as u64;
            self.counters.members = 1 + members.iter().filter(|member| member.state == "alive").count() as u64;
            self.counters.members_in_view = 1 + members.iter().filter(|member| member.in_view).count() as u64;
        }
        WorkerReport {
            counters: self.counters.clone(),
            lanes,
            peers: self.peer_flows(),
            members,
            ready: self.is_ready(),
        }
    }

    pub(super) fn told_by(&self, now: Now, id: &NodeId, generation: Generation) -> Option<Told> {
        let report = self.surveys.peer_reports.get(id).filter(|report| report.generation == generation)?;
        let age_millis = now.mono.since(report.heard).as_millis() as u64;
        Some(Told { age_millis, ..report.told.clone() })
    }

    pub(super) fn on_surveyed(&mut self, now: Now, number: u64, report: WorkerReport) {
        let Some(survey) = self.surveys.open.get_mut(&number) else { return };
        survey.reports.push(report);
        survey.missing -= 1;
        if survey.missing == 0 {
            self.finish_survey(now, number);
        }
    }

    pub(super) fn on_surveys_deadline(&mut self, now: Now) {
        self.surveys.now = now.mono;
        let late: Vec<u64> = self
            .surveys
            .open
            .iter()
            .filter(|(_, survey)| survey.until <= now.mono)
            .map(|(&number, _)| number)
            .collect();
        for number in late {
            self.finish_survey(now, number);
        }
        if self.surveys.report_at.is_some_and(|at| at <= now.mono) {
            self.surveys.report_at = Some(now.mono + REPORT_INTERVAL);
            self.survey(now, None, Purpose::Report);
        }
    }

    /// Worker 0 of a meshed node tells its peers what the node has, from now on.
    pub(super) fn start_reports(&mut self, now: Now) {
        self.surveys.report_at.get_or_insert(now.mono);
    }

    fn finish_survey(&mut self, now: Now, number: u64) {
        let Some(survey) = self.surveys.open.remove(&number) else { return };
        let mut total = Counters::default();
        for report in &survey.reports {
            total.merge(&report.counters);
        }
        match (survey.purpose, survey.key) {
            (Purpose::Metrics, Some(key)) => {
                let mut text = String::new();
                let labels = NodeLabels { node: self.node.as_str(), version: VERSION };
                render_prometheus(&total, labels, &mut text);
                let answer =
                    Answer { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: text.into_bytes() };
                self.answers.push(key, answer);
            }
            (Purpose::Info, Some(key)) => {
                let answer = self.info(now, &total, &survey.reports);
                self.answer_api(key, answer);
            }
            (Purpose::Status, Some(key)) => {
                let status = self.status(now, &total, survey.reports, survey.missing);
                let body = serde_json::to_vec(&status).expect("a status is plain data");
                self.answers.push(key, Answer { status: 200, content_type: JSON, body });
            }
            (Purpose::Report, _) => self.send_report(now, &total),
            (_, None) => unreachable!("only reports have no request"),
        }
    }

    fn uptime_secs(&self, now: Now) -> u64 {
        now.mono.since(self.started.mono).as_secs()
    }

    fn send_report(&mut self, now: Now, total: &Counters) {
        let view = self.in_view().map(NodeId::as_str).collect::<Vec<_>>().join(",");
        let report = envelope::Report {
            clients: total.sessions,
            users: total.users,
            subscriptions: total.subscriptions,
            channels: total.channels,
            uptime_secs: self.uptime_secs(now),
            version: VERSION,
            workers: self.workers,
            ready: self.is_ready(),
            view: &view,
        };
        let mut frame = Vec::new();
        envelope::encode_report(&report, &mut frame);
        self.send_to_all_on_lane_zero(now, &frame);
    }

    fn info(&self, now: Now, total: &Counters, reports: &[WorkerReport]) -> api::Answer {
        let mut nodes = vec![NodeInfo {
            uid: self.node.as_str(),
            name: self.node.as_str(),
            version: VERSION,
            num_clients: total.sessions,
            num_users: total.users,
            num_subs: total.subscriptions,
            num_channels: total.channels,
            uptime: self.uptime_secs(now),
            workers: self.workers,
            generation: self.generation().0,
            in_view: true,
            age_millis: 0,
        }];
        for member in reports.iter().flat_map(|report| &report.members) {
            let Some(told) = &member.told else { continue };
            if member.state != "alive" && !member.in_view {
                continue;
            }
            nodes.push(NodeInfo {
                uid: &member.name,
                name: &member.name,
                version: &told.version,
                num_clients: told.clients,
                num_users: told.users,
                num_subs: told.subscriptions,
                num_channels: told.channels,
                uptime: told.uptime_secs,
                workers: member.workers,
                generation: member.generation,
                in_view: member.in_view,
                age_millis: told.age_millis,
            });
        }
        api::info(&nodes)
    }

    fn status(&self, now: Now, total: &Counters, reports: Vec<WorkerReport>, missing_workers: u16) -> Status {
        let ready = reports.iter().all(|report| report.ready) && missing_workers == 0;
        let mut status = Status {
            node: self.node.to_string(),
            generation: self.generation().0,
            version: VERSION,
            workers: self.workers,
            missing_workers,
            ready,
            uptime_secs: self.uptime_secs(now),
            clients: total.sessions,
            subscriptions: total.subscriptions,
            channels: total.channels,
            outbox_bytes_high: total.outbox_bytes_high,
            mailbox_high: total.mailbox_high,
            lane_queue_bytes_high: total.lane_queue_bytes_high,
            complete: false,
            members: Vec::new(),
            lanes: Vec::new(),
            flows: Vec::new(),
            disagreements: Vec::new(),
        };
        for report in reports {
            status.members.extend(report.members);
            status.lanes.extend(report.lanes);
            status.flows.extend(report.peers);
        }
        status.lanes.sort_by(|a, b| (&a.peer, a.lane).cmp(&(&b.peer, b.lane)));
        let alive = |member: &&MemberStatus| member.state == "alive";
        status.complete = ready && status.members.iter().filter(alive).all(|member| member.in_view);
        status.disagreements = disagreements(&status);
        status
    }
}

/// What `cluster status` shows of one node.
#[derive(Serialize, Debug)]
struct Status {
    node: String,
    generation: u64,
    version: &'static str,
    workers: u16,
    /// Workers that did not answer in time.
    missing_workers: u16,
    ready: bool,
    /// Ready, and every live member is in view on all lanes.
    complete: bool,
    uptime_secs: u64,
    clients: u64,
    subscriptions: u64,
    channels: u64,
    outbox_bytes_high: u64,
    mailbox_high: u64,
    lane_queue_bytes_high: u64,
    members: Vec<MemberStatus>,
    lanes: Vec<LaneStatus>,
    flows: Vec<PeerFlows>,
    disagreements: Vec<String>,
}

/// Where this node's picture of the cluster is not that of another.
fn disagreements(status: &Status) -> Vec<String> {
    let mut found = Vec::new();
    for member in &status.members {
        if member.state == "alive" && !member.in_view {
            found.push(format!("{} is a live member but not in view of {}", member.name, status.node));
        }
        let Some(told) = &member.told else { continue };
        if !member.in_view {
            continue;
        }
        if told.version != status.version {
            found.push(format!(
                "{} runs version {}, {} runs {}",
                member.name, told.version, status.node, status.version
            ));
        }
        if !told.view.contains(&status.node) {
            found.push(format!("{} does not have {} in view", member.name, status.node));
        }
        for other in status.members.iter().filter(|other| other.in_view && other.name != member.name) {
            if !told.view.contains(&other.name) {
                found.push(format!("{} does not have {} in view, {} has", member.name, other.name, status.node));
            }
        }
    }
    found
}
