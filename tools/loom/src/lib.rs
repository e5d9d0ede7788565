//! The product's own file, checked here in every interleaving.

#[path = "../../../src/shell/sleep.rs"]
pub mod sleep;
