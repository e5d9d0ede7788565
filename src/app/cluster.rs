//! `skein cluster status`: the cluster as one node sees it.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::exit::Failure;
use crate::config;

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
    if !url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Err(Failure::usage(format!("--url must be as http://127.0.0.1:8000, and '{url}' is not")));
    }
    let timeout = config::parse_time(&text("timeout")).filter(|timeout| !timeout.is_zero());
    let timeout = timeout.ok_or_else(|| Failure::usage("--timeout must be a time with its unit, as 5s"))?;
    Ok(Options { url, json: matches.get_flag("json"), timeout })
}

pub fn status(_options: Options) -> Result<(), Failure> {
    Err(Failure::failed("`skein cluster status` is not built yet"))
}
