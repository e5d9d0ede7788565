//! The opening handshake: an HTTP request head to an upgrade, an upgrade to its 101.
