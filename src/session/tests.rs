//! One client, command by command: what each rule of the protocol makes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth;
use crate::base::rng::Rng;
use crate::protocol::{History, Recover, Subscribe};
use crate::rules::{self, Namespace};

const SECRET: &str = "a secret";
/// The wall clock at the start, in seconds.
const START: u64 = 1_790_000_000;
const BAD_REQUEST: Step<'static> = Step::Close(Disconnect::BadRequest);

/// A session with its surroundings, and a shard's part in short.
struct Client {
    env: Environment,
    session: Session,
    now: Now,
    rng: Rng,
    last_id: u32,
}

fn rules_options() -> rules::Options {
    let open = Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        ..Namespace::default()
    };
    let named =
        Namespace { allow_subscribe_for_client: true, allow_publish_for_subscriber: true, ..Namespace::default() };
    rules::Options {
        without_namespace: open,
        namespaces: vec![("named".into(), named), ("shut".into(), Namespace::default())],
        allow_anonymous_connect_without_token: true,
        ..rules::Options::default()
    }
}

impl Client {
    fn new(rules: rules::Options, options: Options) -> Self {
        let secret = auth::Options { hmac_secret: Some(SECRET.into()), ..auth::Options::default() };
        let env = Environment { options, rules: Rules::new(rules), verifier: Verifier::new(&secret) };
        let mut rng = Rng::seeded(1);
        let now = Now::simulated(Instant::START);
        let session = Session::new(ClientId::random(&mut rng), Encoding::Json, false, now, &env);
        Client { env, session, now, rng, last_id: 0 }
    }

    fn fresh() -> Self {
        Client::new(rules_options(), Options::default())
    }

    fn anonymous() -> Self {
        Client::fresh().connected_with("")
    }

    fn of_user(claims: Value) -> Self {
        Client::fresh().connected_with(&token(claims))
    }

    fn connected_with(mut self, token: &str) -> Self {
        let step = self.connect(token);
        assert!(matches!(step, Step::Admit { id: 1 }), "{step:?}");
        assert!(self.session.on_admitted(self.now, &self.env, &mut self.rng));
        self
    }

    fn connect(&mut self, token: &str) -> Step<'static> {
        self.ask(Method::Connect(Connect { token: token.to_owned().into(), ..Connect::default() }))
    }

    fn ask(&mut self, method: Method<'static>) -> Step<'static> {
        self.ask_about(method, None)
    }

    fn ask_about(&mut self, method: Method<'static>, channel: Option<ChannelRef>) -> Step<'static> {
        self.last_id += 1;
        let command = Command { id: self.last_id, method };
        self.session.on_command(self.now, &self.env, command, channel)
    }

    fn subscribe(&mut self, request: Subscribe<'static>, channel: Option<ChannelRef>) -> Step<'static> {
        self.ask_about(Method::Subscribe(request), channel)
    }

    /// All the way to live.
    fn follow(&mut self, request: Subscribe<'static>, channel: ChannelRef) -> SubscriptionIndex {
        let index = self.begin(request, channel);
        assert!(self.session.on_subscribed(self.now, index, &self.env).is_some());
        index
    }

    fn begin(&mut self, request: Subscribe<'static>, channel: ChannelRef) -> SubscriptionIndex {
        match self.subscribe(request, None) {
            Step::Subscribe { id, expires_at, info, data, .. } => {
                self.session.begin_subscription(channel, id, expires_at, info, data).expect("it is new")
            }
            step => panic!("{step:?}"),
        }
    }

    fn sub_refresh(&mut self, name: &'static str, token: &str, channel: ChannelRef) -> Step<'static> {
        let token = token.to_owned().into();
        self.ask_about(Method::SubRefresh { channel: name.into(), token }, Some(channel))
    }

    fn refresh(&mut self, token: &str) -> Step<'static> {
        self.ask(Method::Refresh { token: token.to_owned().into() })
    }

    fn publish(&mut self, name: &'static str, data: &'static [u8], kind: i32) -> Step<'static> {
        self.ask(Method::Publish { channel: name.into(), data: data.into(), kind })
    }

    fn pong(&mut self) -> Step<'static> {
        self.session.on_command(self.now, &self.env, Command { id: 0, method: Method::Pong }, None)
    }

    fn advance(&mut self, duration: Duration) {
        self.now = Now::simulated(self.now.mono + duration);
    }

    fn deadline(&mut self) -> Step<'static> {
        self.session.on_deadline(self.now, &self.env)
    }

    /// Sleeps until there is something to do.
    fn next(&mut self) -> Step<'static> {
        let at = self.session.poll_deadline().expect("there is a deadline");
        self.now = Now::simulated(at.max(self.now.mono));
        self.deadline()
    }

    fn told(&self) -> (bool, u32) {
        let text = self.session.client().text();
        let connected = self.session.connected(self.now, &self.env, &text);
        (connected.expires, connected.ttl)
    }
}

fn token(claims: Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("claims are plain data")
}

fn to(name: &'static str) -> Subscribe<'static> {
    Subscribe { channel: name.into(), ..Subscribe::default() }
}

fn with_token(name: &'static str, claims: Value) -> Subscribe<'static> {
    Subscribe { token: token(claims).into(), ..to(name) }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Steps hold borrowed things without equality of their own; their texts say it all.
#[track_caller]
fn check(step: Step<'_>, expected: Step<'_>) {
    assert_eq!(format!("{step:?}"), format!("{expected:?}"));
}

#[track_caller]
fn check_error(step: Step<'_>, error: Error) {
    match step {
        Step::Reply { reply: Reply::Error(told), .. } => assert_eq!(told, error),
        step => panic!("{step:?} instead of {error:?}"),
    }
}

#[track_caller]
fn check_close(mut client: Client, step: Step<'_>, disconnect: Disconnect) {
    check(step, Step::Close(disconnect));
    assert!(client.session.is_closed());
    check(client.publish("a", b"1", 0), Step::Nothing);
    assert_eq!(client.session.poll_deadline(), None);
    client.advance(secs(1_000_000));
    check(client.deadline(), Step::Nothing);
    assert!(!client.session.on_admitted(client.now, &client.env, &mut client.rng));
}

fn other_methods() -> Vec<Method<'static>> {
    vec![
        Method::Pong,
        Method::Subscribe(to("a")),
        Method::Unsubscribe { channel: "a".into() },
        Method::Publish { channel: "a".into(), data: b"1"[..].into(), kind: 0 },
        Method::Presence { channel: "a".into() },
        Method::PresenceStats { channel: "a".into() },
        Method::History(History::default()),
        Method::Rpc { method: "m".into(), data: b"1"[..].into() },
        Method::Send { data: b"1"[..].into() },
        Method::Refresh { token: "t".into() },
        Method::SubRefresh { channel: "a".into(), token: "t".into() },
        Method::Ping,
    ]
}

// ---- connecting

#[test]
fn an_anonymous_client_connects_where_that_is_allowed() {
    let client = Client::anonymous();
    assert!(client.session.is_live());
    assert_eq!(client.session.user(), "");
    assert_eq!(client.session.connect_id(), 1);
    let text = client.session.client().text();
    let connected = client.session.connected(client.now, &client.env, &text);
    let expected = Connected { client: text.as_str(), ping: 25, pong: true, ..Connected::default() };
    assert_eq!(connected, expected);

    let insecure = rules::Options { insecure: true, ..rules::Options::default() };
    assert!(Client::new(insecure, Options::default()).connected_with("").session.is_live());

    let mut client = Client::new(rules::Options::default(), Options::default());
    let step = client.connect("");
    check_close(client, step, Disconnect::BadRequest);
}

#[test]
fn a_token_says_who_the_client_is() {
    let client = Client::of_user(json!({"sub": "42", "info": {"name": "Ada"}}));
    assert_eq!(client.session.user(), "42");
    assert_eq!(client.session.info(), br#"{"name":"Ada"}"#);
    assert_eq!(client.told(), (false, 0));
}

#[test]
fn the_version_is_told() {
    let options = Options { version: "1.2.3".into(), ..Options::default() };
    let client = Client::new(rules_options(), options).connected_with("");
    let text = client.session.client().text();
    assert_eq!(client.session.connected(client.now, &client.env, &text).version, "1.2.3");
}

#[test]
fn an_expired_token_is_an_error_and_a_wrong_one_the_end() {
    let mut client = Client::fresh();
    check(
        client.connect(&token(json!({"exp": START}))),
        Step::Reply { id: 1, reply: Reply::Error(Error::TokenExpired) },
    );
    for wrong in ["a.b.c", &token(json!({"channel": "a"}))] {
        let mut client = Client::fresh();
        let step = client.connect(wrong);
        check_close(client, step, Disconnect::InvalidToken);
    }
}

#[test]
fn a_token_that_nothing_can_check_is_the_end() {
    let mut client = Client::fresh();
    client.env.verifier = Verifier::new(&auth::Options::default());
    let step = client.connect(&token(json!({"sub": "42"})));
    check_close(client, step, Disconnect::InvalidToken);
}

#[test]
fn a_token_is_checked_in_insecure_mode_too_but_its_end_ends_no_connection() {
    let insecure = || Client::new(rules::Options { insecure: true, ..rules_options() }, Options::default());
    let mut client = insecure();
    let step = client.connect("a.b.c");
    check_close(client, step, Disconnect::InvalidToken);
    check_error(insecure().connect(&token(json!({"exp": 1}))), Error::TokenExpired);
    let client = insecure().connected_with(&token(json!({"sub": "42", "exp": START + 60})));
    assert_eq!(client.session.user(), "42");
    assert_eq!(client.told(), (false, 0));
    assert_eq!(client.session.over, NEVER);
}

#[test]
fn a_connection_that_had_ended_before_it_began_is_an_error() {
    check_error(Client::fresh().connect(&token(json!({"expire_at": START}))), Error::Expired);
}

#[test]
fn a_token_with_server_side_subscriptions_is_refused_rather_than_cut_short() {
    for claims in [json!({"channels": ["a"]}), json!({"subs": {"a": {}}})] {
        check_error(Client::fresh().connect(&token(claims)), Error::NotAvailable);
    }
}

#[test]
fn wishes_for_server_side_subscriptions_are_passed_over() {
    let mut client = Client::fresh();
    let subs = vec![("a".into(), Recover::default())];
    check(client.ask(Method::Connect(Connect { subs, ..Connect::default() })), Step::Admit { id: 1 });
}

#[test]
fn the_first_command_is_connect_and_only_the_first() {
    for method in other_methods() {
        let mut client = Client::fresh();
        let step = client.ask(method);
        check_close(client, step, Disconnect::BadRequest);
    }
    let mut client = Client::anonymous();
    let step = client.connect("");
    check_close(client, step, Disconnect::BadRequest);
}

#[test]
fn after_a_refused_connect_every_command_is_a_bad_request_and_silence_is_stale() {
    let refused = || {
        let mut client = Client::fresh();
        check_error(client.connect(&token(json!({"exp": 1}))), Error::TokenExpired);
        client
    };
    for method in other_methods().into_iter().chain([Method::Connect(Connect::default())]) {
        let mut client = refused();
        let step = client.ask(method);
        check_close(client, step, Disconnect::BadRequest);
    }
    let mut client = refused();
    let step = client.next();
    assert_eq!(client.now.mono, Instant::START + secs(10));
    check_close(client, step, Disconnect::Stale);
}

#[test]
fn who_does_not_connect_in_time_is_stale() {
    let mut client = Client::fresh();
    client.advance(secs(10) - Duration::from_nanos(1));
    check(client.deadline(), Step::Nothing);
    let step = client.next();
    check_close(client, step, Disconnect::Stale);
}

#[test]
fn a_client_that_was_never_counted_in_may_come_again() {
    let mut client = Client::fresh();
    client.connect("");
    assert!(client.session.is_admitting());
    let step = client.next();
    check_close(client, step, Disconnect::InternalError);
}

#[test]
fn a_client_too_many_is_closed() {
    let mut client = Client::fresh();
    client.connect("");
    let disconnect = client.session.on_refused();
    check_close(client, Step::Close(disconnect), Disconnect::ConnectionLimit);
}

#[test]
#[should_panic = "wait until the client is admitted"]
fn commands_must_be_kept_back_until_the_client_is_admitted() {
    let mut client = Client::fresh();
    client.connect("");
    client.pong();
}

// ---- expiry of the connection

#[test]
fn a_connection_expires_with_its_grace() {
    let mut client = Client::of_user(json!({"exp": START + 60}));
    client.env.options.ping_interval = Duration::ZERO;
    client.session.keepalive = Keepalive::silent();
    assert_eq!(client.told(), (true, 60));
    let step = client.next();
    assert_eq!(client.now.mono, Instant::START + secs(60 + 25));
    check_close(client, step, Disconnect::ConnectionExpired);
}

#[test]
fn the_end_counts_from_the_second_by_the_calendar() {
    let mut client = Client::fresh();
    client.advance(Duration::from_millis(700));
    let client = client.connected_with(&token(json!({"exp": START + 60})));
    assert_eq!(client.told(), (true, 60));
    assert_eq!(client.session.over, Instant::START + secs(60 + 25));
}

#[test]
fn a_refresh_moves_the_end() {
    let mut client = Client::of_user(json!({"sub": "1", "exp": START + 60, "info": 1}));
    client.advance(secs(80));
    let refreshed = |expires, ttl| Reply::Refresh { client: "", version: "", expires, ttl };
    let step = client.refresh(&token(json!({"sub": "1", "exp": START + 200, "info": 2})));
    check(step, Step::Reply { id: 2, reply: refreshed(true, 120) });
    assert_eq!(client.session.over, Instant::START + secs(200 + 25));
    assert_eq!(client.session.info(), b"2");
    check(client.refresh(&token(json!({"sub": "1"}))), Step::Reply { id: 3, reply: refreshed(false, 0) });
    assert_eq!(client.session.over, NEVER);
    assert_eq!(client.session.info(), b"2");
}

#[test]
fn a_refresh_with_a_bad_token_is_the_end() {
    let cases = [
        (String::new(), Disconnect::BadRequest),
        (token(json!({"sub": "1", "exp": 1})), Disconnect::ConnectionExpired),
        ("a.b.c".into(), Disconnect::InvalidToken),
        (token(json!({"sub": "2"})), Disconnect::InvalidToken),
        (token(json!({})), Disconnect::InvalidToken),
        (token(json!({"sub": "1", "channel": "a"})), Disconnect::InvalidToken),
        (token(json!({"sub": "1", "channels": ["a"]})), Disconnect::InsufficientState),
    ];
    for (text, disconnect) in cases {
        let mut client = Client::of_user(json!({"sub": "1", "exp": START + 60}));
        let step = client.refresh(&text);
        check_close(client, step, disconnect);
    }
    let mut client = Client::of_user(json!({"sub": "1", "exp": START + 60}));
    check_error(client.refresh(&token(json!({"sub": "1", "expire_at": 1}))), Error::Expired);
}

#[test]
fn a_far_end_is_brought_forward_to_a_year() {
    let year = 365 * 24 * 60 * 60;
    let client = Client::of_user(json!({"exp": u64::MAX}));
    assert_eq!(client.told(), (true, year));
    let mut client = Client::anonymous();
    let index = client.begin(with_token("a", json!({"channel": "a", "exp": START * 1000})), ChannelRef(1));
    let (_, subscribed) = client.session.on_subscribed(client.now, index, &client.env).unwrap();
    assert_eq!((subscribed.expires, subscribed.ttl), (true, year));
}

// ---- pings

#[test]
fn the_first_ping_comes_in_the_second_half_of_an_interval() {
    let mut seen = Vec::new();
    for seed in 0..100 {
        let mut client = Client::fresh();
        client.rng = Rng::seeded(seed);
        let mut client = client.connected_with("");
        check(client.next(), Step::Ping);
        let at = client.now.mono.since(Instant::START);
        assert!(at >= secs(25) / 2 && at <= secs(25), "{at:?}");
        seen.push(at);
    }
    assert!(seen.iter().any(|&at| at < secs(15)) && seen.iter().any(|&at| at > secs(22)));
}

#[test]
fn a_ping_follows_an_interval_after_the_last_one_however_late_the_pong() {
    let mut client = Client::anonymous();
    check(client.next(), Step::Ping);
    for late in [0, 1, 7] {
        let asked = client.now.mono;
        client.advance(secs(late));
        check(client.pong(), Step::Nothing);
        check(client.next(), Step::Ping);
        assert_eq!(client.now.mono, asked + secs(25));
    }
}

#[test]
fn a_pong_that_does_not_come_is_the_end() {
    let mut client = Client::anonymous();
    check(client.next(), Step::Ping);
    let asked = client.now.mono;
    // Other commands are no pong.
    client.publish("a", b"1", 0);
    let step = client.next();
    assert_eq!(client.now.mono, asked + secs(8));
    check_close(client, step, Disconnect::NoPong);
}

#[test]
fn a_pong_that_nobody_asked_for_is_a_bad_request() {
    let mut client = Client::anonymous();
    let step = client.pong();
    check_close(client, step, Disconnect::BadRequest);
    let mut client = Client::anonymous();
    client.next();
    check(client.pong(), Step::Nothing);
    check(client.pong(), BAD_REQUEST);
}

#[test]
fn without_an_interval_there_are_no_pings_and_nothing_to_wait_for() {
    let options = Options { ping_interval: Duration::ZERO, ..Options::default() };
    let client = Client::new(rules_options(), options).connected_with("");
    assert_eq!(client.session.poll_deadline(), None);
    let text = client.session.client().text();
    let connected = client.session.connected(client.now, &client.env, &text);
    assert_eq!((connected.ping, connected.pong), (0, false));
}

#[test]
fn without_a_timeout_pings_are_sent_and_no_pong_is_asked_for() {
    let options = Options { pong_timeout: Duration::ZERO, ..Options::default() };
    let mut client = Client::new(rules_options(), options).connected_with("");
    for _ in 0..3 {
        check(client.next(), Step::Ping);
    }
    let text = client.session.client().text();
    let connected = client.session.connected(client.now, &client.env, &text);
    assert_eq!((connected.ping, connected.pong), (25, false));
    check(client.pong(), BAD_REQUEST);
}

#[test]
fn a_part_of_a_second_is_told_as_a_whole_one() {
    let options = Options { ping_interval: Duration::from_millis(1200), ..Options::default() };
    let client = Client::new(rules_options(), options).connected_with("");
    let text = client.session.client().text();
    assert_eq!(client.session.connected(client.now, &client.env, &text).ping, 2);
}

#[test]
fn who_asked_for_websocket_pings_is_told_of_none_and_answers_in_kind() {
    let frames = || {
        let mut client = Client::fresh();
        client.session = Session::new(client.session.client(), Encoding::Json, true, client.now, &client.env);
        client.connected_with("")
    };
    let mut client = frames();
    let text = client.session.client().text();
    let connected = client.session.connected(client.now, &client.env, &text);
    assert_eq!((connected.ping, connected.pong), (0, false));
    // Unasked: allowed.
    client.session.on_frame_pong(&client.env);
    check(client.next(), Step::Ping);
    client.session.on_frame_pong(&client.env);
    check(client.next(), Step::Ping);
    check(client.next(), Step::Close(Disconnect::NoPong));

    let mut client = frames();
    client.next();
    check(client.pong(), BAD_REQUEST);

    let mut client = Client::anonymous();
    client.next();
    client.session.on_frame_pong(&client.env);
    check(client.next(), Step::Close(Disconnect::NoPong));
}

// ---- subscribing

#[test]
fn a_subscription_is_answered_when_the_interest_is_confirmed() {
    let mut client = Client::anonymous();
    let index = client.begin(to("a"), ChannelRef(7));
    assert_eq!(client.session.find(ChannelRef(7)), Some(index));
    assert_eq!(client.session.subscription(index).unwrap().pending(), Some(2));
    let (id, subscribed) = client.session.on_subscribed(client.now, index, &client.env).unwrap();
    assert_eq!((id, subscribed), (2, Subscribed::default()));
    assert!(client.session.subscription(index).unwrap().is_live());
    assert!(client.session.on_subscribed(client.now, index, &client.env).is_none());
    assert!(client.session.on_subscribed(client.now, 9, &client.env).is_none());
    client.session.set_position(index, 5);
    assert_eq!(client.session.subscription(index).unwrap().position, 5);
    let ended = client.session.end_subscription(index).unwrap();
    assert_eq!((ended.channel, ended.position, ended.pending()), (ChannelRef(7), 5, None));
    assert!(client.session.end_subscription(index).is_none());
    assert_eq!(client.session.find(ChannelRef(7)), None);
}

#[test]
fn a_second_subscription_of_a_channel_is_an_error_also_while_the_first_is_pending() {
    let mut client = Client::anonymous();
    let index = client.begin(to("a"), ChannelRef(7));
    check_error(client.subscribe(to("a"), Some(ChannelRef(7))), Error::AlreadySubscribed);
    let again = client.session.begin_subscription(ChannelRef(7), 9, None, Box::default(), Box::default());
    assert_eq!(again, Err(Error::AlreadySubscribed));
    client.session.on_subscribed(client.now, index, &client.env);
    check_error(client.subscribe(to("a"), Some(ChannelRef(7))), Error::AlreadySubscribed);
    client.session.end_subscription(index);
    assert!(matches!(client.subscribe(to("a"), Some(ChannelRef(7))), Step::Subscribe { .. }));
}

#[test]
fn a_client_has_so_many_subscriptions_pending_ones_included() {
    let mut client = Client::new(rules_options(), Options { channel_limit: 3, ..Options::default() });
    client = client.connected_with("");
    client.follow(to("a"), ChannelRef(1));
    let pending = client.begin(to("b"), ChannelRef(2));
    client.follow(to("c"), ChannelRef(3));
    check_error(client.subscribe(to("d"), None), Error::LimitExceeded);
    client.session.end_subscription(pending);
    assert_eq!(client.follow(to("d"), ChannelRef(4)), pending);
    check_error(client.subscribe(to("e"), None), Error::LimitExceeded);
}

#[test]
fn an_index_stays_while_its_subscription_lives() {
    let mut client = Client::anonymous();
    let indices: Vec<_> = (0..100).map(|i| client.follow(to("a"), ChannelRef(i))).collect();
    for &index in indices.iter().step_by(2) {
        client.session.end_subscription(index);
    }
    for i in (1..100).step_by(2) {
        assert_eq!(client.session.find(ChannelRef(i)), Some(indices[i as usize]));
    }
    assert_eq!(client.session.subscriptions().count(), 50);
    assert_eq!(client.follow(to("a"), ChannelRef(500)), 0);
}

#[test]
fn a_name_that_is_none_is_told_before_anything_else() {
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    let cases = [
        ("", Error::BadRequest),
        (long, Error::BadRequest),
        ("caf\u{e9}", Error::BadRequest),
        ("nowhere:a", Error::UnknownChannel),
    ];
    for (name, error) in cases {
        let mut client = Client::anonymous();
        check_error(client.subscribe(Subscribe { kind: 1, token: "t".into(), ..to(name) }, None), error);
        check_error(client.publish(name, b"", 1), error);
        check_error(client.ask(Method::Presence { channel: name.into() }), error);
        check_error(client.ask(Method::PresenceStats { channel: name.into() }), error);
        check_error(client.ask(Method::History(History { channel: name.into(), ..History::default() })), error);
        check_error(client.ask(Method::SubRefresh { channel: name.into(), token: "t".into() }), error);
    }
}

#[test]
fn what_is_not_allowed_is_denied() {
    let mut client = Client::anonymous();
    for name in ["named:a", "shut:a", "$a"] {
        check_error(client.subscribe(to(name), None), Error::PermissionDenied);
    }
    let mut client = Client::of_user(json!({"sub": "1"}));
    assert!(matches!(client.subscribe(to("named:a"), None), Step::Subscribe { .. }));
    check_error(client.subscribe(to("shut:a"), None), Error::PermissionDenied);
    check_error(client.subscribe(to("$a"), None), Error::PermissionDenied);
}

#[test]
fn a_subscription_token_opens_what_is_shut_and_brings_its_information() {
    let mut client = Client::of_user(json!({"sub": "1"}));
    let claims = json!({"sub": "1", "channel": "$shut:a", "info": "i", "data": "d", "exp": START + 60});
    let index = client.begin(with_token("$shut:a", claims), ChannelRef(1));
    let (_, subscribed) = client.session.on_subscribed(client.now, index, &client.env).unwrap();
    assert_eq!(subscribed, Subscribed { expires: true, ttl: 60, data: br#""d""#, was_recovering: false });
    assert_eq!(client.session.chan_info(index), br#""i""#);
    assert_eq!(client.session.chan_info(9), b"");
}

#[test]
fn a_bad_subscription_token_is_an_error_and_one_for_somebody_else_the_end() {
    let connected = || Client::of_user(json!({"sub": "1"}));
    let mut client = connected();
    let ask = |client: &mut Client, claims| client.subscribe(with_token("a", claims), None);
    check_error(ask(&mut client, json!({"sub": "1", "channel": "a", "exp": 1})), Error::TokenExpired);
    check_error(ask(&mut client, json!({"sub": "1", "channel": "a", "expire_at": 1})), Error::Expired);
    check_error(ask(&mut client, json!({"sub": "1"})), Error::PermissionDenied);
    check_error(client.subscribe(Subscribe { token: "a.b.c".into(), ..to("a") }, None), Error::PermissionDenied);
    for claims in [
        json!({"sub": "1", "channel": "b"}),
        json!({"sub": "2", "channel": "a"}),
        json!({"channel": "a"}),
        json!({"sub": "1", "channel": "a", "client": "other"}),
    ] {
        let mut client = connected();
        let step = ask(&mut client, claims);
        check_close(client, step, Disconnect::InvalidToken);
    }
    let mut client = connected();
    let own = client.session.client().text().as_str().to_owned();
    assert!(matches!(ask(&mut client, json!({"sub": "1", "channel": "a", "client": own})), Step::Subscribe { .. }));
}

#[test]
fn what_cannot_be_kept_is_refused_and_what_only_adds_is_left_out() {
    let mut client = Client::anonymous();
    for kind in [1, 2, 3, 4, -1] {
        check_error(client.subscribe(Subscribe { kind, ..to("a") }, None), Error::NotAvailable);
    }
    check_error(client.subscribe(Subscribe { filtered: true, ..to("a") }, None), Error::NotAvailable);
    let recover = Some(Recover { epoch: "e".into(), offset: 1 });
    let request = Subscribe { recover: recover.clone(), flag: 3, ..to("a") };
    check_error(client.subscribe(request, None), Error::UnrecoverablePosition);
    for flag in [1, 2, 3, i64::MIN] {
        assert!(matches!(client.subscribe(Subscribe { flag, ..to("a") }, None), Step::Subscribe { .. }));
    }
    let wishes = Subscribe {
        recover,
        flag: 1,
        positioned: true,
        recoverable: true,
        join_leave: true,
        delta: "fossil".into(),
        ..to("a")
    };
    let index = client.begin(wishes, ChannelRef(1));
    let (_, subscribed) = client.session.on_subscribed(client.now, index, &client.env).unwrap();
    assert_eq!(subscribed, Subscribed::default());
}

#[test]
fn unsubscribing_from_nothing_succeeds() {
    let mut client = Client::anonymous();
    let unsubscribe = || Method::Unsubscribe { channel: "a".into() };
    for (channel, id) in [(None, 2), (Some(ChannelRef(1)), 3)] {
        check(client.ask_about(unsubscribe(), channel), Step::Reply { id, reply: Reply::Unsubscribe });
    }
    let subscription = client.begin(to("a"), ChannelRef(1));
    check(client.ask_about(unsubscribe(), Some(ChannelRef(1))), Step::Unsubscribe { id: 5, subscription });
    assert_eq!(client.session.end_subscription(subscription).unwrap().pending(), Some(4));
    let subscription = client.follow(to("a"), ChannelRef(1));
    check(client.ask_about(unsubscribe(), Some(ChannelRef(1))), Step::Unsubscribe { id: 7, subscription });
}

// ---- expiry of subscriptions

fn with_expiring_subscription() -> (Client, SubscriptionIndex) {
    let mut client = Client::of_user(json!({"sub": "1"}));
    client.session.keepalive = Keepalive::silent();
    client.follow(to("b"), ChannelRef(2));
    let request = with_token("a", json!({"sub": "1", "channel": "a", "info": 1, "exp": START + 60}));
    let index = client.follow(request, ChannelRef(1));
    (client, index)
}

#[test]
fn a_subscription_expires_with_its_grace_and_is_told_once() {
    let (mut client, index) = with_expiring_subscription();
    check(client.next(), Step::Drop { subscription: index, code: UnsubscribeCode::Expired });
    assert_eq!(client.now.mono, Instant::START + secs(60 + 25));
    check(client.deadline(), Step::Nothing);
    assert!(client.session.end_subscription(index).is_some());
    assert!(client.session.is_live());
    assert_eq!(client.session.poll_deadline(), None);
}

#[test]
fn a_subscription_that_was_left_does_not_expire() {
    let (mut client, index) = with_expiring_subscription();
    client.session.end_subscription(index);
    check(client.next(), Step::Nothing);
    assert_eq!(client.session.poll_deadline(), None);
}

#[test]
fn a_sub_refresh_moves_the_end() {
    let (mut client, index) = with_expiring_subscription();
    client.advance(secs(80));
    let step = client.sub_refresh(
        "a",
        &token(json!({"sub": "1", "channel": "a", "info": 2, "exp": START + 200})),
        ChannelRef(1),
    );
    check(step, Step::Reply { id: 4, reply: Reply::SubRefresh { expires: true, ttl: 120 } });
    assert_eq!(client.session.chan_info(index), b"2");
    assert_eq!(client.session.poll_deadline(), Some(Instant::START + secs(200 + 25)));
    let step = client.sub_refresh("a", &token(json!({"sub": "1", "channel": "a"})), ChannelRef(1));
    check(step, Step::Reply { id: 5, reply: Reply::SubRefresh { expires: false, ttl: 0 } });
    assert_eq!(client.session.poll_deadline(), None);
    // One that had no token, too.
    let step = client.sub_refresh("b", &token(json!({"sub": "1", "channel": "b", "exp": START + 100})), ChannelRef(2));
    check(step, Step::Reply { id: 6, reply: Reply::SubRefresh { expires: true, ttl: 20 } });
    assert_eq!(client.session.poll_deadline(), Some(Instant::START + secs(100 + 25)));
}

#[test]
fn a_sub_refresh_that_does_not_fit_is_refused() {
    let (mut client, _) = with_expiring_subscription();
    let good = token(json!({"sub": "1", "channel": "a"}));
    check_error(client.sub_refresh("c", &good, ChannelRef(9)), Error::PermissionDenied);
    client.begin(to("c"), ChannelRef(3));
    check_error(client.sub_refresh("c", &good, ChannelRef(3)), Error::PermissionDenied);
    check_error(client.sub_refresh("a", "", ChannelRef(1)), Error::BadRequest);
    let stale = token(json!({"sub": "1", "channel": "a", "exp": 1}));
    check_error(client.sub_refresh("a", &stale, ChannelRef(1)), Error::TokenExpired);
    let ended = token(json!({"sub": "1", "channel": "a", "expire_at": 1}));
    check_error(client.sub_refresh("a", &ended, ChannelRef(1)), Error::Expired);
    for bad in ["a.b.c", &token(json!({"sub": "2", "channel": "a"})), &token(json!({"sub": "1", "channel": "b"}))] {
        let (mut client, _) = with_expiring_subscription();
        let step = client.sub_refresh("a", bad, ChannelRef(1));
        check_close(client, step, Disconnect::InvalidToken);
    }
}

// ---- the other commands

#[test]
fn a_publication_passes_where_it_is_allowed() {
    let mut client = Client::anonymous();
    check(client.publish("a", b"1", 0), Step::Publish { id: 2, channel: "a".into(), data: b"1"[..].into() });
    check_error(client.publish("a", b"", 0), Error::BadRequest);
    check_error(client.publish("a", b"1", 1), Error::NotAvailable);
    check_error(client.publish("shut:a", b"1", 0), Error::PermissionDenied);
}

#[test]
fn who_may_publish_as_a_subscriber_must_have_been_told_that_it_is_one() {
    let mut client = Client::of_user(json!({"sub": "1"}));
    let publish = || Method::Publish { channel: "named:a".into(), data: b"1"[..].into(), kind: 0 };
    check_error(client.ask_about(publish(), Some(ChannelRef(1))), Error::PermissionDenied);
    let index = client.begin(to("named:a"), ChannelRef(1));
    check_error(client.ask_about(publish(), Some(ChannelRef(1))), Error::PermissionDenied);
    client.session.on_subscribed(client.now, index, &client.env);
    assert!(matches!(client.ask_about(publish(), Some(ChannelRef(1))), Step::Publish { .. }));
}

#[test]
fn what_is_not_built_says_so() {
    let mut client = Client::anonymous();
    check_error(client.ask(Method::Presence { channel: "a".into() }), Error::NotAvailable);
    check_error(client.ask(Method::PresenceStats { channel: "a".into() }), Error::NotAvailable);
    let history = History { channel: "a".into(), ..History::default() };
    check_error(client.ask(Method::History(history)), Error::NotAvailable);
    check_error(client.ask(Method::Rpc { method: "m".into(), data: b"1"[..].into() }), Error::NotAvailable);
    let step = client.ask(Method::Send { data: b"1"[..].into() });
    check_close(client, step, Disconnect::NotAvailable);
}

#[test]
fn a_clients_own_ping_is_a_bad_request() {
    let mut client = Client::anonymous();
    let step = client.ask(Method::Ping);
    check_close(client, step, Disconnect::BadRequest);
}

#[test]
fn what_the_shard_closed_says_nothing() {
    let mut client = Client::anonymous();
    client.session.close();
    check_close(client, Step::Close(Disconnect::Slow), Disconnect::Slow);
}

#[test]
fn a_closed_session_answers_no_late_confirmation() {
    let mut client = Client::anonymous();
    let index = client.begin(to("a"), ChannelRef(1));
    client.session.close();
    assert!(client.session.on_subscribed(client.now, index, &client.env).is_none());
}

#[test]
fn an_idle_anonymous_session_holds_no_memory() {
    let mut client = Client::anonymous();
    let index = client.follow(to("a"), ChannelRef(1));
    assert!(client.session.subscription(index).unwrap().granted.is_none());
    client.session.end_subscription(index);
    // Ranges of no length: nothing is allocated for these.
    assert_eq!(client.session.user.len() + client.session.info.len(), 0);
    assert_eq!(client.session.subscriptions.capacity(), 0);
}

// ---- any order of anything

#[derive(Clone, Debug)]
enum Operation {
    Connect(usize),
    Command(usize, usize),
    Pong,
    Admitted,
    Refused,
    Subscribed(u16),
    End(u16),
    Advance(u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        3 => (0usize..5).prop_map(Operation::Connect),
        12 => (0usize..12, 0usize..6).prop_map(|(method, name)| Operation::Command(method, name)),
        2 => Just(Operation::Pong),
        4 => Just(Operation::Admitted),
        1 => Just(Operation::Refused),
        4 => (0u16..6).prop_map(Operation::Subscribed),
        2 => (0u16..6).prop_map(Operation::End),
        6 => (0u64..12_000).prop_map(Operation::Advance),
    ];
    // Most runs begin well, or few would get far.
    (any::<bool>(), prop::collection::vec(operation, 1..60)).prop_map(|(well, mut operations)| {
        if well {
            operations.splice(0..0, [Operation::Connect(1), Operation::Admitted]);
        }
        operations
    })
}

/// What a client has seen so far, and what it may see next.
#[derive(Default)]
struct Seen {
    connect: Option<u32>,
    answered: bool,
    closed: bool,
    replies: Vec<u32>,
}

impl Seen {
    fn reply(&mut self, id: u32) {
        assert!(!self.closed, "spoke after the end");
        assert!(self.answered || Some(id) == self.connect, "spoke before the answer to connect");
        assert!(!self.replies.contains(&id), "answered twice");
        self.answered = true;
        self.replies.push(id);
    }

    fn unasked(&self) {
        assert!(!self.closed && self.answered, "spoke before the answer to connect, or after the end");
    }
}

struct Run {
    client: Client,
    seen: Seen,
}

impl Run {
    fn carry_out(&mut self, asked: Option<u32>, channel: ChannelRef, step: Step<'static>) {
        let session = &mut self.client.session;
        match step {
            Step::Nothing => {}
            Step::Reply { id, .. } => {
                assert_eq!(asked, Some(id));
                self.seen.reply(id);
            }
            Step::Admit { id } => self.seen.connect = Some(id),
            Step::Subscribe { id, expires_at, info, data, .. } => {
                self.seen.unasked();
                session.begin_subscription(channel, id, expires_at, info, data).expect("it was said to be new");
            }
            Step::Unsubscribe { id, subscription } => {
                let ended = session.end_subscription(subscription).expect("it was there");
                if let Some(pending) = ended.pending() {
                    self.seen.reply(pending);
                }
                self.seen.reply(id);
            }
            Step::Publish { id, .. } => self.seen.reply(id),
            Step::Ping => self.seen.unasked(),
            Step::Drop { subscription, .. } => {
                self.seen.unasked();
                assert!(session.end_subscription(subscription).is_some_and(|ended| ended.is_live()));
            }
            Step::Close(_) => {
                assert!(!self.seen.closed, "closed twice");
                self.seen.closed = true;
            }
        }
    }

    fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Connect(which) => {
                let text = match which {
                    0 | 1 => String::new(),
                    2 => token(json!({"sub": "1", "exp": START + 30})),
                    3 => token(json!({"exp": 1})),
                    _ => "a.b.c".into(),
                };
                self.command(Method::Connect(Connect { token: text.into(), ..Connect::default() }), 0);
            }
            Operation::Command(which, name) => {
                let method = self.method(which, name);
                self.command(method, name);
            }
            Operation::Pong if !self.client.session.is_admitting() => {
                let step = self.client.pong();
                self.carry_out(None, ChannelRef(0), step);
            }
            Operation::Pong => {}
            Operation::Admitted => {
                let client = &mut self.client;
                if client.session.on_admitted(client.now, &client.env, &mut client.rng) {
                    self.seen.reply(client.session.connect_id());
                }
            }
            Operation::Refused if self.client.session.is_admitting() => {
                let disconnect = self.client.session.on_refused();
                self.carry_out(None, ChannelRef(0), Step::Close(disconnect));
            }
            Operation::Refused => {}
            Operation::Subscribed(index) => {
                let client = &mut self.client;
                let told = client.session.on_subscribed(client.now, index, &client.env).map(|(id, _)| id);
                if let Some(id) = told {
                    self.seen.reply(id);
                }
            }
            Operation::End(index) => {
                self.client.session.end_subscription(index);
            }
            Operation::Advance(millis) => self.client.advance(Duration::from_millis(millis)),
        }
    }

    fn method(&self, which: usize, name: usize) -> Method<'static> {
        let name = ["a", "b", "named:a", "shut:a", "nowhere:a", ""][name];
        let soon = self.client.now.wall.as_secs() + 1;
        match other_methods().swap_remove(which) {
            Method::Subscribe(_) if name == "b" => {
                Method::Subscribe(with_token("b", json!({"channel": "b", "exp": soon})))
            }
            Method::Subscribe(_) => Method::Subscribe(to(name)),
            Method::Unsubscribe { .. } => Method::Unsubscribe { channel: name.into() },
            Method::Publish { data, kind, .. } => Method::Publish { channel: name.into(), data, kind },
            Method::SubRefresh { .. } => {
                let token = token(json!({"channel": name, "exp": soon})).into();
                Method::SubRefresh { channel: name.into(), token }
            }
            // These would end it, which happens often enough.
            Method::Send { .. } | Method::Pong => Method::Presence { channel: name.into() },
            method => method,
        }
    }

    fn command(&mut self, method: Method<'static>, name: usize) {
        if self.client.session.is_admitting() {
            return;
        }
        let channel = ChannelRef(name as u32);
        if let (Method::Connect(_), None) = (&method, self.seen.connect) {
            self.seen.connect = Some(self.client.last_id + 1);
        }
        let step = self.client.ask_about(method, Some(channel));
        self.carry_out(Some(self.client.last_id), channel, step);
    }

    /// Deadlines come to an end, and the next one lies ahead.
    fn settle(&mut self) {
        let early = self.client.session.poll_deadline().is_none_or(|at| at > self.client.now.mono);
        for round in 0.. {
            assert!(round < 20, "deadlines without an end");
            let step = self.client.deadline();
            if matches!(step, Step::Nothing) {
                break;
            }
            assert!(!early, "{step:?} before its deadline");
            self.carry_out(None, ChannelRef(0), step);
        }
        let session = &self.client.session;
        match session.poll_deadline() {
            Some(at) => assert!(at > self.client.now.mono, "a deadline in the past"),
            None => assert!(session.is_closed(), "a client that can fall silent for ever"),
        }
        assert_eq!(session.is_closed(), self.seen.closed);
        assert_eq!(usize::from(session.subscriptions.len()), session.subscriptions().count());
        assert!(session.subscriptions.len() <= 2, "more than the limit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_is_said_before_the_answer_to_connect_or_after_the_end(operations in operations(), seed: u64) {
        let options = Options {
            channel_limit: 2,
            expired_close_delay: secs(2),
            expired_sub_close_delay: secs(1),
            ..Options::default()
        };
        let mut client = Client::new(rules_options(), options);
        client.rng = Rng::seeded(seed);
        let mut run = Run { client, seen: Seen::default() };
        for operation in operations {
            run.operate(operation);
            run.settle();
        }
    }
}
