//! The signing side: what a backend does. For the `token` command, the demo and tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Algorithm {
    #[default]
    Hs256,
    Hs384,
    Hs512,
}

#[derive(Clone, Default, Debug, Serialize)]
pub struct ConnectionClaims {
    #[serde(rename = "sub", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Seconds since the Unix epoch.
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

#[derive(Clone, Default, Debug, Serialize)]
pub struct SubscriptionClaims {
    pub channel: String,
    #[serde(rename = "sub", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Seconds since the Unix epoch.
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

pub fn mint_connection(secret: &str, algorithm: Algorithm, claims: &ConnectionClaims) -> String {
    mint(secret, algorithm, claims)
}

pub fn mint_subscription(secret: &str, algorithm: Algorithm, claims: &SubscriptionClaims) -> String {
    mint(secret, algorithm, claims)
}

fn mint(secret: &str, algorithm: Algorithm, claims: &impl Serialize) -> String {
    let payload = serde_json::to_vec(claims).expect("claims are plain data");
    sign(secret, algorithm, &payload)
}

/// Signs any bytes as claims: tests use it for what no honest backend would write.
pub(super) fn sign(secret: &str, algorithm: Algorithm, payload: &[u8]) -> String {
    let (name, algorithm) = match algorithm {
        Algorithm::Hs256 => ("HS256", jsonwebtoken::Algorithm::HS256),
        Algorithm::Hs384 => ("HS384", jsonwebtoken::Algorithm::HS384),
        Algorithm::Hs512 => ("HS512", jsonwebtoken::Algorithm::HS512),
    };
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}","typ":"JWT"}}"#));
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a secret signs any bytes");
    format!("{message}.{signature}")
}
