//! Skein, as a map. Modules in reading order, each knowing only those above it.

pub mod base;
pub mod limits;
pub mod metrics;

pub mod api;
pub mod auth;
pub mod protocol;
pub mod rules;
pub mod ws;

pub mod backplane;
pub mod home;
pub mod hub;
pub mod session;
pub mod shard;

pub mod app;
pub mod client;
pub mod config;
pub mod shell;
