//! Tokens as a backend signs them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

/// The secret of nodes that were started with `SECRET_OPTION`.
pub const SECRET: &str = "gateway-secret";
pub const SECRET_OPTION: &str = "--client.token.hmac_secret_key=gateway-secret";

pub fn token(claims: Value) -> String {
    signed(Algorithm::HS256, SECRET, claims)
}

pub fn signed(algorithm: Algorithm, secret: &str, claims: Value) -> String {
    encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("it can be signed")
}

/// Seconds since the Unix epoch, so many from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time") + seconds
}
