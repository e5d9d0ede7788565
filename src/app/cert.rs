//! `skein cert`: makes the cluster's CA and, for each node, the bundle by which peers know it.
//!
//! A CA directory holds `ca.pem` (public), `ca.key` and `hash.key` (secret, mode 0600). A node's bundle is one secret
//! file; `shell::quic::identity` says what is in it. The functions in memory serve the demo and tests.
//!
//! Always true: nothing that exists is written over unless told to, and a secret is never readable by others, not
//! even while it is being written.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::base::hash::HashKey;
use crate::base::id::{BadNodeId, NodeId};
use crate::shell::quic::identity::{parse_hash_key, render_hash_key};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const HASH_KEY: &str = "hash.key";

/// May files that exist be replaced?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overwrite {
    Never,
    /// `--force`.
    Replace,
}

/// A CA in memory.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    hash_key: HashKey,
}

impl Authority {
    pub fn generate() -> Result<Self, CertError> {
        let mut random = [0; 20];
        OsRng.try_fill_bytes(&mut random).map_err(|_| CertError::NoRandomness)?;
        let (hash_key, mark) = random.split_at(16);
        let hash_key = HashKey::new(hash_key.try_into().expect("split at 16"));
        let mark = u32::from_le_bytes(mark.try_into().expect("four bytes are left"));

        let mut params = lasting_params();
        // The mark tells two clusters' CAs apart, in logs and for TLS, which looks for an issuer by its name.
        params.distinguished_name = common_name(&format!("skein cluster CA {mark:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(CertError::Crypto)?;
        let certificate_pem = params.self_signed(&key).map_err(CertError::Crypto)?.pem();
        Ok(Authority { certificate_pem, issuer: Issuer::new(params, key), hash_key })
    }

    pub fn load(directory: &Path) -> Result<Self, CertError> {
        let certificate_pem = read(&directory.join(CA_CERTIFICATE))?;
        let malformed = |name: &str| CertError::Malformed(directory.join(name));
        let key = KeyPair::from_pem(&read(&directory.join(CA_KEY))?).map_err(|_| malformed(CA_KEY))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|_| malformed(CA_CERTIFICATE))?;
        let hash_key = parse_hash_key(&read(&directory.join(HASH_KEY))?).ok_or_else(|| malformed(HASH_KEY))?;
        Ok(Authority { certificate_pem, issuer, hash_key })
    }

    pub fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// A bundle: what `Identity::parse` reads. It holds a private key.
    pub fn node(&self, name: &NodeId) -> Result<String, CertError> {
        let mut params = lasting_params();
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName(name.as_str().try_into().expect("a node's name is ASCII"))];
        params.distinguished_name = common_name(name.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(CertError::Crypto)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertError::Crypto)?;
        Ok([certificate.pem(), key.serialize_pem(), self.certificate_pem.clone(), render_hash_key(&self.hash_key)]
            .concat())
    }
}

/// Makes a CA in the directory, which is made when it is not there.
pub fn ca(directory: &Path, overwrite: Overwrite) -> Result<(), CertError> {
    let authority = Authority::generate()?;
    fs::create_dir_all(directory).map_err(|error| CertError::Unwritable(directory.to_owned(), error))?;
    let files = [
        (directory.join(CA_KEY), authority.issuer.key().serialize_pem(), 0o600),
        (directory.join(HASH_KEY), render_hash_key(&authority.hash_key), 0o600),
        (directory.join(CA_CERTIFICATE), authority.certificate_pem, 0o644),
    ];
    // All or none: a new key beside an old certificate would be a broken CA.
    if overwrite == Overwrite::Never
        && let Some((path, ..)) = files.iter().find(|(path, ..)| path.exists())
    {
        return Err(CertError::Exists(path.clone()));
    }
    files.iter().try_for_each(|(path, text, mode)| write(path, text, *mode, overwrite))
}

/// Signs a node's bundle with the CA in the directory.
pub fn node(directory: &Path, name: &str, out: &Path, overwrite: Overwrite) -> Result<(), CertError> {
    let name = NodeId::parse(name).map_err(|bad| CertError::Name(name.to_owned(), bad))?;
    write(out, &Authority::load(directory)?.node(&name)?, 0o600, overwrite)
}

fn lasting_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    // A cluster must not stop on the day that somebody forgot. Who wants to replace certificates does so at will: a
    // bundle may hold the old CA and the new one.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CertError::NoAuthority(path.to_owned()),
        _ => CertError::Unreadable(path.to_owned(), error),
    })
}

fn write(path: &Path, text: &str, mode: u32, overwrite: Overwrite) -> Result<(), CertError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => CertError::Exists(path.to_owned()),
        _ => CertError::Unwritable(path.to_owned(), error),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| match overwrite {
            // A link fails where a name exists; a rename replaces it.
            Overwrite::Never => fs::hard_link(&part, path),
            Overwrite::Replace => fs::rename(&part, path),
        });
    // After a rename it is gone already, and after a failure the first error is the one to tell.
    let _ = fs::remove_file(&part);
    written.map_err(failed)
}

#[derive(Debug)]
pub enum CertError {
    Name(String, BadNodeId),
    Exists(PathBuf),
    NoAuthority(PathBuf),
    Unreadable(PathBuf, io::Error),
    Unwritable(PathBuf, io::Error),
    Malformed(PathBuf),
    NoRandomness,
    Crypto(rcgen::Error),
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertError::Name(name, bad) => write!(f, "`{name}` cannot name a node: {bad}"),
            CertError::Exists(path) => {
                write!(f, "{} exists and was left as it is: use --force to replace it", path.display())
            }
            CertError::NoAuthority(path) => {
                write!(f, "{} is not there: make a CA first with `skein cert ca`", path.display())
            }
            CertError::Unreadable(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            CertError::Unwritable(path, error) => write!(f, "{} cannot be written: {error}", path.display()),
            CertError::Malformed(path) => write!(f, "{} is not what `skein cert ca` made", path.display()),
            CertError::NoRandomness => f.write_str("the system gave no random bytes for the keys"),
            CertError::Crypto(error) => write!(f, "the certificate could not be made: {error}"),
        }
    }
}

impl std::error::Error for CertError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::shell::quic::{Identity, IdentityError};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("skein-cert-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a scratch directory");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // Best effort: the directory is temporary.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("the file exists").permissions().mode() & 0o777
    }

    #[test]
    fn a_bundle_from_the_files_of_a_ca_is_an_identity_with_its_hash_key() {
        let scratch = Scratch::new("files");
        let (directory, out) = (scratch.0.join("ca"), scratch.0.join("n1.pem"));
        ca(&directory, Overwrite::Never).expect("a CA");
        node(&directory, "n1.eu", &out, Overwrite::Never).expect("a bundle");
        let identity = Identity::load(&out).expect("an identity");
        assert_eq!(identity.name().as_str(), "n1.eu");
        assert_eq!(identity.hash_key(), Authority::load(&directory).expect("the CA").hash_key());
        for secret in [directory.join(CA_KEY), directory.join(HASH_KEY), out] {
            assert_eq!(mode(&secret), 0o600, "{secret:?}");
        }
        assert_eq!(fs::read_dir(&directory).expect("readable").count(), 3, "no leftovers");
    }

    #[test]
    fn nothing_is_written_over_unless_forced() {
        let scratch = Scratch::new("force");
        let out = scratch.0.join("n1.pem");
        ca(&scratch.0, Overwrite::Never).expect("a CA");
        node(&scratch.0, "n1", &out, Overwrite::Never).expect("a bundle");
        let before = fs::read(&out).expect("readable");
        assert!(matches!(ca(&scratch.0, Overwrite::Never), Err(CertError::Exists(_))));
        assert!(matches!(node(&scratch.0, "n1", &out, Overwrite::Never), Err(CertError::Exists(_))));
        assert_eq!(fs::read(&out).expect("readable"), before);
        node(&scratch.0, "n1", &out, Overwrite::Replace).expect("forced");
        assert_ne!(fs::read(&out).expect("readable"), before);
        assert_eq!(mode(&out), 0o600);
    }

    #[test]
    fn mistakes_are_told_in_one_sentence() {
        let scratch = Scratch::new("mistakes");
        let out = scratch.0.join("n1.pem");
        let error = node(&scratch.0, "n1", &out, Overwrite::Never).expect_err("no CA");
        assert!(error.to_string().contains("skein cert ca"), "{error}");
        ca(&scratch.0, Overwrite::Never).expect("a CA");
        let error = node(&scratch.0, "N1", &out, Overwrite::Never).expect_err("a bad name");
        assert!(error.to_string().starts_with("`N1` cannot name a node"), "{error}");
        fs::write(scratch.0.join(HASH_KEY), "nonsense").expect("writable");
        let error = node(&scratch.0, "n1", &out, Overwrite::Never).expect_err("a broken CA");
        assert!(error.to_string().contains("hash.key"), "{error}");
    }

    #[test]
    fn a_bundle_that_others_may_read_is_refused() {
        let scratch = Scratch::new("mode");
        let out = scratch.0.join("n1.pem");
        ca(&scratch.0, Overwrite::Never).expect("a CA");
        node(&scratch.0, "n1", &out, Overwrite::Never).expect("a bundle");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o640)).expect("own file");
        let error = Identity::load(&out).expect_err("readable by the group");
        assert!(matches!(error, IdentityError::OpenToOthers(_, 0o640)));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_incomplete_bundle_says_what_is_missing() {
        let authority = Authority::generate().expect("a CA");
        let whole = authority.node(&NodeId::parse("n1").expect("a name")).expect("a bundle");
        assert!(Identity::parse(&whole).is_ok());
        let without = |begin: &str| {
            let at = whole.find(begin).expect("the block is there");
            let end = at + whole[at..].find("-----END").expect("it ends");
            let end = whole[end..].find('\n').map_or(whole.len(), |newline| end + newline + 1);
            [&whole[..at], &whole[end..]].concat()
        };
        for (begin, why) in [
            ("-----BEGIN SKEIN HASH KEY", "no hash key"),
            ("-----BEGIN PRIVATE KEY", "no private key"),
            ("-----BEGIN CERTIFICATE", "no CA certificate"),
        ] {
            let error = Identity::parse(&without(begin)).expect_err(begin);
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(Identity::parse("").is_err());
    }
}
