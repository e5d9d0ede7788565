//! Who may come without a token, and what such a client may do.

use serde_json::json;

use crate::support::{Encoding, Node, SECRET_OPTION, token};

const ANONYMOUS: &str = "--client.allow_anonymous_connect_without_token";
const SUBSCRIBE: &str = "--channel.without_namespace.allow_subscribe_for_client";
const SUBSCRIBE_ANONYMOUS: &str = "--channel.without_namespace.allow_subscribe_for_anonymous";
const PUBLISH: &str = "--channel.without_namespace.allow_publish_for_client";
const PUBLISH_ANONYMOUS: &str = "--channel.without_namespace.allow_publish_for_anonymous";

#[test]
fn without_a_token_nobody_comes_in_unless_that_is_allowed() {
    let node = Node::start(&[SECRET_OPTION]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        client.command("connect", json!({}));
        assert_eq!(client.closed(), (3501, "bad request".to_owned()));
    }
    assert_eq!(node.metrics().labelled("skein_disconnects_total", "code=\"3501\""), 2);
}

#[test]
fn an_anonymous_client_may_do_what_is_allowed_for_anonymous_ones() {
    for (options, subscribes, publishes) in [
        (&[ANONYMOUS, SUBSCRIBE, PUBLISH][..], false, false),
        (&[ANONYMOUS, SUBSCRIBE, SUBSCRIBE_ANONYMOUS, PUBLISH], true, false),
        (&[ANONYMOUS, SUBSCRIBE, PUBLISH, PUBLISH_ANONYMOUS], false, true),
        (&[ANONYMOUS, SUBSCRIBE_ANONYMOUS, PUBLISH_ANONYMOUS], false, false),
    ] {
        let node = Node::start(options);
        let mut client = node.connected(Encoding::Json);
        let reply = client.call("subscribe", json!({ "channel": "room" }));
        assert_eq!(reply.get("error").is_none(), subscribes, "{options:?} {reply}");
        let reply = client.call("publish", json!({ "channel": "room", "data": 1 }));
        assert_eq!(reply.get("error").is_none(), publishes, "{options:?} {reply}");
    }
}

#[test]
fn a_named_user_may_do_what_is_allowed_for_clients() {
    let node =
        Node::start(&[SECRET_OPTION, ANONYMOUS, SUBSCRIBE, "--channel.without_namespace.allow_publish_for_subscriber"]);
    let mut client = node.client(Encoding::Json);
    client.connect(&token(json!({ "sub": "anna" })));
    // A subscriber may publish, so one has to be it first.
    assert_eq!(client.fail("publish", json!({ "channel": "room", "data": 1 })), 103);
    client.subscribe("room");
    client.publish("room", json!(1));
    let publication = client.publication("room");
    assert_eq!(publication["info"]["user"], "anna");

    let mut anonymous = node.connected(Encoding::Json);
    assert_eq!(anonymous.fail("subscribe", json!({ "channel": "room" })), 103);
    // A token may leave the user out, too.
    let mut nameless = node.client(Encoding::Json);
    nameless.connect(&token(json!({})));
    assert_eq!(nameless.fail("subscribe", json!({ "channel": "room" })), 103);
}

#[test]
fn namespaces_have_options_of_their_own() {
    let node = Node::start(&[
        ANONYMOUS,
        r#"--channel.namespaces=[{ name = "open", allow_subscribe_for_client = true, allow_subscribe_for_anonymous = true }, { name = "shut" }]"#,
    ]);
    let mut client = node.connected(Encoding::Protobuf);
    client.subscribe("open:room");
    assert_eq!(client.fail("subscribe", json!({ "channel": "shut:room" })), 103);
    assert_eq!(client.fail("subscribe", json!({ "channel": "room" })), 103);
    assert_eq!(client.fail("subscribe", json!({ "channel": "none:room" })), 102);
}

#[test]
fn a_list_of_users_in_a_name_opens_it_to_them_alone() {
    let node = Node::start(&[SECRET_OPTION, "--channel.without_namespace.allow_user_limited_channels"]);
    let mut anna = node.client(Encoding::Json);
    anna.connect(&token(json!({ "sub": "anna" })));
    anna.subscribe("talk#anna,berta");
    assert_eq!(anna.fail("subscribe", json!({ "channel": "talk#berta,clara" })), 103);
    assert_eq!(anna.fail("subscribe", json!({ "channel": "talk" })), 103);
}

#[test]
fn in_insecure_mode_everything_is_allowed_that_needs_no_token() {
    let node = Node::start(&["--client.insecure"]);
    let mut client = node.connected(Encoding::Json);
    client.subscribe("room");
    client.publish("another", json!(1));
    assert_eq!(client.fail("subscribe", json!({ "channel": "$private" })), 103);
    assert_eq!(client.fail("subscribe", json!({ "channel": "none:room" })), 102);
}
