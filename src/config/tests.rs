//! Files, variables and flags to settings, and every kind of mistake with its place.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::schema::{Entry, FOREIGN, GROUPS, Kind, NAMESPACE_OPTIONS, NAMESPACES, OPTIONS, Status, WITHOUT_NAMESPACE};
use super::value::{from_text, from_toml};
use super::*;
use crate::rules::Class;

fn file(text: &str) -> Sources {
    Sources { file: Some(("skein.toml".into(), text.into())), ..Sources::default() }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flags(flags: &[(&str, &str)]) -> Sources {
    Sources { flags: pairs(flags), ..Sources::default() }
}

#[track_caller]
fn good(sources: &Sources) -> Settings {
    resolve(sources).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Each expectation is a part of one line, in order, and there are no more lines.
#[track_caller]
fn check_mistakes(sources: &Sources, expected: &[&str]) {
    let told = resolve(sources).map(|_| ()).expect_err("a mistake").to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line:?} should say {expected:?}");
    }
}

fn all_entries() -> impl Iterator<Item = &'static Entry> {
    OPTIONS.iter().chain(NAMESPACE_OPTIONS)
}

// The table

#[test]
fn every_option_has_a_doc_and_a_name_of_its_own() {
    let mut paths = BTreeSet::new();
    let mut variables = BTreeSet::new();
    let mut aliases = BTreeSet::new();
    for path in collect::paths() {
        assert!(variables.insert(collect::variable_of(&path)), "{path} has a variable of its own");
        assert!(paths.insert(path));
    }
    for entry in all_entries() {
        let doc = match entry.status {
            Status::NoEffect(reason) => reason,
            _ => entry.doc,
        };
        assert!(doc.len() > 10, "{} needs a doc", entry.path);
        assert!(matches!(entry.status, Status::NoEffect(_)) || doc.ends_with('.'), "{}: a sentence", entry.path);
        if let Some(alias) = entry.alias {
            assert!(aliases.insert(alias) && !paths.contains(alias), "{alias} means one thing");
        }
        let names = entry.path.split(['.', '_']);
        assert!(names.flat_map(str::bytes).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{}", entry.path);
    }
}

#[test]
fn every_option_stands_in_a_table_that_is_shown() {
    for entry in OPTIONS.iter().filter(|entry| entry.built()) {
        let (table, _) = entry.table_and_key();
        assert!(GROUPS.iter().any(|group| group.table == table), "{}", entry.path);
    }
    for (foreign, _) in FOREIGN {
        assert!(collect::find(foreign).is_none(), "{foreign}");
    }
}

#[test]
fn defaults_and_examples_are_values_of_their_option() {
    for entry in all_entries().filter(|entry| entry.kind != Kind::Namespaces) {
        for text in [entry.default, entry.example].into_iter().filter(|text| !text.is_empty()) {
            let value: toml_edit::Value = text.parse().expect(entry.path);
            from_toml(entry.kind, &value).unwrap_or_else(|complaint| panic!("{} must be {complaint}", entry.path));
        }
    }
}

// The sample and the reference

#[test]
fn the_sample_is_in_order_and_changes_nothing() {
    let from_sample = good(&file(&sample()));
    assert_eq!(format!("{from_sample:?}"), format!("{:?}", good(&Sources::default())));
}

#[test]
fn the_sample_without_its_marks_says_the_defaults() {
    let bare: String = sample()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(option) if !option.starts_with(' ') => format!("{option}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let from_sample = collect::collect(&file(&bare));
    let defaults = collect::collect(&Sources::default());
    assert_eq!(from_sample.mistakes, []);
    for (path, default) in &defaults.settings {
        let setting = &from_sample.settings[path];
        assert_eq!(setting.value, default.value, "{path}");
        let shown = collect::find(path).is_some_and(Entry::built);
        assert_eq!(setting.place != Place::Default, shown, "{path} is in the sample when it is built");
    }
    for (key, default) in &defaults.without_namespace {
        let setting = &from_sample.without_namespace[key];
        assert_eq!(setting.value, default.value, "{key}");
        let shown = NAMESPACE_OPTIONS.iter().any(|entry| entry.path == *key && entry.built());
        assert_eq!(setting.place != Place::Default, shown, "{key} is in the sample when it is built");
    }
}

#[test]
fn sample_and_reference_show_every_option() {
    let (sample, reference) = (sample(), reference());
    for entry in all_entries() {
        assert!(reference.contains(entry.path), "{}", entry.path);
    }
    assert!(sample.lines().all(|line| line.chars().count() <= 120 || line.starts_with("# Example")), "lines fit");
    for path in collect::paths().filter(|path| collect::find(path).is_some_and(Entry::built)) {
        assert!(reference.contains(&format!("### `{path}`")), "{path}");
        assert!(reference.contains(&format!("`{}`", collect::variable_of(&path))), "{path}");
    }
}

// Who wins

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let mut sources = Sources::default();
    assert_eq!(good(&sources).http.listen.port(), 8000);
    sources.file = Some(("skein.toml".into(), "http_server.port = 1".into()));
    assert_eq!(good(&sources).http.listen.port(), 1);
    sources.environment = pairs(&[("SKEIN_HTTP_SERVER_PORT", "2"), ("PATH", "/bin"), ("SKEIN_CONFIG", "x")]);
    assert_eq!(good(&sources).http.listen.port(), 2);
    sources.flags = pairs(&[("http_server.port", "3")]);
    assert_eq!(good(&sources).http.listen.port(), 3);
}

#[test]
fn a_later_list_of_namespaces_replaces_the_earlier() {
    let mut sources = file("client.insecure = true\n[[channel.namespaces]]\nname = 'one'\n");
    sources.environment = pairs(&[("SKEIN_CHANNEL_NAMESPACES", "[{name = 'two', tell_gap = true}, {name = 'three'}]")]);
    let namespaces = good(&sources).rules.namespaces;
    let names: Vec<&str> = namespaces.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["two", "three"]);
    assert!(namespaces[0].1.tell_gap);
}

#[test]
fn lists_in_flags_have_commas() {
    let settings = good(&flags(&[("proxy.trusted", "10.0.0.0/8, ::1"), ("client.allowed_origins", "")]));
    assert_eq!(settings.proxy.trusted, ["10.0.0.0/8", "::1"]);
    assert!(settings.http.allowed_origins.is_empty());
}

// Mistakes

#[test]
fn all_mistakes_are_told_at_once_with_their_lines_and_the_nearest_name() {
    let text = "
[client]
insecur = true
ping_interval = 25
channel_limit = 'many'

[clinet]
x = 1

[http_server]
port = 65536

[log]
level = 'inof'

[[channel.namespaces]]
name = 'chat'
allow_subscribe_for_clients = true
presence = true
history_size = 10

[[channel.namespaces]]
name = 'chat'
class = 'durable'

[[channel.namespaces]]
tell_gap = 1
";
    check_mistakes(
        &file(text),
        &[
            "skein.toml:3: there is no option `client.insecur`: did you mean `client.insecure`?",
            "skein.toml:4: `client.ping_interval` must be a time with its unit from 1s to 3600s, as '25s' or '1m30s', or '0s' (no pings), and this is a whole number",
            "skein.toml:5: `client.channel_limit` must be a whole number from 1 to 65535, and this is text",
            "skein.toml:7: there is no table `clinet`: did you mean `client`?",
            "skein.toml:11: `http_server.port` must be a port from 0 to 65535",
            "skein.toml:14: `log.level` must be one of 'trace', 'debug', 'info', 'warn', 'error', 'none', perhaps 'info'",
            "skein.toml:16: no client could connect: set `client.token.hmac_secret_key`",
            "skein.toml:18: there is no option `allow_subscribe_for_clients` of a namespace: did you mean `allow_subscribe_for_client`?",
            "skein.toml:19: `presence` must stay false. Presence is not built yet",
            "skein.toml:20: `history_size` must stay 0. History is not built yet",
            "skein.toml:23: the namespace 'chat' is already at skein.toml:16",
            "skein.toml:24: `class` 'durable' is not built yet",
            "skein.toml:26: a namespace needs a `name`",
            "skein.toml:27: `tell_gap` must be true or false, and this is a whole number",
        ],
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    check_mistakes(&file("a = 1\nb = = 2\n"), &["skein.toml:2: not TOML"]);
    check_mistakes(&file("[log]\nlevel = 'info'\nlevel = 'warn'\n"), &["skein.toml:3: not TOML"]);
    let json = Sources { file: Some(("config.json".into(), "{\"a\": 1}".into())), ..Sources::default() };
    check_mistakes(&json, &["the file must be TOML"]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let told = read(Path::new("/nonexistent/skein.toml")).expect_err("no file").to_string();
    assert!(told.starts_with("/nonexistent/skein.toml: there is no such file"), "{told}");
    let told = read(Path::new("/")).expect_err("a directory").to_string();
    assert!(told.starts_with("/: cannot be read"), "{told}");
}

#[test]
fn a_key_in_the_wrong_table_is_shown_its_place() {
    check_mistakes(
        &file("hmac_secret_key = 'x'"),
        &["skein.toml:1: there is no option `hmac_secret_key`: did you mean"],
    );
    check_mistakes(&file("[client]\nmessage_size_limit = 1"), &["did you mean `websocket.message_size_limit`?"]);
}

#[test]
fn a_table_is_no_value_and_a_value_no_table() {
    check_mistakes(&file("client = 1"), &["`client` is a table: write [client]"]);
    check_mistakes(&file("[log.level]"), &["`log.level` must be a value, and this is a table"]);
    check_mistakes(
        &file("[channel.namespaces]\nname = 'x'"),
        &["skein.toml:1: `channel.namespaces` must be a list of tables"],
    );
    check_mistakes(&file("channel.namespaces = [1]"), &["must be a list of tables"]);
    check_mistakes(&flags(&[(NAMESPACES, "chat")]), &["--channel.namespaces: must be a TOML list"]);
}

#[test]
fn names_of_other_configurations_are_answered_with_what_to_do() {
    check_mistakes(&file("[engine]\ntype = 'redis'"), &["skein.toml:1: `engine` is not for Skein: there is no engine"]);
    check_mistakes(
        &file("client.token.rsa_public_key = 'x'\nclient.insecure = true"),
        &["Public keys are not built yet"],
    );
    good(&file("client.insecure = true\n[engine]\n[admin]\nenabled = false\npassword = 'x'\n"));
    let settings = good(&file("client.concurrency = 8\nwebsocket.write_timeout = '2s'\nhealth.enabled = true"));
    assert_eq!(settings.notes.iter().filter(|note| note.contains("has no effect")).count(), 2, "{:?}", settings.notes);
}

#[test]
fn environment_variables_are_checked_like_the_file() {
    let environment = |name: &str, value: &str| Sources { environment: pairs(&[(name, value)]), ..Sources::default() };
    check_mistakes(
        &environment("SKEIN_HTTP_SERVER_PROT", "1"),
        &[
            "SKEIN_HTTP_SERVER_PROT: there is no option for this environment variable: did you mean `SKEIN_HTTP_SERVER_PORT`?",
        ],
    );
    check_mistakes(&environment("SKEIN_NODE_DRIVER", "uring"), &["SKEIN_NODE_DRIVER: `node.driver` must be one of"]);
    check_mistakes(&environment("SKEIN_CHANNEL_WITHOUT_NAMESPACE_PRESENCE", "true"), &["must stay false"]);
    // What a container orchestrator sets for a service called "skein".
    good(&environment("SKEIN_SERVICE_HOST", "10.0.0.1"));
    good(&environment("SKEIN_PORT", "tcp://10.0.0.1:8000"));
    good(&environment("SKEIN_PORT_8000_TCP_ADDR", "10.0.0.1"));
}

#[test]
fn options_that_do_not_go_together_are_told_where_they_meet() {
    check_mistakes(
        &file("client.pong_timeout = '30s'"),
        &["skein.toml:1: `client.pong_timeout` (30s) must be less than `client.ping_interval` (25s)"],
    );
    check_mistakes(&file("client.pong_timeout = '20s'\nclient.ping_interval = '20s'"), &["skein.toml:2: "]);
    good(&file("client.ping_interval = '0s'"));
    check_mistakes(
        &flags(&[("client.queue_max_size", "64KiB")]),
        &["--client.queue_max_size: `client.queue_max_size`"],
    );
    check_mistakes(
        &file("client.token.hmac_previous_secret_key = 'x'\nclient.insecure = true"),
        &["skein.toml:1: `client.token.hmac_previous_secret_key` needs `client.token.hmac_secret_key`"],
    );
    check_mistakes(&file("channel.user_separator = '#'"), &["must be different characters"]);
    check_mistakes(&file("channel.namespace_boundary = '-'"), &["must not be a character of a name"]);
    good(&file("channel.user_boundary = ''\nchannel.private_prefix = ''"));
}

#[test]
fn secrets_are_not_shown_in_mistakes_or_settings() {
    let told = resolve(&file("client.token.hmac_secret_key = 'hush'\nhttp_api.key = 'hush'\nx = 1"));
    assert!(!told.expect_err("x").to_string().contains("hush"));
    let settings = good(&file("client.token.hmac_secret_key = 'hush'\nhttp_api.key = 'hush'"));
    assert!(!format!("{settings:?}").contains("hush"));
}

// Who may connect

#[test]
fn without_configuration_a_node_is_open_on_loopback_and_says_so() {
    let settings = good(&Sources::default());
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8000");
    assert!(settings.open && settings.rules.insecure && settings.api.insecure);
    assert!(settings.notes.iter().any(|note| note.starts_with("open: ")), "{:?}", settings.notes);
    // What has nothing to do with clients' rights leaves it so.
    let settings = good(&file("log.level = 'debug'\nhttp_server.port = 0\nhttp_server.address = '::1'"));
    assert!(settings.open);
    assert!(!good(&flags(&[("http_api.key", "k")])).api.insecure);
}

#[test]
fn another_address_is_refused_without_authentication() {
    for address in ["0.0.0.0", "", "10.0.0.1", "::"] {
        check_mistakes(&flags(&[("http_server.address", address)]), &["--http_server.address: refuses to listen on"]);
        for told in [
            ("client.insecure", "true"),
            ("client.allow_anonymous_connect_without_token", "true"),
            ("client.token.hmac_secret_key", "x"),
        ] {
            let settings = good(&flags(&[("http_server.address", address), told]));
            assert!(!settings.open && !settings.api.insecure);
            assert_eq!(settings.rules.insecure, told.0 == "client.insecure");
            assert_eq!(settings.notes.len(), usize::from(told.0 == "client.insecure"), "{:?}", settings.notes);
        }
    }
}

#[test]
fn rules_that_nobody_could_use_are_a_mistake_not_an_open_door() {
    for text in [
        "client.insecure = false",
        "client.token.audience = 'x'",
        "[channel.without_namespace]\nallow_subscribe_for_client = true",
        "[[channel.namespaces]]\nname = 'chat'",
    ] {
        check_mistakes(&file(text), &["no client could connect: set "]);
    }
}

#[test]
fn a_secret_turns_the_open_mode_off() {
    let settings = good(&file("client.token.hmac_secret_key = 'x'"));
    assert!(!settings.open && !settings.rules.insecure && !settings.api.insecure);
    assert_eq!(settings.auth.hmac_secret.as_deref(), Some("x"));
}

// The mesh

#[test]
fn a_node_without_a_certificate_runs_alone() {
    assert!(good(&Sources::default()).mesh.is_none());
    check_mistakes(&file("mesh.seeds = ['a:1']"), &["skein.toml:1: `mesh.seeds` needs `mesh.bundle`"]);
}

#[test]
fn a_node_of_a_mesh_says_where_it_is_reached() {
    check_mistakes(
        &flags(&[("mesh.bundle", "n1.pem")]),
        &["`mesh.listen` is every address (0.0.0.0:7800), so say in `mesh.advertise`"],
    );
    let seeds = ("mesh.seeds", "skein.internal:7800,[::1]:7801");
    let mesh = good(&flags(&[("mesh.bundle", "n1.pem"), ("mesh.listen", "127.0.0.1:7900"), seeds])).mesh.unwrap();
    assert_eq!(mesh.advertise.to_string(), "127.0.0.1:7900");
    assert_eq!(mesh.seeds.iter().map(ToString::to_string).collect::<Vec<_>>(), ["skein.internal:7800", "[::1]:7801"]);
    let mesh = good(&flags(&[("mesh.bundle", "n1.pem"), ("mesh.advertise", "game-1:7900")])).mesh.unwrap();
    assert_eq!(mesh.advertise.to_string(), "game-1:7900");
    check_mistakes(&flags(&[("mesh.bundle", "n1.pem"), ("mesh.listen", "127.0.0.1:65500")]), &["room for 128 ports"]);
    good(&flags(&[("mesh.bundle", "n1.pem"), ("mesh.listen", "127.0.0.1:65500"), ("node.workers", "2")]));
    check_mistakes(&flags(&[("mesh.bundle", "n1.pem"), ("mesh.listen", "127.0.0.1:0")]), &["a fixed port"]);
}

// Values

#[test]
fn settings_have_what_was_written() {
    let settings = good(&file(
        "
[node]
name = 'n1'
workers = 3
driver = 'epoll'
pin = false
[http_server]
address = 'localhost'
port = '0'
internal_port = 9000
[websocket]
handler_prefix = '/ws'
message_size_limit = '128KiB'
[client]
allowed_origins = ['https://*.example.com']
ping_interval = '1m'
pong_timeout = '10s'
channel_limit = 7
user_connection_limit = 4
[client.token]
hmac_secret_key = 'x'
hmac_previous_secret_key = 'y'
issuer = 'shop'
[http_api]
key = 'k'
[channel]
max_length = 64
private_prefix = ''
[channel.without_namespace]
allow_user_limited_channels = true
[log]
level = 'warn'
format = 'json'
",
    ));
    assert_eq!(settings.node.name.unwrap().as_str(), "n1");
    assert_eq!(settings.node.workers, Some(3));
    assert_eq!(settings.node.driver, Driver::Epoll);
    assert!(!settings.node.pin);
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:0");
    assert_eq!(settings.http.internal.unwrap().to_string(), "127.0.0.1:9000");
    assert_eq!(settings.http.websocket_path, "/ws");
    assert_eq!(settings.http.allowed_origins, ["https://*.example.com"]);
    assert_eq!(settings.limits.message_bytes_max, 128 * 1024);
    assert_eq!(settings.limits.channels_per_client_max, 7);
    assert_eq!(settings.limits.user_connections_max, 4);
    assert_eq!(settings.client.ping_interval, Duration::from_secs(60));
    assert_eq!(settings.auth.hmac_previous_secret.as_deref(), Some("y"));
    assert_eq!(settings.auth.issuer.as_deref(), Some("shop"));
    assert_eq!(settings.auth.audience, None);
    assert_eq!(settings.api.key.as_deref(), Some("k"));
    assert_eq!(settings.rules.channel_name_bytes_max, 64);
    assert_eq!(settings.rules.private_prefix, None);
    assert!(settings.rules.without_namespace.allow_user_limited_channels);
    assert_eq!(settings.rules.without_namespace.class, Class::Ephemeral);
    assert_eq!(settings.log, Log { level: Level::Warn, format: Format::Json });
    assert!(!settings.open);
}

#[test]
fn how_to_log_is_known_even_where_settings_are_wrong() {
    assert_eq!(log(&file("log.format = 'json'\nx = 1")), Log { level: Level::Info, format: Format::Json });
}

// Whatever comes

fn toml_like() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        proptest::sample::select(collect::paths().collect::<Vec<_>>()),
        proptest::sample::select(vec!["client", "channel", NAMESPACES, WITHOUT_NAMESPACE, "engine", "x.y", "''", "é"])
            .prop_map(str::to_owned),
        "[a-z_.]{1,12}",
    ];
    let value = prop_oneof![
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("1.5".to_owned()),
        Just("1979-05-27".to_owned()),
        "'[ -&(-~é]{0,12}'",
        Just("[]".to_owned()),
        Just("['a:1', 1, {}]".to_owned()),
        Just("[{name = 'ab', presence = true}, {name = 'ab'}, {x = []}]".to_owned()),
        Just("{insecure = true}".to_owned()),
        ".{0,8}",
    ];
    let line = (key, value, 0..4).prop_map(|(key, value, form)| match form {
        0 => format!("[{key}]"),
        1 => format!("[[{key}]]"),
        _ => format!("{key} = {value}"),
    });
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_file_panics_and_every_mistake_has_a_place(text in toml_like()) {
        if let Err(mistakes) = resolve(&file(&text)) {
            prop_assert!(!mistakes.0.is_empty());
            prop_assert!(mistakes.0.iter().all(|mistake| mistake.place != Place::Default), "{}", mistakes);
        }
    }

    #[test]
    fn no_text_is_too_strange_for_a_file(text in ".{0,200}") {
        let _settings_or_mistakes = resolve(&file(&text));
    }

    #[test]
    fn no_value_of_a_flag_or_variable_panics(path in proptest::sample::select(collect::paths().collect::<Vec<_>>()), text in ".{0,20}") {
        let variable = collect::variable_of(&path);
        let _settings_or_mistakes = resolve(&flags(&[(&path, &text)]));
        let _settings_or_mistakes = resolve(&Sources { environment: pairs(&[(&variable, &text)]), ..Sources::default() });
    }

    #[test]
    fn a_value_means_the_same_in_the_file_and_in_a_flag(text in "[0-9a-zA-Z./:*-]{0,16}", at in 0..OPTIONS.len()) {
        let kind = OPTIONS[at].kind;
        let is_list = matches!(kind, Kind::HostPorts | Kind::Networks | Kind::Origins | Kind::Namespaces);
        if !is_list && !matches!(kind, Kind::Bool | Kind::Number { .. }) {
            let in_file: toml_edit::Value = format!("'{text}'").parse().expect("text");
            prop_assert_eq!(from_text(kind, &text), from_toml(kind, &in_file).map_err(|_| from_text(kind, &text).unwrap_err()));
        }
    }
}
