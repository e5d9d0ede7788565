//! The bytes of a publication, as the API takes them: one JSON value, or anything in base64.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// Never empty. When it is JSON, one valid value without raw newlines: in JSON frames a newline parts messages.
    pub bytes: Cow<'a, [u8]>,
    /// Whether clients that speak JSON can take it.
    pub json: bool,
}

impl<'a> Payload<'a> {
    /// `text` is one valid JSON value.
    pub(super) fn from_json(text: &'a str) -> Self {
        let bytes = if text.bytes().any(is_newline) {
            Cow::Owned(text.bytes().filter(|&b| !is_newline(b)).collect())
        } else {
            Cow::Borrowed(text.as_bytes())
        };
        Payload { bytes, json: true }
    }

    pub(super) fn from_base64(text: &str) -> Option<Payload<'static>> {
        let bytes = STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())?;
        let json = serde_json::from_slice::<&RawValue>(&bytes).is_ok();
        // Bytes that happen to be JSON reach JSON clients, so they lose their raw newlines as `data` does.
        let bytes = if json { bytes.into_iter().filter(|&b| !is_newline(b)).collect() } else { bytes };
        Some(Payload { bytes: bytes.into(), json })
    }
}

/// In valid JSON these bytes stand between tokens only: strings hold them escaped.
fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// How deep arrays and objects nest in a valid JSON value.
pub(super) fn depth(json: &[u8]) -> u32 {
    let (mut depth, mut deepest) = (0u32, 0u32);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        for (json, expected) in [("1", 0), ("[]", 1), (r#"{"a":[[{}]],"b":[]}"#, 4), (r#"["[[[\"[[\\",{}]"#, 2)] {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }
}
