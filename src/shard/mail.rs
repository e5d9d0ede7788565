//! What one shard sends another in the same node.

pub enum Mail {}
