//! `skein config`: looks at configurations and runs nothing.

use std::path::Path;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::exit::Failure;
use super::{options, terminal};
use crate::config::{self, Sources};

pub fn command() -> Command {
    let file = Arg::new("FILE").required(true).value_parser(value_parser!(std::path::PathBuf));
    Command::new("config")
        .about("Check a configuration, print a sample, print the reference")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("check")
                .about("Find every mistake of a configuration file, with what the environment adds to it")
                .arg(file),
        )
        .subcommand(Command::new("sample").about("Print a file with every option and its default"))
        .subcommand(Command::new("reference").about("Print what every option does, in Markdown"))
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("check", matches)) => {
            let file = matches.get_one::<std::path::PathBuf>("FILE").expect("required");
            check(file)
        }
        Some(("sample", _)) => terminal::print(&config::sample()),
        Some(("reference", _)) => terminal::print(&config::reference()),
        _ => unreachable!("a subcommand is required"),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let file = config::read(path).map_err(Failure::usage)?;
    let sources = Sources { file: Some(file), environment: options::environment(), flags: Vec::new() };
    let settings = options::resolve(&sources)?;
    let notes: String = settings.notes.iter().map(|note| format!("note: {note}\n")).collect();
    terminal::print(&format!("{notes}{}: in order\n", path.display()))
}
