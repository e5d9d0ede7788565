//! `skein demo`: a cluster on this machine, to be looked at. Its nodes are child processes: `skein serve`, each with a
//! configuration of its own and a certificate of a CA that is never written down.
//!
//! One thread decides; the others wait for keys, for signals, for what the nodes say, and tell it. In reading order:
//! `ports` takes ports, `node` is one child, `look` asks the nodes what they see, `served` is what makes a node a node
//! of the demo: the page.
//!
//! Always true: the children end with the demo, however that ends, and so does the directory with their keys; that of a
//! demo that was killed goes with the next one.

mod look;
mod node;
mod ports;
mod served;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use super::cert::Authority;
use super::exit::Failure;
use super::terminal;
use crate::base::id::NodeId;
use crate::base::time::Instant;
use crate::shell::process::KeyMode;
use crate::shell::{clock, sys};
use look::Seen;
use node::{Common, Node, Scratch};
use ports::Prefer;
use served::Listed;

pub use served::of_environment;

/// From the start of the nodes until each has all others in view. A debug build on a busy machine is slow.
const TOGETHER_TIMEOUT: Duration = Duration::from_secs(60);
/// A node's own patience is shorter.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How often children are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How often the nodes are asked, while they are not together and afterwards.
const ASK_SOON: Duration = Duration::from_millis(100);
const ASK_LATER: Duration = Duration::from_secs(1);

/// Control and D: the end of input, as a key.
const END_OF_TRANSMISSION: u8 = 4;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub nodes: u16,
    /// Of each node.
    pub workers: u16,
    /// One line on standard output when all is up, no keys.
    pub json: bool,
}

enum Event {
    Key(u8),
    /// Standard input has ended.
    InputEnded,
    /// By its name.
    Signal(&'static str),
    /// In the order in which they were asked for; none of those that did not answer.
    Seen(Vec<(usize, Option<Seen>)>),
}

pub fn run(options: Options) -> Result<(), Failure> {
    // Before any thread: they inherit it.
    let signals = sys::signalfd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
        .map_err(|error| Failure::failed(format!("signals cannot be waited for: {error}")))?;
    let mut demo = Demo::prepare(options)?;
    let (tell, events) = mpsc::channel();
    spawn("signals", {
        let tell = tell.clone();
        move || wait_for_signals(&signals, &tell)
    })?;
    // Only a terminal has keys, and only for a reader of JSON does the end of input mean anything.
    let keys = (!demo.options.json && io::stdin().is_terminal()).then(|| KeyMode::enter(io::stdin())).transpose();
    let keys = keys.map_err(|error| Failure::failed(format!("the terminal gives no keys: {error}")))?;
    if demo.options.json || keys.is_some() {
        let tell = tell.clone();
        spawn("input", move || read_input(&tell))?;
    }
    let (ask, asked) = mpsc::channel();
    spawn("look", move || answer_questions(&asked, &tell))?;

    demo.takes_keys = keys.is_some();
    let outcome = demo.start().and_then(|()| demo.attend(&events, &ask));
    demo.stop(&events);
    drop(keys);
    outcome
}

struct Demo {
    options: Options,
    program: PathBuf,
    nodes: Vec<Node>,
    listed: Vec<Listed>,
    takes_keys: bool,
    /// What the nodes said last.
    seen: Vec<Option<Seen>>,
    /// The nodes that run have each other in view.
    together: bool,
    /// So far it was never so.
    fresh: bool,
    // Held as long as the nodes may run, and dropped behind them.
    _ports: ports::Ports,
    _scratch: Scratch,
}

impl Demo {
    fn prepare(options: Options) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("the demo does not find its own program: {error}")))?;
        let scratch = Scratch::make(&std::env::temp_dir(), &random_word()?)
            .map_err(|error| Failure::failed(format!("no directory for temporary files: {error}")))?;
        node::sweep(&scratch);
        let prefer = if options.json { Prefer::Any } else { Prefer::Usual };
        let random = |below: u64| OsRng.try_next_u64().unwrap_or(0) % below;
        let ports = ports::take(options.nodes, options.workers, prefer, random)
            .map_err(|error| Failure::failed(format!("there are not enough free ports: {error}")))?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let clients: Vec<String> = ports.clients.iter().map(address).collect();
        let meshes: Vec<String> = ports.meshes.iter().map(address).collect();
        let names: Vec<String> = (1..=clients.len()).map(|number| format!("n{number}")).collect();
        let listed: Vec<Listed> =
            names.iter().zip(&clients).map(|(n, c)| Listed { name: n.clone(), client: c.clone() }).collect();

        let authority = Authority::generate().map_err(Failure::failed)?;
        let common = Common {
            directory: scratch.path(),
            nodes: &listed,
            seeds: &meshes,
            workers: options.workers,
            log_level: if options.json { "info" } else { "warn" },
        };
        let mut nodes = Vec::new();
        for ((name, client), mesh) in names.into_iter().zip(clients).zip(meshes.iter().cloned()) {
            let id = NodeId::parse(&name).expect("a letter and a number");
            let bundle = authority.node(&id).map_err(Failure::failed)?;
            let node = Node::prepare(name, client, mesh, &bundle, &common)
                .map_err(|error| Failure::failed(format!("the nodes' files cannot be written: {error}")))?;
            nodes.push(node);
        }
        let seen = vec![None; nodes.len()];
        Ok(Demo {
            options,
            program,
            nodes,
            listed,
            takes_keys: false,
            seen,
            together: false,
            fresh: true,
            _ports: ports,
            _scratch: scratch,
        })
    }

    fn start(&mut self) -> Result<(), Failure> {
        for index in 0..self.nodes.len() {
            self.start_node(index)?;
        }
        if !self.options.json {
            terminal::print(&self.table())?;
        }
        Ok(())
    }

    fn start_node(&mut self, index: usize) -> Result<(), Failure> {
        let (token, nonce) = (random_word()?, random_word()?);
        let node = &mut self.nodes[index];
        node.start(&self.program, token, nonce, &self.listed)
            .map_err(|error| Failure::failed(format!("{} cannot be started: {error}", node.name)))
    }

    /// Until there is a reason to stop.
    fn attend(&mut self, events: &Receiver<Event>, ask: &Sender<Vec<(usize, String)>>) -> Result<(), Failure> {
        let began = clock::mono();
        let mut ask_at = began;
        let mut asked = false;
        loop {
            let now = clock::mono();
            self.bury()?;
            if self.fresh && now.since(began) > TOGETHER_TIMEOUT {
                let missing = look::missing(&self.running());
                return Err(Failure::failed(format!("the nodes did not find each other in a minute: {missing}")));
            }
            if !asked && now >= ask_at {
                let question = self.nodes.iter().enumerate().filter(|(_, node)| node.is_running());
                // The thread that answers lives as long as this one asks.
                let _ = ask.send(question.map(|(index, node)| (index, node.client.clone())).collect());
                asked = true;
            }
            match events.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the thread that looks holds a sender"),
                Ok(Event::Signal(name)) => {
                    tracing::debug!(name, "the demo was told to stop");
                    return Ok(());
                }
                Ok(Event::InputEnded) if self.options.json => return Ok(()),
                Ok(Event::InputEnded) => {}
                // What a script writes to us is no key.
                Ok(Event::Key(_)) if !self.takes_keys => {}
                Ok(Event::Key(b'q' | END_OF_TRANSMISSION)) => return Ok(()),
                Ok(Event::Key(key)) => self.on_key(key)?,
                Ok(Event::Seen(seen)) => {
                    self.on_seen(seen, began)?;
                    asked = false;
                    ask_at = clock::mono() + if self.together { ASK_LATER } else { ASK_SOON };
                }
            }
        }
    }

    /// Notices ends. While the nodes are not together yet, an end that nobody asked for is a failure.
    fn bury(&mut self) -> Result<(), Failure> {
        for index in 0..self.nodes.len() {
            let Some(manner) = self.nodes[index].poll_end() else { continue };
            let name = self.nodes[index].name.clone();
            self.seen[index] = None;
            self.together = false;
            if self.fresh && self.options.json {
                return Err(Failure::failed(format!("{name} ended before all nodes were together: {manner}")));
            }
            self.say(&format!(
                "{name} has ended: {manner}{}",
                if self.takes_keys { self.hint(index) } else { String::new() }
            ))?;
        }
        Ok(())
    }

    fn hint(&self, index: usize) -> String {
        format!(". Key {} starts it again", index + 1)
    }

    fn on_key(&mut self, key: u8) -> Result<(), Failure> {
        let index = usize::from(key.wrapping_sub(b'1'));
        match key {
            b'1'..=b'9' if index < self.nodes.len() => {
                if self.nodes[index].is_running() {
                    self.nodes[index].kill();
                } else {
                    self.start_node(index)?;
                    self.together = false;
                    self.say(&format!("{} starts again", self.nodes[index].name))?;
                }
                Ok(())
            }
            b's' | b'\n' => terminal::print(&self.table()),
            _ => Ok(()),
        }
    }

    fn on_seen(&mut self, seen: Vec<(usize, Option<Seen>)>, began: Instant) -> Result<(), Failure> {
        for (index, one) in seen {
            // One that ended while it was asked says nothing.
            self.seen[index] = one.filter(|_| self.nodes[index].is_running());
        }
        let running = self.running();
        let all = running.len() == self.nodes.len();
        let together = !running.is_empty() && look::is_complete(&running);
        if together == self.together || (self.fresh && !all) {
            return Ok(());
        }
        let names: Vec<&str> = running.iter().map(|(name, _)| *name).collect();
        let sentence = match names.as_slice() {
            [name] => format!("{name} is ready, alone"),
            names => format!("{} have each other in view", names.join(", ")),
        };
        self.together = together;
        if together && self.fresh {
            self.fresh = false;
            if self.options.json {
                return terminal::print(&self.json());
            }
            let took = clock::mono().since(began).as_secs_f64();
            return self.say(&format!("{sentence}, after {took:.1} s"));
        }
        if together { self.say(&sentence) } else { Ok(()) }
    }

    fn running(&self) -> Vec<(&str, Option<&Seen>)> {
        let running = self.nodes.iter().zip(&self.seen).filter(|(node, _)| node.is_running());
        running.map(|(node, seen)| (node.name.as_str(), seen.as_ref())).collect()
    }

    /// For a reader of JSON standard output is for the one line.
    fn say(&self, sentence: &str) -> Result<(), Failure> {
        if self.options.json {
            // A reader that does not want our standard error has closed it.
            let _ = writeln!(io::stderr(), "demo | {sentence}");
            return Ok(());
        }
        terminal::print(&format!("{sentence}.\n"))
    }

    fn table(&self) -> String {
        let mut text = String::from("\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let state = match node.pid() {
                Some(pid) => format!("pid {pid}"),
                None => "dead".to_owned(),
            };
            text +=
                &format!("  {}  {:<4} http://{}   mesh {}   {state}\n", index + 1, node.name, node.client, node.mesh);
        }
        let first = &self.nodes[0].client;
        text += &format!(
            "\nOpen one of these in a browser, and another in a second window.\n\
             Official SDKs connect to ws://{first}/connection/websocket, a backend posts to http://{first}/api/publish:\n\
             any channel, no token, no key.\n"
        );
        if self.takes_keys {
            let last = self.nodes.len();
            let keys = if last == 1 {
                "1 kills or starts n1".to_owned()
            } else {
                format!("1 to {last} kill and start a node")
            };
            text += &format!("\n{keys}, s shows this again, q quits.\n");
        }
        text + "\n"
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            nodes: Vec<Entry<'a>>,
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            name: &'a str,
            pid: Option<u32>,
            client: &'a str,
            mesh: &'a str,
        }
        let nodes = self.nodes.iter().map(|node| Entry {
            name: &node.name,
            pid: node.pid(),
            client: &node.client,
            mesh: &node.mesh,
        });
        let line = Line { nodes: nodes.collect() };
        serde_json::to_string(&line).expect("plain strings and numbers") + "\n"
    }

    /// In good order; a second signal, or the end of patience, is the end of it.
    fn stop(&mut self, events: &Receiver<Event>) {
        self.nodes.iter_mut().for_each(Node::terminate);
        let until = clock::mono() + STOP_TIMEOUT;
        while self.nodes.iter().any(Node::is_running) && clock::mono() < until {
            match events.recv_timeout(Duration::from_millis(10)) {
                Ok(Event::Signal(_)) => break,
                Ok(Event::Key(b'q')) if self.takes_keys => break,
                Ok(_) | Err(_) => {}
            }
            for node in &mut self.nodes {
                // How it ended does not matter any more.
                node.poll_end();
            }
        }
        self.nodes.iter_mut().for_each(Node::kill);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| Failure::failed(format!("a thread cannot be started: {error}")))
}

/// Ends when the receiver has gone, as all of these do.
fn wait_for_signals(signals: &std::os::fd::OwnedFd, tell: &Sender<Event>) {
    loop {
        let event = match sys::wait_readable(signals, None).and_then(|_| sys::next_signal(signals)) {
            Ok(libc::SIGTERM) => Event::Signal("SIGTERM"),
            Ok(libc::SIGHUP) => Event::Signal("SIGHUP"),
            Ok(_) => Event::Signal("SIGINT"),
            // Interrupted, or woken for nothing.
            Err(_) => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

fn read_input(tell: &Sender<Event>) {
    let mut byte = [0];
    loop {
        let event = match io::stdin().lock().read(&mut byte) {
            Ok(1..) => Event::Key(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => {
                // Nobody is left to tell when this fails.
                let _ = tell.send(Event::InputEnded);
                return;
            }
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

fn answer_questions(asked: &Receiver<Vec<(usize, String)>>, tell: &Sender<Event>) {
    while let Ok(question) = asked.recv() {
        let seen = question.into_iter().map(|(index, client)| (index, look::ask(&client))).collect();
        if tell.send(Event::Seen(seen)).is_err() {
            return;
        }
    }
}

/// 128 bits, in hexadecimal.
fn random_word() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| Failure::failed("the system gave no random bytes"))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
