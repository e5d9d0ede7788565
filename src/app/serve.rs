//! `skein serve`: one node, until it is told to stop. Settings become the options of shell and shards here.

use std::net::{SocketAddr, ToSocketAddrs};

use clap::Command;

use super::exit::Failure;
use super::{logging, options};
use crate::api::ApiLimits;
use crate::auth::Verifier;
use crate::backplane::mesh::cluster::ClusterOptions;
use crate::base::hash::HashKey;
use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::config::{self, HostPort, Settings};
use crate::protocol::DecodeLimits;
use crate::rules::Rules;
use crate::session::{self, Environment};
use crate::shard::{self, MeshSetup, Setup, Shard};
use crate::shell::driver::Choice;
use crate::shell::http::{self, Network};
use crate::shell::quic::{self, Identity};
use crate::shell::run::{self, Hosting, Mesh};
use crate::ws::upgrade::OriginRule;

pub fn command() -> Command {
    options::add_all(
        Command::new("serve")
            .about("Run a node")
            .long_about(
                "Run a node.\n\n\
                 Every option can stand in the configuration file, in an environment variable or in a flag. Flags\n\
                 win over the environment, and the environment over the file. Without any of them the node serves\n\
                 on 127.0.0.1:8000 only, open to everybody who reaches it there.",
            )
            .next_line_help(true),
    )
}

/// Returns when the node has stopped.
pub fn run(settings: Settings) -> Result<(), Failure> {
    run_with(settings, super::demo::of_environment())
}

/// `demo`: what a node of the demo serves besides.
pub fn run_with(settings: Settings, demo: Option<http::Demo>) -> Result<(), Failure> {
    logging::start(settings.log);
    log_panics();
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    let mesh = settings.mesh.as_ref().map(|mesh| Meshed::prepare(mesh, settings.node.name.as_ref())).transpose()?;
    let node = match (&mesh, &settings.node.name) {
        (Some(mesh), _) => mesh.identity.name().clone(),
        (None, Some(name)) => name.clone(),
        (None, None) => machine_name(),
    };
    if mesh.is_none() {
        tracing::info!("no certificates are configured: this node runs alone");
    }
    // Alone, nobody else has to hash alike, but clients must not know how.
    let hash_key = mesh.as_ref().map_or_else(random_key, |mesh| mesh.identity.hash_key());
    let seed = random_seed();
    let options = shell_options(&settings, mesh.as_ref(), demo)?;
    let client_address = settings.http.listen.to_string();
    let plan = Plan { settings, node: node.clone(), hash_key, seed, client_address, mesh };
    let announce = move |addresses: &run::Addresses| {
        tracing::info!(
            node = %node,
            client = %addresses.client,
            mesh = addresses.mesh.map(tracing::field::display),
            internal = addresses.internal.map(tracing::field::display),
            workers = addresses.workers,
            driver = ?addresses.driver,
            "listening"
        );
    };
    run::run(options, move |worker, workers, now| plan.shard(worker, workers, now), announce).map_err(Failure::failed)
}

/// What joining a mesh takes, read and checked before anything is started.
struct Meshed {
    identity: Identity,
    listen: SocketAddr,
    advertise: Vec<SocketAddr>,
    seeds: Vec<String>,
    settings: config::Mesh,
    generation: Generation,
}

impl Meshed {
    fn prepare(mesh: &config::Mesh, name: Option<&NodeId>) -> Result<Self, Failure> {
        let identity = Identity::load(&mesh.bundle).map_err(Failure::failed)?;
        if let Some(name) = name
            && name != identity.name()
        {
            return Err(Failure::usage(format!(
                "the node is to be called {name}, but its certificate in {} is for {}: leave the name out, or make a \
                 certificate with `skein cert node {name}`",
                mesh.bundle.display(),
                identity.name()
            )));
        }
        Ok(Meshed {
            identity,
            listen: mesh.listen,
            advertise: advertised(&mesh.advertise)?,
            seeds: mesh.seeds.iter().map(ToString::to_string).collect(),
            settings: mesh.clone(),
            generation: Generation(crate::shell::clock::now().wall.0),
        })
    }
}

fn advertised(address: &HostPort) -> Result<Vec<SocketAddr>, Failure> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found: Vec<SocketAddr> = match found {
        Ok(found) => found.collect(),
        Err(error) => return Err(Failure::failed(format!("mesh.advertise {address}: {error}"))),
    };
    // 0.0.0.0 means wherever this node is met: its peers see that for themselves.
    Ok(found.into_iter().filter(|address| !address.ip().is_unspecified()).collect())
}

/// Everything a shard is made from, shared by the workers' threads.
struct Plan {
    settings: Settings,
    node: NodeId,
    hash_key: HashKey,
    seed: u64,
    client_address: String,
    mesh: Option<Meshed>,
}

impl Plan {
    fn shard(&self, worker: u16, workers: u16, now: crate::base::time::Now) -> Shard {
        let settings = &self.settings;
        let mesh = self.mesh.as_ref().map(|mesh| MeshSetup {
            cluster: ClusterOptions {
                id: self.node.clone(),
                generation: mesh.generation,
                advertise: mesh.advertise.clone(),
                workers,
                join_timeout: mesh.settings.join_timeout,
                alone: mesh.seeds.is_empty(),
            },
            client_address: self.client_address.clone(),
        });
        Shard::new(Setup {
            worker,
            workers,
            node: self.node.clone(),
            hash_key: self.hash_key,
            environment: Environment {
                options: session::Options {
                    ping_interval: settings.client.ping_interval,
                    pong_timeout: settings.client.pong_timeout,
                    stale_close_delay: settings.client.stale_close_delay,
                    channel_limit: settings.limits.channels_per_client_max,
                    expired_close_delay: settings.client.expired_close_delay,
                    expired_sub_close_delay: settings.client.expired_sub_close_delay,
                    version: format!("skein {}", env!("CARGO_PKG_VERSION")).into(),
                },
                rules: Rules::new(settings.rules.clone()),
                verifier: Verifier::new(&settings.auth),
            },
            options: self.shard_options(),
            mesh,
            echo: false,
            rng: Rng::seeded(self.seed.wrapping_add(u64::from(worker))),
            now,
        })
    }

    fn shard_options(&self) -> shard::Options {
        let limits = &self.settings.limits;
        let api = &self.settings.api;
        let mut options = shard::Options {
            message_bytes_max: limits.message_bytes_max,
            decode: DecodeLimits { json_depth_max: limits.json_depth_max, commands_max: limits.commands_per_frame_max },
            api: ApiLimits { json_depth_max: limits.json_depth_max, channels_max: api.channels_max },
            outbox_bytes_max: limits.outbox_bytes_max,
            user_connections_max: limits.user_connections_max,
            address_connections_max: limits.address_connections_max,
            ..shard::Options::default()
        };
        if let Some(mesh) = &self.mesh {
            options.lane_queue_bytes_max = mesh.settings.queue_bytes_max;
        }
        options
    }
}

fn shell_options(
    settings: &Settings,
    mesh: Option<&Meshed>,
    demo: Option<http::Demo>,
) -> Result<run::Options, Failure> {
    let trusted = settings.proxy.trusted.iter().map(|network| {
        network.parse::<Network>().map_err(|error| Failure::usage(format!("proxy.trusted: {network}: {error}")))
    });
    let trusted_proxies = trusted.collect::<Result<Vec<_>, _>>()?;
    Ok(run::Options {
        workers: settings.node.workers,
        pin: settings.node.pin,
        driver: match settings.node.driver {
            config::Driver::Auto => Choice::Auto,
            config::Driver::IoUring => Choice::Uring,
            config::Driver::Epoll => Choice::Epoll,
        },
        client: settings.http.listen,
        internal: settings.http.internal,
        connections_max: match settings.limits.connections_max {
            0 => None,
            limit => Some(limit as usize),
        },
        hosting: Hosting {
            http: http::Options {
                websocket_path: settings.http.websocket_path.clone(),
                origins: OriginRule::new(settings.http.allowed_origins.iter().map(String::as_str)),
                api_key: settings.api.key.clone(),
                api_insecure: settings.api.insecure,
                internal: settings.http.internal.is_some(),
                address_header: (!trusted_proxies.is_empty()).then(|| settings.proxy.header.clone()),
                body_bytes_max: settings.api.body_bytes_max,
                demo,
            },
            trusted_proxies,
            handshake_timeout: settings.http.handshake_timeout,
            ..Hosting::default()
        },
        shutdown_timeout: settings.shutdown_timeout,
        mesh: mesh.map(|mesh| Mesh {
            address: mesh.listen,
            identity: mesh.identity.clone(),
            options: quic::Options::default(),
            seeds: mesh.seeds.clone(),
        }),
    })
}

/// The machine's name as far as it is a node's name.
fn machine_name() -> NodeId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    NodeId::parse(&host.trim().to_lowercase())
        .unwrap_or_else(|_| NodeId::parse("skein").expect("a name of letters is a node's name"))
}

fn random_seed() -> u64 {
    use rand::TryRngCore;
    rand::rngs::OsRng.try_next_u64().expect("the system has randomness")
}

fn random_key() -> HashKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random_seed().to_le_bytes());
    bytes[8..].copy_from_slice(&random_seed().to_le_bytes());
    HashKey::new(bytes)
}

/// A bug in any thread ends the process, so that its supervisor starts a fresh one; what it was stands in one line of the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        tracing::error!(place, thread, "a bug ends this node: {text}");
        std::process::abort();
    }));
}
