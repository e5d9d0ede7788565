//! Every option there is, once: its path in the file, what values it takes, its default, what it does.
//!
//! Flags, environment variables, the sample, the reference and `--help` all follow from this table, and the typed
//! settings are read from it by path. Names are Centrifugo's where the meaning is the same, so that a configuration can
//! move. What such a configuration may hold and Skein has not is here, too, with a sentence that says what to do.
//!
//! Always true: a path, and so a flag or a variable, means one option; every option has a doc and a default that parses.

use crate::limits::{MESH_FRAME_BYTES_MAX, WORKERS_MAX};

pub struct Entry {
    /// Tables and key, with dots. Of a namespace's option only the key.
    pub path: &'static str,
    pub kind: Kind,
    /// As it would be written in the file.
    pub default: &'static str,
    pub doc: &'static str,
    /// As it would be written in the file; empty where the default shows enough.
    pub example: &'static str,
    /// A shorter flag beside the one that has the path's name.
    pub alias: Option<&'static str>,
    pub status: Status,
}

/// What values an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bool,
    Number {
        min: u64,
        max: u64,
    },
    /// Bytes: a number, or text with KiB or MiB.
    Size {
        min: u64,
        max: u64,
    },
    /// Text with units; the bounds are in milliseconds. `zero` says what a zero means where it is allowed outside them.
    Duration {
        min: u64,
        max: u64,
        zero: Option<&'static str>,
    },
    Text,
    /// Text that is never shown.
    Secret,
    Choice(&'static [&'static str]),
    /// Empty, or a node's name.
    NodeName,
    /// An address without a port; empty: all addresses.
    Ip,
    /// Empty, or an address without a port.
    OptionalIp,
    Port,
    /// Empty, or a port.
    OptionalPort,
    /// An address and a port.
    Socket,
    /// Empty, or a host and a port.
    HostPort,
    HostPorts,
    /// Addresses, or networks as `10.0.0.0/8`.
    Networks,
    Origins,
    HttpPath,
    HeaderName,
    /// Empty, or one ASCII character.
    Character,
    File,
    Namespaces,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Built,
    /// Known from other configurations; any other value than the default is refused with this sentence.
    Fixed(&'static str),
    /// Known from other configurations; any value is accepted and changes nothing, for this reason.
    NoEffect(&'static str),
}

/// A table of the file, in the order in which the sample and the reference show them.
pub struct Group {
    pub table: &'static str,
    pub doc: &'static str,
}

impl Entry {
    const fn new(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Self {
        Entry { path, kind, default, doc, example: "", alias: None, status: Status::Built }
    }

    const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    const fn fixed(path: &'static str, kind: Kind, default: &'static str, sentence: &'static str) -> Self {
        Entry { path, kind, default, doc: sentence, example: "", alias: None, status: Status::Fixed(sentence) }
    }

    const fn no_effect(path: &'static str, kind: Kind, default: &'static str, reason: &'static str) -> Self {
        Entry { path, kind, default, doc: reason, example: "", alias: None, status: Status::NoEffect(reason) }
    }

    pub fn built(&self) -> bool {
        matches!(self.status, Status::Built)
    }

    /// What it does and, where they are few, which values it takes.
    pub fn doc(&self) -> String {
        match self.kind {
            Kind::Choice(choices) => {
                let choices: Vec<String> = choices.iter().map(|choice| format!("'{choice}'")).collect();
                format!("{} One of {}.", self.doc, choices.join(", "))
            }
            _ => self.doc.to_owned(),
        }
    }

    /// The table that the option stands in, and its key.
    pub fn table_and_key(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

pub const VARIABLE_PREFIX: &str = "SKEIN_";
/// Names the configuration file, where no flag does.
pub const FILE_VARIABLE: &str = "SKEIN_CONFIG";
/// Options of a namespace stand in this table, and in each element of `NAMESPACES`.
pub const WITHOUT_NAMESPACE: &str = "channel.without_namespace";
pub const NAMESPACES: &str = "channel.namespaces";

pub const GROUPS: &[Group] = &[
    Group { table: "node", doc: "This process." },
    Group { table: "http_server", doc: "Where clients and backends reach the node." },
    Group { table: "websocket", doc: "The clients' connections." },
    Group { table: "client", doc: "Who may connect, for how long, and how much one client may take." },
    Group { table: "client.token", doc: "How tokens are checked: those of connections and those of subscriptions." },
    Group { table: "http_api", doc: "How a backend publishes." },
    Group { table: "channel", doc: "Names of channels." },
    Group {
        table: WITHOUT_NAMESPACE,
        doc: "What is allowed on channels without a namespace. Each namespace takes the same options.",
    },
    Group { table: "mesh", doc: "The other nodes." },
    Group { table: "proxy", doc: "Reverse proxies in front of the node." },
    Group { table: "log", doc: "What the node tells, on standard error." },
    Group { table: "shutdown", doc: "How the node stops." },
];

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A publication has to fit a frame between nodes, with its channel's name, its publisher and its tags.
const MESSAGE_BYTES_MAX: u64 = MESH_FRAME_BYTES_MAX as u64 / 2;
const COUNT_MAX: u64 = u32::MAX as u64;

const fn delay(min: u64, max: u64) -> Kind {
    Kind::Duration { min, max, zero: None }
}

pub const OPTIONS: &[Entry] = &[
    Entry::new(
        "node.name",
        Kind::NodeName,
        "''",
        "The node's name, unique in its cluster. Empty: the name in its certificate, or else the machine's name. With a certificate it must be the same.",
    )
    .alias("name")
    .example("'game-1'"),
    Entry::new(
        "node.workers",
        Kind::Number { min: 0, max: WORKERS_MAX as u64 },
        "0",
        "Worker threads. 0: one for each core that the process may use.",
    )
    .alias("workers"),
    Entry::new("node.pin", Kind::Bool, "true", "Bind each worker to a core of its own."),
    Entry::new(
        "node.driver",
        Kind::Choice(&["auto", "io_uring", "epoll"]),
        "'auto'",
        "How workers talk to the kernel. 'auto': io_uring where the kernel has it and allows it, otherwise epoll.",
    )
    .alias("driver"),
    Entry::new(
        "http_server.address",
        Kind::Ip,
        "'127.0.0.1'",
        "The address to listen on. '0.0.0.0' or '' is every address, and needs authentication to be configured.",
    )
    .alias("address"),
    Entry::new(
        "http_server.port",
        Kind::Port,
        "8000",
        "The port to listen on: clients, and the backend's API unless there is an internal port. 0: any free one.",
    )
    .alias("port"),
    Entry::new(
        "http_server.internal_address",
        Kind::OptionalIp,
        "''",
        "When this or the internal port is set, API, health, readiness and metrics are served there and no longer beside the clients. Empty: the same address.",
    )
    .example("'127.0.0.1'"),
    Entry::new(
        "http_server.internal_port",
        Kind::OptionalPort,
        "''",
        "Port of the internal address. Empty: the same port.",
    )
    .example("9000"),
    Entry::new(
        "http_server.handshake_timeout",
        delay(100, 5 * MINUTE),
        "'10s'",
        "How long a fresh connection may take to send its whole request. Later it is closed.",
    ),
    Entry::new(
        "websocket.handler_prefix",
        Kind::HttpPath,
        "'/connection/websocket'",
        "The path on which clients connect.",
    ),
    Entry::new(
        "websocket.message_size_limit",
        Kind::Size { min: KIB, max: MESSAGE_BYTES_MAX },
        "65536",
        "Bytes of one message of a client. Longer: close 1009.",
    ),
    Entry::new(
        "client.insecure",
        Kind::Bool,
        "false",
        "Allow everybody everything that needs no token. For development. A token that is sent is checked all the same.",
    ),
    Entry::new(
        "client.allow_anonymous_connect_without_token",
        Kind::Bool,
        "false",
        "Let clients without a token connect, as the user with the empty name. What they may do is up to the channels' options.",
    ),
    Entry::new(
        "client.allowed_origins",
        Kind::Origins,
        "[]",
        "Pages of which origins may connect, beside those of the node's own origin; '*' stands for any characters. Clients that are no browser send no origin and are not concerned.",
    )
    .example("['https://example.com', 'https://*.example.com']"),
    Entry::new(
        "client.ping_interval",
        Kind::Duration { min: SECOND, max: HOUR, zero: Some("no pings") },
        "'25s'",
        "How often the node pings a client. '0s': never.",
    ),
    Entry::new(
        "client.pong_timeout",
        Kind::Duration { min: 100, max: HOUR, zero: Some("no pongs are asked for") },
        "'8s'",
        "How long a client may take to answer a ping: less than the interval. Later: close 3012. '0s': no answer is asked for.",
    ),
    Entry::new(
        "client.stale_close_delay",
        delay(100, HOUR),
        "'10s'",
        "How long a connection may take to its accepted connect command. Later: close 3502.",
    ),
    Entry::new(
        "client.expired_close_delay",
        delay(0, DAY),
        "'25s'",
        "How long a connection may be past its token's expiry until a new token comes. Later: close 3005.",
    ),
    Entry::new(
        "client.expired_sub_close_delay",
        delay(0, DAY),
        "'25s'",
        "The same for a subscription. Later: unsubscribe 2501.",
    ),
    Entry::new(
        "client.channel_limit",
        Kind::Number { min: 1, max: 65_535 },
        "128",
        "Channels that one client may be subscribed to. More: error 106.",
    ),
    Entry::new(
        "client.queue_max_size",
        Kind::Size { min: 4 * KIB, max: 1024 * MIB },
        "1048576",
        "Bytes that may wait for a client that reads slowly. More: close 3008.",
    ),
    Entry::new(
        "client.connection_limit",
        Kind::Number { min: 0, max: COUNT_MAX },
        "0",
        "Connections of this node. More are refused. 0: as many as there are file descriptors.",
    ),
    Entry::new(
        "client.user_connection_limit",
        Kind::Number { min: 0, max: COUNT_MAX },
        "0",
        "Connections of one user on this node; anonymous ones are not counted. More: close 3504. 0: no limit.",
    ),
    Entry::new(
        "client.address_connection_limit",
        Kind::Number { min: 0, max: COUNT_MAX },
        "0",
        "Connections from one address on this node. More: close 3504. 0: no limit. Behind a proxy, set `proxy` first.",
    ),
    Entry::new(
        "client.json_depth_limit",
        Kind::Number { min: 8, max: 128 },
        "64",
        "How deep arrays and objects of a JSON message may nest. Deeper: close 3501.",
    ),
    Entry::new(
        "client.commands_per_frame_limit",
        Kind::Number { min: 1, max: 65_536 },
        "512",
        "Commands that one frame of a client may hold. More: close 3501.",
    ),
    Entry::no_effect(
        "client.concurrency",
        Kind::Number { min: 0, max: COUNT_MAX },
        "0",
        "the commands of one client are always handled in order, and none of them waits for anything slow",
    ),
    Entry::new(
        "client.token.hmac_secret_key",
        Kind::Secret,
        "''",
        "The secret that your backend signs tokens with, by HS256, HS384 or HS512. Better in the environment than in a flag, which everybody on the machine can see.",
    ),
    Entry::new(
        "client.token.hmac_previous_secret_key",
        Kind::Secret,
        "''",
        "The secret before a change. Tokens signed with it are still good; remove it when the last of them has expired.",
    ),
    Entry::new("client.token.audience", Kind::Text, "''", "When set, a token must name it in its claim `aud`."),
    Entry::new("client.token.issuer", Kind::Text, "''", "When set, it must be a token's claim `iss`."),
    Entry::fixed(
        "client.token.hmac_previous_secret_key_valid_until",
        Kind::Number { min: 0, max: u64::MAX },
        "0",
        "A date for the end of the previous secret is not built yet: remove the secret when its time is over.",
    ),
    Entry::fixed("client.token.rsa_public_key", Kind::Secret, "''", NO_PUBLIC_KEYS),
    Entry::fixed("client.token.ecdsa_public_key", Kind::Secret, "''", NO_PUBLIC_KEYS),
    Entry::fixed("client.token.jwks_public_endpoint", Kind::Text, "''", NO_PUBLIC_KEYS),
    Entry::fixed("client.token.audience_regex", Kind::Text, "''", "Not built yet: name one audience with `client.token.audience`."),
    Entry::fixed("client.token.issuer_regex", Kind::Text, "''", "Not built yet: name one issuer with `client.token.issuer`."),
    Entry::fixed("client.token.user_id_claim", Kind::Text, "''", "Not built yet: put the user into the claim `sub`."),
    Entry::new(
        "http_api.key",
        Kind::Secret,
        "''",
        "The key that a backend sends in the header X-API-Key. Empty: nobody may use the API.",
    ),
    Entry::new("http_api.insecure", Kind::Bool, "false", "Let everybody use the API, without a key."),
    Entry::new(
        "http_api.body_size_limit",
        Kind::Size { min: KIB, max: 256 * MIB },
        "1048576",
        "Bytes of one request. More: status 413.",
    ),
    Entry::new(
        "http_api.channels_limit",
        Kind::Number { min: 1, max: 1_000_000 },
        "10000",
        "Channels of one broadcast. More: error 107.",
    ),
    Entry::new(
        NAMESPACES,
        Kind::Namespaces,
        "[]",
        "Namespaces: a name, which is the part of a channel's name before the first ':', and the options of `channel.without_namespace`. A channel of a namespace that is not here does not exist: error 102.",
    )
    .example("[{ name = 'chat', allow_subscribe_for_client = true }]"),
    Entry::new(
        "channel.max_length",
        Kind::Number { min: 1, max: 1024 },
        "255",
        "Characters of a channel's name. More: error 107.",
    ),
    Entry::new(
        "channel.private_prefix",
        Kind::Character,
        "'$'",
        "Begins the name of a channel that needs a subscription token. Empty: no name does.",
    ),
    Entry::new("channel.namespace_boundary", Kind::Character, "':'", "Ends the namespace in a channel's name."),
    Entry::new("channel.user_boundary", Kind::Character, "'#'", "Begins the list of users in a channel's name."),
    Entry::new("channel.user_separator", Kind::Character, "','", "Stands between two users of that list."),
    Entry::new(
        "mesh.bundle",
        Kind::File,
        "''",
        "The file with this node's certificate and key, from `skein cert node`. Empty: the node runs alone.",
    )
    .example("'/etc/skein/game-1.pem'"),
    Entry::new(
        "mesh.listen",
        Kind::Socket,
        "'0.0.0.0:7800'",
        "UDP address for the other nodes. Each worker takes one port, counted from this one.",
    ),
    Entry::new(
        "mesh.advertise",
        Kind::HostPort,
        "''",
        "Where other nodes reach this one. Empty: `mesh.listen`, which then must not be every address.",
    )
    .example("'10.0.0.1:7800'"),
    Entry::new(
        "mesh.seeds",
        Kind::HostPorts,
        "[]",
        "Nodes to join, each with the port that its `mesh.listen` begins with. A name may have many addresses, and is looked up again as long as it is needed. The node itself may be among them.",
    )
    .alias("seeds")
    .example("['skein.internal:7800']"),
    Entry::new(
        "mesh.join_timeout",
        delay(100, 10 * MINUTE),
        "'5s'",
        "When no seed has answered for so long, the node serves as a cluster of one, says so, and goes on trying.",
    ),
    Entry::new(
        "mesh.queue_bytes",
        Kind::Size { min: 2 * MESH_FRAME_BYTES_MAX as u64, max: 1024 * MIB },
        "4194304",
        "Bytes that may wait for one other node, for each lane to it. When they are more, publications to it are dropped, counted, and the gap is told.",
    ),
    Entry::new(
        "proxy.trusted",
        Kind::Networks,
        "[]",
        "Addresses or networks of reverse proxies whose header is believed.",
    )
    .example("['10.0.0.0/8', '::1']"),
    Entry::new(
        "proxy.header",
        Kind::HeaderName,
        "'X-Forwarded-For'",
        "The header in which a trusted proxy names the client's address.",
    ),
    Entry::new(
        "log.level",
        Kind::Choice(&["trace", "debug", "info", "warn", "error", "none"]),
        "'info'",
        "The least grave level that is told.",
    ),
    Entry::new("log.format", Kind::Choice(&["text", "json"]), "'text'", "Lines for people, or one JSON object a line."),
    Entry::fixed("log.file", Kind::Text, "''", "Logs go to standard error: let your service manager keep them."),
    Entry::new(
        "shutdown.timeout",
        delay(100, HOUR),
        "'10s'",
        "How long the node may take to close its clients and leave the mesh. Then it stops anyway.",
    ),
    Entry::fixed("websocket.disabled", Kind::Bool, "false", "WebSocket is the only way in: it cannot be turned off."),
    Entry::fixed("websocket.compression", Kind::Bool, "false", "Compression is not built yet: leave it off; clients go on without."),
    Entry::no_effect("websocket.read_buffer_size", Kind::Number { min: 0, max: COUNT_MAX }, "0", NO_BUFFERS),
    Entry::no_effect("websocket.write_buffer_size", Kind::Number { min: 0, max: COUNT_MAX }, "0", NO_BUFFERS),
    Entry::no_effect("websocket.use_write_buffer_pool", Kind::Bool, "false", NO_BUFFERS),
    Entry::no_effect(
        "websocket.write_timeout",
        delay(0, HOUR),
        "'1s'",
        "a client that reads slowly is bounded by `client.queue_max_size`, not by time",
    ),
    Entry::fixed("http_api.disabled", Kind::Bool, "false", "Leave `http_api.key` empty: then nobody may use the API."),
    Entry::fixed("http_api.handler_prefix", Kind::Text, "'/api'", "The API's path is /api, always."),
    Entry::fixed("http_api.external", Kind::Bool, "false", "Where an internal address is set the API is served there only."),
    Entry::fixed("health.enabled", Kind::Bool, "true", ALWAYS_ON),
    Entry::fixed("prometheus.enabled", Kind::Bool, "true", ALWAYS_ON),
];

/// What may be set for each namespace, and for channels without one.
pub const NAMESPACE_OPTIONS: &[Entry] = &[
    Entry::new(
        "allow_subscribe_for_client",
        Kind::Bool,
        "false",
        "Clients with a user's name may subscribe without a subscription token.",
    ),
    Entry::new(
        "allow_subscribe_for_anonymous",
        Kind::Bool,
        "false",
        "With it, `allow_subscribe_for_client` covers anonymous clients, too.",
    ),
    Entry::new("allow_publish_for_client", Kind::Bool, "false", "Clients with a user's name may publish."),
    Entry::new(
        "allow_publish_for_subscriber",
        Kind::Bool,
        "false",
        "Clients with a user's name may publish where they are subscribed.",
    ),
    Entry::new(
        "allow_publish_for_anonymous",
        Kind::Bool,
        "false",
        "With it, the permissions to publish cover anonymous clients, too.",
    ),
    Entry::new(
        "allow_user_limited_channels",
        Kind::Bool,
        "false",
        "A list of users at the end of a name, as in `dialog#1,2`, opens the channel to these users and to no others.",
    ),
    Entry::new(
        "class",
        Kind::Choice(&["ephemeral", "history", "durable", "queue"]),
        "'ephemeral'",
        "What is promised about delivery. 'ephemeral': at most once, in order for each publisher, nothing kept. The other classes are not built yet.",
    ),
    Entry::new(
        "tell_gap",
        Kind::Bool,
        "false",
        "When publications were lost between nodes, tell subscribers: unsubscribe 2500, upon which they subscribe again.",
    ),
    Entry::fixed("presence", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("join_leave", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("force_push_join_leave", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("allow_presence_for_client", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("allow_presence_for_subscriber", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("allow_presence_for_anonymous", Kind::Bool, "false", NO_PRESENCE),
    Entry::fixed("history_size", Kind::Number { min: 0, max: u64::MAX }, "0", NO_HISTORY),
    Entry::fixed("history_ttl", delay(0, u64::MAX), "'0s'", NO_HISTORY),
    Entry::fixed("history_meta_ttl", delay(0, u64::MAX), "'0s'", NO_HISTORY),
    Entry::fixed("force_recovery", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("allow_recovery", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("force_positioning", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("allow_positioning", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("allow_history_for_client", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("allow_history_for_subscriber", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("allow_history_for_anonymous", Kind::Bool, "false", NO_HISTORY),
    Entry::fixed("delta_publish", Kind::Bool, "false", "Deltas are not built yet: publications go out whole."),
    Entry::fixed(
        "allow_tags_filter",
        Kind::Bool,
        "false",
        "Filters are not built yet: filter at the client, or use more channels.",
    ),
    Entry::fixed(
        "channel_regex",
        Kind::Text,
        "''",
        "Not built yet: names are ASCII, up to `channel.max_length` characters.",
    ),
    Entry::fixed("subscribe_proxy_enabled", Kind::Bool, "false", NO_HOOKS),
    Entry::fixed("publish_proxy_enabled", Kind::Bool, "false", NO_HOOKS),
    Entry::fixed("sub_refresh_proxy_enabled", Kind::Bool, "false", NO_HOOKS),
    Entry::fixed("subscribe_stream_proxy_enabled", Kind::Bool, "false", NO_HOOKS),
];

const NO_PUBLIC_KEYS: &str = "Public keys are not built yet: sign tokens with `client.token.hmac_secret_key`.";
const NO_PRESENCE: &str =
    "Presence is not built yet: clients get error 108; let members publish to the channel that they are there.";
const NO_HISTORY: &str = "History is not built yet: clients get error 108; keep what must not be missed in your backend and let clients ask for it after they subscribed.";
const NO_HOOKS: &str = "Calls to the backend are not built yet: use subscription tokens and the `allow_` options.";
const NO_BUFFERS: &str = "connections have no buffers of their own";
const ALWAYS_ON: &str =
    "Health and metrics are always served: set `http_server.internal_port` to keep them from the public.";

/// Whole tables of other configurations that have no counterpart here, and what to do instead. One that is empty or has
/// `enabled = false` is fine.
pub const FOREIGN: &[(&str, &str)] = &[
    ("engine", NO_ENGINE),
    ("broker", NO_ENGINE),
    ("presence_manager", NO_ENGINE),
    ("map_broker", NO_ENGINE),
    ("redis", NO_ENGINE),
    ("admin", "there is no admin page: see `skein cluster status` and /metrics"),
    ("grpc_api", "there is no gRPC API: use the HTTP API"),
    ("rpc", "calls to the backend are not built yet: clients get error 108 for an rpc"),
    ("proxies", "calls to the backend are not built yet"),
    ("client.proxy", "calls to the backend are not built yet: use tokens"),
    ("channel.proxy", "calls to the backend are not built yet: use subscription tokens and the `allow_` options"),
    ("consumers", "consumers are not built yet: publish over the HTTP API"),
    ("client.subscription_token", "sign subscription tokens with `client.token.hmac_secret_key`, too"),
    ("client.subscribe_to_user_personal_channel", "put the channel into the claim `channels` of the token"),
    ("http_server.tls", "TLS for clients is not built yet: put a proxy in front and name it in `proxy.trusted`"),
    ("http_server.tls_autocert", "TLS for clients is not built yet: put a proxy in front"),
    ("http_server.internal_tls", "TLS is not built yet: put a proxy in front"),
    ("http_server.http3", "only WebSocket is built"),
    ("sse", "only WebSocket is built"),
    ("http_stream", "only WebSocket is built"),
    ("webtransport", "only WebSocket is built"),
    ("uni_sse", "only WebSocket is built"),
    ("uni_http_stream", "only WebSocket is built"),
    ("uni_websocket", "only WebSocket is built"),
    ("uni_grpc", "only WebSocket is built"),
];

const NO_ENGINE: &str = "there is no engine: nodes form a mesh of their own, see `mesh.seeds`";
