//! The mesh port against those who do not belong there: refused, counted, and nobody else's trouble.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skein::app::cert::Authority;
use skein::backplane::envelope;
use skein::backplane::mesh::handshake::Hello;
use skein::base::id::{Generation, NodeId};
use skein::base::rng::Rng;
use skein::shell::clock;
use skein::shell::quic::{Down, Event, Identity, LaneStream, Options, Quic};

use crate::harness::{Cluster, Node, PATIENCE, Plan, Ws, eventually, path};

const MIB: u64 = 1024 * 1024;

/// How a dial ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    /// Before or right after the handshake.
    Refused,
    /// The lane stood, and the node closed it with this code.
    Closed(u32),
    StillOpen,
}

/// Dials a node's lane 0, says this on the control stream and sees what becomes of it.
fn dial(node: &Node, identity: &Identity, options: Options, say: &[u8]) -> End {
    let mut quic = Quic::bind("127.0.0.1:0".parse().unwrap(), identity, options, clock::mono()).expect("a socket");
    quic.dial(clock::mono(), node.mesh, 1);
    let until = Instant::now() + Duration::from_secs(4);
    let mut stood = false;
    while Instant::now() < until {
        quic.on_readable(clock::mono(), 100);
        quic.on_timeout(clock::mono());
        while let Some(event) = quic.poll_event() {
            match event {
                Event::Up { lane, .. } => {
                    stood = true;
                    assert_eq!(quic.write(lane, LaneStream::Control, say), say.len());
                }
                Event::Down { why: Down::Closed { code, .. }, .. } if stood => return End::Closed(code),
                Event::Down { .. } | Event::DialFailed { .. } => return End::Refused,
                _ => {}
            }
        }
        quic.flush(clock::mono());
        std::thread::sleep(Duration::from_millis(1));
    }
    End::StillOpen
}

fn hello(identity: &Identity, id: &str) -> Hello {
    Hello {
        version_min: Hello::VERSIONS.0,
        version_max: Hello::VERSIONS.1,
        layout: envelope::layout_hash(),
        hash_key: identity.hash_key().fingerprint(),
        generation: Generation(clock::now().wall.0),
        workers: 1,
        lane: 0,
        dial: 1,
        id: NodeId::parse(id).unwrap(),
        addresses: vec!["127.0.0.1:9".parse().unwrap()],
        client: String::new(),
    }
}

fn encoded(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    bytes
}

fn refusals(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("skein_mesh_refusals_total{{reason=\"{reason}\""))
}

/// They are told once a second.
fn more_refusals(node: &Node, reason: &str, than: f64) -> f64 {
    let mut now = than;
    eventually(Duration::from_secs(5), "the refusal is counted", || {
        now = refusals(node, reason);
        now > than
    });
    now
}

/// Nobody but its nodes is in it, and none of them has ever been out of view.
fn unmoved(cluster: &Cluster) {
    for node in &cluster.nodes {
        let status = node.status().expect("it answers");
        assert!(status.complete, "{status:?}");
        assert_eq!(status.members.len(), cluster.nodes.len() - 1, "{:?}", status.members);
        assert_eq!(node.metric("skein_views_lost_total"), 0.0, "{}", node.name);
    }
}

fn identity(bundle: &std::path::Path) -> Identity {
    Identity::load(bundle).expect("a bundle")
}

#[test]
fn whoever_has_no_place_in_the_cluster_is_refused_and_counted() {
    let cluster = Plan::nodes(2).start();
    let node = &cluster.nodes[0];
    let ours = identity(&cluster.bundle("n9"));
    let before = refusals(node, "handshake");

    // A certificate of another CA, for a name of this cluster.
    let other_ca = Authority::generate().unwrap().node(&NodeId::parse("n2").unwrap()).unwrap();
    let other_ca = Identity::parse(&other_ca).unwrap();
    // The dialer does not trust the node either; one that would is refused by the node.
    assert_eq!(dial(node, &other_ca, Options::default(), &encoded(&hello(&other_ca, "n2"))), End::Refused);
    let counted = more_refusals(node, "handshake", before);

    // A good certificate, another protocol.
    let options = Options { alpn: b"skein/0", ..Options::default() };
    assert_eq!(dial(node, &ours, options, &encoded(&hello(&ours, "n9"))), End::Refused);
    let counted = more_refusals(node, "handshake", counted);

    // No certificate.
    assert!(!without_certificate(node.mesh), "nobody gets in without a certificate");
    more_refusals(node, "handshake", counted);

    // A good certificate under another name than HELLO.
    let end = dial(node, &ours, Options::default(), &encoded(&hello(&ours, "n2")));
    assert!(matches!(end, End::Closed(_)), "{end:?}");
    assert!(refusals(node, "name") >= 1.0, "another name is counted");

    // Another hash key, another layout, and what is no HELLO at all.
    let strange = [
        encoded(&Hello { hash_key: 1, ..hello(&ours, "n9") }),
        encoded(&Hello { layout: 1, ..hello(&ours, "n9") }),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for (number, bytes) in strange.iter().enumerate() {
        let end = dial(node, &ours, Options::default(), bytes);
        assert!(matches!(end, End::Closed(_)), "{number}: {end:?}");
        assert!(refusals(node, "hello") >= number as f64 + 1.0, "{number} is counted");
    }
    unmoved(&cluster);
    assert_eq!(
        crate::pairs::exchange(
            cluster.nodes[0].client,
            cluster.nodes[1].client,
            crate::pairs::By::WebSocket,
            "after",
            200
        ),
        0
    );
}

#[test]
fn a_node_of_another_cluster_does_not_get_in() {
    let cluster = Plan::nodes(2).start();
    let foreign = cluster.directory().join("foreign.pem");
    let bundle = Authority::generate().unwrap().node(&NodeId::parse("n3").unwrap()).unwrap();
    std::fs::write(&foreign, bundle).unwrap();
    std::fs::set_permissions(&foreign, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut stranger = extra_node(&cluster, "n3", &foreign);
    stranger.start();
    eventually(PATIENCE, "it serves alone", || stranger.status().is_some_and(|status| status.ready));
    assert!(stranger.status().unwrap().members.is_empty());
    for node in &cluster.nodes {
        eventually(PATIENCE, "it is counted", || refusals(node, "handshake") > 0.0);
    }
    unmoved(&cluster);
}

#[test]
fn a_second_node_under_the_name_of_a_living_one_ends_with_one_clear_line() {
    let cluster = Plan::nodes(2).start();
    let bundle = cluster.bundle("n2");
    let mut second = extra_node(&cluster, "n2", &bundle);
    second.start();
    let (status, took) = second.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{}", second.log_text());
    eprintln!("it ended after {took:?}: {}", second.log_end(1));
    assert!(second.log_end(1).contains("n2"), "{}", second.log_text());
    cluster.together();
    unmoved(&cluster);
}

/// On ports of its own, with the cluster's nodes as seeds.
fn extra_node(cluster: &Cluster, name: &str, bundle: &std::path::Path) -> Node {
    let free = |udp: bool| loop {
        let address = if udp {
            UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        } else {
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        };
        if address.port() < 65_000 {
            break address;
        }
    };
    let directory = cluster.directory().join("extra");
    std::fs::create_dir_all(&directory).unwrap();
    Node::prepare(crate::harness::node::Setup {
        name: name.into(),
        client: free(false),
        mesh: free(true),
        workers: 1,
        bundle: path(bundle).into(),
        seeds: cluster.nodes.iter().map(|node| node.mesh.to_string()).collect(),
        flags: vec!["--mesh.join_timeout=1s".into()],
        directory,
    })
}

/// Whether a dialer that shows no certificate is let in: the handshake's end is not enough, since in TLS 1.3 the
/// dialer is done before it is judged.
fn without_certificate(node: SocketAddr) -> bool {
    #[derive(Debug)]
    struct Trusting;
    impl rustls::client::danger::ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::ED25519]
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    tls.alpn_protocols = vec![skein::shell::quic::ALPN.to_vec()];
    let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn_proto::ClientConfig::new(Arc::new(crypto));

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, true, None);
    let (handle, mut connection) = endpoint.connect(Instant::now(), config, node, "skein").unwrap();
    let began = Instant::now();
    let (mut out, mut buffer) = (Vec::new(), [0; 2048]);
    while began.elapsed() < Duration::from_secs(4) {
        out.clear();
        while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut out) {
            // Lost packets are sent again.
            let _ = socket.send_to(&out[..transmit.size], transmit.destination);
            out.clear();
        }
        if connection.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            connection.handle_timeout(Instant::now());
        }
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let event = endpoint.handle(Instant::now(), from, None, None, buffer[..length].into(), &mut out);
            out.clear();
            if let Some(quinn_proto::DatagramEvent::ConnectionEvent(_, event)) = event {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let quinn_proto::Event::ConnectionLost { .. } = event {
                return false;
            }
        }
    }
    true
}

/// Sends datagrams to a node's mesh port until dropped, at a bounded rate.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr, per_second: u32) -> Flood {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let sockets: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let mut rng = Rng::seeded(7);
            let mut datagram = [0; 1200];
            let began = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
                for number in count.load(Ordering::Relaxed)..due {
                    let length = garbage(number, &mut rng, &mut datagram);
                    // A full buffer is what a flood is about.
                    let _ = sockets[number as usize % sockets.len()].send_to(&datagram[..length], to);
                    count.store(number + 1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Flood { stop, sent, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Of all kinds: noise, and what looks like the first packet of a handshake, of this version of QUIC or another.
fn garbage(number: u64, rng: &mut Rng, datagram: &mut [u8; 1200]) -> usize {
    use rand::RngCore;
    let length = match number % 4 {
        0 => 1 + rng.below(64) as usize,
        1 => 1 + rng.below(1200) as usize,
        _ => 1200,
    };
    rng.fill_bytes(&mut datagram[..length]);
    if number % 4 >= 2 {
        // Long header, Initial, version 1 or an unknown one, connection ids of eight bytes, no token, the rest noise.
        let version: u32 = if number % 4 == 2 { 1 } else { 0x7a7a_7a7a };
        datagram[0] = 0xc0 | (rng.below(4) as u8);
        datagram[1..5].copy_from_slice(&version.to_be_bytes());
        datagram[5] = 8;
        datagram[14] = 8;
        datagram[23] = 0;
        datagram[24..26].copy_from_slice(&(0x4000_u16 | 1174).to_be_bytes());
    }
    length
}

/// The slowest one in a hundred of so many round trips: published, and delivered to oneself.
fn echo_p99(ws: &mut Ws, rounds: usize) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|number| {
            let began = Instant::now();
            ws.ask_publish("echo", &number.to_string());
            let heard = ws.publication(began + PATIENCE).expect("an echo");
            assert_eq!(heard, number.to_string());
            // As a client would: not as fast as it can.
            let took = began.elapsed();
            std::thread::sleep(Duration::from_millis(1));
            took
        })
        .collect();
    times.sort_unstable();
    times[rounds * 99 / 100]
}

#[test]
fn a_flood_of_garbage_on_the_mesh_port_is_counted_and_delays_no_client() {
    let cluster = Plan::nodes(3).start();
    let node = &cluster.nodes[0];
    let mut ws = Ws::connect(node.client);
    ws.subscribe("echo");
    echo_p99(&mut ws, 200);
    let quiet = echo_p99(&mut ws, 1000);
    let flood = Flood::start(node.mesh, 20_000);
    // Buffers that grow once have done so.
    std::thread::sleep(Duration::from_secs(1));
    let memory = node.memory();
    let flooded = echo_p99(&mut ws, 1000);
    let grown = node.memory().saturating_sub(memory);
    // The other nodes go on with the flooded one.
    let lost =
        crate::pairs::exchange(node.client, cluster.nodes[1].client, crate::pairs::By::WebSocket, "flooded", 300);
    let sent = flood.end();
    eprintln!("p99 of an echo: {quiet:?} without, {flooded:?} with {sent} datagrams; memory grew by {grown} bytes");
    assert_eq!(lost, 0);
    assert!(flooded < quiet * 10 + Duration::from_millis(20), "{flooded:?} instead of {quiet:?}");
    assert!(grown < 8 * MIB, "{grown} bytes");
    let counted = refusals(node, "datagram") + refusals(node, "handshake") + refusals(node, "limit");
    assert!(counted > 1000.0, "{counted} of {sent} were counted");
    unmoved(&cluster);
}
