//! The flags of `serve`, made from the table of options, and the way from flags, environment and file to settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::exit::Failure;
use crate::config::schema::{Entry, FILE_VARIABLE, GROUPS, Kind};
use crate::config::{self, Settings, Sources};

const HELP_WIDTH: usize = 90;
const FILE: &str = "config";

/// Adds `--config` and every option.
pub fn add_all(command: Command) -> Command {
    let options =
        GROUPS.iter().flat_map(|group| config::entries_of(group.table).map(move |entry| (group.table, entry)));
    let args = options.map(|(table, entry)| arg(table, entry));
    command.arg(file_arg()).args(args)
}

pub fn file_arg() -> Arg {
    let help = format!("The configuration file, in TOML [env: {FILE_VARIABLE}]");
    Arg::new(FILE).short('c').long(FILE).value_name("FILE").value_parser(clap::value_parser!(PathBuf)).help(help)
}

fn arg(table: &'static str, entry: &'static Entry) -> Arg {
    let path = config::path_of(table, entry);
    let alias = entry.alias.map(|alias| format!("or --{alias}")).into_iter();
    let default = (entry.default != "''" && entry.default != "[]").then(|| format!("default: {}", entry.default));
    let variable = format!("env: {}", config::variable_of(&path));
    let facts: Vec<String> = alias.chain(default).chain([variable]).collect();
    let help = format!("{}\n[{}]", config::wrap(&entry.doc(), HELP_WIDTH).join("\n"), facts.join(", "));
    let mut arg = Arg::new(path.clone())
        .long(path)
        .help(help)
        .value_name(value_name(entry.kind))
        .help_heading(format!("[{table}]"))
        .action(if is_list(entry.kind) { ArgAction::Append } else { ArgAction::Set });
    if let Some(alias) = entry.alias {
        arg = arg.alias(alias);
    }
    if entry.kind == Kind::Bool {
        arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    arg
}

fn is_list(kind: Kind) -> bool {
    matches!(kind, Kind::HostPorts | Kind::Networks | Kind::Origins)
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true|false",
        Kind::Number { .. } => "NUMBER",
        Kind::Size { .. } => "BYTES",
        Kind::Duration { .. } => "TIME",
        Kind::Text | Kind::Secret => "TEXT",
        Kind::Choice(_) | Kind::NodeName | Kind::HeaderName => "NAME",
        Kind::Ip | Kind::OptionalIp => "ADDRESS",
        Kind::Port | Kind::OptionalPort => "PORT",
        Kind::Socket => "ADDRESS:PORT",
        Kind::HostPort => "HOST:PORT",
        Kind::HostPorts => "HOST:PORT,...",
        Kind::Networks => "NETWORK,...",
        Kind::Origins => "ORIGIN,...",
        Kind::HttpPath => "PATH",
        Kind::Character => "CHARACTER",
        Kind::File => "FILE",
        Kind::Namespaces => "TOML",
    }
}

/// Flags, the process's environment and the file that one of them names.
pub fn sources(matches: &ArgMatches) -> Result<Sources, Failure> {
    let mut sources = Sources { environment: environment(), ..Sources::default() };
    let variable = sources.environment.iter().find(|(name, _)| name == FILE_VARIABLE);
    let variable = variable.map(|(_, path)| PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    let file: Option<PathBuf> = matches.get_one::<PathBuf>(FILE).cloned().or(variable);
    if let Some(file) = file {
        sources.file = Some(config::read(&file).map_err(Failure::usage)?);
    }
    for group in GROUPS {
        for entry in config::entries_of(group.table) {
            let path = config::path_of(group.table, entry);
            // A command that has only some of the flags asks for the others in vain.
            if let Ok(Some(values)) = matches.try_get_many::<String>(&path) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                sources.flags.push((path, values.join(",")));
            }
        }
    }
    Ok(sources)
}

pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

pub fn settings(matches: &ArgMatches) -> Result<Settings, Failure> {
    resolve(&sources(matches)?)
}

pub fn resolve(sources: &Sources) -> Result<Settings, Failure> {
    config::resolve(sources).map_err(|mistakes| {
        let count = match mistakes.0.len() {
            1 => "a mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        Failure::usage(format!("the configuration has {count}:\n{mistakes}"))
    })
}
