//! `skein pub` and `skein sub`: a real client in the terminal, against any node.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::exit::Failure;
use crate::config;

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
    if !url.strip_prefix("ws://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
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

pub fn publish(_options: Publish) -> Result<(), Failure> {
    Err(Failure::failed("`skein pub` is not built yet"))
}

/// Returns when `count` is reached, or the user interrupts.
pub fn subscribe(_options: Subscribe) -> Result<(), Failure> {
    Err(Failure::failed("`skein sub` is not built yet"))
}
