//! `skein demo` from outside: the real binary, its nodes, their page, and how it all ends.
//!
//! The page itself is tried in a real browser by `tests/demo/page.mjs`, which `tests/demo/run` installs what it needs for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;

/// A debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Line {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    pid: u32,
    client: String,
    mesh: String,
}

struct Demo {
    process: Child,
    nodes: Vec<Node>,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let mut process = Command::new(env!("CARGO_BIN_EXE_skein"))
            .args(["demo", "--json"])
            .args(args)
            // What is meant for nodes must not reach these.
            .env("SKEIN_HTTP_SERVER_PORT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let line = within(PATIENCE, move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| line)
        });
        let line: Line = serde_json::from_str(&line.expect("readable")).expect("one line of JSON");
        Demo { process, nodes: line.nodes }
    }

    fn end(mut self) -> ExitStatus {
        drop(self.process.stdin.take());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the demo has ended", || self.process.try_wait().expect("our child")).expect("just seen")
    }
}

/// The last line of defence: no test leaves processes behind, and the nodes die with the demo.
impl Drop for Demo {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(patience).expect("done in time")
}

#[expect(clippy::disallowed_methods, reason = "a test outside of the system waits for it by the clock")]
fn wait_until<T>(what: &str, mut happened: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Some(value) = happened() {
            return Some(value);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain until {what}");
}

fn is_alive(pid: u32) -> bool {
    // A dead child that nobody has waited for yet is no process any more, for us.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn request(client: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(client).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{request}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn get(client: &str, path: &str) -> String {
    request(client, &format!("GET {path} HTTP/1.1\r\nHost: {client}\r\nConnection: close")).expect("an answer")
}

#[test]
fn one_line_tells_of_nodes_that_have_each_other_in_view_and_the_end_of_input_ends_them() {
    let demo = Demo::start(&["--nodes", "3", "--workers", "2"]);
    let names: Vec<&str> = demo.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    for node in &demo.nodes {
        assert!(is_alive(node.pid));
        assert!(node.mesh.starts_with("127.0.0.1:"));
        assert!(get(&node.client, "/ready").starts_with("HTTP/1.1 200 "), "{}", node.name);
        let cluster = get(&node.client, "/cluster");
        let status: serde_json::Value = serde_json::from_str(cluster.split_once("\r\n\r\n").unwrap().1).unwrap();
        let members = status["members"].as_array().unwrap();
        assert_eq!(members.len(), 2, "{cluster}");
        assert!(members.iter().all(|member| member["in_view"] == true), "{cluster}");
        assert_eq!(status["workers"], 2);
    }
    let pids: Vec<u32> = demo.nodes.iter().map(|node| node.pid).collect();
    let status = demo.end();
    assert_eq!(status.code(), Some(0));
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
}

#[test]
fn the_page_kills_its_node_with_the_token_and_only_with_it() {
    let demo = Demo::start(&["--nodes", "2"]);
    let [first, second] = demo.nodes.as_slice() else { panic!("two nodes") };
    let page = get(&first.client, "/");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("\r\nContent-Security-Policy: default-src 'none'; "));
    let answer = get(&first.client, "/demo/nodes");
    let listed: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(listed[0]["client"], first.client.as_str());
    assert_eq!(listed[1]["client"], second.client.as_str());
    assert!(listed[1]["token"].is_null(), "another node's token");
    let token = listed[0]["token"].as_str().unwrap();
    assert!(!page.contains(token));

    let kill = |client: &str, token: &str| {
        request(
            client,
            &format!(
                "POST /demo/kill?token={token} HTTP/1.1\r\nHost: {client}\r\nContent-Length: 0\r\nConnection: close"
            ),
        )
    };
    for (client, token) in [(&first.client, "0"), (&first.client, ""), (&second.client, token)] {
        assert!(kill(client, token).unwrap().starts_with("HTTP/1.1 403 "));
    }
    assert!(is_alive(first.pid) && is_alive(second.pid));
    kill(&first.client, token);
    wait_until("the node is dead", || (!is_alive(first.pid)).then_some(()));
    assert!(get(&second.client, "/health").starts_with("HTTP/1.1 200 "));
    assert_eq!(demo.end().code(), Some(0));
}

#[test]
fn a_signal_ends_the_demo_in_good_order() {
    let mut demo = Demo::start(&["--nodes", "1"]);
    let killed = Command::new("kill").args(["-TERM", &demo.process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(demo.wait().code(), Some(0));
    assert!(!is_alive(demo.nodes[0].pid));
}

#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed() {
    let mut demo = Demo::start(&["--nodes", "2"]);
    demo.process.kill().unwrap();
    assert_eq!(demo.wait().signal(), Some(9));
    for node in &demo.nodes {
        wait_until("the node is dead", || (!is_alive(node.pid)).then_some(()));
    }
}

#[test]
#[ignore = "needs Node.js and Chromium: tests/demo/run has them"]
fn the_board_goes_on_in_a_real_browser_when_a_node_is_killed() {
    let demo = Demo::start(&["--nodes", "3"]);
    let clients: Vec<&str> = demo.nodes.iter().map(|node| node.client.as_str()).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/page.mjs");
    let status = Command::new("node").arg(script).args(&clients).status().expect("Node.js starts");
    assert!(status.success(), "what failed is said above");
    wait_until("the node is dead", || (!is_alive(demo.nodes[1].pid)).then_some(()));
    assert!(is_alive(demo.nodes[0].pid) && is_alive(demo.nodes[2].pid));
    assert_eq!(demo.end().code(), Some(0));
}
