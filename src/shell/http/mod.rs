//! Plain HTTP/1.1 on the client port and the internal one: requests out of bytes, answers into bytes, and who may ask.
//!
//! No socket, no clock: a task feeds an `Exchange` with what it read, does what the steps say, and keeps the time that
//! the phase allows. What an endpoint answers is decided elsewhere, except where the answer needs nobody: health, the
//! demo's page, and every refusal.
//!
//! Always true: a request is carried out only when its key was right and its body is whole, and the bytes behind it are
//! read as the next request only when where it ended is beyond doubt.

mod address;
mod body;
mod exchange;
mod response;
mod route;

pub use crate::ws::upgrade::OriginRule;
pub use address::{BadNetwork, Network, client_address};
pub use body::{BodyError, BodyReader};
pub use exchange::{Exchange, Phase, Step};
pub use response::{Framing, Response, write};
pub use route::{Call, Demo, Listener, Options, Refused, Route, route};
