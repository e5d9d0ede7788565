//! `skein serve`: one node, until it is told to stop.

use clap::Command;

use super::exit::Failure;
use super::{logging, options};
use crate::config::Settings;

pub fn command() -> Command {
    options::add_all(
        Command::new("serve")
            .about("Run a node")
            .long_about(
                "Run a node.\n\nEvery option can stand in the configuration file, in an environment variable or in a flag; \
                 flags win over the environment, and the environment over the file. Without any of them the node serves \
                 on 127.0.0.1:8000 only, open to everybody who reaches it there.",
            )
            .next_line_help(true),
    )
}

/// Returns when the node has stopped.
pub fn run(settings: Settings) -> Result<(), Failure> {
    logging::start(settings.log);
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    Err(Failure::failed("`skein serve` is not built yet"))
}
