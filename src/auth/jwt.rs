//! The compact form of a signed token: its three parts, the signature, dates and audiences.
//!
//! It knows which keys fit which algorithm, and nothing of what the claims mean. Splitting, header and dates are done
//! here rather than by the library's `decode`, because that one asks the system for the time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::{Options, Refused, TOKEN_BYTES_MAX};
use crate::base::time::UnixMillis;

/// The keys that may have signed a token, by family. Public keys and key sets get a list of their own here, so that
/// no key is ever tried with an algorithm of another family.
#[derive(Clone)]
pub(super) struct Keys {
    hmac: Vec<DecodingKey>,
}

impl Keys {
    pub(super) fn new(options: &Options) -> Self {
        let secrets = [&options.hmac_secret, &options.hmac_previous_secret];
        // An empty secret would let anybody sign.
        let secrets = secrets.into_iter().flatten().filter(|secret| !secret.is_empty());
        Keys { hmac: secrets.map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hmac.is_empty()
    }

    /// The claims of a token whose signature is right.
    pub(super) fn open(&self, token: &str) -> Result<Vec<u8>, Refused> {
        if self.is_empty() {
            return Err(Refused::NotConfigured);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::Invalid)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::Invalid)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refused::Invalid)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| Refused::Invalid)?;
        // RFC 7515, 4.1.11: extensions that must be understood, and none is.
        if header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let keys = self.of(header.alg);
        let signed = |key: &&DecodingKey| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, header.alg).unwrap_or(false)
        };
        keys.iter().find(signed).ok_or(Refused::Invalid)?;
        URL_SAFE_NO_PAD.decode(payload).map_err(|_| Refused::Invalid)
    }

    fn of(&self, algorithm: Algorithm) -> &[DecodingKey] {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => &self.hmac,
            _ => &[],
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    crit: Option<IgnoredAny>,
}

/// Seconds since the Unix epoch. RFC 7519 allows fractions, which are cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Date(pub(super) i64);

impl Date {
    pub(super) fn is_after(self, now: UnixMillis) -> bool {
        i128::from(self.0) * 1000 > i128::from(now.0)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // A float beyond the range becomes its end: far away is far away.
        let secs = number.as_i64().or_else(|| number.as_f64().map(|float| float as i64));
        Ok(Date(secs.unwrap_or(i64::MAX)))
    }
}

/// One audience, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => many.iter().any(|one| one == name),
        }
    }
}
