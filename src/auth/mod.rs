//! Tokens: a signed text becomes a grant, or a refusal.
//!
//! A connection token says who a client is and until when; a subscription token opens one channel to one user. The
//! backend signs them with a secret that it shares with us. Here is also the signing side, for the `token` command and
//! for tests. Nothing here knows sessions, channels' options or clocks: `now` comes from the caller.
//!
//! Always true: a claim is believed only after the signature was checked, with a key of the algorithm's own family;
//! an unsigned token ("none") has no algorithm here and cannot pass.

mod jwt;
mod mint;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::base::time::UnixMillis;
use jwt::{Audience, Date, Keys};

pub use mint::{Algorithm, ConnectionClaims, SubscriptionClaims, mint_connection, mint_subscription};

/// A longer token is invalid before anything is decoded from it. Real ones have a few hundred bytes; the size of one
/// is also what bounds everything that a grant holds.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Which tokens are believed. Without a secret none is.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Options {
    pub hmac_secret: Option<Box<str>>,
    /// The secret before a change: tokens signed with it are still good.
    pub hmac_previous_secret: Option<Box<str>>,
    /// When set, a token must name it among its audiences.
    pub audience: Option<Box<str>>,
    /// When set, a token must come from it.
    pub issuer: Option<Box<str>>,
}

/// Secrets are never shown, but whether there is one may be.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("hmac_secret", &self.hmac_secret.as_ref().map(|_| ".."))
            .field("hmac_previous_secret", &self.hmac_previous_secret.as_ref().map(|_| ".."))
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .finish()
    }
}

/// What a connection token grants.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grant {
    /// Empty: an anonymous user, who came with a token all the same.
    pub user: Box<str>,
    /// When the connection expires, in seconds since the Unix epoch. `None`: never.
    pub expires_at: Option<u64>,
    /// What others see as `conn_info`: JSON in one line, or empty.
    pub info: Box<[u8]>,
    /// Server-side subscriptions: from `subs`, or else from `channels`. Sorted, each once, none empty.
    pub channels: Vec<Box<str>>,
}

/// What a subscription token grants.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SubscriptionGrant {
    /// Never empty.
    pub channel: Box<str>,
    pub user: Box<str>,
    /// The one connection that may use it, where the token names one.
    pub client: Option<Box<str>>,
    /// When the subscription expires, in seconds since the Unix epoch. `None`: never.
    pub expires_at: Option<u64>,
    /// What others see as `chan_info`: JSON in one line, or empty.
    pub info: Box<[u8]>,
    /// What the subscriber gets with its answer: JSON in one line, or empty.
    pub data: Box<[u8]>,
}

/// Why a token was not believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// Past its `exp`, or before its `nbf`: error 109, the client asks its backend for another one.
    Expired,
    /// Malformed, wrongly signed, for another audience, of the other kind, too long: close 3500 for a connection
    /// token, error 103 for a subscription token.
    Invalid,
    /// A token came but no key is configured to check it with: treated like `Invalid`, with its own counter.
    NotConfigured,
}

impl Refused {
    /// For counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Refused::Expired => "expired",
            Refused::Invalid => "invalid",
            Refused::NotConfigured => "not_configured",
        }
    }
}

/// Checks tokens. Cheap to clone, made once per worker.
#[derive(Clone)]
pub struct Verifier {
    keys: Keys,
    audience: Option<Box<str>>,
    issuer: Option<Box<str>>,
}

impl Verifier {
    pub fn new(options: &Options) -> Self {
        Verifier {
            keys: Keys::new(options),
            audience: options.audience.clone().filter(|text| !text.is_empty()),
            issuer: options.issuer.clone().filter(|text| !text.is_empty()),
        }
    }

    /// Without a key every token is `NotConfigured`.
    pub fn configured(&self) -> bool {
        !self.keys.is_empty()
    }

    pub fn connection(&self, token: &str, now: UnixMillis) -> Result<Grant, Refused> {
        let payload = self.keys.open(token)?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).map_err(|_| Refused::Invalid)?;
        self.check(&claims, now)?;
        // A token for one channel must not open a whole connection.
        if claims.channel.as_deref().is_some_and(|channel| !channel.is_empty()) {
            return Err(Refused::Invalid);
        }
        Ok(Grant {
            expires_at: claims.expires_at(),
            info: bytes_of(claims.info, claims.b64info.as_deref())?,
            channels: server_side(claims.channels.unwrap_or_default(), claims.subs.unwrap_or_default())?,
            user: claims.sub.unwrap_or_default().into(),
        })
    }

    pub fn subscription(&self, token: &str, now: UnixMillis) -> Result<SubscriptionGrant, Refused> {
        let payload = self.keys.open(token)?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).map_err(|_| Refused::Invalid)?;
        self.check(&claims, now)?;
        let expires_at = claims.expires_at();
        let channel = claims.channel.filter(|channel| !channel.is_empty()).ok_or(Refused::Invalid)?;
        Ok(SubscriptionGrant {
            channel: channel.into(),
            user: claims.sub.unwrap_or_default().into(),
            client: claims.client.filter(|client| !client.is_empty()).map(Into::into),
            expires_at,
            info: bytes_of(claims.info, claims.b64info.as_deref())?,
            data: bytes_of(claims.data, claims.b64data.as_deref())?,
        })
    }

    /// For whom, by whom, and when: in this order, because a token for another audience is no better when it is fresh.
    fn check(&self, claims: &Claims<'_>, now: UnixMillis) -> Result<(), Refused> {
        if let Some(audience) = &self.audience
            && !claims.aud.as_ref().is_some_and(|aud| aud.contains(audience))
        {
            return Err(Refused::Invalid);
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_deref() != Some(&**issuer)
        {
            return Err(Refused::Invalid);
        }
        let expired = claims.exp.is_some_and(|exp| exp != Date(0) && !exp.is_after(now));
        // A token from a backend whose clock is ahead: a later attempt will do, which is what "expired" brings about.
        let early = claims.nbf.is_some_and(|nbf| nbf.is_after(now));
        if expired || early { Err(Refused::Expired) } else { Ok(()) }
    }
}

/// Both kinds of token in one type: what belongs to the other kind is checked or ignored above.
#[derive(Deserialize)]
struct Claims<'a> {
    sub: Option<String>,
    exp: Option<Date>,
    nbf: Option<Date>,
    aud: Option<Audience>,
    iss: Option<String>,
    /// When the connection or subscription ends, where that differs from when the token does. Zero: never.
    expire_at: Option<Date>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    channels: Option<Vec<String>>,
    /// The options in the values (info, data, overrides) are not built: the subscription itself is.
    subs: Option<std::collections::BTreeMap<String, IgnoredAny>>,
    channel: Option<String>,
    client: Option<String>,
}

impl Claims<'_> {
    fn expires_at(&self) -> Option<u64> {
        let Date(secs) = self.expire_at.or(self.exp)?;
        u64::try_from(secs).ok().filter(|&secs| secs > 0)
    }
}

fn server_side(
    channels: Vec<String>,
    subs: std::collections::BTreeMap<String, IgnoredAny>,
) -> Result<Vec<Box<str>>, Refused> {
    let mut names: Vec<Box<str>> = match subs.is_empty() {
        true => channels.into_iter().map(Into::into).collect(),
        false => subs.into_keys().map(Into::into).collect(),
    };
    names.sort_unstable();
    names.dedup();
    if names.first().is_some_and(|name| name.is_empty()) { Err(Refused::Invalid) } else { Ok(names) }
}

/// The plain form, or the base64 form that wins over it. Either way what comes out is JSON in one line or nothing:
/// these bytes are embedded in frames, where a raw newline would end a message.
fn bytes_of(plain: Option<&RawValue>, base64: Option<&str>) -> Result<Box<[u8]>, Refused> {
    let decoded;
    let text = match base64.filter(|text| !text.is_empty()) {
        Some(text) => {
            decoded = STANDARD.decode(text).map_err(|_| Refused::Invalid)?;
            serde_json::from_slice::<&RawValue>(&decoded).map_err(|_| Refused::Invalid)?.get()
        }
        None => plain.map_or("", RawValue::get),
    };
    if text == "null" {
        return Ok(Box::default());
    }
    // In valid JSON a raw newline can only be white space between tokens.
    Ok(text.bytes().filter(|&byte| byte != b'\n' && byte != b'\r').collect())
}

#[cfg(test)]
mod tests;
