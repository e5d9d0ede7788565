//! `skein-echo`: sends every WebSocket message back, through the same sockets, codec and turns as a node.
//!
//! For conformance tests of the codec and for measuring it. It has no protocol above WebSocket, no mesh, no limits to
//! configure.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use skein::base::hash::HashKey;
use skein::base::id::NodeId;
use skein::base::rng::Rng;
use skein::session::Environment;
use skein::shard::{self, Setup, Shard};
use skein::shell::driver::Choice;
use skein::shell::run::{self, Hosting};
use skein::ws::upgrade::OriginRule;
use skein::{auth, rules, session};

const USAGE: &str = "usage: skein-echo [--listen ADDRESS:PORT] [--path PATH] [--driver auto|io_uring|epoll] \
                     [--workers N] [--message-bytes-max N]";

struct Arguments {
    listen: SocketAddr,
    path: String,
    driver: Choice,
    workers: Option<u16>,
    message_bytes_max: usize,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            eprintln!("{mistake}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match echo(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        path: "/".to_owned(),
        driver: Choice::Auto,
        workers: None,
        // The conformance tests send 16 MiB in one message.
        message_bytes_max: 64 * 1024 * 1024,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} cannot be {value:?}");
        match name.as_str() {
            "--listen" => parsed.listen = value.parse().map_err(|_| wrong())?,
            "--path" => parsed.path = value,
            "--driver" => {
                parsed.driver = match value.as_str() {
                    "auto" => Choice::Auto,
                    "io_uring" => Choice::Uring,
                    "epoll" => Choice::Epoll,
                    _ => return Err(wrong()),
                }
            }
            "--workers" => parsed.workers = Some(value.parse().map_err(|_| wrong())?),
            "--message-bytes-max" => parsed.message_bytes_max = value.parse().map_err(|_| wrong())?,
            _ => return Err(format!("there is no option {name}")),
        }
    }
    Ok(parsed)
}

fn echo(arguments: Arguments) -> Result<(), run::Error> {
    let mut hosting = Hosting::default();
    hosting.http.websocket_path = arguments.path;
    hosting.http.origins = OriginRule::new(["*"]);
    let options = run::Options {
        workers: arguments.workers,
        driver: arguments.driver,
        hosting,
        ..run::Options::alone(arguments.listen)
    };
    let message_bytes_max = arguments.message_bytes_max;
    let make_shard = move |worker, workers, now| {
        Shard::new(Setup {
            worker,
            workers,
            node: NodeId::parse("echo").expect("a good name"),
            hash_key: HashKey::new([0; 16]),
            environment: Environment {
                options: session::Options::default(),
                rules: rules::Rules::new(rules::Options::default()),
                verifier: auth::Verifier::new(&auth::Options::default()),
            },
            options: shard::Options {
                message_bytes_max,
                // A conformance test sends all before it reads.
                outbox_bytes_max: usize::MAX / 2,
                close_timeout: Duration::from_secs(5),
                ..shard::Options::default()
            },
            mesh: None,
            echo: true,
            rng: Rng::seeded(u64::from(worker)),
            now,
        })
    };
    run::run(options, make_shard, |addresses| {
        println!("listening on {}", addresses.client);
        // Who reads the line may be a pipe that cares for nothing else.
        let _flushed = std::io::stdout().flush();
    })
}
