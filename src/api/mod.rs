//! The server API: a method's name and the bytes of a body to a command, results to the bytes of an answer.
//!
//! It knows neither HTTP framing nor who may call, nor whether a channel exists: the caller has checked the key, and the
//! shard judges names. Bodies are as the protocol's official server libraries send them.
//!
//! Always true: a command that comes out can be carried out to the letter. An option that asks for more than is built
//! is an error that names it, never a success that ignores it.

mod answer;
mod payload;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use answer::{Answer, NodeInfo, Published, failed, info, published, responses};
pub use payload::Payload;

use crate::protocol;

#[derive(Clone, Copy, Debug)]
pub struct ApiLimits {
    /// How deep arrays and objects may nest in a payload: clients have to parse it.
    pub json_depth_max: u32,
    /// Channels of one broadcast.
    pub channels_max: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub enum ApiCommand<'a> {
    Publish {
        channel: String,
        message: Message<'a>,
    },
    /// The channels are as they came: an empty or doubled one gets its own response.
    Broadcast {
        channels: Vec<String>,
        message: Message<'a>,
    },
    Info,
}

/// What is published.
#[derive(Clone, PartialEq, Debug)]
pub struct Message<'a> {
    pub payload: Payload<'a>,
    pub tags: Vec<(String, String)>,
    /// Keep it out of the channel's history.
    pub skip_history: bool,
}

/// What the backend did wrong, or what is missing here. The sentence says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiError {
    /// Not JSON, or a field of the wrong type: there is no answer but the HTTP status 400.
    BadBody,
    /// No such method: HTTP status 404, whatever the error mode.
    UnknownMethod,
    BadRequest(&'static str),
    NotAvailable(&'static str),
    /// What the rest of the system answered.
    Refused(protocol::Error),
}

impl ApiError {
    pub const fn code(self) -> u32 {
        match self {
            ApiError::BadBody | ApiError::BadRequest(_) => protocol::Error::BadRequest.code(),
            ApiError::UnknownMethod => protocol::Error::MethodNotFound.code(),
            ApiError::NotAvailable(_) => protocol::Error::NotAvailable.code(),
            ApiError::Refused(error) => error.code(),
        }
    }

    pub const fn message(self) -> &'static str {
        match self {
            ApiError::BadBody => "bad request: the body is not the JSON that this method takes",
            ApiError::UnknownMethod => "not found: there is no such method",
            ApiError::BadRequest(sentence) | ApiError::NotAvailable(sentence) => sentence,
            ApiError::Refused(error) => error.message(),
        }
    }
}

impl From<protocol::Error> for ApiError {
    fn from(error: protocol::Error) -> Self {
        ApiError::Refused(error)
    }
}

/// `method` is the last part of the path.
pub fn parse<'a>(method: &str, body: &'a [u8], limits: ApiLimits) -> Result<ApiCommand<'a>, ApiError> {
    match method {
        "publish" => {
            let mut fields: Fields<'_> = read(body)?;
            let channel = fields.channel.take().unwrap_or_default();
            if channel.is_empty() {
                return Err(ApiError::BadRequest("bad request: channel is missing"));
            }
            Ok(ApiCommand::Publish { channel, message: fields.message(limits)? })
        }
        "broadcast" => {
            let mut fields: Fields<'_> = read(body)?;
            let channels = fields.channels.take().unwrap_or_default();
            if channels.is_empty() {
                return Err(ApiError::BadRequest("bad request: channels is missing"));
            }
            if channels.len() > limits.channels_max {
                return Err(ApiError::BadRequest("bad request: too many channels"));
            }
            Ok(ApiCommand::Broadcast { channels, message: fields.message(limits)? })
        }
        "info" => {
            if !body.trim_ascii().is_empty() {
                let _: serde::de::IgnoredAny = read(body)?; // only that it is JSON: there is nothing to ask for
            }
            Ok(ApiCommand::Info)
        }
        "subscribe" | "unsubscribe" | "disconnect" | "refresh" | "presence" | "presence_stats" | "history"
        | "history_remove" | "channels" | "rpc" | "batch" => {
            Err(ApiError::NotAvailable("not available: this method is not built yet"))
        }
        _ => Err(ApiError::UnknownMethod),
    }
}

/// The older form, one endpoint for all methods: `{"method": …, "params": …}`.
pub fn parse_enveloped<'a>(body: &'a [u8], limits: ApiLimits) -> Result<ApiCommand<'a>, ApiError> {
    let envelope: Envelope<'a> = read(body)?;
    let params = envelope.params.map_or("", RawValue::get);
    parse(envelope.method.as_deref().unwrap_or(""), if params == "null" { b"" } else { params.as_bytes() }, limits)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    // An empty body is an empty request, so that the answer can say which field is missing.
    let body: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|_| ApiError::BadBody)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// The fields of publish and broadcast. A null is an absent field, as the reference has it, but for `data`.
#[derive(Deserialize)]
struct Fields<'a> {
    channel: Option<String>,
    channels: Option<Vec<String>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    tags: Option<Tags>,
    skip_history: Option<bool>,
    idempotency_key: Option<String>,
    delta: Option<bool>,
    version: Option<u64>,
}

impl<'a> Fields<'a> {
    fn message(self, limits: ApiLimits) -> Result<Message<'a>, ApiError> {
        if self.idempotency_key.is_some_and(|key| !key.is_empty()) {
            return Err(ApiError::NotAvailable("not available: idempotency_key is not built yet"));
        }
        if self.delta == Some(true) {
            return Err(ApiError::NotAvailable("not available: delta is not built yet"));
        }
        if self.version.is_some_and(|version| version > 0) {
            return Err(ApiError::NotAvailable("not available: version is not built yet"));
        }
        let payload = match (self.b64data, self.data) {
            // The reference prefers it when both are there.
            (Some(text), _) if !text.is_empty() => Payload::from_base64(&text)
                .ok_or(ApiError::BadRequest("bad request: b64data is not base64, or holds nothing"))?,
            (_, Some(data)) => Payload::from_json(data.get()),
            (_, None) => return Err(ApiError::BadRequest("bad request: data is missing")),
        };
        if payload.json && payload::depth(&payload.bytes) > limits.json_depth_max {
            return Err(ApiError::BadRequest("bad request: data is nested too deep"));
        }
        let tags = self.tags.map_or(Vec::new(), |tags| tags.0);
        Ok(Message { payload, tags, skip_history: self.skip_history == Some(true) })
    }
}

/// `null` is a payload like any other.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// In the order they were sent.
struct Tags(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut tags = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tags.push(entry);
                }
                Ok(Tags(tags))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ApiLimits = ApiLimits { json_depth_max: 8, channels_max: 3 };

    fn published(body: &str) -> Result<(String, Message<'_>), ApiError> {
        match parse("publish", body.as_bytes(), LIMITS)? {
            ApiCommand::Publish { channel, message } => Ok((channel, message)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn data_is_kept_to_the_byte_but_for_raw_newlines() {
        let (channel, message) =
            published("{\"channel\":\"a:b\",\"data\": {\"x\" :1.0,\n\r\n \"y\":\"\\n\"} }").unwrap();
        assert_eq!(channel, "a:b");
        assert_eq!(message.payload.bytes.as_ref(), b"{\"x\" :1.0, \"y\":\"\\n\"}");
        assert!(message.payload.json);
        assert!(message.tags.is_empty() && !message.skip_history);
    }

    #[test]
    fn any_json_value_is_a_payload() {
        for data in ["null", "0", "-1.5e3", "\"\"", "false", "[]", "{}"] {
            let body = format!("{{\"channel\":\"c\",\"data\":{data}}}");
            assert_eq!(published(&body).unwrap().1.payload.bytes.as_ref(), data.as_bytes());
        }
    }

    #[test]
    fn base64_data_is_decoded_and_says_whether_it_is_json() {
        let (_, message) = published(r#"{"channel":"c","b64data":"eyJhIjoKMX0="}"#).unwrap();
        assert_eq!(message.payload, Payload { bytes: b"{\"a\":1}".as_slice().into(), json: true });
        let (_, message) = published(r#"{"channel":"c","b64data":"/wAK","data":1}"#).unwrap();
        assert_eq!(message.payload, Payload { bytes: b"\xff\0\n".as_slice().into(), json: false });
        assert!(matches!(published(r#"{"channel":"c","b64data":"$"}"#), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn tags_keep_their_order() {
        let (_, message) =
            published(r#"{"channel":"c","data":1,"tags":{"z":"1","a":"2"},"skip_history":true}"#).unwrap();
        assert_eq!(message.tags, [("z".into(), "1".into()), ("a".into(), "2".into())]);
        assert!(message.skip_history);
    }

    #[test]
    fn what_is_missing_is_named_with_code_107() {
        for (body, word) in
            [("{}", "channel"), ("", "channel"), (r#"{"channel":""}"#, "channel"), (r#"{"channel":"c"}"#, "data")]
        {
            let error = published(body).unwrap_err();
            assert_eq!(error.code(), 107, "{body}");
            assert!(error.message().contains(word), "{body}: {}", error.message());
        }
        assert_eq!(parse("broadcast", br#"{"data":1}"#, LIMITS).unwrap_err().code(), 107);
        assert_eq!(parse("broadcast", br#"{"data":1,"channels":["1","2","3","4"]}"#, LIMITS).unwrap_err().code(), 107);
    }

    #[test]
    fn an_option_that_cannot_be_honoured_is_an_error_and_its_absence_is_none() {
        for option in [r#""idempotency_key":"k""#, r#""delta":true"#, r#""version":1"#] {
            let body = format!("{{\"channel\":\"c\",\"data\":1,{option}}}");
            assert_eq!(published(&body).unwrap_err().code(), 108, "{option}");
        }
        let idle = r#"{"channel":"c","data":1,"idempotency_key":"","delta":false,"version":0,"version_epoch":"","tags":null,"b64data":""}"#;
        assert!(published(idle).is_ok());
    }

    #[test]
    fn methods_that_are_not_built_are_told_from_those_that_do_not_exist() {
        assert_eq!(parse("presence", b"{}", LIMITS).unwrap_err().code(), 108);
        assert_eq!(parse("map_publish", b"{}", LIMITS), Err(ApiError::UnknownMethod));
        assert_eq!(parse("info", b"", LIMITS), Ok(ApiCommand::Info));
        assert_eq!(parse("info", b"{}", LIMITS), Ok(ApiCommand::Info));
    }

    #[test]
    fn bodies_that_are_not_json_are_refused() {
        for body in [
            "{",
            "[]",
            "1",
            "{\"channel\":1}",
            "{\"channel\":\"c\",\"data\":}",
            "{}{}",
            "\u{fe}",
            "{\"channel\":\"c\",\"data\":1,\"tags\":{\"a\":1}}",
        ] {
            assert_eq!(parse("publish", body.as_bytes(), LIMITS), Err(ApiError::BadBody), "{body}");
        }
        assert_eq!(parse("info", b"{", LIMITS), Err(ApiError::BadBody));
    }

    #[test]
    fn deep_payloads_are_refused_however_deep() {
        let nested =
            |depth: usize| format!("{{\"channel\":\"c\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(published(&nested(8)).is_ok());
        assert_eq!(published(&nested(9)).unwrap_err().code(), 107);
        assert_eq!(published(&nested(1_000_000)).unwrap_err().code(), 107);
        assert_eq!(published(&format!("{{\"x\":{}", "[".repeat(1_000_000))), Err(ApiError::BadBody));
    }

    #[test]
    fn the_older_envelope_leads_to_the_same_command() {
        let inner = br#"{"channel":"c","data":{"a":1}}"#;
        let outer = br#"{"method":"publish","params":{"channel":"c","data":{"a":1}}}"#;
        assert_eq!(parse_enveloped(outer, LIMITS), parse("publish", inner, LIMITS));
        assert_eq!(parse_enveloped(br#"{"method":"info"}"#, LIMITS), Ok(ApiCommand::Info));
        assert_eq!(parse_enveloped(br#"{"method":"publish","params":null}"#, LIMITS).unwrap_err().code(), 107);
        assert_eq!(parse_enveloped(b"{}", LIMITS), Err(ApiError::UnknownMethod));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(method in "publish|broadcast|info|", body in prop::collection::vec(any::<u8>(), 0..200)) {
            // The answer does not matter here, only that there is one.
            let _ = parse(&method, &body, LIMITS);
            let _ = parse_enveloped(&body, LIMITS);
        }

        #[test]
        fn a_payload_without_raw_newlines_comes_out_as_it_went_in(text in "[^\\n\\r]{0,40}") {
            let data = serde_json::to_string(&text).unwrap();
            let body = format!("{{\"data\":{data},\"channel\":\"c\"}}");
            let payload = published(&body).unwrap().1.payload;
            prop_assert_eq!(payload.bytes.as_ref(), data.as_bytes());
        }
    }
}
