//! `skein version`.

use super::exit::Failure;
use super::terminal;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn run() -> Result<(), Failure> {
    terminal::print(&format!("skein {VERSION}\n"))
}
