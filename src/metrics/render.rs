//! Counters as the text that Prometheus scrapes (exposition format 0.0.4).
//!
//! `METRICS` is the only list of names: rendering walks it, and the reference of the documentation can too.

use std::fmt::Write;

use super::{Counters, DropReason, Histogram, LaneCounters, MeshRefusal, RefusalReason, Source};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every line says of the node, besides its own labels.
#[derive(Clone, Copy, Debug)]
pub struct NodeLabels<'a> {
    pub node: &'a str,
    pub version: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    read: Read,
}

enum Read {
    One(fn(&Counters) -> u64),
    /// One line each, with labels of its own.
    Each(fn(&Counters, &mut Lines<'_>)),
    Lane(fn(&LaneCounters) -> Value),
    Micros(fn(&Counters) -> &Histogram),
    Build,
}

enum Value {
    Count(u64),
    /// Shown in seconds.
    Micros(u64),
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Counters) -> u64) -> Metric {
    Metric { name, kind: Kind::Gauge, help, read: Read::One(read) }
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Counters) -> u64) -> Metric {
    Metric { name, kind: Kind::Counter, help, read: Read::One(read) }
}

const fn each(name: &'static str, help: &'static str, read: fn(&Counters, &mut Lines<'_>)) -> Metric {
    Metric { name, kind: Kind::Counter, help, read: Read::Each(read) }
}

const fn lane(name: &'static str, kind: Kind, help: &'static str, read: fn(&LaneCounters) -> Value) -> Metric {
    Metric { name, kind, help, read: Read::Lane(read) }
}

const fn histogram(name: &'static str, help: &'static str, read: fn(&Counters) -> &Histogram) -> Metric {
    Metric { name, kind: Kind::Histogram, help, read: Read::Micros(read) }
}

pub const METRICS: &[Metric] = &[
    Metric {
        name: "skein_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the version is a label.",
        read: Read::Build,
    },
    gauge("skein_ready", "Whether the node may serve clients: it has joined, or runs alone.", |c| c.ready),
    gauge("skein_connections", "Client connections that are open.", |c| c.connections),
    counter("skein_connections_total", "Client connections that were accepted.", |c| c.connections_total),
    gauge("skein_sessions", "Clients that have connected by the protocol.", |c| c.sessions),
    counter("skein_sessions_total", "Connect commands answered with success.", |c| c.sessions_total),
    gauge("skein_users", "Distinct users with a session on this node.", |c| c.users),
    gauge("skein_subscriptions", "Subscriptions of the node's clients.", |c| c.subscriptions),
    gauge("skein_channels", "Channels with a subscriber on this node.", |c| c.channels),
    each("skein_publications_in_total", "Publications that came in, by source.", |c, lines| {
        for source in Source::ALL {
            lines.line(&[("source", source.name())], c.publications_in(source));
        }
    }),
    counter("skein_publications_out_total", "Publications put into the outbox of a client.", |c| c.deliveries),
    counter("skein_commands_total", "Commands that clients sent.", |c| c.commands_in),
    each("skein_command_errors_total", "Error replies to commands, by code.", |c, lines| {
        for (code, n) in c.errors.iter() {
            lines.line(&[("code", &code.to_string())], n);
        }
    }),
    counter("skein_frames_in_total", "WebSocket frames received.", |c| c.frames_in),
    counter("skein_frames_out_total", "WebSocket frames sent; over skein_sends_total it is frames per send.", |c| {
        c.frames_out
    }),
    counter("skein_sends_total", "Send operations on client sockets.", |c| c.sends),
    counter("skein_sends_short_total", "Send operations that the socket did not take whole.", |c| c.sends_short),
    counter("skein_bytes_in_total", "Bytes received from client sockets.", |c| c.bytes_in),
    counter("skein_bytes_out_total", "Bytes sent to client sockets.", |c| c.bytes_out),
    counter("skein_http_requests_total", "Plain HTTP requests, upgrades not counted.", |c| c.http_requests),
    each("skein_drops_total", "Publications that went no further, by reason.", |c, lines| {
        for reason in DropReason::ALL {
            lines.line(&[("reason", reason.name())], c.drops(reason));
        }
    }),
    each("skein_refusals_total", "Connections and requests turned away, by reason.", |c, lines| {
        for reason in RefusalReason::ALL {
            lines.line(&[("reason", reason.name())], c.refusals(reason));
        }
    }),
    each("skein_mesh_refusals_total", "What was turned away on the mesh port, by reason.", |c, lines| {
        for reason in MeshRefusal::ALL {
            lines.line(&[("reason", reason.name())], c.mesh_refusals(reason));
        }
    }),
    each("skein_disconnects_total", "Client connections that ended, by close code.", |c, lines| {
        for (code, n) in c.disconnects.iter() {
            lines.line(&[("code", &code.to_string())], n);
        }
    }),
    gauge("skein_outbox_bytes_high", "Most bytes that waited for one client since the start.", |c| c.outbox_bytes_high),
    gauge("skein_mailbox_high", "Most mails that waited for one worker since the start.", |c| c.mailbox_high),
    gauge("skein_lane_queue_bytes_high", "Most bytes that waited for one lane since the start.", |c| {
        c.lane_queue_bytes_high
    }),
    histogram("skein_turn_seconds", "Length of a worker's turn, sleep not counted.", |c| &c.turn),
    histogram(
        "skein_receive_to_send_seconds",
        "From the receive that brought a publication to the send that took it out.",
        |c| &c.latency,
    ),
    gauge("skein_members", "Members of the cluster as this node knows it, itself included.", |c| c.members),
    gauge("skein_members_in_view", "Members that this node sends to and waits for.", |c| c.members_in_view),
    gauge("skein_members_suspected", "Members that do not answer at the moment.", |c| c.members_suspected),
    counter("skein_views_lost_total", "Times a member was taken out of view.", |c| c.views_lost),
    counter("skein_gaps_total", "Times that publications between this node and another may have been lost.", |c| {
        c.gaps()
    }),
    lane("skein_lane_up", Kind::Gauge, "Whether the lane is usable.", |l| Value::Count(l.up.into())),
    lane("skein_lane_ups_total", Kind::Counter, "Times the lane came up.", |l| Value::Count(l.ups_total)),
    lane("skein_lane_rtt_seconds", Kind::Gauge, "Round-trip time of the lane.", |l| Value::Micros(l.rtt_micros)),
    lane("skein_lane_queued_bytes", Kind::Gauge, "Bytes that wait for the lane.", |l| Value::Count(l.queued_bytes)),
    lane("skein_lane_queued_bytes_high", Kind::Gauge, "Most bytes that waited for the lane.", |l| {
        Value::Count(l.queued_bytes_high)
    }),
    lane(
        "skein_lane_gaps_out_total",
        Kind::Counter,
        "Gaps in what was sent to the peer, the end of a lane in view included.",
        |l| Value::Count(l.gaps_out),
    ),
    lane(
        "skein_lane_gaps_in_total",
        Kind::Counter,
        "Gaps in what the peer sent: those it told, and the end of a lane in view.",
        |l| Value::Count(l.gaps_in),
    ),
    lane("skein_lane_bytes_out_total", Kind::Counter, "Bytes of frames sent on the lane.", |l| {
        Value::Count(l.bytes_out)
    }),
    lane("skein_lane_bytes_in_total", Kind::Counter, "Bytes of frames received on the lane.", |l| {
        Value::Count(l.bytes_in)
    }),
    lane("skein_lane_lost_packets_total", Kind::Counter, "Packets that the network lost.", |l| {
        Value::Count(l.lost_packets)
    }),
];

pub fn render_prometheus(counters: &Counters, labels: NodeLabels<'_>, out: &mut String) {
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        out.extend(["# HELP ", metric.name, " ", metric.help, "\n# TYPE ", metric.name, " ", kind, "\n"]);
        let mut lines = Lines { out, name: metric.name, node: labels.node };
        match metric.read {
            Read::One(read) => lines.line(&[], read(counters)),
            Read::Each(read) => read(counters, &mut lines),
            Read::Lane(read) => {
                for lane in counters.lanes() {
                    let labels = [("peer", lane.peer.as_str()), ("lane", &lane.lane.to_string())];
                    match read(lane) {
                        Value::Count(value) => lines.line(&labels, value),
                        Value::Micros(micros) => lines.line_of("", &labels, &seconds(micros)),
                    }
                }
            }
            Read::Micros(read) => lines.histogram(read(counters)),
            Read::Build => lines.line(&[("version", labels.version)], 1),
        }
    }
}

struct Lines<'a> {
    out: &'a mut String,
    name: &'static str,
    node: &'a str,
}

impl Lines<'_> {
    fn line(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line_of("", labels, &value.to_string());
    }

    fn histogram(&mut self, histogram: &Histogram) {
        for (bound, below) in histogram.cumulative() {
            let bound = bound.map_or("+Inf".to_owned(), seconds);
            self.line_of("_bucket", &[("le", &bound)], &below.to_string());
        }
        self.line_of("_sum", &[], &seconds(histogram.sum_micros()));
        self.line_of("_count", &[], &histogram.count().to_string());
    }

    fn line_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        self.out.extend([self.name, suffix, "{node=\""]);
        escape(self.node, self.out);
        self.out.push('"');
        for (name, value) in labels {
            self.out.extend([",", name, "=\""]);
            escape(value, self.out);
            self.out.push('"');
        }
        self.out.extend(["} ", value, "\n"]);
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Exact, where a float would show its rounding.
fn seconds(micros: u64) -> String {
    let mut text = format!("{}", micros / 1_000_000);
    let rest = micros % 1_000_000;
    if rest != 0 {
        write!(text, ".{rest:06}").expect("a String takes everything");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::NodeId;

    fn rendered(counters: &Counters) -> String {
        let mut out = String::new();
        render_prometheus(counters, NodeLabels { node: "a", version: "0.1.0" }, &mut out);
        out
    }

    #[test]
    fn every_name_stands_once_and_has_its_help() {
        let text = rendered(&Counters::default());
        for metric in METRICS {
            assert_eq!(METRICS.iter().filter(|m| m.name == metric.name).count(), 1, "{}", metric.name);
            assert_eq!(text.matches(&format!("# HELP {} ", metric.name)).count(), 1);
            assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1);
            assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{}", metric.name);
            assert!(!metric.help.contains(['\n', '\\']), "{}", metric.name);
            assert!(metric.name.starts_with("skein_"));
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn every_line_is_help_type_or_a_sample_of_the_metric_above_it() {
        let mut counters = Counters::default();
        counters.lane_mut(&NodeId::parse("b").unwrap(), 0).rtt_micros = 1500;
        counters.disconnects.count(3008);
        counters.errors.count(107);
        let mut current = "";
        let text = rendered(&counters);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap();
            } else if !line.starts_with("# HELP ") {
                assert!(line.starts_with(current), "{line}");
                let (_, value) = line.rsplit_once("} ").unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
        assert!(text.contains("\nskein_lane_rtt_seconds{node=\"a\",peer=\"b\",lane=\"0\"} 0.0015\n"));
        assert!(text.contains("\nskein_disconnects_total{node=\"a\",code=\"3008\"} 1\n"));
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let mut counters = Counters::default();
        counters.turn.observe(3);
        counters.turn.observe(20_000_000);
        let text = rendered(&counters);
        assert!(text.contains("skein_turn_seconds_bucket{node=\"a\",le=\"0.000002\"} 0\n"));
        assert!(text.contains("skein_turn_seconds_bucket{node=\"a\",le=\"0.000004\"} 1\n"));
        assert!(text.contains("skein_turn_seconds_bucket{node=\"a\",le=\"16.777216\"} 1\n"));
        assert!(text.contains("skein_turn_seconds_bucket{node=\"a\",le=\"+Inf\"} 2\n"));
        assert!(text.contains("skein_turn_seconds_sum{node=\"a\"} 20.000003\n"));
        assert!(text.contains("skein_turn_seconds_count{node=\"a\"} 2\n"));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        escape("a\"b\\c\nd", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(1), "0.000001");
        assert_eq!(seconds(1_500_000), "1.5");
        assert_eq!(seconds(u64::MAX), "18446744073709.551615");
    }
}
