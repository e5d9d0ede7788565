//! From collected values to settings: what values mean, and what they mean together.
//!
//! Each rule between options stands here once, with the sentence that explains it.

use std::net::SocketAddr;
use std::time::Duration;

use super::collect::{Collected, Options, Setting};
use super::mistake::{Mistake, Mistakes, Place};
use super::schema::NAMESPACES;
use super::settings::{Api, Client, Driver, Format, HostPort, Http, Level, Limits, Log, Mesh, Node, Proxy, Settings};
use super::value::{Value, ip};
use crate::base::id::NodeId;
use crate::limits::WORKERS_MAX;
use crate::rules::{Class, Namespace};
use crate::{auth, rules};

pub fn resolve(collected: Collected) -> Result<Settings, Mistakes> {
    let Collected { settings, without_namespace, namespaces, mut mistakes, ineffective } = collected;
    let mut notes: Vec<String> = ineffective
        .into_iter()
        .map(|(path, place, reason)| format!("{place}: `{path}` has no effect: {reason}"))
        .collect();
    let values = Values { settings: &settings };

    let http = http(&values);
    let access = Access {
        secret: !values.text("client.token.hmac_secret_key").is_empty(),
        anonymous: values.bool("client.allow_anonymous_connect_without_token"),
        insecure: values.bool("client.insecure"),
        first: first_access_setting(&values, &without_namespace, namespaces.first().map(|first| &first.place)),
    };
    let open = match access.judge(&values, http.listen) {
        Ok(open) => open,
        Err(mistake) => {
            mistakes.push(mistake);
            false
        }
    };
    let api = api(&values, open);
    if open {
        notes.push(format!(
            "open: nothing says who may connect, so everybody who reaches {} may do everything; set `client.token.hmac_secret_key` before anything else",
            http.listen
        ));
    } else if access.insecure && !http.listen.ip().is_loopback() {
        notes.push(format!(
            "`client.insecure` is on: everybody who reaches {} may subscribe and publish everywhere",
            http.listen
        ));
    }
    if api.insecure && !http.internal.unwrap_or(http.listen).ip().is_loopback() {
        notes.push("`http_api.insecure` is on: everybody who reaches the API may publish everywhere".to_owned());
    }

    check_keepalive(&values, &mut mistakes);
    check_sizes(&values, &mut mistakes);
    check_secrets(&values, &mut mistakes);
    check_separators(&values, &mut mistakes);
    let mesh = mesh(&values, &mut mistakes);

    let rules = rules::Options {
        without_namespace: namespace("channel.without_namespace.class", &without_namespace, &mut mistakes),
        namespaces: namespaces
            .iter()
            .map(|table| (table.name.as_str().into(), namespace("class", &table.options, &mut mistakes)))
            .collect(),
        channel_name_bytes_max: values.size("channel.max_length"),
        private_prefix: values.character("channel.private_prefix"),
        namespace_boundary: values.character("channel.namespace_boundary"),
        user_boundary: values.character("channel.user_boundary"),
        user_separator: values.character("channel.user_separator"),
        insecure: access.insecure || open,
        allow_anonymous_connect_without_token: access.anonymous,
    };
    if !mistakes.is_empty() {
        mistakes.sort();
        return Err(Mistakes(mistakes));
    }
    Ok(Settings {
        node: node(&values),
        http,
        api,
        client: Client {
            ping_interval: values.duration("client.ping_interval"),
            pong_timeout: values.duration("client.pong_timeout"),
            stale_close_delay: values.duration("client.stale_close_delay"),
            expired_close_delay: values.duration("client.expired_close_delay"),
            expired_sub_close_delay: values.duration("client.expired_sub_close_delay"),
        },
        limits: Limits {
            message_bytes_max: values.size("websocket.message_size_limit"),
            outbox_bytes_max: values.size("client.queue_max_size"),
            channels_per_client_max: values.number("client.channel_limit"),
            json_depth_max: values.number("client.json_depth_limit"),
            commands_per_frame_max: values.number("client.commands_per_frame_limit"),
            connections_max: values.number("client.connection_limit"),
            user_connections_max: values.number("client.user_connection_limit"),
            address_connections_max: values.number("client.address_connection_limit"),
        },
        rules,
        auth: auth::Options {
            hmac_secret: values.some("client.token.hmac_secret_key"),
            hmac_previous_secret: values.some("client.token.hmac_previous_secret_key"),
            audience: values.some("client.token.audience"),
            issuer: values.some("client.token.issuer"),
        },
        mesh,
        proxy: Proxy { trusted: values.list("proxy.trusted").to_vec(), header: values.text("proxy.header").to_owned() },
        log: log(&values),
        shutdown_timeout: values.duration("shutdown.timeout"),
        open,
        notes,
    })
}

/// How `serve` logs, also when other settings are wrong.
pub fn log(values: &Values<'_>) -> Log {
    Log {
        level: match values.text("log.level") {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "none" => Level::None,
            _ => Level::Info,
        },
        format: if values.text("log.format") == "json" { Format::Json } else { Format::Text },
    }
}

fn node(values: &Values<'_>) -> Node {
    Node {
        name: NodeId::parse(values.text("node.name")).ok(),
        workers: Some(values.number("node.workers")).filter(|&workers| workers > 0),
        pin: values.bool("node.pin"),
        driver: match values.text("node.driver") {
            "io_uring" => Driver::IoUring,
            "epoll" => Driver::Epoll,
            _ => Driver::Auto,
        },
    }
}

fn http(values: &Values<'_>) -> Http {
    let address = |path| ip(values.text(path)).expect("checked by its kind");
    let listen = SocketAddr::new(address("http_server.address"), values.number("http_server.port"));
    let own_address = !values.is_empty("http_server.internal_address");
    let own_port = !values.is_empty("http_server.internal_port");
    let internal = SocketAddr::new(
        if own_address { address("http_server.internal_address") } else { listen.ip() },
        if own_port { values.number("http_server.internal_port") } else { listen.port() },
    );
    // The same address twice is one listener; port 0 is another port each time.
    let different = internal != listen || internal.port() == 0;
    Http {
        listen,
        internal: Some(internal).filter(|_| (own_address || own_port) && different),
        handshake_timeout: values.duration("http_server.handshake_timeout"),
        websocket_path: values.text("websocket.handler_prefix").to_owned(),
        allowed_origins: values.list("client.allowed_origins").to_vec(),
    }
}

fn api(values: &Values<'_>, open: bool) -> Api {
    let key: Option<String> = values.some("http_api.key");
    let untouched = key.is_none() && values.is_default("http_api.insecure");
    Api {
        key,
        insecure: values.bool("http_api.insecure") || (open && untouched),
        body_bytes_max: values.size("http_api.body_size_limit"),
        channels_max: values.size("http_api.channels_limit"),
    }
}

/// What was said about who may connect.
struct Access {
    secret: bool,
    anonymous: bool,
    insecure: bool,
    /// Where the first setting about clients' rights was written.
    first: Option<Place>,
}

const HOW_TO_LET_IN: &str = "set `client.token.hmac_secret_key` to check tokens, or `client.allow_anonymous_connect_without_token = true` to let everybody in under the channels' rules, or `client.insecure = true` to allow everybody everything";

impl Access {
    /// Whether the node is open by default: only while nobody has said anything, and only on a loopback address.
    fn judge(&self, values: &Values<'_>, listen: SocketAddr) -> Result<bool, Mistake> {
        let misread = values.settings.iter().any(|(path, setting)| is_about_clients(path) && !setting.sound);
        if self.secret || self.anonymous || self.insecure || misread || !values.sound(["http_server.address"]) {
            return Ok(false);
        }
        match &self.first {
            // Whoever writes rules means them: to be open all the same would be a surprise, behind a proxy a bad one.
            Some(place) => Err(Mistake::new(place, format!("no client could connect: {HOW_TO_LET_IN}"))),
            None if listen.ip().is_loopback() => Ok(true),
            None => Err(Mistake::new(
                values.place("http_server.address"),
                format!("refuses to listen on {} without authentication: {HOW_TO_LET_IN}", listen.ip()),
            )),
        }
    }
}

fn first_access_setting(
    values: &Values<'_>,
    without_namespace: &Options,
    first_namespace: Option<&Place>,
) -> Option<Place> {
    let about_clients = values.settings.iter().filter(|(path, _)| is_about_clients(path));
    let written = about_clients.map(|(_, setting)| setting).chain(without_namespace.values());
    let places = written.map(|setting| &setting.place).chain(first_namespace);
    places.filter(|place| **place != Place::Default).min().cloned()
}

fn is_about_clients(path: &str) -> bool {
    path.starts_with("client.token.")
        || matches!(path, "client.insecure" | "client.allow_anonymous_connect_without_token")
}

fn check_keepalive(values: &Values<'_>, mistakes: &mut Vec<Mistake>) {
    let (interval, timeout) = (values.duration("client.ping_interval"), values.duration("client.pong_timeout"));
    let sound = values.sound(["client.ping_interval", "client.pong_timeout"]);
    if sound && !interval.is_zero() && timeout >= interval {
        let text =
            format!("`client.pong_timeout` ({timeout:?}) must be less than `client.ping_interval` ({interval:?})");
        mistakes.push(Mistake::new(values.later_place("client.pong_timeout", "client.ping_interval"), text));
    }
}

/// A publication that does not fit a client's queue would close whoever it is for.
fn check_sizes(values: &Values<'_>, mistakes: &mut Vec<Mistake>) {
    let (message, queue) = (values.size("websocket.message_size_limit"), values.size("client.queue_max_size"));
    let sound = values.sound(["websocket.message_size_limit", "client.queue_max_size"]);
    if sound && queue < 2 * message {
        let text = format!(
            "`client.queue_max_size` ({queue}) must be at least twice `websocket.message_size_limit` ({message})"
        );
        mistakes.push(Mistake::new(values.later_place("client.queue_max_size", "websocket.message_size_limit"), text));
    }
}

fn check_secrets(values: &Values<'_>, mistakes: &mut Vec<Mistake>) {
    let secret = values.text("client.token.hmac_secret_key");
    let previous = "client.token.hmac_previous_secret_key";
    let sound = values.sound(["client.token.hmac_secret_key"]);
    if sound && secret.is_empty() && !values.is_empty(previous) {
        let text = format!("`{previous}` needs `client.token.hmac_secret_key` beside it");
        mistakes.push(Mistake::new(values.place(previous), text));
    }
}

fn check_separators(values: &Values<'_>, mistakes: &mut Vec<Mistake>) {
    let paths =
        ["channel.private_prefix", "channel.namespace_boundary", "channel.user_boundary", "channel.user_separator"];
    for (at, path) in paths.iter().enumerate() {
        let same =
            |other: &&&str| values.character(other).is_some() && values.character(other) == values.character(path);
        if let Some(other) = paths[..at].iter().find(same) {
            let text = format!("`{other}` and `{path}` must be different characters");
            mistakes.push(Mistake::new(values.later_place(other, path), text));
        }
    }
    let namespaces = values.character("channel.namespace_boundary");
    if namespaces.is_some_and(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        let text = format!("`channel.namespace_boundary` must not be a character of a name in `{NAMESPACES}`");
        mistakes.push(Mistake::new(values.place("channel.namespace_boundary"), text));
    }
}

fn mesh(values: &Values<'_>, mistakes: &mut Vec<Mistake>) -> Option<Mesh> {
    if !values.sound(["mesh.bundle", "mesh.listen", "mesh.advertise", "mesh.seeds", "node.workers"]) {
        return None;
    }
    if values.is_empty("mesh.bundle") {
        for path in ["mesh.seeds", "mesh.listen", "mesh.advertise"] {
            if !values.is_default(path) && !values.is_empty(path) {
                let text = format!(
                    "`{path}` needs `mesh.bundle`: a node without a certificate runs alone; make one with `skein cert node`"
                );
                mistakes.push(Mistake::new(values.place(path), text));
            }
        }
        return None;
    }
    let listen: SocketAddr = values.text("mesh.listen").parse().expect("checked by its kind");
    let workers: u16 = values.number("node.workers");
    let workers = if workers == 0 { WORKERS_MAX } else { workers };
    if listen.port().checked_add(workers - 1).is_none() {
        let text = format!("`mesh.listen` must have room for {workers} ports, one for each worker");
        mistakes.push(Mistake::new(values.place("mesh.listen"), text));
    }
    let advertise = HostPort::parse(values.text("mesh.advertise"));
    if advertise.is_none() && listen.ip().is_unspecified() {
        let text = format!(
            "`mesh.listen` is every address ({listen}), so say in `mesh.advertise` where other nodes reach this one"
        );
        mistakes.push(Mistake::new(values.later_place("mesh.listen", "mesh.bundle"), text));
    }
    let seeds = values.list("mesh.seeds").iter();
    Some(Mesh {
        bundle: values.text("mesh.bundle").into(),
        listen,
        advertise: advertise.unwrap_or_else(|| listen.into()),
        seeds: seeds.map(|seed| HostPort::parse(seed).expect("checked by its kind")).collect(),
        join_timeout: values.duration("mesh.join_timeout"),
        queue_bytes_max: values.size("mesh.queue_bytes"),
    })
}

fn namespace(class_path: &str, options: &Options, mistakes: &mut Vec<Mistake>) -> Namespace {
    let values = Values { settings: options };
    let class = Class::ALL.into_iter().find(|class| class.name() == values.text("class")).unwrap_or_default();
    if !class.built() {
        let text = format!(
            "`{class_path}` '{}' is not built yet: use 'ephemeral', and keep what must not be missed in your backend",
            class.name()
        );
        mistakes.push(Mistake::new(values.place("class"), text));
    }
    Namespace {
        allow_subscribe_for_client: values.bool("allow_subscribe_for_client"),
        allow_subscribe_for_anonymous: values.bool("allow_subscribe_for_anonymous"),
        allow_publish_for_client: values.bool("allow_publish_for_client"),
        allow_publish_for_subscriber: values.bool("allow_publish_for_subscriber"),
        allow_publish_for_anonymous: values.bool("allow_publish_for_anonymous"),
        allow_user_limited_channels: values.bool("allow_user_limited_channels"),
        class,
        tell_gap: values.bool("tell_gap"),
    }
}

/// Reading by path. A path or type that is not the table's is our own mistake, and every test would meet it.
pub struct Values<'a> {
    pub settings: &'a Options,
}

impl Values<'_> {
    fn get(&self, path: &str) -> &Setting {
        self.settings.get(path).unwrap_or_else(|| panic!("{path} is in the table"))
    }

    fn place(&self, path: &str) -> &Place {
        &self.get(path).place
    }

    /// Of two that do not go together, the one that was written by the stronger source, or later.
    fn later_place(&self, one: &str, other: &str) -> &Place {
        self.place(one).max(self.place(other))
    }

    fn sound<const N: usize>(&self, paths: [&str; N]) -> bool {
        paths.iter().all(|path| self.get(path).sound)
    }

    fn is_default(&self, path: &str) -> bool {
        self.get(path).place == Place::Default
    }

    fn is_empty(&self, path: &str) -> bool {
        match &self.get(path).value {
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            _ => false,
        }
    }

    fn bool(&self, path: &str) -> bool {
        match self.get(path).value {
            Value::Bool(value) => value,
            _ => unreachable!("{path} is true or false"),
        }
    }

    fn number<T: TryFrom<u64>>(&self, path: &str) -> T {
        let Value::Number(value) = self.get(path).value else { unreachable!("{path} is a number") };
        T::try_from(value).unwrap_or_else(|_| panic!("the bounds of {path} fit its type"))
    }

    fn size(&self, path: &str) -> usize {
        self.number(path)
    }

    fn duration(&self, path: &str) -> Duration {
        match self.get(path).value {
            Value::Duration(value) => value,
            _ => unreachable!("{path} is a time"),
        }
    }

    fn text(&self, path: &str) -> &str {
        match &self.get(path).value {
            Value::Text(text) => text,
            _ => unreachable!("{path} is text"),
        }
    }

    /// `None` when it is empty.
    fn some<T: for<'t> From<&'t str>>(&self, path: &str) -> Option<T> {
        Some(self.text(path)).filter(|text| !text.is_empty()).map(T::from)
    }

    fn character(&self, path: &str) -> Option<char> {
        self.text(path).chars().next()
    }

    fn list(&self, path: &str) -> &[String] {
        match &self.get(path).value {
            Value::List(items) => items,
            _ => unreachable!("{path} is a list"),
        }
    }
}
