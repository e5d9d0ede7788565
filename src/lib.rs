//! Skein, as a map. Modules in reading order, each knowing only those above it.

pub mod base;
pub mod limits;
pub mod metrics;

pub mod ws;
pub mod protocol;
pub mod auth;
pub mod rules;
pub mod api;

pub mod hub;
pub mod home;
pub mod session;
pub mod backplane;
pub mod shard;

pub mod config;
pub mod shell;
pub mod client;
pub mod app;
