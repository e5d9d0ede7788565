//! One worker: a thread with a runtime, a shard, and the order in which the shard is fed and flushed.
//!
//! A turn begins with the first input after a reap: whoever brings it wakes the flusher, which goes to the back of the run
//! queue and so runs when everybody whom the same reap made ready has fed the shard. Nothing is sent before.
//!
//! Always true: the shard is borrowed only inside closures that cannot await, and nothing in a flush calls back into it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::clock;
use super::deadlines::Deadlines;
use super::event::Event;
use super::listener::Doors;
use super::node::{Node, Notice};
use super::ready::{Breath, Ready, fairly};
use super::socket::{Hosting, Socket};
use super::sys;
use super::timer::Timer;
use super::wires::{Flushing, Wires};
use crate::base::id::WorkerIndex;
use crate::base::time::{Instant, Now};
use crate::limits::READ_BYTES_MAX;
use crate::metrics::Counters;
use crate::shard::Shard;
use crate::shard::outlet::{Answer, ConnectionKey, Finish, RequestKey};

/// Mail taken at once, before readers and the flusher get their turn.
const MAIL_BOUND: usize = 1024;
/// How long a peer may take to hang up after our half of the connection is closed.
const LINGER: Duration = Duration::from_secs(5);
/// How long a drained worker waits for clients to hang up, so that no close of ours overtakes its last bytes.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// A worker whose lanes had to wait for it so long reads what has come before it judges by the clock.
const OVERSLEPT: Duration = Duration::from_millis(50);
/// How often the worker says that it is alive, and measures its lanes.
const BEAT: Duration = Duration::from_secs(1);

pub struct Worker {
    pub index: WorkerIndex,
    pub node: Arc<Node>,
    pub hosting: Rc<Hosting>,
    pub breath: Breath,
    shard: RefCell<Shard>,
    wires: RefCell<Wires>,
    scratch: RefCell<Box<[u8]>>,
    turn: Cell<Option<Turn>>,
    flush_wanted: Event,
    lanes_wait: Event,
    timer: Timer,
    /// By the index of the connection's key.
    sockets: RefCell<Vec<Option<Rc<Socket>>>>,
    deadlines: RefCell<Deadlines>,
    next_beat: Cell<Instant>,
    /// Counted up to the last turn.
    deliveries: Cell<u64>,
    stopping: Cell<bool>,
    stop: Event,
}

#[derive(Clone, Copy)]
struct Turn {
    began: Instant,
    now: Now,
}

/// What became of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    Bytes,
    /// It was a false alarm.
    Nothing,
    /// The peer closed its half, or the connection is dead.
    Gone,
}

impl Worker {
    /// Within the runtime of its thread.
    pub fn new(
        index: WorkerIndex,
        node: Arc<Node>,
        hosting: Hosting,
        shard: Shard,
        wires: Wires,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Worker {
            index,
            node,
            hosting: Rc::new(hosting),
            breath: Breath::new()?,
            shard: RefCell::new(shard),
            wires: RefCell::new(wires),
            scratch: RefCell::new(vec![0; READ_BYTES_MAX].into_boxed_slice()),
            turn: Cell::new(None),
            flush_wanted: Event::default(),
            lanes_wait: Event::default(),
            timer: Timer::new()?,
            sockets: RefCell::default(),
            deadlines: RefCell::default(),
            next_beat: Cell::new(clock::mono()),
            deliveries: Cell::new(0),
            stopping: Cell::new(false),
            stop: Event::default(),
        }))
    }

    /// Serves until the node has stopped. An error comes before `on_open`, never after it.
    pub async fn run(
        self: &Rc<Self>,
        doors: Doors,
        shutdown_timeout: Duration,
        on_open: impl FnOnce(),
    ) -> io::Result<()> {
        let bell = Ready::new(self.node.mail.bell(self.index).descriptor()?)?;
        let udp = match self.wires.borrow().lanes.descriptor() {
            Some(socket) => Some(Rc::new(Ready::new(sys::duplicate(socket)?)?)),
            None => None,
        };
        // Tasks that never end: they go with the runtime, and nobody waits for them.
        drop(monoio::spawn(flusher(self.clone())));
        drop(monoio::spawn(inbox(self.clone(), bell)));
        drop(monoio::spawn(timekeeper(self.clone())));
        if let Some(udp) = udp {
            drop(monoio::spawn(lane_reader(self.clone(), udp.clone())));
            drop(monoio::spawn(lane_writer(self.clone(), udp)));
        }
        let doors = doors.open(self)?;
        on_open();
        // What the shard wants from the start on, and whether it is ready.
        self.turn();
        self.stop.wait().await;
        doors.close();
        self.drain(shutdown_timeout).await;
        Ok(())
    }

    // ---- the shard

    /// Feeds the shard. The first input of a turn wakes the flusher.
    pub fn with<R>(&self, feed: impl FnOnce(&mut Shard, Now) -> R) -> R {
        let now = self.turn().now;
        feed(&mut self.shard.borrow_mut(), now)
    }

    /// The turn that is under way, or a new one.
    fn turn(&self) -> Turn {
        self.turn.get().unwrap_or_else(|| {
            let now = clock::now();
            let turn = Turn { began: now.mono, now };
            self.turn.set(Some(turn));
            self.flush_wanted.set();
            turn
        })
    }

    pub fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(self.shard.borrow_mut().counters_mut());
    }

    /// Whether a client may come in.
    pub fn may_open(&self) -> bool {
        !self.stopping.get() && self.shard.borrow().is_ready()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    // ---- sockets

    /// Feeds what a WebSocket has, at most one buffer of it.
    pub fn receive(self: &Rc<Self>, socket: &Socket, connection: ConnectionKey) -> Received {
        self.make_room();
        let mut scratch = self.scratch.borrow_mut();
        let result = sys::recv(socket.descriptor(), &mut scratch);
        received(result, |length| self.with(|shard, now| shard.on_bytes(now, connection, &mut scratch[..length])))
    }

    /// Lends what a socket has, at most `bound` bytes.
    pub fn lend_received(&self, socket: &Socket, bound: usize, take: impl FnOnce(&[u8])) -> Received {
        let mut scratch = self.scratch.borrow_mut();
        let result = sys::recv(socket.descriptor(), &mut scratch[..bound]);
        received(result, |length| take(&scratch[..length]))
    }

    /// From now on the shard's wishes for the connection reach the socket.
    pub fn attach(&self, connection: ConnectionKey, socket: &Rc<Socket>) {
        let mut sockets = self.sockets.borrow_mut();
        let index = connection.index as usize;
        if sockets.len() <= index {
            sockets.resize(index + 1, None);
        }
        let before = sockets[index].replace(socket.clone());
        assert!(before.is_none(), "a connection's place is free again only after it was detached");
        socket.connection.set(Some(connection));
        socket.deadline.set(None);
    }

    /// The connection is over for the shard. Its socket is closed when its task drops it.
    pub fn detach(&self, connection: ConnectionKey) {
        self.sockets.borrow_mut()[connection.index as usize] = None;
        self.with(|shard, now| shard.on_hangup(now, connection));
    }

    fn socket(&self, connection: ConnectionKey) -> Option<Rc<Socket>> {
        let sockets = self.sockets.borrow();
        let socket = sockets.get(connection.index as usize)?.as_ref()?;
        (socket.connection.get() == Some(connection)).then(|| socket.clone())
    }

    fn has_sockets(&self) -> bool {
        self.sockets.borrow().iter().any(Option::is_some)
    }

    pub fn set_deadline(&self, socket: &Rc<Socket>, after: Duration) {
        let at = self.turn.get().map_or_else(clock::mono, |turn| turn.now.mono) + after;
        self.deadlines.borrow_mut().set(socket, at);
        self.timer.at_latest(at);
    }

    // ---- requests over HTTP

    pub fn ask(&self) -> RequestKey {
        self.wires.borrow_mut().requests.ask()
    }

    /// The shard's answer. To be awaited to the end: a request that is given up would keep its place.
    pub async fn answer(&self, key: RequestKey) -> Answer {
        poll_fn(|cx| match self.wires.borrow_mut().requests.poll(key, cx.waker()) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        })
        .await
    }

    // ---- the turn

    /// Flushes when the shard has as much to send as it may.
    fn make_room(self: &Rc<Self>) {
        if self.shard.borrow().is_full() {
            self.flush();
        }
    }

    fn flush(self: &Rc<Self>) {
        let began = self.turn.take().map(|turn| turn.began);
        let mut wires = self.wires.borrow_mut();
        let mut shard = self.shard.borrow_mut();
        let now = clock::now();
        shard.flush(now, &mut Flushing { wires: &mut wires, node: &self.node, from: self.index, now: now.mono });
        if let Some(began) = began {
            self.count_turn(shard.counters_mut(), clock::mono().since(began));
        }
        if self.index == 0 {
            self.node.set_ready(shard.is_ready());
            if let Some(why) = shard.fatal() {
                self.node.fail(why);
            }
        }
        if let Some(next) = earlier(shard.poll_deadline(), wires.lanes.poll_timeout()) {
            self.timer.at_latest(next);
        }
        if wires.lanes.wants_write() {
            self.lanes_wait.set();
        }
        let finished = std::mem::take(&mut wires.finished);
        let full = wires.sender.take_full();
        drop((wires, shard));

        for (connection, how) in finished {
            let Some(socket) = self.socket(connection) else { continue };
            match how {
                Finish::HalfClose => {
                    socket.half_close();
                    self.set_deadline(&socket, LINGER);
                }
                Finish::Abort => socket.abort(),
            }
        }
        for connection in full {
            let Some(socket) = self.socket(connection) else { continue };
            drop(monoio::spawn(wait_for_room(self.clone(), socket, connection)));
        }
        self.hear_lanes();
    }

    /// A delivery counts from the begin of its turn, so the figure is a little more than the truth.
    fn count_turn(&self, counters: &mut Counters, length: Duration) {
        let micros = length.as_micros() as u64;
        counters.turn.observe(micros);
        let delivered = counters.deliveries - self.deliveries.replace(counters.deliveries);
        counters.latency.observe_many(micros, delivered);
    }

    /// Feeds what has happened on the lanes.
    fn hear_lanes(self: &Rc<Self>) {
        loop {
            let Some(happening) = self.wires.borrow_mut().lanes.poll_happening() else { return };
            self.with(|shard, now| happening.tell(shard, now));
        }
    }

    /// Whether more is left.
    fn collect_mail(self: &Rc<Self>) -> bool {
        self.node.mail.collect(self.index, MAIL_BOUND, |from, mail| {
            self.with(|shard, now| shard.on_mail(now, from, mail));
        })
    }

    fn read_notices(&self) {
        while let Some(notice) = self.node.next_notice(self.index) {
            match notice {
                Notice::Shutdown => self.stop.set(),
                Notice::Seeds(addresses) => self.with(|shard, now| shard.on_seeds(now, &addresses)),
            }
        }
    }

    fn on_datagrams(self: &Rc<Self>) {
        self.make_room();
        let now = self.turn().now;
        // Whether more is left shows when the socket is waited for again.
        let _more = self.wires.borrow_mut().lanes.on_readable(now.mono);
        self.hear_lanes();
    }

    // ---- time

    /// Does what is due, and gives the time when something will be.
    fn on_time(self: &Rc<Self>) -> Instant {
        let now = clock::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        let overslept = |at: Option<Instant>| at.is_some_and(|at| at + OVERSLEPT <= now.mono);
        if is_due(self.shard.borrow().poll_deadline()) || overslept(self.wires.borrow().lanes.poll_timeout()) {
            // A peer whose answer came while this worker was busy, or not running at all, is neither late nor silent.
            self.on_datagrams();
        }
        if is_due(self.shard.borrow().poll_deadline()) {
            // Not the turn's own time, which may be before the deadline.
            let began = self.turn().began;
            self.turn.set(Some(Turn { began, now }));
            self.shard.borrow_mut().on_deadline(now);
        }
        if is_due(self.wires.borrow().lanes.poll_timeout()) {
            self.turn();
            self.wires.borrow_mut().lanes.on_timeout(now.mono);
            self.hear_lanes();
        }
        loop {
            let late = self.deadlines.borrow_mut().pop(now.mono);
            let Some(socket) = late else { break };
            socket.on_late();
        }
        if self.next_beat.get() <= now.mono {
            self.next_beat.set(now.mono + BEAT);
            self.node.beat(self.index);
            let mut shard = self.shard.borrow_mut();
            let lanes = &mut self.wires.borrow_mut().lanes;
            for (lane, stats) in lanes.stats() {
                shard.on_lane_stats(lane, stats);
            }
            for (why, count) in lanes.refusals() {
                shard.counters_mut().mesh_refused_often(why, count);
            }
        }
        let shard = self.shard.borrow().poll_deadline();
        let lanes = self.wires.borrow().lanes.poll_timeout();
        let sockets = self.deadlines.borrow().next();
        let next = earlier(earlier(shard, lanes), sockets);
        next.map_or(self.next_beat.get(), |next| next.min(self.next_beat.get()))
    }

    // ---- the end

    async fn drain(self: &Rc<Self>, timeout: Duration) {
        self.stopping.set(true);
        self.with(|shard, now| shard.on_shutdown(now));
        let give_up = clock::mono() + timeout;
        let mut drained = false;
        // The others' last mail may need this worker, so it stays until all are done.
        while !self.node.are_all_drained() && clock::mono() < give_up {
            if !drained && self.is_drained() {
                drained = true;
                self.node.add_drained();
            }
            monoio::time::sleep(DRAIN_LOOK).await;
        }
        if !drained {
            tracing::warn!(worker = self.index, "stopped with something left to send");
        }
        let give_up = clock::mono() + FAREWELL_MAX;
        while self.has_sockets() && clock::mono() < give_up {
            monoio::time::sleep(DRAIN_LOOK).await;
        }
    }

    fn is_drained(&self) -> bool {
        self.shard.borrow().is_drained() && self.wires.borrow().requests.is_empty()
    }
}

fn received(result: io::Result<usize>, take: impl FnOnce(usize)) -> Received {
    match result {
        Ok(0) => Received::Gone,
        Ok(length) => {
            take(length);
            Received::Bytes
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Received::Nothing
        }
        Err(_) => Received::Gone,
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

// ---- tasks

async fn flusher(worker: Rc<Worker>) {
    loop {
        worker.flush_wanted.wait().await;
        // What is there already leaves with this turn. The rest has woken the inbox.
        let _more = worker.collect_mail();
        worker.flush();
        if worker.flush_wanted.is_set() {
            // The flush itself brought news. A worker that only answers itself would hear nobody else.
            worker.breath.take().await;
        }
    }
}

async fn inbox(worker: Rc<Worker>, bell: Ready) {
    loop {
        worker.read_notices();
        worker.make_room();
        if worker.collect_mail() {
            worker.breath.take().await;
            continue;
        }
        let node = &worker.node;
        let handle = node.mail.bell(worker.index);
        if handle.try_sleep(|| node.has_nothing_for(worker.index)) {
            // It is a descriptor of our own; if the kernel does not wait for it, the worker would be deaf.
            bell.readable().await.expect("an eventfd can be waited for");
            handle.wake_up();
        }
    }
}

async fn timekeeper(worker: Rc<Worker>) {
    loop {
        let next = worker.on_time();
        worker.timer.at_latest(next);
        worker.timer.fired().await.expect("a timer can be waited for");
    }
}

async fn lane_reader(worker: Rc<Worker>, udp: Rc<Ready>) {
    loop {
        // Waiting again, even when more is left, lets everybody else have their turn in between.
        fairly(&worker.breath, udp.readable()).await.expect("a UDP socket can be waited for");
        worker.on_datagrams();
    }
}

async fn lane_writer(worker: Rc<Worker>, udp: Rc<Ready>) {
    loop {
        worker.lanes_wait.wait().await;
        fairly(&worker.breath, udp.writable()).await.expect("a UDP socket can be waited for");
        // A flush of the lanes is part of each.
        worker.turn();
    }
}

/// A socket that did not take everything: the shard goes on with it when it has room.
async fn wait_for_room(worker: Rc<Worker>, socket: Rc<Socket>, connection: ConnectionKey) {
    // An error is seen by its reader, too, which hangs up.
    if socket.writable().await.is_ok() {
        worker.with(|shard, now| shard.on_writable(now, connection));
    }
}
