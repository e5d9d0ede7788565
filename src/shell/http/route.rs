//! What a request is for, and whether it may: one table, judged from the head alone.

use super::response::Response;
use crate::metrics::RefusalReason;
use crate::ws::upgrade::{Head, OriginRule};

/// The port that a request came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    Public,
    Internal,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub websocket_path: String,
    pub origins: OriginRule,
    /// Without one, and without `api_insecure`, nobody may call the API.
    pub api_key: Option<String>,
    pub api_insecure: bool,
    /// There is an internal listener, so API, health and metrics are served there and nowhere else.
    pub internal: bool,
    /// The header that holds the client's address, where proxies are trusted.
    pub address_header: Option<String>,
    pub body_bytes_max: usize,
    pub demo: Option<Demo>,
}

/// What a node of the demo serves besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demo {
    /// The page at `/`.
    pub page: String,
    pub content_security_policy: String,
    /// The nodes of the demo, as JSON, with this node's token.
    pub nodes: String,
    /// Whoever sends it may kill the node; it dies with it.
    pub token: String,
    /// Origins of the other nodes' pages: they may read `nodes`.
    pub origins: OriginRule,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route<'o> {
    /// Whether it is a proper upgrade is judged by `ws::upgrade::check`.
    WebSocket,
    Call(Call),
    Health,
    Page(&'o Demo),
    DemoNodes(&'o Demo),
    Refused(Refused),
}

/// What somebody else has to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// `POST /api/<method>`.
    Api {
        method: String,
        transport_errors: bool,
    },
    /// `POST /api`, the older form: the method stands in the body.
    ApiEnveloped {
        transport_errors: bool,
    },
    Ready,
    Metrics,
    /// The cluster as this node sees it, as JSON.
    Cluster,
    /// The token was right: this process is to end as if it were killed.
    Kill,
}

/// A request that goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    NotFound,
    /// With the methods that are allowed.
    Method(&'static str),
    /// No key, or another one.
    Unauthorized,
    /// A page of a foreign origin calls an API that needs no key.
    Origin,
    /// The demo's token is another one.
    Token,
}

impl Refused {
    pub const fn reason(self) -> RefusalReason {
        match self {
            Refused::NotFound => RefusalReason::NotFound,
            Refused::Method(_) => RefusalReason::Method,
            Refused::Unauthorized | Refused::Token => RefusalReason::Unauthorized,
            Refused::Origin => RefusalReason::Origin,
        }
    }

    pub fn response(self) -> Response<'static> {
        match self {
            Refused::NotFound => Response::sentence(404, "There is nothing at this address."),
            Refused::Method(allowed) => {
                let mut response = Response::sentence(405, "This address takes another method.");
                response.extra.push(("Allow", allowed.into()));
                response
            }
            // Nothing in it, as in the reference.
            Refused::Unauthorized => {
                let mut response = Response::new(401, "", b"");
                response.extra.push(("WWW-Authenticate", "apikey".into()));
                response
            }
            Refused::Origin => {
                Response::sentence(403, "Pages of this origin may not call the API: see allowed_origins.")
            }
            Refused::Token => Response::sentence(403, "This is not the token that this node dies of."),
        }
    }
}

pub fn route<'o>(head: &Head<'_>, options: &'o Options, listener: Listener) -> Route<'o> {
    let public = listener == Listener::Public;
    let operator = !public || !options.internal;
    let path = head.path;
    match path {
        _ if public && path == options.websocket_path => Route::WebSocket,
        "/health" if operator => reading(head, Route::Health),
        "/ready" if operator => reading(head, Route::Call(Call::Ready)),
        "/metrics" if operator => reading(head, Route::Call(Call::Metrics)),
        "/cluster" if operator => reading(head, Route::Call(Call::Cluster)),
        _ if operator && (path == "/api" || path.starts_with("/api/")) => api(head, options),
        _ => match &options.demo {
            Some(demo) if public => demo_route(head, demo),
            _ => Route::Refused(Refused::NotFound),
        },
    }
}

fn api(head: &Head<'_>, options: &Options) -> Route<'static> {
    // Before anything else, so that without a key nothing is learnt.
    if !options.api_insecure && !options.api_key.as_deref().is_some_and(|key| has_key(head, key)) {
        return Route::Refused(Refused::Unauthorized);
    }
    // Any page can make a browser post, and without a key only this tells its request from a backend's.
    let foreign = head.header("origin").is_some_and(|origin| !options.origins.allows(origin, head.host));
    if options.api_insecure && foreign {
        return Route::Refused(Refused::Origin);
    }
    if head.method != "POST" {
        return Route::Refused(Refused::Method("POST"));
    }
    let transport_errors = head.header("x-centrifugo-error-mode") == Some("transport");
    Route::Call(match head.path.strip_prefix("/api/") {
        None | Some("") => Call::ApiEnveloped { transport_errors },
        Some(method) => Call::Api { method: method.to_owned(), transport_errors },
    })
}

fn demo_route<'o>(head: &Head<'_>, demo: &'o Demo) -> Route<'o> {
    match head.path {
        "/" => reading(head, Route::Page(demo)),
        "/demo/nodes" => reading(head, Route::DemoNodes(demo)),
        "/demo/kill" if head.method != "POST" => Route::Refused(Refused::Method("POST")),
        "/demo/kill" if head.query_value("token").is_some_and(|token| same_secret(token, &demo.token)) => {
            Route::Call(Call::Kill)
        }
        "/demo/kill" => Route::Refused(Refused::Token),
        _ => Route::Refused(Refused::NotFound),
    }
}

fn reading<'o>(head: &Head<'_>, route: Route<'o>) -> Route<'o> {
    match head.method {
        "GET" | "HEAD" => route,
        _ => Route::Refused(Refused::Method("GET, HEAD")),
    }
}

/// Whether one of the three places that may hold the key does.
fn has_key(head: &Head<'_>, key: &str) -> bool {
    let bearer = head.header("authorization").and_then(|value| match value.split_once(' ') {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("apikey") => Some(given.trim()),
        _ => None,
    });
    let query = head.query_value("api_key").map(percent_decoded);
    [head.header("x-api-key"), bearer, query.as_deref()].into_iter().flatten().any(|given| same_secret(given, key))
}

/// Takes as long for a guess that is right up to its last byte as for any other of its length. An empty secret is none.
fn same_secret(given: &str, secret: &str) -> bool {
    if secret.is_empty() || given.len() != secret.len() {
        return false;
    }
    let differences = given.bytes().zip(secret.bytes()).fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
    differences == 0
}

/// A broken escape stands for itself: what matters is only whether the key comes out.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
        });
        match (bytes[at], escape) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ws::upgrade::{Parse, parse_head};

    pub fn options() -> Options {
        Options {
            websocket_path: "/connection/websocket".into(),
            origins: OriginRule::default(),
            api_key: Some("secret".into()),
            api_insecure: false,
            internal: false,
            address_header: None,
            body_bytes_max: 1000,
            demo: None,
        }
    }

    pub fn demo() -> Demo {
        Demo {
            page: "page".into(),
            content_security_policy: "default-src 'none'".into(),
            nodes: "[]".into(),
            token: "t0k".into(),
            origins: OriginRule::default(),
        }
    }

    fn check<'o>(request: &str, options: &'o Options, listener: Listener) -> Route<'o> {
        let (line, headers) = request.split_once('|').unwrap_or((request, ""));
        let headers = headers.split('|').filter(|h| !h.is_empty()).fold(String::new(), |all, h| all + h + "\r\n");
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let Ok(Parse::Complete(head, _)) = parse_head(text.as_bytes()) else { panic!("{text}") };
        route(&head, options, listener)
    }

    const UNAUTHORIZED: Route<'static> = Route::Refused(Refused::Unauthorized);
    const NOT_FOUND: Route<'static> = Route::Refused(Refused::NotFound);

    #[test]
    fn the_key_may_stand_in_three_places_and_nowhere_else() {
        let publish = Route::Call(Call::Api { method: "publish".into(), transport_errors: false });
        for (request, expected) in [
            ("POST /api/publish|X-API-Key: secret", &publish),
            ("POST /api/publish|Authorization: apikey secret", &publish),
            ("POST /api/publish|Authorization: ApiKey  secret", &publish),
            ("POST /api/publish?api_key=secret", &publish),
            ("POST /api/publish?a=b&api_key=%73ecre%74", &publish),
            ("POST /api/publish", &UNAUTHORIZED),
            ("POST /api/publish|X-API-Key: secres", &UNAUTHORIZED),
            ("POST /api/publish|X-API-Key: secret2", &UNAUTHORIZED),
            ("POST /api/publish|X-API-Key:", &UNAUTHORIZED),
            ("POST /api/publish|Authorization: Bearer secret", &UNAUTHORIZED),
            ("POST /api/publish|Cookie: api_key=secret", &UNAUTHORIZED),
            ("GET /api/publish", &UNAUTHORIZED),
            ("POST /api/no_such_method", &UNAUTHORIZED),
        ] {
            assert_eq!(check(request, &options(), Listener::Public), *expected, "{request}");
        }
    }

    #[test]
    fn without_a_key_the_api_is_closed_unless_it_is_declared_insecure() {
        for key in [None, Some(String::new())] {
            let closed = Options { api_key: key, ..options() };
            assert_eq!(check("POST /api/info|X-API-Key:", &closed, Listener::Public), UNAUTHORIZED);
            assert_eq!(check("POST /api/info?api_key=", &closed, Listener::Public), UNAUTHORIZED);
            let open = Options { api_insecure: true, ..closed };
            assert!(matches!(check("POST /api/info", &open, Listener::Public), Route::Call(Call::Api { .. })));
        }
    }

    #[test]
    fn api_requests_are_posts_and_may_ask_for_transport_errors() {
        let open = Options { api_insecure: true, ..options() };
        assert_eq!(check("GET /api/info", &open, Listener::Public), Route::Refused(Refused::Method("POST")));
        let foreign = "POST /api/info|Origin: http://elsewhere";
        assert_eq!(check(foreign, &open, Listener::Public), Route::Refused(Refused::Origin));
        assert_ne!(check("POST /api/info|Origin: http://a", &open, Listener::Public), Route::Refused(Refused::Origin));
        for path in ["/api", "/api/"] {
            let request = format!("POST {path}|X-Centrifugo-Error-Mode: transport");
            let expected = Route::Call(Call::ApiEnveloped { transport_errors: true });
            assert_eq!(check(&request, &open, Listener::Public), expected);
        }
        assert_eq!(check("POST /apis", &open, Listener::Public), NOT_FOUND);
    }

    #[test]
    fn with_an_internal_address_what_is_for_operators_is_only_there() {
        let requests =
            ["POST /api/info|X-API-Key: secret", "GET /health", "GET /ready", "HEAD /metrics", "GET /cluster"];
        let split = Options { internal: true, demo: Some(demo()), ..options() };
        for request in requests {
            assert_ne!(check(request, &options(), Listener::Public), NOT_FOUND, "{request}");
            assert_eq!(check(request, &split, Listener::Public), NOT_FOUND, "{request}");
            assert_ne!(check(request, &split, Listener::Internal), NOT_FOUND, "{request}");
        }
        for request in ["GET /connection/websocket", "GET /", "POST /demo/kill?token=t0k"] {
            assert_ne!(check(request, &split, Listener::Public), NOT_FOUND, "{request}");
            assert_eq!(check(request, &split, Listener::Internal), NOT_FOUND, "{request}");
        }
    }

    #[test]
    fn the_page_and_the_kill_exist_in_the_demo_only() {
        let with = Options { demo: Some(demo()), ..options() };
        let without = options();
        for request in ["GET /", "GET /demo/nodes", "POST /demo/kill?token=t0k"] {
            assert_eq!(check(request, &without, Listener::Public), NOT_FOUND);
        }
        assert_eq!(check("GET /", &with, Listener::Public), Route::Page(&demo()));
        assert_eq!(check("GET /demo/nodes", &with, Listener::Public), Route::DemoNodes(&demo()));
        assert_eq!(check("POST /demo/kill?token=t0k", &with, Listener::Public), Route::Call(Call::Kill));
        assert_eq!(check("GET /demo/kill?token=t0k", &with, Listener::Public), Route::Refused(Refused::Method("POST")));
        for request in ["POST /demo/kill", "POST /demo/kill?token=", "POST /demo/kill?token=t0l"] {
            assert_eq!(check(request, &with, Listener::Public), Route::Refused(Refused::Token));
        }
    }
}
