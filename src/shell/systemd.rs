//! What systemd is told of the node's state, when it asked for it by `NOTIFY_SOCKET`.
//!
//! Datagrams of plain text to a unix socket, as sd_notify(3) has them. A message that does not arrive is logged and the
//! node goes on: systemd has its own timeouts.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

pub struct Systemd {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// From the environment that systemd made.
    pub fn from_env() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET").ok();
        let watchdog = std::env::var("WATCHDOG_USEC").ok();
        let pid = std::env::var("WATCHDOG_PID").ok();
        Systemd::new(socket.as_deref(), watchdog.as_deref(), pid.as_deref())
    }

    fn new(socket: Option<&str>, watchdog_micros: Option<&str>, watchdog_pid: Option<&str>) -> Self {
        let to = socket.and_then(|name| match connect(name) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used");
                None
            }
        });
        let meant = watchdog_pid.is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = watchdog_micros
            .filter(|_| meant && to.is_some())
            .and_then(|micros| micros.parse().ok())
            .filter(|&micros| micros > 0)
            .map(Duration::from_micros);
        Systemd { to, watchdog }
    }

    pub fn ready(&self) {
        self.tell("READY=1");
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// How often it wants to be told that the node is alive: half of its patience.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, what: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), to) {
            tracing::warn!(%error, what, "systemd was not told");
        }
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn connect(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_where_it_said() {
        let name = format!("skein-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let systemd = Systemd::new(Some(&format!("@{name}")), Some("20000000"), None);
        systemd.ready();
        systemd.alive();
        systemd.stopping();
        let next = || {
            let mut text = [0; 64];
            let length = listener.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        assert_eq!([next(), next(), next()], ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        assert_eq!(systemd.watchdog_interval(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn without_systemd_nothing_is_told_and_nothing_fails() {
        let systemd = Systemd::new(None, Some("20000000"), None);
        systemd.ready();
        assert_eq!(systemd.watchdog_interval(), None);
        let systemd = Systemd::new(Some("@somewhere"), Some("20000000"), Some("1"));
        assert_eq!(systemd.watchdog_interval(), None, "the watchdog of another process");
    }
}
