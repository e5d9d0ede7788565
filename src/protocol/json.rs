//! JSON, one object a message.
