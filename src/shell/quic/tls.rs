//! TLS and transport settings of the lanes, and how a peer's certificate is checked.
//!
//! Both sides must show a certificate that chains to the cluster's CA. Its name is not compared here, because a
//! dialer may know no more than an address: the names are handed up and the HELLO above compares them.
//! There is no session resumption and no 0-RTT, so every lane proves anew who is at its other end.

use std::sync::Arc;

use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::{CryptoError, HmacKey};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig,
    NoneTokenStore, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedCipherSuite};

use super::Options;
use super::identity::{Identity, IdentityError};

/// The server name that every dialer sends: names are not what a lane is found by.
pub const SERVER_NAME: &str = "skein";

const INITIAL_SUITE: &str = "the provider holds AES-128-GCM, which QUIC begins with";

pub struct Configs {
    pub endpoint: Arc<EndpointConfig>,
    pub server: Arc<ServerConfig>,
    pub client: ClientConfig,
}

/// `port` goes into the key of the stateless resets: the workers of a node share a private key, and an endpoint must
/// not be brought to give away the reset token of a lane of its neighbour (RFC 9000, section 21.11).
pub fn configs(identity: &Identity, options: &Options, port: u16) -> Result<Configs, IdentityError> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    });
    let unusable = IdentityError::Unusable;

    let clients = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider.clone())
        .build()
        .map_err(|error| unusable(rustls::Error::General(error.to_string())))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(unusable)?;
    server.alpn_protocols = vec![options.alpn.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(identity))
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(unusable)?;
    client.alpn_protocols = vec![options.alpn.to_vec()];
    client.resumption = Resumption::disabled();

    let mut validation = ValidationTokenConfig::default();
    // Addresses are proved by a retry on each dial; tokens for later would need a memory on both sides.
    validation.sent(0);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).expect(INITIAL_SUITE)));
    server
        .transport_config(Arc::new(transport(options, Side::Accepts)))
        .migration(false)
        .validation_token_config(validation)
        // An `Incoming` is accepted or refused before the next datagram is looked at, so there is never a second.
        .max_incoming(4)
        .incoming_buffer_size(0)
        .incoming_buffer_size_total(0);

    let keys = ResetKeys::derive(identity, port);
    let cid_key = keys.cid_key;
    let mut endpoint = EndpointConfig::new(Arc::new(keys));
    endpoint
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .max_udp_payload_size(options.mtu_max.max(1472))
        .expect("the largest MTU is within what UDP can carry");
    Ok(Configs { endpoint: Arc::new(endpoint), server: Arc::new(server), client: dialer(client, options) })
}

pub(super) fn dialer(client: rustls::ClientConfig, options: &Options) -> ClientConfig {
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).expect(INITIAL_SUITE)));
    client.transport_config(Arc::new(transport(options, Side::Dials))).token_store(Arc::new(NoneTokenStore));
    client
}

#[derive(PartialEq)]
enum Side {
    Accepts,
    Dials,
}

fn transport(options: &Options, side: Side) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(options.mtu_max);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(options.ack_every)).max_ack_delay(Some(options.max_ack_delay));
    let mut congestion = CubicConfig::default();
    congestion.initial_window(options.initial_congestion_window);

    let mut transport = TransportConfig::default();
    transport
        // The dialer opens the one bidirectional stream; each side opens one unidirectional.
        .max_concurrent_bidi_streams(VarInt::from_u32((side == Side::Accepts).into()))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_idle_timeout(Some(IdleTimeout::try_from(options.idle_timeout).expect("an idle timeout below 2^62 ms")))
        .keep_alive_interval(Some(options.keep_alive))
        .stream_receive_window(VarInt::from_u32(options.stream_window))
        .receive_window(VarInt::from_u32(options.lane_window))
        .send_window(options.send_window.into())
        .initial_rtt(options.initial_rtt)
        .initial_mtu(options.initial_mtu)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .allow_spin(false)
        .datagram_receive_buffer_size(Some(options.datagram_buffer))
        .datagram_send_buffer_size(options.datagram_buffer)
        .send_fairness(false);
    transport
}

/// Chain to the cluster's CA, and the right to act as a server; any name.
#[derive(Debug)]
struct ClusterVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

pub(super) fn verifier(identity: &Identity) -> Arc<dyn ServerCertVerifier> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    Arc::new(ClusterVerifier { roots: identity.roots.clone(), algorithms })
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("lanes speak TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The DNS names of a certificate; none when it cannot be read.
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(certificate) => certificate.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

/// Made from the private key, so that a node that was restarted can tell a peer, by a stateless reset, that the lanes
/// of its former life are gone. With random keys the peer would wait for its idle timeout.
struct ResetKeys {
    reset_key: OkmBlock,
    cid_key: u64,
}

impl ResetKeys {
    fn derive(identity: &Identity, port: u16) -> Self {
        let expander = hkdf().extract_from_secret(Some(b"skein lane resets"), identity.key.secret_der());
        let port = port.to_be_bytes();
        let cid_key = expander.expand_block(&[b"connection ids", &port[..]]);
        ResetKeys {
            reset_key: expander.expand_block(&[b"stateless reset", &port[..]]),
            cid_key: u64::from_le_bytes(cid_key.as_ref()[..8].try_into().expect("a block has 32 bytes")),
        }
    }
}

fn hkdf() -> &'static dyn Hkdf {
    match ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.hkdf_provider,
        SupportedCipherSuite::Tls12(_) => unreachable!("the name says TLS 1.3"),
    }
}

impl HmacKey for ResetKeys {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hkdf().hmac_sign(&self.reset_key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // quinn-proto only signs with this key; a comparison in variable time would do no harm here, but none is
        // needed either.
        match hkdf().hmac_sign(&self.reset_key, data).as_ref() == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}
