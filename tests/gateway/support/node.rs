//! A node: the real binary as a child process, its log, its counters, its end.
//!
//! Always true: the process does not outlive its handle, and its log is shown when the test fails.

use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Encoding, Http, PATIENCE, Socket, eventually};

pub struct Node {
    child: Child,
    log: Log,
    pub address: SocketAddr,
    pub internal: Option<SocketAddr>,
}

/// A process that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
}

impl Node {
    /// Open to everybody: without configuration.
    pub fn open() -> Self {
        Node::start(&[])
    }

    /// With these options besides where it listens and how it runs.
    pub fn start(options: &[&str]) -> Self {
        match Node::try_start(options) {
            Ok(node) => node,
            Err(ended) => panic!("the node did not start, code {:?}:\n{}", ended.code, ended.log),
        }
    }

    pub fn try_start(options: &[&str]) -> Result<Self, Ended> {
        Node::try_start_at(0, options)
    }

    /// A test that asks for a driver, for workers or for pinning gets what it asks for.
    pub fn try_start_at(port: u16, options: &[&str]) -> Result<Self, Ended> {
        let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let mut arguments = vec!["serve".to_owned(), format!("--port={port}"), "--log.format=json".to_owned()];
        arguments.extend(options.iter().map(ToString::to_string));
        for (option, value) in [
            ("--driver", variable("SKEIN_TEST_DRIVER", "auto")),
            ("--workers", variable("SKEIN_TEST_WORKERS", "1")),
            // Tests run side by side: all their nodes on one core would only slow each other down.
            ("--node.pin", "false".to_owned()),
        ] {
            if !options.iter().any(|given| given.starts_with(option)) {
                arguments.push(format!("{option}={value}"));
            }
        }
        Node::try_run(&arguments)
    }

    fn try_run(arguments: &[String]) -> Result<Self, Ended> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SKEIN_") {
                command.env_remove(name);
            }
        }
        let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built");
        let log = Log::follow(child.stderr.take().expect("piped"));
        let Some(listening) = log.wait_for(|line| line["message"] == "listening") else {
            let status = child.wait().expect("it is our child");
            return Err(Ended { code: status.code(), log: log.text() });
        };
        let address = |name: &str| listening[name].as_str().map(|text| text.parse().expect("an address"));
        let (client, internal) = (address("client").expect("it serves clients"), address("internal"));
        Ok(Node { child, log, address: client, internal })
    }

    // ---- clients

    /// A WebSocket that has said nothing yet.
    pub fn client(&self, encoding: Encoding) -> Client {
        Client::open(self.address, encoding)
    }

    /// One that is connected, as nobody in particular.
    pub fn connected(&self, encoding: Encoding) -> Client {
        let mut client = self.client(encoding);
        client.connect("");
        client
    }

    /// A plain TCP connection.
    pub fn socket(&self) -> Socket {
        Socket::open(self.address)
    }

    pub fn http(&self) -> Http {
        Http::open(self.address)
    }

    // ---- what it is

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its counters, from wherever they are served.
    pub fn metrics(&self) -> Metrics {
        let response = Http::open(self.internal.unwrap_or(self.address)).get("/metrics");
        assert_eq!(response.status, 200);
        Metrics(response.text().to_owned())
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process has it");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Nobody is connected any more, and everything that clients brought along is gone.
    pub fn is_clean(&self, files: usize) {
        eventually("no connection is left", || self.metrics().get("skein_connections") == 0);
        let metrics = self.metrics();
        for name in ["skein_sessions", "skein_users", "skein_subscriptions", "skein_channels"] {
            assert_eq!(metrics.get(name), 0, "{name}");
        }
        eventually("no file is left open", || self.open_files() <= files);
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    // ---- its end

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    pub fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Some(status);
            }
            if begin.elapsed() > time {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it as an operator would, and says that all went well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended_within(PATIENCE).expect("it stops");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already: that is as good.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of node {}:\n{}", self.address, self.log.text());
        }
    }
}

/// A scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over all lines of that name.
    pub fn get(&self, name: &str) -> u64 {
        self.labelled(name, "")
    }

    /// Of the lines with that label, as `code="3501"`.
    pub fn labelled(&self, name: &str, label: &str) -> u64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
        lines.filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value.parse::<u64>().expect("whole")).sum()
    }
}

/// What the node said, line by line, read by a thread of its own.
#[derive(Clone)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(from: impl std::io::Read + Send + 'static) -> Self {
        let log = Log(Arc::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            let (lines, news) = &*writer.0;
            for line in BufReader::new(from).lines() {
                let line = line.unwrap_or_else(|error| format!("the log cannot be read: {error}"));
                lines.lock().expect("nobody panics with it").lines.push(line);
                news.notify_all();
            }
            lines.lock().expect("nobody panics with it").ended = true;
            news.notify_all();
        });
        log
    }

    /// The first line that is the wished one, or nothing when the log has ended without it.
    fn wait_for(&self, wished: impl Fn(&Value) -> bool) -> Option<Value> {
        let (lines, news) = &*self.0;
        let mut at = 0;
        let mut guard = lines.lock().expect("nobody panics with it");
        loop {
            while let Some(line) = guard.lines.get(at) {
                at += 1;
                if let Ok(line) = serde_json::from_str(line)
                    && wished(&line)
                {
                    return Some(line);
                }
            }
            if guard.ended {
                return None;
            }
            let (next, waited) = news.wait_timeout(guard, PATIENCE).expect("nobody panics with it");
            assert!(!waited.timed_out(), "the node says nothing");
            guard = next;
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.0.0.lock().expect("nobody panics with it").lines {
            writeln!(text, "    {line}").expect("a String takes everything");
        }
        text
    }
}
