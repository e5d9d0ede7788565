//! Clusters of real processes: the binary as it is run, with certificates that it made itself, on loopback addresses.
//!
//! One file for each property. Tests take turns, since they measure time on a machine of few cores. What needs a
//! network or a hosts file of its own runs this program again in namespaces of its own (`harness::isolated`), for
//! which it has to be root. `SKEIN_CLUSTER_LOG=debug` makes the nodes say more; a failed test shows the end of each log.

#![expect(clippy::disallowed_methods, reason = "tests of processes look at the clock, and wait")]

mod harness;

mod impostors;
mod joining;
mod leaving;
mod memory;
mod pairs;
mod pauses;
mod seeds;
mod slow_readers;
mod split;
mod terminal;
mod workers;
