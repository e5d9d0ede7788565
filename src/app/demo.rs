//! `skein demo`: a cluster on this machine, to be looked at.

use super::exit::Failure;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub nodes: u16,
    /// Of each node.
    pub workers: u16,
    /// One line on standard output when all is up, no keys.
    pub json: bool,
}

pub fn run(_options: Options) -> Result<(), Failure> {
    Err(Failure::failed("`skein demo` is not built yet"))
}
