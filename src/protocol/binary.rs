//! Protobuf, length-delimited.
