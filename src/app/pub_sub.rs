//! `skein pub` and `skein sub`: a real client in the terminal, against any node.
//!
//! Publications go to standard output, one line of JSON each; what happens otherwise is told on standard error.

mod connection;

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde_json::value::RawValue;

use super::endpoint::Endpoint;
use super::exit::{Exit, Failure};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::client::{Event, Info};
use crate::config;
use crate::shell::clock;
use connection::{Connection, Heard, Notice, advice};

/// Publications under way at once; below what a node takes of one client in a burst.
const UNANSWERED_MAX: usize = 256;
/// Between two connections.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// Before a channel is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Which node, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `ws://host:port/path`.
    pub url: String,
    /// Empty: anonymous.
    pub token: String,
    pub encoding: Encoding,
    /// For connecting, and for each answer.
    pub timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Encoding {
    #[default]
    Json,
    Protobuf,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    pub target: Target,
    pub channel: String,
    /// `None`: one publication for each line of standard input.
    pub data: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribe {
    pub target: Target,
    pub channels: Vec<String>,
    /// For the one channel; empty: none.
    pub subscription_token: String,
    /// End after so many publications.
    pub count: Option<u64>,
    /// One JSON object a line, with channel and sender.
    pub json: bool,
}

pub fn publish_command() -> Command {
    with_target(Command::new("pub").about("Publish from the terminal, as a client"))
        .arg(Arg::new("CHANNEL").required(true).help("Where to publish"))
        .arg(Arg::new("DATA").allow_hyphen_values(true).help(
            "What to publish: JSON, or text that becomes a JSON string; without it each line of standard input is published",
        ))
}

pub fn subscribe_command() -> Command {
    with_target(Command::new("sub").about("Subscribe in the terminal, as a client, and print what comes"))
        .arg(Arg::new("CHANNEL").required(true).num_args(1..).action(ArgAction::Append).help("What to subscribe to"))
        .arg(
            Arg::new("subscription-token")
                .long("subscription-token")
                .value_name("TOKEN")
                .help("The token for the channel, which then must be the only one"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .short('n')
                .value_name("NUMBER")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many publications"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object a line, with channel and sender"),
        )
}

fn with_target(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command
        .arg(text("url", "URL", "The node").short('u').default_value("ws://127.0.0.1:8000/connection/websocket"))
        .arg(text("token", "TOKEN", "A connection token, as `skein token` makes"))
        .arg(Arg::new("protobuf").long("protobuf").action(ArgAction::SetTrue).help("Speak Protobuf instead of JSON"))
        .arg(text("timeout", "TIME", "How long to wait for the node").default_value("5s"))
}

fn target(matches: &ArgMatches) -> Result<Target, Failure> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let url = text("url");
    if url.starts_with("wss://") {
        return Err(Failure::usage(
            "TLS is not built into the terminal client: name the node itself, by its ws:// address, instead of the proxy in front",
        ));
    }
    if Endpoint::parse(&url, "ws://").is_none() {
        return Err(Failure::usage(format!(
            "--url must be as ws://127.0.0.1:8000/connection/websocket, and '{url}' is not"
        )));
    }
    let timeout = config::parse_time(&text("timeout")).filter(|timeout| !timeout.is_zero());
    let timeout = timeout.ok_or_else(|| Failure::usage("--timeout must be a time with its unit, as 5s"))?;
    let encoding = if matches.get_flag("protobuf") { Encoding::Protobuf } else { Encoding::Json };
    Ok(Target { url, token: text("token"), encoding, timeout })
}

pub fn publish_options(matches: &ArgMatches) -> Result<Publish, Failure> {
    let text = |name| matches.get_one::<String>(name).cloned();
    Ok(Publish { target: target(matches)?, channel: text("CHANNEL").expect("required"), data: text("DATA") })
}

pub fn subscribe_options(matches: &ArgMatches) -> Result<Subscribe, Failure> {
    let channels: Vec<String> = matches.get_many("CHANNEL").expect("required").cloned().collect();
    let subscription_token = matches.get_one::<String>("subscription-token").cloned().unwrap_or_default();
    if !subscription_token.is_empty() && channels.len() > 1 {
        return Err(Failure::usage(
            "--subscription-token is for one channel: subscribe to the others by another `skein sub`",
        ));
    }
    Ok(Subscribe {
        target: target(matches)?,
        channels,
        subscription_token,
        count: matches.get_one("count").copied(),
        json: matches.get_flag("json"),
    })
}

/// Returns when the node has answered for everything that was to be published.
pub fn publish(options: Publish) -> Result<(), Failure> {
    let mut connection = Connection::open(&options.target, rng()?)?;
    match &options.data {
        Some(data) => {
            send(&mut connection, &options.channel, data.as_bytes())?;
            answered(&mut connection, &options.target)?;
        }
        None => publish_lines(&mut connection, &options)?,
    }
    connection.close();
    Ok(())
}

/// A thread reads a line whenever it is asked to; it is published while answers to earlier lines are still awaited.
fn publish_lines(connection: &mut Connection, options: &Publish) -> Result<(), Failure> {
    let tell = connection.teller();
    let (ask, asked) = mpsc::channel();
    let reader = move || {
        let mut lines = io::stdin().lock().split(b'\n');
        while let Ok(()) = asked.recv() {
            // A standard input that cannot be read has ended.
            let notice = lines.next().and_then(Result::ok).map_or(Notice::InputEnded, Notice::Line);
            if tell.send(notice).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(reader).map_err(Failure::failed)?;
    let mut asking = false;
    let mut heard_at = clock::mono();
    loop {
        let pending = connection.client.pending();
        if !asking && pending < UNANSWERED_MAX {
            // A reader that has gone has told the end of input.
            let _ = ask.send(());
            asking = true;
        }
        match connection.wait((pending > 0).then(|| heard_at + options.target.timeout)) {
            Heard::Line(line) => {
                asking = false;
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                if pending == 0 {
                    heard_at = clock::mono();
                }
                if !line.is_empty() {
                    send(connection, &options.channel, line)?;
                }
            }
            Heard::Event(event) => {
                heard_at = clock::mono();
                check(event)?;
            }
            Heard::Nothing => return Err(unanswered(pending)),
            Heard::InputEnded => return answered(connection, &options.target),
        }
    }
}

fn send(connection: &mut Connection, channel: &str, data: &[u8]) -> Result<(), Failure> {
    let payload = payload(data);
    let queued = connection.client.publish(channel, &payload);
    queued.map(drop).map_err(|refused| Failure::failed(format!("the publication could not be sent: {refused:?}")))
}

/// Waits until no answer is missing.
fn answered(connection: &mut Connection, target: &Target) -> Result<(), Failure> {
    while connection.client.pending() > 0 {
        match connection.wait(Some(clock::mono() + target.timeout)) {
            Heard::Event(event) => check(event)?,
            Heard::Line(_) | Heard::InputEnded => unreachable!("a line is read when it is asked for"),
            Heard::Nothing => return Err(unanswered(connection.client.pending())),
        }
    }
    Ok(())
}

fn unanswered(pending: usize) -> Failure {
    let unknown = format!("whether {pending} of the publications arrived is unknown");
    Failure::new(Exit::Unreachable, format!("the node did not answer in time: {unknown}"))
}

/// What a publisher hears is an answer, or the end.
fn check(event: Event) -> Result<(), Failure> {
    match event {
        Event::Error { code, message, .. } => {
            Err(Failure::new(Exit::Refused, format!("the node refused to publish: {message} ({code}){}", advice(code))))
        }
        Event::Disconnected { code, reason, .. } => {
            let exit = if code >= 3000 { Exit::Refused } else { Exit::Unreachable };
            let unknown = "whether what was not answered arrived is unknown";
            Err(Failure::new(exit, format!("the connection ended: {reason} ({code}); {unknown}")))
        }
        _ => Ok(()),
    }
}

/// JSON stays as it is, but for line ends, which would end the command; anything else becomes a JSON string.
fn payload(data: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<&RawValue>(data) {
        Ok(json) => on_one_line(json.get()).into_bytes(),
        Err(_) => serde_json::Value::from(String::from_utf8_lossy(data)).to_string().into_bytes(),
    }
}

/// In JSON line ends are nothing but spaces.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// Returns when `count` is reached, the user interrupts or nobody reads what is printed. The first connection must
/// succeed; later ones are tried again for as long as nodes do not forbid it.
pub fn subscribe(options: Subscribe) -> Result<(), Failure> {
    let mut rng = rng()?;
    let mut left = options.count;
    let mut connection = Connection::open(&options.target, rng.fork())?;
    let mut failures = 0;
    loop {
        let lost = match listen(&mut connection, &options, &mut left) {
            Ok(Listened::Enough) => {
                connection.close();
                return Ok(());
            }
            Ok(Listened::Lost { why, subscribed }) => {
                failures = if subscribed { 0 } else { failures };
                why
            }
            Err(failure) => {
                connection.close();
                return Err(failure);
            }
        };
        let mut why = lost;
        connection = loop {
            let pause = pause(failures, &mut rng);
            eprintln!("{why}; connecting again in {:.1} s", pause.as_secs_f64());
            sleep(pause);
            failures += 1;
            match Connection::open(&options.target, rng.fork()) {
                Ok(connection) => break connection,
                Err(failure) if failure.exit == Exit::Refused => return Err(failure),
                Err(failure) => why = failure.message,
            }
        };
    }
}

enum Listened {
    Enough,
    Lost { why: String, subscribed: bool },
}

/// Until the connection ends. An error is final.
fn listen(connection: &mut Connection, options: &Subscribe, left: &mut Option<u64>) -> Result<Listened, Failure> {
    let mut again: Vec<(Instant, String)> = Vec::new();
    let mut subscribed = false;
    for channel in &options.channels {
        ask(connection, options, channel)?;
    }
    loop {
        let now = clock::mono();
        while let Some(due) = again.iter().position(|(at, _)| *at <= now) {
            let (_, channel) = again.swap_remove(due);
            ask(connection, options, &channel)?;
        }
        let event = match connection.wait(again.iter().map(|(at, _)| *at).min()) {
            Heard::Event(event) => event,
            Heard::Line(_) | Heard::InputEnded => unreachable!("nothing reads standard input"),
            Heard::Nothing => continue,
        };
        match event {
            Event::Publication { channel, data, info, offset, tags } => {
                let line = if options.json { json_line(&channel, &data, info, offset, &tags) } else { readable(&data) };
                if print(&line)? == Reader::Gone {
                    return Ok(Listened::Enough);
                }
                if let Some(left) = left {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(Listened::Enough);
                    }
                }
            }
            Event::Subscribed { channel } => {
                subscribed = true;
                eprintln!("subscribed to {channel}");
            }
            Event::SubscribeError { channel, temporary: true, message, code } => {
                eprintln!("{channel}: {message} ({code}); asking again");
                again.push((now + ASK_AGAIN, channel));
            }
            Event::SubscribeError { channel, code, message, .. } => {
                let sentence = format!("the node refused {channel}: {message} ({code}){}", advice(code));
                return Err(Failure::new(Exit::Refused, sentence));
            }
            Event::Unsubscribed { channel, code } if code >= 2500 => {
                eprintln!("unsubscribed from {channel} ({code}), something may have been missed; asking again");
                again.push((now + ASK_AGAIN, channel));
            }
            Event::Unsubscribed { channel, code } => {
                let sentence = format!("the node ended the subscription to {channel} ({code})");
                return Err(Failure::new(Exit::Refused, sentence));
            }
            Event::Disconnected { code, reason, reconnect: false } => {
                let sentence = format!("the node ended the connection for good: {reason} ({code})");
                return Err(Failure::new(Exit::Refused, sentence));
            }
            Event::Disconnected { code, reason, .. } => {
                return Ok(Listened::Lost { why: format!("disconnected: {reason} ({code})"), subscribed });
            }
            _ => {}
        }
    }
}

fn ask(connection: &mut Connection, options: &Subscribe, channel: &str) -> Result<(), Failure> {
    let asked = match options.subscription_token.as_str() {
        "" => connection.client.subscribe(channel),
        token => connection.client.subscribe_with_token(channel, token),
    };
    asked.map(drop).map_err(|refused| Failure::failed(format!("{channel} could not be asked for: {refused:?}")))
}

fn json_line(
    channel: &str,
    data: &[u8],
    info: Option<Info>,
    offset: u64,
    tags: &std::collections::BTreeMap<String, String>,
) -> String {
    let mut line = format!("{{\"channel\":{},\"data\":{}", serde_json::Value::from(channel), readable(data));
    if let Some(info) = info {
        let text = |name: &str, text: String| {
            (!text.is_empty()).then(|| format!("\"{name}\":{}", serde_json::Value::from(text)))
        };
        let value = |name: &str, data: &[u8]| (!data.is_empty()).then(|| format!("\"{name}\":{}", readable(data)));
        let fields = [
            text("user", info.user),
            text("client", info.client),
            value("conn_info", &info.conn_info),
            value("chan_info", &info.chan_info),
        ];
        line += &format!(",\"info\":{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(","));
    }
    if offset > 0 {
        line += &format!(",\"offset\":{offset}");
    }
    if !tags.is_empty() {
        line += &format!(",\"tags\":{}", serde_json::json!(tags));
    }
    line + "}"
}

/// One line of JSON. What is none, as only Protobuf can bring it, becomes a string.
fn readable(data: &[u8]) -> String {
    match serde_json::from_slice::<&RawValue>(data) {
        Ok(json) => on_one_line(json.get()),
        Err(_) => serde_json::Value::from(String::from_utf8_lossy(data)).to_string(),
    }
}

#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

/// At once, since somebody may be watching.
fn print(line: &str) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::failed(format!("standard output cannot be written: {error}"))),
    }
}

/// Longer with each failure in a row, and never the same for all clients of a node that went away.
fn pause(failures: u32, rng: &mut Rng) -> Duration {
    let most = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    most / 2 + Duration::from_millis(rng.below(most.as_millis() as u64 / 2))
}

#[expect(clippy::disallowed_methods, reason = "a terminal client that has no connection has nothing else to do")]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}

fn rng() -> Result<Rng, Failure> {
    let seed = OsRng.try_next_u64().map_err(|_| Failure::failed("the system gave no random bytes"))?;
    Ok(Rng::seeded(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_json_becomes_a_string() {
        let check = |data: &str, expected: &str| assert_eq!(payload(data.as_bytes()), expected.as_bytes(), "{data}");
        check("{\"a\": 1}", "{\"a\": 1}");
        check("1", "1");
        check(" [1,\n2] ", "[1, 2]");
        check("hello", "\"hello\"");
        check("1 2", "\"1 2\"");
        check("say \"hi\"", "\"say \\\"hi\\\"\"");
        check("", "\"\"");
    }

    #[test]
    fn a_publication_is_one_line_of_json_whatever_it_holds() {
        assert_eq!(readable(b"{\"a\":\n1}"), "{\"a\": 1}");
        assert_eq!(readable(b"\xffa\nb"), "\"\u{fffd}a\\nb\"");
        let info = Info { user: "42".into(), client: "c".into(), conn_info: b"{\"n\":1}".to_vec(), chan_info: vec![] };
        assert_eq!(
            json_line("a", b"[1]", Some(info), 7, &[("k".to_owned(), "v".to_owned())].into()),
            r#"{"channel":"a","data":[1],"info":{"user":"42","client":"c","conn_info":{"n":1}},"offset":7,"tags":{"k":"v"}}"#
        );
        assert_eq!(json_line("a\"", b"1", None, 0, &[].into()), r#"{"channel":"a\"","data":1}"#);
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_differ() {
        let mut rng = Rng::seeded(1);
        for failures in [0, 1, 5, 40, u32::MAX] {
            let pause = pause(failures, &mut rng);
            assert!(pause >= PAUSE_FIRST / 2 && pause <= PAUSE_MAX, "{pause:?}");
        }
        assert_ne!(pause(9, &mut rng), pause(9, &mut rng));
    }
}
