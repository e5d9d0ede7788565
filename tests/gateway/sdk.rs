//! The official SDKs, unmodified and as their registries have them, hold a long conversation with a node.
//!
//! The conversations stand in `tests/sdk`. `tools/test` installs what they need; without it these tests fail.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::Node;

const SECRET: &str = "sdk-secret";

const OPTIONS: [&str; 5] = [
    "--client.token.hmac_secret_key=sdk-secret",
    "--client.expired_close_delay=1s",
    "--client.expired_sub_close_delay=1s",
    "--channel.without_namespace.allow_subscribe_for_client",
    "--channel.without_namespace.allow_publish_for_client",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

fn javascript() -> Command {
    let script = folder().join("js/conversation.mjs");
    assert!(folder().join("js/node_modules/centrifuge").exists(), "the JavaScript SDK is missing: run tools/test");
    let mut command = Command::new("node");
    command.arg(script);
    command
}

fn python() -> Command {
    let interpreter = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../sdk-python/bin/python");
    assert!(interpreter.exists(), "the Python SDK is missing: run tools/test");
    let mut command = Command::new(interpreter);
    command.arg(folder().join("python/conversation.py"));
    command
}

fn converse(mut sdk: Command, encoding: &str) {
    let node = Node::start(&OPTIONS);
    let address = node.address;
    sdk.args([&format!("ws://{address}/connection/websocket"), encoding, SECRET]);
    let mut sdk = sdk.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("it starts");
    let mut lines = BufReader::new(sdk.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));

    let restart = lines.next();
    assert_eq!(restart.as_deref(), Some("restart"), "{:?}", sdk.wait());
    node.stop();
    let node = Node::try_start_at(address.port(), &OPTIONS).expect("the port is free again");
    let done = lines.next();
    assert_eq!(done.as_deref(), Some("done"), "{:?}", sdk.wait());
    assert!(sdk.wait().expect("it is our child").success());
    node.stop();
}

#[test]
fn the_javascript_sdk_converses_in_json() {
    converse(javascript(), "json");
}

#[test]
fn the_javascript_sdk_converses_in_protobuf() {
    converse(javascript(), "protobuf");
}

/// Its upgrade has an empty Sec-WebSocket-Protocol.
#[test]
fn the_python_sdk_converses_in_json() {
    converse(python(), "json");
}

#[test]
fn the_python_sdk_converses_in_protobuf() {
    converse(python(), "protobuf");
}
