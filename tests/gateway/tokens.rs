//! HMAC tokens: who is believed, until when, and how a client goes on with a new one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Algorithm, Encoding, Node, SECRET, SECRET_OPTION, in_seconds, signed, token};

#[test]
fn a_signed_token_is_believed_with_each_hmac_algorithm() {
    let node = Node::start(&[SECRET_OPTION]);
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for encoding in Encoding::BOTH {
            let mut client = node.client(encoding);
            let result = client.connect(&signed(algorithm, SECRET, json!({ "sub": "anna" })));
            assert!(result.get("expires").is_none());
        }
    }
    assert_eq!(node.metrics().get("skein_users"), 1);
}

#[test]
fn the_secret_before_a_change_is_good_too() {
    let node = Node::start(&["--client.token.hmac_secret_key=new", "--client.token.hmac_previous_secret_key=old"]);
    for secret in ["new", "old"] {
        node.client(Encoding::Json).connect(&signed(Algorithm::HS256, secret, json!({ "sub": "anna" })));
    }
    let mut client = node.client(Encoding::Json);
    client.command("connect", json!({ "token": signed(Algorithm::HS256, "older", json!({ "sub": "anna" })) }));
    assert_eq!(client.close_code(), 3500);
}

#[test]
fn what_is_not_signed_with_the_secret_ends_in_3500() {
    let node = Node::start(&[SECRET_OPTION, "--client.allow_anonymous_connect_without_token"]);
    let good = token(json!({ "sub": "anna" }));
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims"));
    for bad in [
        signed(Algorithm::HS256, "another", json!({ "sub": "anna" })),
        none,
        "no.token.atall".to_owned(),
        "x".to_owned(),
        format!("{good}x"),
        // A subscription token is not for connecting.
        token(json!({ "sub": "anna", "channel": "room" })),
    ] {
        let mut client = node.client(Encoding::Json);
        client.command("connect", json!({ "token": bad }));
        assert_eq!(client.closed(), (3500, "invalid token".to_owned()), "{bad}");
    }
}

#[test]
fn insecure_mode_believes_no_wrong_token() {
    let node = Node::start(&["--client.insecure", SECRET_OPTION]);
    let mut client = node.client(Encoding::Json);
    client.command("connect", json!({ "token": "no.token.atall" }));
    assert_eq!(client.close_code(), 3500);
    let mut client = node.client(Encoding::Json);
    assert_eq!(client.fail("connect", json!({ "token": token(json!({ "sub": "anna", "exp": in_seconds(-5) })) })), 109);
    // One that is good has no end there: nothing depends on it.
    let mut client = node.client(Encoding::Json);
    let result = client.connect(&token(json!({ "sub": "anna", "exp": in_seconds(60) })));
    assert!(result.get("expires").is_none());
    let room = json!({ "channel": "room", "token": token(json!({ "sub": "berta", "channel": "room" })) });
    client.command("subscribe", room);
    assert_eq!(client.close_code(), 3500);
}

#[test]
fn an_expired_token_is_error_109_and_the_connection_is_over_with_it() {
    let node = Node::start(&[SECRET_OPTION, "--client.stale_close_delay=1s"]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let old = token(json!({ "sub": "anna", "exp": in_seconds(-5) }));
        assert_eq!(client.fail("connect", json!({ "token": old })), 109);
        client.command("connect", json!({ "token": token(json!({ "sub": "anna" })) }));
        assert_eq!(client.close_code(), 3501, "the client has to come anew");
        let mut silent = node.client(encoding);
        assert_eq!(silent.fail("connect", json!({ "token": old })), 109);
        assert_eq!(silent.closed(), (3502, "stale".to_owned()));
    }
}

#[test]
fn an_expiry_in_the_past_beside_a_token_still_good_is_error_110() {
    let node = Node::start(&[SECRET_OPTION]);
    let mut client = node.client(Encoding::Json);
    let past = token(json!({ "sub": "anna", "exp": in_seconds(60), "expire_at": in_seconds(-5) }));
    assert_eq!(client.fail("connect", json!({ "token": past })), 110);
}

#[test]
fn audience_and_issuer_are_checked_when_they_are_set() {
    let node = Node::start(&[SECRET_OPTION, "--client.token.audience=skein", "--client.token.issuer=backend"]);
    node.client(Encoding::Json).connect(&token(json!({ "sub": "anna", "aud": ["x", "skein"], "iss": "backend" })));
    for claims in [json!({ "sub": "anna" }), json!({ "sub": "anna", "aud": "skein", "iss": "other" })] {
        let mut client = node.client(Encoding::Json);
        client.command("connect", json!({ "token": token(claims) }));
        assert_eq!(client.close_code(), 3500);
    }
}

#[test]
fn who_does_not_refresh_in_time_ends_in_3005() {
    let node = Node::start(&[SECRET_OPTION, "--client.expired_close_delay=1s"]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let begin = Instant::now();
        let result = client.connect(&token(json!({ "sub": "anna", "exp": in_seconds(2) })));
        assert_eq!(result["expires"], true);
        assert!((1..=2).contains(&result["ttl"].as_u64().expect("a ttl")), "{result}");
        assert_eq!(client.closed(), (3005, "connection expired".to_owned()));
        // Tokens count whole seconds.
        assert!(begin.elapsed() > Duration::from_millis(1900), "the grace is given: {:?}", begin.elapsed());
    }
}

#[test]
fn a_refreshed_connection_goes_on() {
    let node = Node::start(&[SECRET_OPTION, "--client.expired_close_delay=500ms"]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        client.connect(&token(json!({ "sub": "anna", "exp": in_seconds(2) })));
        let result =
            client.succeed("refresh", json!({ "token": token(json!({ "sub": "anna", "exp": in_seconds(100) })) }));
        assert_eq!(result["expires"], true);
        assert!((99..=100).contains(&result["ttl"].as_u64().expect("a ttl")), "{result}");
        client.hears_nothing_for(Duration::from_millis(3000));
        let result = client.succeed("refresh", json!({ "token": token(json!({ "sub": "anna" })) }));
        assert!(result.get("expires").is_none() && result.get("ttl").is_none());
    }
}

#[test]
fn a_refresh_with_a_bad_token_ends_the_connection() {
    let node = Node::start(&[SECRET_OPTION]);
    for (refresh, code) in [
        (token(json!({ "sub": "anna", "exp": in_seconds(-5) })), 3005),
        (token(json!({ "sub": "berta" })), 3500),
        ("no.token.atall".to_owned(), 3500),
        (String::new(), 3501),
    ] {
        let mut client = node.client(Encoding::Json);
        client.connect(&token(json!({ "sub": "anna" })));
        client.command("refresh", json!({ "token": refresh }));
        assert_eq!(client.close_code(), code, "{refresh}");
    }
}

#[test]
fn a_subscription_token_opens_its_channel_to_its_user() {
    let node = Node::start(&[SECRET_OPTION]);
    let connect = || {
        let mut client = node.client(Encoding::Json);
        client.connect(&token(json!({ "sub": "anna" })));
        client
    };
    let mut client = connect();
    let subscribe = |claims| json!({ "channel": "$room", "token": token(claims) });
    assert_eq!(client.fail("subscribe", json!({ "channel": "$room" })), 103);
    assert_eq!(client.fail("subscribe", json!({ "channel": "$room", "token": "no.token.atall" })), 103);
    let expired = json!({ "sub": "anna", "channel": "$room", "exp": in_seconds(-5) });
    assert_eq!(client.fail("subscribe", subscribe(expired)), 109);
    client.succeed("subscribe", subscribe(json!({ "sub": "anna", "channel": "$room" })));
    // One that is genuine and for something else is no mistake but an attempt.
    for claims in [json!({ "sub": "anna", "channel": "$other" }), json!({ "sub": "berta", "channel": "$room" })] {
        let mut client = connect();
        client.command("subscribe", subscribe(claims));
        assert_eq!(client.close_code(), 3500);
    }
}

#[test]
fn a_subscription_that_is_not_refreshed_is_ended_and_one_that_is_goes_on() {
    let node = Node::start(&[SECRET_OPTION, "--client.expired_sub_close_delay=500ms"]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        client.connect(&token(json!({ "sub": "anna" })));
        let room = |channel, exp| {
            let claims = json!({ "sub": "anna", "channel": channel, "exp": in_seconds(exp) });
            json!({ "channel": channel, "token": token(claims) })
        };
        let result = client.succeed("subscribe", room("left", 2));
        assert_eq!(result["expires"], true);
        assert!((1..=2).contains(&result["ttl"].as_u64().expect("a ttl")));
        client.succeed("subscribe", room("kept", 2));
        let result = client.succeed("sub_refresh", room("kept", 100));
        assert_eq!(result["expires"], true);
        let push = client.push();
        assert_eq!(push["channel"], "left");
        assert_eq!(push["unsubscribe"], json!({ "code": 2501, "reason": "subscription expired" }));
        client.hears_nothing_for(Duration::from_millis(1500));
        assert_eq!(client.fail("sub_refresh", room("left", 100)), 103);
        assert_eq!(client.fail("sub_refresh", json!({ "channel": "kept" })), 107);
        assert_eq!(client.fail("sub_refresh", room("kept", -5)), 109);
    }
}

#[test]
fn a_token_that_asks_for_server_side_subscriptions_is_not_half_granted() {
    let node = Node::start(&[SECRET_OPTION]);
    let mut client = node.client(Encoding::Json);
    assert_eq!(client.fail("connect", json!({ "token": token(json!({ "sub": "anna", "channels": ["news"] })) })), 108);
}
