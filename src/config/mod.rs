//! What a node is told: a file, environment variables and flags become `Settings`, or a list of mistakes.
//!
//! In reading order: `schema` is the table of all options, `value` what a value may be, `collect` gathers values and
//! finds wrong names, `resolve` makes settings and finds what does not go together, `render` turns the table into a
//! sample and a reference. Only `read` touches the system: it reads one file.
//!
//! Always true: an unknown name is a mistake, all mistakes are told at once, each with its place, and settings exist
//! only where there was none. Nothing that runs sees a configuration: it gets options made from settings.

mod collect;
mod mistake;
mod nearest;
mod render;
mod resolve;
pub mod schema;
mod settings;
mod value;

use std::io::{self, Read};
use std::path::Path;

pub use collect::{Sources, variable_of};
pub use mistake::{Mistake, Mistakes, Place};
pub use render::{entries_of, path_of, reference, sample, wrap};
pub use settings::{Api, Client, Driver, Format, HostPort, Http, Level, Limits, Log, Mesh, Node, Proxy, Settings};

/// A longer file is no configuration.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

pub fn resolve(sources: &Sources) -> Result<Settings, Mistakes> {
    resolve::resolve(collect::collect(sources))
}

/// A time as it is written in a configuration: `90s`, `1h30m`; a bare `0` is none.
pub fn parse_time(text: &str) -> Option<std::time::Duration> {
    value::duration_millis(text).map(std::time::Duration::from_millis)
}

/// How to log what `resolve` says, right or wrong.
pub fn log(sources: &Sources) -> Log {
    let collected = collect::collect(sources);
    resolve::log(&resolve::Values { settings: &collected.settings })
}

/// The text of a configuration file, or why there is none.
pub fn read(path: &Path) -> Result<(String, String), Mistakes> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let problem = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file: `skein config sample` prints one to begin with".to_owned()
        }
        Err(error) => format!("cannot be read: {error}"),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => "is longer than 1 MiB, which no configuration is".to_owned(),
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => return Ok((name, text)),
            Err(_) => "is not UTF-8 text".to_owned(),
        },
    };
    let place = Place::File { path: name.into(), line: 0 };
    Err(Mistakes(vec![Mistake::new(&place, problem)]))
}

#[cfg(test)]
mod tests;
