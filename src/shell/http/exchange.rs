//! One connection's requests, one after the other: bytes in, steps out, answers back in.
//!
//! Pipelined requests are carried out in order and each answer is written before the next request is looked at, so
//! neither input nor output grows: the task reads only when told to.

use super::body::{BodyError, BodyReader};
use super::response::{Framing, Response, write};
use super::route::{Call, Demo, Listener, Options, Route, route};
use crate::metrics::RefusalReason;
use crate::ws::upgrade::{self, Body, Head, HeadError, Parse, Upgrade, parse_head};

const JSON: &str = "application/json";

/// What the task does next; then it polls again.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// Read, then `on_bytes`.
    Read,
    /// Write all of it. With a reason it is a refusal, to be counted.
    Write(Vec<u8>, Option<RefusalReason>),
    /// Carry it out with this body, then `on_answer`.
    Call(Call, Vec<u8>),
    /// From here on it is a WebSocket, and what was read behind the request is in `into_rest`. The text is that of the
    /// header which holds the client's address, if that was asked for.
    Upgrade(Upgrade, Option<String>),
    /// Nothing more comes. Half-close, so that what was written arrives.
    Close,
}

/// What is waited for: each has its own patience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// In the middle of a head.
    Head,
    Body,
    /// For whoever answers.
    Answer,
    Done,
}

#[derive(Debug)]
pub struct Exchange {
    listener: Listener,
    input: Vec<u8>,
    output: Vec<u8>,
    refusal: Option<RefusalReason>,
    stopping: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Body { call: Call, reader: BodyReader, framing: Framing },
    Answer(Framing),
    Upgraded,
    Closing,
}

/// What a head alone decides.
enum Decision<'o> {
    Upgrade(Upgrade, Option<String>),
    Call { call: Call, waits: bool },
    Respond(Response<'o>, Option<RefusalReason>),
}

impl Exchange {
    pub fn new(listener: Listener) -> Self {
        Exchange { listener, input: Vec::new(), output: Vec::new(), refusal: None, stopping: false, state: State::Head }
    }

    /// What one read brought. Only after `Step::Read`, so that at most one read is held beside a partial head.
    pub fn on_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub fn poll(&mut self, options: &Options) -> Step {
        loop {
            if !self.output.is_empty() {
                return Step::Write(std::mem::take(&mut self.output), self.refusal.take());
            }
            let step = match self.state {
                State::Head => self.poll_head(options),
                State::Body { .. } => self.poll_body(),
                // The task has the word: it owes an answer, or has the socket.
                State::Answer(_) | State::Upgraded => return Step::Read,
                State::Closing => return Step::Close,
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// The answer to the last `Step::Call`.
    pub fn on_answer(&mut self, status: u16, content_type: &str, body: &[u8]) {
        let State::Answer(framing) = self.state else { panic!("an answer without a call") };
        self.respond(&Response { status, content_type, body: body.into(), extra: Vec::new() }, framing);
    }

    /// The task's patience is over. A client in the middle of a request is told.
    pub fn on_timeout(&mut self) {
        match self.phase() {
            Phase::Head | Phase::Body => {
                self.refuse(408, "The request did not come in time.", RefusalReason::Timeout);
            }
            Phase::Idle | Phase::Answer | Phase::Done => self.state = State::Closing,
        }
    }

    /// The node stops: the request at hand is the last one.
    pub fn on_shutdown(&mut self) {
        self.stopping = true;
        if self.phase() == Phase::Idle {
            self.state = State::Closing;
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.input.is_empty() => Phase::Idle,
            State::Head => Phase::Head,
            State::Body { .. } => Phase::Body,
            State::Answer(_) => Phase::Answer,
            State::Upgraded | State::Closing => Phase::Done,
        }
    }

    /// What was read behind the upgrade request: the first frames.
    pub fn into_rest(self) -> Vec<u8> {
        self.input
    }

    fn poll_head(&mut self, options: &Options) -> Option<Step> {
        let (decision, framing, body, head_bytes) = match parse_head(&self.input) {
            Ok(Parse::Incomplete) => return Some(Step::Read),
            Ok(Parse::Complete(head, bytes)) => {
                (decide(&head, options, self.listener), Framing::of(&head), head.body, bytes)
            }
            Err(error) => {
                let why = match error {
                    HeadError::TooLarge => RefusalReason::TooLarge,
                    _ => RefusalReason::BadRequest,
                };
                self.refuse(error.status(), error.text(), why);
                return None;
            }
        };
        self.input.drain(..head_bytes);
        match decision {
            Decision::Upgrade(upgrade, address) => {
                self.state = State::Upgraded;
                return Some(Step::Upgrade(upgrade, address));
            }
            Decision::Call { call, waits } => match BodyReader::new(body, options.body_bytes_max) {
                Ok(reader) => {
                    // Who has begun to send waits no more.
                    if waits && self.input.is_empty() {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.state = State::Body { call, reader, framing };
                }
                Err(error) => self.refuse_body(error),
            },
            Decision::Respond(response, refusal) => {
                self.refusal = refusal;
                // A body that nobody reads hides where the next request begins.
                self.respond(&response, Framing { keep_alive: framing.keep_alive && body == Body::None, ..framing });
            }
        }
        None
    }

    fn poll_body(&mut self) -> Option<Step> {
        let State::Body { reader, .. } = &mut self.state else { unreachable!("polled in this state only") };
        match reader.take(&self.input) {
            Ok(taken) => {
                self.input.drain(..taken);
            }
            Err(error) => {
                self.refuse_body(error);
                return None;
            }
        }
        if !reader.is_done() {
            return Some(Step::Read);
        }
        let State::Body { call, reader, framing } = std::mem::replace(&mut self.state, State::Closing) else {
            unreachable!("matched above")
        };
        self.state = State::Answer(framing);
        Some(Step::Call(call, reader.into_bytes()))
    }

    fn refuse_body(&mut self, error: BodyError) {
        match error {
            BodyError::TooLarge => self.refuse(413, "The request body is too large.", RefusalReason::TooLarge),
            BodyError::Chunk => self.refuse(400, "The chunks of the body are malformed.", RefusalReason::BadRequest),
        }
    }

    /// For a request of which nobody knows where it ends.
    fn refuse(&mut self, status: u16, sentence: &str, why: RefusalReason) {
        self.refusal = Some(why);
        self.respond(&Response::sentence(status, sentence), Framing::LAST);
    }

    fn respond(&mut self, response: &Response<'_>, framing: Framing) {
        let framing = Framing { keep_alive: framing.keep_alive && !self.stopping, ..framing };
        write(response, framing, &mut self.output);
        self.state = if framing.keep_alive { State::Head } else { State::Closing };
        if !framing.keep_alive || self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = Vec::new();
        }
    }
}

fn decide<'o>(head: &Head<'_>, options: &'o Options, listener: Listener) -> Decision<'o> {
    match route(head, options, listener) {
        Route::Call(call) => Decision::Call { call, waits: head.expect_continue && head.body != Body::None },
        Route::WebSocket => match upgrade::check(head, &options.origins) {
            Ok(upgrade) => {
                Decision::Upgrade(upgrade, options.address_header.as_deref().and_then(|name| list(head, name)))
            }
            Err(refusal) => {
                let why = match refusal {
                    upgrade::Refusal::Origin => RefusalReason::Origin,
                    upgrade::Refusal::Method => RefusalReason::Method,
                    _ => RefusalReason::BadRequest,
                };
                let mut response = Response::sentence(refusal.status(), refusal.text());
                response.extra.extend(refusal.headers().iter().map(|&(name, value)| (name, value.into())));
                Decision::Respond(response, Some(why))
            }
        },
        Route::Health => Decision::Respond(Response::new(200, JSON, b"{}"), None),
        Route::Page(demo) => Decision::Respond(page(demo), None),
        Route::DemoNodes(demo) => Decision::Respond(nodes(head, demo), None),
        Route::Refused(refused) => Decision::Respond(refused.response(), Some(refused.reason())),
    }
}

/// Several lines of one name are one list (RFC 9110, section 5.3).
fn list(head: &Head<'_>, name: &str) -> Option<String> {
    let lines: Vec<_> = head.values(name).map(String::from_utf8_lossy).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

fn page(demo: &Demo) -> Response<'_> {
    let mut response = Response::new(200, "text/html; charset=utf-8", demo.page.as_bytes());
    response.extra.push(("Content-Security-Policy", demo.content_security_policy.as_str().into()));
    response.extra.push(("Referrer-Policy", "no-referrer".into()));
    response
}

fn nodes<'o>(head: &Head<'_>, demo: &'o Demo) -> Response<'o> {
    let mut response = Response::new(200, JSON, demo.nodes.as_bytes());
    response.extra.push(("Vary", "Origin".into()));
    if let Some(origin) = head.header("origin").filter(|origin| demo.origins.allows(origin, head.host)) {
        response.extra.push(("Access-Control-Allow-Origin", origin.to_owned().into()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::http::route::tests::{demo, options};
    use crate::ws::upgrade::OriginRule;
    use proptest::prelude::*;

    /// What came of feeding `wire` in pieces: calls and their bodies in order, everything written, and how it ended.
    #[derive(PartialEq, Debug)]
    struct Seen {
        calls: Vec<(Call, Vec<u8>)>,
        written: String,
        refusals: Vec<RefusalReason>,
        end: Step,
    }

    fn check(options: &Options, wire: &[u8], piece: usize) -> Seen {
        let mut exchange = Exchange::new(Listener::Public);
        let mut seen = Seen { calls: vec![], written: String::new(), refusals: vec![], end: Step::Read };
        let mut pieces = wire.chunks(piece.max(1));
        loop {
            match exchange.poll(options) {
                Step::Read => match pieces.next() {
                    Some(piece) => exchange.on_bytes(piece),
                    None => break,
                },
                Step::Write(bytes, refusal) => {
                    seen.written.push_str(str::from_utf8(&bytes).unwrap());
                    seen.refusals.extend(refusal);
                }
                Step::Call(call, body) => {
                    let answer = format!("{}", body.len());
                    seen.calls.push((call, body));
                    exchange.on_answer(200, "text/plain", answer.as_bytes());
                }
                end => {
                    seen.end = end;
                    break;
                }
            }
        }
        seen
    }

    fn publish(headers: &str, body: &str) -> String {
        format!("POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\n{headers}\r\n{body}")
    }

    fn statuses(written: &str) -> Vec<&str> {
        written.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect()
    }

    #[test]
    fn pipelined_requests_are_carried_out_in_order_whatever_the_pieces() {
        let wire = [
            publish("Content-Length: 5\r\n", "first"),
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            publish("Transfer-Encoding: chunked\r\n", "3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n"),
            "\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            publish("Content-Length: 0\r\nConnection: close\r\n", ""),
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        ]
        .concat();
        let whole = check(&options(), wire.as_bytes(), wire.len());
        let bodies: Vec<_> = whole.calls.iter().map(|(_, body)| str::from_utf8(body).unwrap()).collect();
        assert_eq!(bodies, ["first", "second", "", ""]);
        assert_eq!(statuses(&whole.written), ["200", "200", "200", "404", "200", "200"]);
        assert_eq!(whole.end, Step::Close);
        assert_eq!(whole.refusals, [RefusalReason::NotFound]);
        for piece in 1..60 {
            assert_eq!(check(&options(), wire.as_bytes(), piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn requests_that_could_end_in_two_places_are_the_last_of_their_connection() {
        let hidden = "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked\r\n X: y\r\n",
        ] {
            let wire = publish(headers, &format!("0\r\n\r\n{hidden}"));
            let seen = check(&options(), wire.as_bytes(), wire.len());
            assert_eq!(seen.calls, [], "{headers}");
            assert_eq!(seen.end, Step::Close, "{headers}");
            assert_eq!(statuses(&seen.written).len(), 1, "{headers}: {}", seen.written);
            assert!(seen.written.contains("Connection: close"), "{headers}");
        }
    }

    #[test]
    fn a_body_that_is_not_read_ends_the_connection() {
        let hidden = "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";
        for head in ["POST /api/publish", "GET /health", "POST /nowhere"] {
            let wire = format!("{head} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len());
            let seen = check(&options(), wire.as_bytes(), 7);
            assert_eq!((seen.calls.len(), seen.end), (0, Step::Close), "{head}");
            assert_eq!(statuses(&seen.written).len(), 1, "{head}");
        }
    }

    #[test]
    fn a_wrong_key_gets_401_with_nothing_in_it() {
        let wire = "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: guess\r\n\r\n";
        let seen = check(&options(), wire.as_bytes(), 1000);
        assert!(seen.written.starts_with("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"), "{}", seen.written);
        assert!(seen.written.ends_with("\r\n\r\n"));
        assert_eq!(seen.refusals, [RefusalReason::Unauthorized]);
    }

    #[test]
    fn a_client_that_waits_for_it_is_told_to_go_on_unless_it_is_refused() {
        let head = publish("Content-Length: 2\r\nExpect: 100-continue\r\n", "");
        let mut exchange = Exchange::new(Listener::Public);
        exchange.on_bytes(head.as_bytes());
        assert_eq!(exchange.poll(&options()), Step::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), None));
        assert_eq!(exchange.poll(&options()), Step::Read);
        exchange.on_bytes(b"{}");
        assert!(matches!(exchange.poll(&options()), Step::Call(_, body) if body == b"{}"));

        let large = publish("Content-Length: 1001\r\nExpect: 100-continue\r\n", "");
        let seen = check(&options(), large.as_bytes(), large.len());
        assert_eq!(statuses(&seen.written), ["413"]);
        assert_eq!((seen.refusals, seen.end), (vec![RefusalReason::TooLarge], Step::Close));

        let begun = publish("Content-Length: 2\r\nExpect: 100-continue\r\n", "{}");
        assert_eq!(statuses(&check(&options(), begun.as_bytes(), begun.len()).written), ["200"]);
    }

    #[test]
    fn an_upgrade_hands_over_what_was_read_behind_it() {
        let options = Options { address_header: Some("X-Forwarded-For".into()), ..options() };
        let wire = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\r\nframes";
        let mut exchange = Exchange::new(Listener::Public);
        exchange.on_bytes(wire.as_bytes());
        let Step::Upgrade(upgrade, address) = exchange.poll(&options) else { panic!("no upgrade") };
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(address.as_deref(), Some("1.1.1.1,2.2.2.2"));
        assert_eq!(exchange.into_rest(), b"frames");
    }

    #[test]
    fn an_ordinary_request_for_the_websocket_gets_a_sentence() {
        let wire = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\n\r\n";
        let seen = check(&options(), wire.as_bytes(), wire.len());
        assert_eq!(statuses(&seen.written), ["426"]);
        assert!(seen.written.contains("\r\nUpgrade: websocket\r\n") && seen.written.contains("WebSocket"));
        assert_eq!(seen.refusals, [RefusalReason::BadRequest]);
        // The connection is good for another request.
        assert_eq!(seen.end, Step::Read);
    }

    #[test]
    fn the_page_comes_with_its_policy_and_the_nodes_are_readable_by_the_demos_pages_only() {
        let demo = Demo { origins: OriginRule::new(["http://127.0.0.1:8001"]), ..demo() };
        let options = Options { demo: Some(demo), ..options() };
        let get = |path: &str, origin: &str| {
            let wire = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nOrigin: {origin}\r\n\r\n");
            check(&options, wire.as_bytes(), wire.len()).written
        };
        let page = get("/", "null");
        assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'\r\n") && page.ends_with("page"));
        assert!(
            get("/demo/nodes", "http://127.0.0.1:8001")
                .contains("Access-Control-Allow-Origin: http://127.0.0.1:8001\r\n")
        );
        assert!(!get("/demo/nodes", "http://elsewhere:8001").contains("Access-Control"));
    }

    #[test]
    fn a_head_request_gets_everything_but_the_body() {
        let wire = "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\nHEAD /ready HTTP/1.1\r\nHost: a\r\n\r\n";
        let seen = check(&options(), wire.as_bytes(), wire.len());
        assert!(seen.written.contains("Content-Length: 2\r\n") && !seen.written.contains("{}"));
        assert!(
            seen.written
                .ends_with("Content-Length: 1\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n")
        );
    }

    #[test]
    fn patience_ends_with_a_word_in_the_middle_of_a_request_and_without_one_between_requests() {
        let ends = |wire: &str| {
            let mut exchange = Exchange::new(Listener::Public);
            exchange.on_bytes(wire.as_bytes());
            assert_eq!(exchange.poll(&options()), Step::Read);
            let phase = exchange.phase();
            exchange.on_timeout();
            (phase, exchange.poll(&options()), exchange.poll(&options()))
        };
        assert_eq!(ends(""), (Phase::Idle, Step::Close, Step::Close));
        for (wire, phase) in [("GET / HT", Phase::Head), (&publish("Content-Length: 2\r\n", "{"), Phase::Body)] {
            let (was, Step::Write(bytes, Some(RefusalReason::Timeout)), Step::Close) = ends(wire) else {
                panic!("{wire}")
            };
            assert_eq!(was, phase);
            assert!(bytes.starts_with(b"HTTP/1.1 408 "));
        }
    }

    #[test]
    fn a_stopping_node_answers_the_request_at_hand_and_no_other() {
        let mut exchange = Exchange::new(Listener::Public);
        exchange.on_bytes(format!("{0}{0}", publish("Content-Length: 2\r\n", "{}")).as_bytes());
        assert!(matches!(exchange.poll(&options()), Step::Call(..)));
        exchange.on_shutdown();
        exchange.on_answer(200, JSON, b"{}");
        let Step::Write(bytes, None) = exchange.poll(&options()) else { panic!("no answer") };
        assert!(str::from_utf8(&bytes).unwrap().contains("Connection: close"));
        assert_eq!(exchange.poll(&options()), Step::Close);

        let mut idle = Exchange::new(Listener::Public);
        idle.on_shutdown();
        assert_eq!(idle.poll(&options()), Step::Close);
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let mut exchange = Exchange::new(Listener::Public);
        exchange.on_bytes(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(exchange.poll(&options()), Step::Write(..)));
        assert_eq!(exchange.poll(&options()), Step::Read);
        assert_eq!((exchange.input.capacity(), exchange.output.capacity()), (0, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(wire in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50, after in any::<bool>()) {
            let wire = if after { [publish("Transfer-Encoding: chunked\r\n", "").into_bytes(), wire].concat() } else { wire };
            prop_assert!(check(&options(), &wire, piece).calls.len() <= 1);
        }
    }
}
