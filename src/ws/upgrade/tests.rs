//! Requests as clients send them, and as they must not.

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request(target: &str, headers: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("Host", "example.com:8000"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    for &(name, value) in headers {
        lines.retain(|&(other, _)| other != name);
        if value != "absent" {
            lines.push((name, value));
        }
    }
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\n{lines}\r\n")
}

fn check_bytes(bytes: &str, origins: &OriginRule) -> Result<Upgrade, Refusal> {
    match parse_head(bytes.as_bytes()) {
        Ok(Parse::Complete(head, _)) => super::check(&head, origins),
        other => panic!("{other:?}: {bytes}"),
    }
}

fn check(target: &str, headers: &[(&str, &str)]) -> Result<Upgrade, Refusal> {
    check_bytes(&request(target, headers), &OriginRule::default())
}

fn answer(upgrade: &Upgrade) -> String {
    let mut out = Vec::new();
    response(upgrade, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_example_of_the_rfc_is_answered_as_there() {
    let upgrade = check("/connection/websocket", &[]).unwrap();
    assert_eq!(
        answer(&upgrade),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn the_encoding_is_chosen_by_subprotocol_or_query() {
    use Subprotocol::{Json, Protobuf};
    const OFFER: &str = "Sec-WebSocket-Protocol";
    for (target, offer, encoding, offered) in [
        ("/", "absent", Json, None),
        ("/", "centrifuge-json", Json, Some(Json)),
        ("/", "centrifuge-protobuf", Protobuf, Some(Protobuf)),
        ("/", "chat, centrifuge-protobuf", Protobuf, Some(Protobuf)),
        ("/", "centrifuge-json, centrifuge-protobuf", Json, Some(Json)),
        ("/", "chat", Json, None),
        ("/?cf_protocol=protobuf", "absent", Protobuf, None),
        ("/?x&format=protobuf&cf_protocol_version=v2", "absent", Protobuf, None),
        ("/?cf_protocol=protobuf", "centrifuge-json", Protobuf, Some(Json)),
        ("/?cf_protocol=json&formats=protobuf", "absent", Json, None),
    ] {
        let upgrade = check(target, &[(OFFER, offer)]).unwrap();
        assert_eq!((upgrade.encoding, upgrade.offered), (encoding, offered), "{target} {offer}");
        let echo = offered.map(|offered| format!("\r\nSec-WebSocket-Protocol: {}\r\n", offered.name()));
        let answer = answer(&upgrade);
        assert_eq!(answer.contains("Sec-WebSocket-Protocol"), echo.is_some());
        assert!(echo.is_none_or(|echo| answer.contains(&echo)));
    }
}

#[test]
fn an_empty_subprotocol_header_counts_as_none() {
    let upgrade = check("/", &[("Sec-WebSocket-Protocol", "")]).unwrap();
    assert_eq!((upgrade.encoding, upgrade.offered), (Subprotocol::Json, None));
}

#[test]
fn tools_may_ask_for_frame_pings() {
    assert!(check("/?cf_ws_frame_ping_pong=true", &[]).unwrap().frame_ping_pong);
    assert!(!check("/?cf_ws_frame_ping_pong=1", &[]).unwrap().frame_ping_pong);
    assert!(!check("/", &[]).unwrap().frame_ping_pong);
}

#[test]
fn lists_and_case_in_headers_are_read_as_http_has_them() {
    let headers = [
        ("Connection", "keep-alive, uPGRADE"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    let upgrade = check("/", &headers).unwrap();
    assert!(!answer(&upgrade).contains("Extensions"), "an offer is passed over");
    let spelled = request("/", &[]).replace("Sec-WebSocket-Key", "sec-websocket-KEY");
    assert!(check_bytes(&spelled, &OriginRule::default()).is_ok());
}

#[test]
fn what_is_not_an_upgrade_is_refused_with_its_reason() {
    for (header, value, refusal) in [
        ("Upgrade", "h2c", Refusal::HalfAnUpgrade),
        ("Upgrade", "absent", Refusal::HalfAnUpgrade),
        ("Connection", "keep-alive", Refusal::HalfAnUpgrade),
        ("Sec-WebSocket-Version", "8", Refusal::WebSocketVersion),
        ("Sec-WebSocket-Version", "absent", Refusal::WebSocketVersion),
        ("Sec-WebSocket-Key", "absent", Refusal::Key),
        ("Sec-WebSocket-Key", "", Refusal::Key),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ", Refusal::Key),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j", Refusal::Key),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSEh", Refusal::Key),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZS!ub25jZQ==", Refusal::Key),
        ("Content-Length", "5", Refusal::Body),
        ("Transfer-Encoding", "chunked", Refusal::Body),
        ("Origin", "http://elsewhere.com", Refusal::Origin),
    ] {
        assert_eq!(check("/", &[(header, value)]), Err(refusal), "{header}: {value}");
    }
    assert_eq!(check("/", &[("Upgrade", "absent"), ("Connection", "absent")]), Err(Refusal::NotAnUpgrade));
    let origins = OriginRule::default();
    assert_eq!(check_bytes(&request("/", &[]).replace("GET", "POST"), &origins), Err(Refusal::Method));
    assert_eq!(check_bytes(&request("/", &[]).replace("HTTP/1.1", "HTTP/1.0"), &origins), Err(Refusal::Version));
}

#[test]
fn a_client_of_another_websocket_version_is_told_the_right_one() {
    assert_eq!(Refusal::WebSocketVersion.status(), 426);
    assert!(Refusal::WebSocketVersion.headers().contains(&("Sec-WebSocket-Version", "13")));
}

#[test]
fn a_page_of_the_own_host_or_of_an_allowed_origin_may_connect() {
    let host = "example.com:8000";
    let cases: [(&[&str], &str, bool); 20] = [
        (&[], "http://example.com:8000", true),
        (&[], "https://EXAMPLE.com:8000", true),
        (&[], "http://example.com", false),
        (&[], "http://example.com:8000.evil.com", false),
        (&[], "http://evil.com/?http://example.com:8000", false),
        (&[], "example.com:8000", false),
        (&[], "null", false),
        (&["*"], "null", true),
        (&["*"], "http://anything", true),
        (&["https://a.com", "https://B.com"], "https://b.com", true),
        (&["https://a.com"], "https://a.com:444", false),
        (&["https://a.com"], "https://a.com.evil.com", false),
        (&["https://*.a.com"], "https://x.y.a.com", true),
        (&["https://*.a.com"], "https://a.com", false),
        (&["https://*.a.com"], "https://x.a.com.evil.com", false),
        (&["http://localhost:*"], "http://localhost:3000", true),
        (&["http://localhost:*"], "http://localhost", false),
        (&["http*://*.a.*"], "https://x.a.org", true),
        (&["http*://*.a.*b"], "https://x.a.", false),
        (&["ab*ba"], "aba", false),
    ];
    for (patterns, origin, allowed) in cases {
        let rule = OriginRule::new(patterns.iter().copied());
        assert_eq!(rule.allows(origin, host), allowed, "{patterns:?} {origin}");
        let outcome = check_bytes(&request("/", &[("Origin", origin)]), &rule);
        assert_eq!(outcome.err(), (!allowed).then_some(Refusal::Origin), "{patterns:?} {origin}");
    }
}

#[test]
fn a_client_without_an_origin_is_no_page() {
    assert!(check("/", &[]).is_ok());
    assert!(check("/", &[("Origin", "")]).is_ok());
}

#[test]
fn every_refusal_is_one_sentence() {
    for refusal in [
        Refusal::Method,
        Refusal::Version,
        Refusal::NotAnUpgrade,
        Refusal::HalfAnUpgrade,
        Refusal::WebSocketVersion,
        Refusal::Key,
        Refusal::Body,
        Refusal::Origin,
    ] {
        assert!(refusal.to_string().ends_with('.'));
        assert!((400..500).contains(&refusal.status()));
    }
}
