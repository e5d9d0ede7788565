//! (soon)
#[derive(Default)]
pub struct Counters {}
