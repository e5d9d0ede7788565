//! Payloads in JSON: how deep they nest, whether they are valid, and without which bytes they may be embedded.
//!
//! Always true: the work is one or two passes over the bytes, whatever they hold; the stack does not grow with them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::protocol::Data;

/// `bytes` as one JSON value that may be embedded in a message: valid UTF-8, nested no deeper than `depth_max`, without
/// white space around it and without raw newlines inside. `None` when it is no such value.
///
/// Borrowed unless there were newlines to remove. Strings may hold lone surrogates (`"\ud800"`) and numbers may be beyond
/// any float: both are JSON, and the payload is not ours to judge.
pub fn validate_json(bytes: &[u8], depth_max: u32) -> Option<Cow<'_, [u8]>> {
    let text = simdutf8::basic::from_utf8(bytes).ok()?;
    if deeper_than(bytes, depth_max) {
        return None;
    }
    let value: &RawValue = serde_json::from_str(text).ok()?;
    Some(without_newlines(value.get()))
}

/// Whether arrays and objects nest deeper than `depth_max`. Exact for JSON; for other bytes it errs in either direction,
/// and the parser that follows refuses them.
pub(super) fn deeper_than(text: &[u8], depth_max: u32) -> bool {
    // Nothing nests deeper than it has opening brackets. Counting them all, those inside strings too, takes a few
    // nanoseconds with vector instructions and answers for nearly every message. `[` and `{` differ in one bit.
    let openers: usize = text.chunks(128).map(|part| count(part, |byte| byte | 0x20 == b'{')).sum();
    openers > depth_max as usize && deeper_than_by_walking(text, depth_max)
}

/// At most 255 bytes, so that the sum fits a byte: that is what lets the compiler count 16 or 32 lanes at once.
fn count(part: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    usize::from(part.iter().fold(0u8, |sum, &byte| sum + u8::from(wanted(byte))))
}

fn deeper_than_by_walking(text: &[u8], depth_max: u32) -> bool {
    let mut depth = 0u32;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            // More closing than opening is not JSON, which is for the parser to say.
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => _ = bytes.next(),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    false
}

/// Removes raw newlines, which in valid JSON are white space between tokens. A client splits a frame at them.
pub(super) fn without_newlines(value: &str) -> Data<'_> {
    let bytes = value.as_bytes();
    let newline = |byte: u8| byte == b'\n' || byte == b'\r';
    if bytes.chunks(128).all(|part| count(part, newline) == 0) {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.iter().copied().filter(|&byte| !newline(byte)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], depth_max: u32, expected: Option<&str>) {
        assert_eq!(validate_json(bytes, depth_max).as_deref(), expected.map(str::as_bytes));
    }

    #[test]
    fn a_payload_is_one_json_value_of_any_kind() {
        for value in ["null", "0", "-1.5e+10", "\"\"", "[]", "{}", r#"{"a":[1,{"b":"\u00e9\n"}]}"#, "\"\u{e9}\""] {
            check(value.as_bytes(), 3, Some(value));
        }
        for other in [
            "", " ", "nul", "01", "+1", "1.", ".5", "'a'", "[1,]", "{a:1}", "{\"a\"}", "1 2", "\"\t\"", "\"", "]",
            "NaN",
        ] {
            check(other.as_bytes(), 3, None);
        }
        check(b"\"\xff\"", 3, None);
    }

    #[test]
    fn newlines_and_white_space_around_are_removed_and_nothing_else() {
        check(b" \n{\"a\" : [1,\r\n 2]}\n\n", 3, Some(r#"{"a" : [1, 2]}"#));
        check(b"  {\"a\": 1}  ", 3, Some(r#"{"a": 1}"#));
        assert!(matches!(validate_json(b" [1, 2] ", 3), Some(Cow::Borrowed(b"[1, 2]"))));
    }

    #[test]
    fn depth_counts_arrays_and_objects_but_not_brackets_in_strings() {
        check(b"1", 0, Some("1"));
        check(b"[]", 0, None);
        check(br#"[{"a":[]}]"#, 3, Some(r#"[{"a":[]}]"#));
        check(br#"[{"a":[]}]"#, 2, None);
        check(br#"["[[[[\"[[[[{{{{\\"]"#, 1, Some(r#"["[[[[\"[[[[{{{{\\"]"#));
        check(b"[[],[],[],[]]", 2, Some("[[],[],[],[]]"));
    }

    #[test]
    fn a_million_deep_value_is_refused_and_does_not_overflow_the_stack() {
        let mut deep = vec![b'['; 1_000_000];
        deep.extend(vec![b']'; 1_000_000]);
        check(&deep, 64, None);
        // Nor where the limit allows it: nothing recurses.
        assert!(validate_json(&deep, 1_000_000).is_some());
        assert!(validate_json(&deep[..1_500_000], 1_000_000).is_none());
    }

    fn depth(value: &serde_json::Value) -> u32 {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[\\[{\"\\\\\n a-z\u{e9}]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
                prop::collection::vec(("[{\"\\\\a]{0,3}", inner), 0..4)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_value_is_valid_exactly_at_its_own_depth(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let depth = depth(&value);
            let kept = validate_json(text.as_bytes(), depth).unwrap();
            prop_assert!(!kept.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&kept).unwrap(), value);
            prop_assert!(depth == 0 || validate_json(text.as_bytes(), depth - 1).is_none());
        }

        #[test]
        fn what_is_accepted_is_what_a_full_parser_accepts(text in "[\\[\\]{}\",:\\\\0-9truefalsn \n.eE+-]{0,12}") {
            // The full parser also refuses numbers beyond f64 and lone surrogates; this alphabet is too short for either.
            let full = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(validate_json(text.as_bytes(), 100).is_some(), full);
        }
    }
}
