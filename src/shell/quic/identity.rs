//! Who this node is to its peers: its bundle, one file that `skein cert node` writes and a node reads at start.
//!
//! A bundle is PEM text with the node's certificate first, then its private key, the certificates of the cluster's
//! CA (more than one while a CA is being replaced) and the cluster's hash key. It holds secrets, so a file that
//! others may read is refused. How peers are checked with it is in `tls`; making bundles is in `app::cert`.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::dns_names;
use crate::base::hash::HashKey;
use crate::base::id::NodeId;

const HASH_KEY_BEGIN: &str = "-----BEGIN SKEIN HASH KEY-----";
const HASH_KEY_END: &str = "-----END SKEIN HASH KEY-----";
/// A bundle is a few kilobytes; whatever is larger is not one.
const BUNDLE_BYTES_MAX: u64 = 256 * 1024;

pub struct Identity {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: Arc<RootCertStore>,
    name: NodeId,
    hash_key: HashKey,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Identity {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
            name: self.name.clone(),
            hash_key: self.hash_key,
        }
    }
}

/// Shows the name only: the rest is secret or long.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let unreadable = |error| IdentityError::Unreadable(path.to_owned(), error);
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(IdentityError::OpenToOthers(path.to_owned(), metadata.permissions().mode() & 0o777));
        }
        if metadata.len() > BUNDLE_BYTES_MAX {
            return Err(IdentityError::Malformed("it is far too large to be a bundle"));
        }
        Identity::parse(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        use IdentityError::Malformed;
        let mut certificates = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Malformed("a certificate in it is damaged"))?
            .into_iter();
        let certificate = certificates.next().ok_or(Malformed("it holds no certificate"))?;
        let mut roots = RootCertStore::empty();
        for ca in certificates {
            roots.add(ca).map_err(|_| Malformed("a CA certificate in it is damaged"))?;
        }
        if roots.is_empty() {
            return Err(Malformed("it holds no CA certificate after the node's own"));
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| Malformed("it holds no private key that can be read"))?;
        let hash_key = parse_hash_key(text).ok_or(Malformed("it holds no hash key of 16 bytes"))?;
        let name = match dns_names(&certificate).as_slice() {
            [name] => NodeId::parse(name).map_err(|_| Malformed("the name in its certificate is not a node's name"))?,
            _ => return Err(Malformed("its certificate must hold exactly one DNS name, the node's")),
        };
        Ok(Identity { certificate, key, roots: Arc::new(roots), name, hash_key })
    }

    /// The name in the certificate, by which peers will know this node.
    pub fn name(&self) -> &NodeId {
        &self.name
    }

    pub fn hash_key(&self) -> HashKey {
        self.hash_key
    }
}

/// The PEM-like block that carries the cluster's hash key.
pub fn render_hash_key(key: &HashKey) -> String {
    format!("{HASH_KEY_BEGIN}\n{}\n{HASH_KEY_END}\n", STANDARD.encode(key.as_bytes()))
}

pub fn parse_hash_key(text: &str) -> Option<HashKey> {
    let (_, after) = text.split_once(HASH_KEY_BEGIN)?;
    let (body, _) = after.split_once(HASH_KEY_END)?;
    let bytes = STANDARD.decode(body.trim()).ok()?;
    Some(HashKey::new(bytes.try_into().ok()?))
}

#[derive(Debug)]
pub enum IdentityError {
    Unreadable(PathBuf, io::Error),
    /// With the mode that the file has.
    OpenToOthers(PathBuf, u32),
    Malformed(&'static str),
    /// The certificate and the key do not belong together, or TLS cannot use them.
    Unusable(rustls::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Unreadable(path, error) => {
                write!(f, "the certificate bundle {} cannot be read: {error}", path.display())
            }
            IdentityError::OpenToOthers(path, mode) => write!(
                f,
                "the certificate bundle {0} holds a private key but its mode is {mode:03o}: run `chmod 600 {0}`",
                path.display()
            ),
            IdentityError::Malformed(why) => write!(f, "the certificate bundle is not usable: {why}"),
            IdentityError::Unusable(error) => write!(f, "the certificate bundle is not usable: {error}"),
        }
    }
}

impl std::error::Error for IdentityError {}
