//! The product's own file with the protocol, and nothing besides: its tests try all interleavings.

#[path = "../../src/shell/sleep.rs"]
pub mod sleep;
