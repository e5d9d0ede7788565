//! A test in namespaces of its own: the test program runs itself again, this one test only, under `unshare`. What the
//! test does to network or mounts is seen by nobody else and goes when it ends.

use std::process::{Command, Stdio};

const INSIDE: &str = "SKEIN_CLUSTER_INSIDE";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// Its own network: nothing but a loopback interface.
    Network,
    /// Its own table of mounts.
    Mounts,
}

/// True inside: the test goes on. False outside: it was run, and it succeeded. `test`: as the test runner calls it.
///
/// Without the right to make namespaces it is skipped, but never where `CI` is set.
pub fn isolated(test: &str, own: Own) -> bool {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        if own == Own::Network {
            run("ip", &["link", "set", "lo", "up"]);
        }
        return true;
    }
    let flags: &[&str] = match own {
        Own::Network => &["--net"],
        Own::Mounts => &["--mount", "--propagation", "private"],
    };
    let possible = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "unshare is needed, as root");
        eprintln!("skipped: {test} needs namespaces, and unshare gives none here (be root, install util-linux)");
        return false;
    }
    // Tests take turns, also with those inside.
    let turn = super::turn();
    let program = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .args(flags)
        .arg("--")
        .arg(program)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, test)
        .status()
        .expect("unshare starts");
    drop(turn);
    assert!(status.success(), "{test} failed in namespaces of its own");
    false
}

/// A command of the system that must succeed.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
