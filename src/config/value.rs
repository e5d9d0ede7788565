//! From text, or from a value of the file, to the value of an option: the meaning of each `Kind`.
//!
//! A complaint is what stands behind "must be": it says what would be right, with an example.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::nearest::nearest;
use super::schema::Kind;
use super::settings::HostPort;
use crate::base::id::NodeId;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Bool(bool),
    Number(u64),
    Duration(Duration),
    Text(String),
    List(Vec<String>),
}

/// What a value should be, as the rest of the sentence "must be …".
pub type Complaint = String;

/// As it stands in a flag or an environment variable. Lists have commas.
pub fn from_text(kind: Kind, text: &str) -> Result<Value, Complaint> {
    match kind {
        Kind::HostPorts | Kind::Networks | Kind::Origins => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            list(kind, items.map(str::to_owned).collect())
        }
        _ => scalar(kind, text),
    }
}

/// As it stands in the file.
pub fn from_toml(kind: Kind, value: &toml_edit::Value) -> Result<Value, Complaint> {
    use toml_edit::Value as Toml;
    let wrong = || Err(format!("{}, and this is {}", expected(kind), type_name(value)));
    match (kind, value) {
        (Kind::HostPorts | Kind::Networks | Kind::Origins, Toml::Array(array)) => {
            match array.iter().map(|item| item.as_str().map(str::to_owned)).collect() {
                Some(items) => list(kind, items),
                None => Err(format!("{}, each in quotes", expected(kind))),
            }
        }
        (Kind::Bool, Toml::Boolean(value)) => Ok(Value::Bool(*value.value())),
        (Kind::Number { .. } | Kind::Size { .. } | Kind::Port | Kind::OptionalPort, Toml::Integer(value)) => {
            scalar(kind, &value.value().to_string())
        }
        (Kind::Bool | Kind::Number { .. } | Kind::HostPorts | Kind::Networks | Kind::Origins, _) => wrong(),
        (_, Toml::String(text)) => scalar(kind, text.value()),
        _ => wrong(),
    }
}

fn scalar(kind: Kind, text: &str) -> Result<Value, Complaint> {
    let complaint = || expected(kind);
    let kept = |good: bool| if good { Ok(Value::Text(text.to_owned())) } else { Err(complaint()) };
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(complaint()),
        },
        Kind::Number { min, max } => {
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.map(Value::Number).ok_or_else(complaint)
        }
        Kind::Size { min, max } => {
            let number = size(text).filter(|number| (min..=max).contains(number));
            number.map(Value::Number).ok_or_else(complaint)
        }
        Kind::Duration { min, max, zero } => {
            let millis = duration_millis(text).ok_or_else(complaint)?;
            let good = (min..=max).contains(&millis) || (millis == 0 && zero.is_some());
            if good { Ok(Value::Duration(Duration::from_millis(millis))) } else { Err(complaint()) }
        }
        Kind::Text | Kind::Secret | Kind::File => kept(!text.contains('\0')),
        Kind::Choice(choices) => match (choices.contains(&text), nearest(text, choices.iter().copied())) {
            (true, _) => kept(true),
            (false, Some(near)) => Err(format!("{}, perhaps '{near}'", complaint())),
            (false, None) => Err(complaint()),
        },
        Kind::NodeName => match NodeId::parse(text) {
            Err(_) if !text.is_empty() => Err(complaint()),
            _ => kept(true),
        },
        Kind::Ip => kept(ip(text).is_some()),
        Kind::OptionalIp => kept(text.is_empty() || ip(text).is_some()),
        Kind::Port => text.parse::<u16>().map(|port| Value::Number(port.into())).map_err(|_| complaint()),
        Kind::OptionalPort if text.is_empty() => Ok(Value::Text(String::new())),
        Kind::OptionalPort => text.parse::<u16>().map(|port| Value::Number(port.into())).map_err(|_| complaint()),
        Kind::Socket => kept(text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0)),
        Kind::HostPort => kept(text.is_empty() || HostPort::parse(text).is_some()),
        Kind::HttpPath => kept(
            text.len() > 1
                && text.len() <= 256
                && text.starts_with('/')
                && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')),
        ),
        Kind::HeaderName => kept(
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
        ),
        Kind::Character => kept(text.is_empty() || (text.len() == 1 && text.as_bytes()[0].is_ascii_graphic())),
        Kind::HostPorts | Kind::Networks | Kind::Origins | Kind::Namespaces => {
            unreachable!("lists are taken apart before")
        }
    }
}

/// Items of one list; more is a mistake, since nobody means it.
const LIST_ITEMS_MAX: usize = 1024;

fn list(kind: Kind, items: Vec<String>) -> Result<Value, Complaint> {
    if items.len() > LIST_ITEMS_MAX {
        return Err(format!("at most {LIST_ITEMS_MAX} items"));
    }
    let good = |item: &str| match kind {
        Kind::HostPorts => HostPort::parse(item).is_some(),
        Kind::Networks => is_network(item),
        _ => is_origin(item),
    };
    match items.iter().find(|item| !good(item)) {
        Some(bad) => Err(format!("{}, and '{}' is none", expected(kind), shortened(bad))),
        None => Ok(Value::List(items)),
    }
}

/// The rest of the sentence "must be …".
fn expected(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Number { min, max: u64::MAX } => format!("a whole number from {min}"),
        Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Size { min, max } => format!("a number of bytes from {min} to {max}, as 65536 or '64KiB'"),
        Kind::Duration { min, max, zero } => {
            let zero = zero.map(|meaning| format!(", or '0s' ({meaning})")).unwrap_or_default();
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            match max.as_millis() >= u128::from(u64::MAX) {
                true => "a time with its unit, as '25s' or '1m30s'".into(),
                false => format!("a time with its unit from {min:?} to {max:?}, as '25s' or '1m30s'{zero}"),
            }
        }
        Kind::Text | Kind::Secret => "text in quotes".into(),
        Kind::Choice(choices) => {
            let names: Vec<String> = choices.iter().map(|choice| format!("'{choice}'")).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::NodeName => {
            "a name of up to 63 characters a-z, 0-9, '-' and '.' that begins and ends with a letter or digit".into()
        }
        Kind::Ip | Kind::OptionalIp => "an IP address without a port, as '127.0.0.1' or '::1'".into(),
        Kind::Port | Kind::OptionalPort => "a port from 0 to 65535".into(),
        Kind::Socket => "an IP address and a fixed port, as '0.0.0.0:7800' or '[::]:7800'".into(),
        Kind::HostPort => "a host and a port, as 'game-1.internal:7800'".into(),
        Kind::HostPorts => "a list of hosts with ports, as 'game-1.internal:7800'".into(),
        Kind::Networks => "a list of addresses or networks, as '10.0.0.0/8'".into(),
        Kind::Origins => "a list of origins, as 'https://example.com' or 'https://*.example.com', or '*'".into(),
        Kind::HttpPath => "a path that begins with '/', as '/connection/websocket'".into(),
        Kind::HeaderName => "the name of a header, as 'X-Forwarded-For'".into(),
        Kind::Character => "one ASCII character, or empty".into(),
        Kind::File => "the path of a file, in quotes".into(),
        Kind::Namespaces => "a list of tables: write [[channel.namespaces]] with a name and options below".into(),
    }
}

fn type_name(value: &toml_edit::Value) -> &'static str {
    match value {
        toml_edit::Value::String(_) => "text",
        toml_edit::Value::Integer(_) => "a whole number",
        toml_edit::Value::Float(_) => "a number with a fraction",
        toml_edit::Value::Boolean(_) => "true or false",
        toml_edit::Value::Datetime(_) => "a date",
        toml_edit::Value::Array(_) => "a list",
        toml_edit::Value::InlineTable(_) => "a table",
    }
}

const SHOWN_MAX: usize = 100;

/// Text from outside, for a message.
pub fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Empty: every address. `localhost` is not looked up.
pub fn ip(text: &str) -> Option<IpAddr> {
    match text {
        "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "[::]" => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => text.parse().ok(),
    }
}

fn is_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits)
}

/// `*`, or scheme and authority without a path, with stars anywhere.
fn is_origin(text: &str) -> bool {
    let clean = text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
    let authority = text.split_once("://").map(|(_, authority)| authority);
    clean && (text == "*" || authority.is_some_and(|authority| !authority.is_empty() && !authority.contains('/')))
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => (&text[..at], text[at..].trim_start()),
        None => (text, ""),
    };
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `1h30m`, `25s`, `500ms`, `1m0s`, as Go writes them, in whole milliseconds. A bare zero needs no unit.
pub fn duration_millis(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("25s", 25_000),
            ("1m0s", 60_000),
            ("720h0m0s", 720 * 3_600_000),
            ("500ms", 500),
            ("0", 0),
            ("0s", 0),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration_millis(text), Some(millis), "{text}");
        }
        for text in ["", "25", "s", "1.5s", "25 s", "-1s", "1w", "99999999999999999999s", "18446744073709551615h", "1é"]
        {
            assert_eq!(duration_millis(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_may_have_units() {
        for (text, bytes) in [("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "64kb", "1.5MiB", "-1", "99999999999999999999", "18446744073709551615GiB", "é"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn networks_and_origins_are_recognised() {
        for text in ["10.0.0.0/8", "::1", "2001:db8::/32", "127.0.0.1"] {
            assert!(is_network(text), "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/"] {
            assert!(!is_network(text), "{text}");
        }
        for text in ["*", "https://example.com", "https://*.example.com:8443", "app://-"] {
            assert!(is_origin(text), "{text}");
        }
        for text in ["", "example.com", "https://", "https://example.com/", "https://a b"] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
