//! The commands for the terminal against nodes of `skein demo`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::MutexGuard;

use serde_json::Value;

use crate::harness::{BINARY, PATIENCE, Scratch, Ws, eventually, turn};

struct Demo {
    process: Child,
    input: Option<ChildStdin>,
    clients: Vec<SocketAddr>,
    log: PathBuf,
    _scratch: Scratch,
    _turn: MutexGuard<'static, ()>,
}

impl Demo {
    fn start() -> Demo {
        let turn = turn();
        let scratch = Scratch::make();
        let log = scratch.0.join("log");
        let mut process = Command::new(BINARY)
            .args(["demo", "--json", "--nodes=3", "--workers=2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).expect("one line");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let nodes = told["nodes"].as_array().expect("nodes").iter();
        let clients = nodes.map(|node| node["client"].as_str().expect("an address").parse().unwrap()).collect();
        Demo { input: process.stdin.take(), process, clients, log, _scratch: scratch, _turn: turn }
    }

    fn websocket(&self, node: usize) -> String {
        format!("ws://{}/connection/websocket", self.clients[node])
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its end of input ends it, and its nodes.
        drop(self.input.take());
        // Nothing to do with how it ended.
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("---- the demo's log\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn command(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn pub_and_sub_in_the_terminal_speak_to_any_node_in_both_encodings() {
    let demo = Demo::start();
    for encoding in [&[][..], &["--protobuf"]] {
        let url = demo.websocket(1);
        let mut args = vec!["sub", "a", "b", "--count=4", "--json", "--url", &url];
        args.extend(encoding);
        let mut sub = Command::new(BINARY).args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(sub.stderr.take().unwrap()).lines();
        for _ in 0..2 {
            let line = told.next().expect("two lines").expect("text");
            assert!(line.starts_with("subscribed to "), "{line}");
        }
        let publish = |args: &[&str], input: &str| {
            let mut all = vec!["pub", "--url"];
            let url = demo.websocket(2);
            all.push(&url);
            all.extend(args);
            all.extend(encoding);
            let output = command(&all, input);
            assert_eq!(code(&output), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        };
        publish(&["a", "{\"x\":\n1}"], "");
        publish(&["b", "some text"], "");
        publish(&["a"], "[1]\n\nsome more text\n");
        let output = sub.wait_with_output().unwrap();
        assert_eq!(code(&output), Some(0));
        let lines: Vec<Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let heard: Vec<(&str, &Value)> =
            lines.iter().map(|line| (line["channel"].as_str().unwrap(), &line["data"])).collect();
        let expected = [
            ("a", serde_json::json!({"x": 1})),
            ("b", "some text".into()),
            ("a", serde_json::json!([1])),
            ("a", "some more text".into()),
        ];
        assert!(heard.iter().copied().eq(expected.iter().map(|(channel, data)| (*channel, data))), "{heard:?}");
        assert!(lines.iter().all(|line| line["info"]["client"].is_string()), "with the sender");
    }
}

#[test]
fn sub_connects_again_when_it_was_cut_off() {
    let demo = Demo::start();
    // A front that leads to a node and cuts each connection after a while.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap();
    let node = demo.clients[0];
    std::thread::spawn(move || {
        let pass = |from: std::net::TcpStream, to: std::net::TcpStream| {
            std::thread::spawn(move || {
                // Ends with either of them.
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        };
        for stream in listener.incoming().map_while(Result::ok) {
            let onward = std::net::TcpStream::connect(node).unwrap();
            pass(stream.try_clone().unwrap(), onward.try_clone().unwrap());
            pass(onward.try_clone().unwrap(), stream.try_clone().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(700));
            let _ = onward.shutdown(std::net::Shutdown::Both);
        }
    });
    let url = format!("ws://{front}/connection/websocket");
    let mut sub = Command::new(BINARY)
        .args(["sub", "news", "--url", &url])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told: Vec<String> = BufReader::new(sub.stderr.take().unwrap()).lines().map_while(Result::ok).take(3).collect();
    sub.kill().unwrap();
    sub.wait().unwrap();
    assert_eq!(told[0], "subscribed to news");
    assert!(told[1].contains("connecting again in"), "{}", told[1]);
    assert_eq!(told[2], "subscribed to news");
}

#[test]
fn cluster_status_shows_the_cluster_as_one_node_sees_it() {
    let demo = Demo::start();
    let mut client = Ws::connect(demo.clients[1]);
    client.subscribe("news");
    let url = format!("http://{}", demo.clients[0]);
    let json = || -> Value {
        let output = command(&["cluster", "status", "--json", "--url", &url], "");
        assert_eq!(code(&output), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    let status = json();
    assert_eq!(status["node"], "n1");
    assert_eq!(status["complete"], true);
    assert_eq!(status["lanes"].as_array().map(Vec::len), Some(4), "two workers, two peers");
    eventually(PATIENCE, "n1 has heard of the subscription", || {
        json()["members"][0]["told"]["subscriptions"].as_u64() == Some(1)
    });
    let output = command(&["cluster", "status", "--url", &url], "");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["n1 is ready, all live members in view.", "\nn2", "\nn3", "ROUND TRIP", "No disagreements."] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn exit_codes_tell_who_cannot_be_reached_from_who_refuses() {
    let nobody = "127.0.0.1:1";
    for args in [
        &["cluster", "status", "--url", &format!("http://{nobody}")][..],
        &["pub", "a", "1", "--url", &format!("ws://{nobody}/")],
        &["sub", "a", "--url", &format!("ws://{nobody}/")],
    ] {
        let output = command(args, "");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), Some(3), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(nobody), "{told}");
    }
    let output = command(&["pub", "a", "1", "--url=wss://example.com/"], "");
    assert_eq!(code(&output), Some(2), "{output:?}");
    let demo = Demo::start();
    let url = demo.websocket(0);
    let output = command(&["pub", "a", "1", "--token=nonsense", "--url", &url], "");
    assert_eq!(code(&output), Some(4), "{output:?}");
    let output = command(&["pub", &"x".repeat(300), "1", "--url", &url], "");
    assert_eq!(code(&output), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("107"), "{output:?}");
}
