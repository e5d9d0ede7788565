//! One node: its command line, its process, its log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use skein::shell::process;

use super::{BINARY, Status, eventually, http, path};

pub struct Setup {
    pub name: String,
    pub client: SocketAddr,
    pub mesh: SocketAddr,
    pub workers: u16,
    pub bundle: PathBuf,
    pub seeds: Vec<String>,
    pub flags: Vec<String>,
    pub directory: PathBuf,
}

pub struct Node {
    pub name: String,
    pub client: SocketAddr,
    pub mesh: SocketAddr,
    pub workers: u16,
    pub seeds: Vec<String>,
    pub flags: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub fn prepare(setup: Setup) -> Node {
        let Setup { name, client, mesh, workers, bundle, seeds, flags: more, directory } = setup;
        let level = std::env::var("SKEIN_CLUSTER_LOG").unwrap_or("info".into());
        let mut flags = vec![
            format!("--node.name={name}"),
            format!("--node.workers={workers}"),
            // Several nodes share the machine.
            "--node.pin=false".into(),
            format!("--http_server.address={}", client.ip()),
            format!("--http_server.port={}", client.port()),
            "--client.insecure=true".into(),
            "--http_api.insecure=true".into(),
            format!("--mesh.bundle={}", path(&bundle)),
            format!("--mesh.listen={mesh}"),
            format!("--log.level={level}"),
        ];
        flags.extend(more);
        let log = directory.join(format!("{name}.log"));
        Node { name, client, mesh, workers, seeds, flags, log, child: None }
    }

    /// Does not wait until it is ready.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(BINARY);
        command.arg("serve").args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if !self.seeds.is_empty() {
            command.arg(format!("--mesh.seeds={}", self.seeds.join(",")));
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SKEIN_") {
                command.env_remove(name);
            }
        }
        process::die_with_parent(&mut command);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is there");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// As by the power switch.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
    }

    /// After it was told to stop.
    pub fn wait(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let mut status = None;
        eventually(within, &format!("{} has ended", self.name), || {
            status = self.child.as_mut().expect("it runs").try_wait().expect("it is ours");
            status.is_some()
        });
        self.child = None;
        (status.expect("it has ended"), began.elapsed())
    }

    pub fn status(&self) -> Option<Status> {
        Status::of(self.client)
    }

    pub fn metric(&self, series: &str) -> f64 {
        self.try_metric(series).unwrap_or_else(|| panic!("{} has no metric {series}", self.name))
    }

    /// `series`: a name and, if it matters, labels, as `name{reason="x"`. Those that begin so are added up.
    pub fn try_metric(&self, series: &str) -> Option<f64> {
        let (status, text) = http::get(self.client, "/metrics").ok()?;
        assert_eq!(status, 200);
        let (name, label) = series.split_once('{').unwrap_or((series, ""));
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        let values: Vec<f64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().expect("a number")).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Resident bytes.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().expect("a number") * 1024
    }

    pub fn log_text(&self) -> String {
        let mut text = Vec::new();
        // A node that was never started has no log.
        let _: io::Result<usize> = File::open(&self.log).and_then(|mut log| log.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    pub fn log_end(&self, lines: usize) -> String {
        let text = self.log_text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Nobody outlives the test.
impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
