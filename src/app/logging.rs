//! Where logs go: standard error, as text or as one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::{Format, Level, Log};

/// Once in a process; a second call changes nothing.
pub fn start(log: Log) {
    let level = match log.level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
        Level::None => LevelFilter::OFF,
    };
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    let started = match log.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    // The only error is that logging has started before, as in tests.
    let _ = started;
}
