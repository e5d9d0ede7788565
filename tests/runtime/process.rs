//! A node as a process of its own, on loopback, in a directory of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use skein::shell::clock;

const SKEIN: &str = env!("CARGO_BIN_EXE_skein");

pub struct Process {
    child: Child,
    directory: PathBuf,
    pub port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: the test's own verdict counts.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

impl Process {
    /// `skein serve` with one worker and these arguments, when it is ready.
    pub fn start(arguments: &[&str]) -> Process {
        Process::start_after(&[], arguments)
    }

    /// The same, in a directory where these commands have run.
    pub fn start_after(commands: &[&[&str]], arguments: &[&str]) -> Process {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("skein-runtime-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for arguments in commands {
            let made = Command::new(SKEIN).args(*arguments).current_dir(&directory).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        // Free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(SKEIN)
            .args(["serve", "--node.workers", "1", "--http_server.address", "127.0.0.1"])
            .args(["--http_server.port", &port.to_string()])
            .args(arguments)
            .current_dir(&directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("run: ready"));
        // Its later lines go nowhere, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let process = Process { child, directory, port };
        assert!(ready, "it did not start");
        process
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn websocket(&self) -> TcpStream {
        let mut stream = self.connect();
        let request = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.port
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        stream
    }

    pub fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for its end, at most so long.
    pub fn ended_within(&mut self, bound: Duration) -> ExitStatus {
        let start = clock::mono();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(clock::mono().since(start) < bound, "it did not end in {bound:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}
