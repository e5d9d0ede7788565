//! HELLO: the first bytes on a lane's control stream, in both directions, and what makes a node refuse another.
//!
//! Hand-written, so that it can be read by nodes whose archives cannot. What later versions need is appended; a reader
//! ignores what it does not know. A peer counts as up only after its HELLO was read and checked.
//!
//! Always true: before a HELLO is whole, no more than `HELLO_BYTES_MAX` bytes of it are wanted or held.

use std::fmt;
use std::net::SocketAddr;

use crate::backplane::compact::{self, Malformed, Reader};
use crate::backplane::envelope::WIRE_VERSION;
use crate::base::id::{Generation, NodeId};
use crate::limits::{HELLO_BYTES_MAX, NODE_ADDRESSES_MAX, NODE_ID_BYTES_MAX, NODE_TEXT_BYTES_MAX, WORKERS_MAX};

/// The protocol's name in TLS. Its number changes when HELLO itself does.
pub const ALPN: &[u8] = b"skein/1";

const MAGIC: &[u8; 5] = b"SKEIN";
const PREFIX_BYTES: usize = MAGIC.len() + 2;
const FIXED_BYTES: usize = 2 + 8 + 8 + 8 + 2 + 2 + 8;

const _: () = assert!(
    PREFIX_BYTES + FIXED_BYTES + 1 + NODE_ID_BYTES_MAX + 1 + NODE_ADDRESSES_MAX * 19 + 1 + NODE_TEXT_BYTES_MAX
        <= HELLO_BYTES_MAX
);

/// What a node says of itself, and of the lane on which it says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub version_min: u8,
    pub version_max: u8,
    /// `envelope::layout_hash()`.
    pub layout: u64,
    /// `HashKey::fingerprint()`.
    pub hash_key: u64,
    pub generation: Generation,
    pub workers: u16,
    /// The lane's index; the accepting side repeats the dialling side's.
    pub lane: u16,
    /// Of the dialling side: a number that grows with each of its dials. 0 from the accepting side.
    pub dial: u64,
    pub id: NodeId,
    /// Where lane 0 can be dialled; port base. At most `NODE_ADDRESSES_MAX` are told.
    pub addresses: Vec<SocketAddr>,
    /// Where clients connect, for people to read; may be empty. Longer ones are cut.
    pub client: String,
}

impl Hello {
    /// The versions that this program speaks.
    pub const VERSIONS: (u8, u8) = (WIRE_VERSION, WIRE_VERSION);

    /// The same node on another lane.
    pub fn with_lane(&self, lane: u16, dial: u64) -> Hello {
        Hello { lane, dial, ..self.clone() }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        let length_at = out.len();
        out.extend_from_slice(&[0; 2]);
        let start = out.len();
        out.push(self.version_min);
        out.push(self.version_max);
        out.extend_from_slice(&self.layout.to_le_bytes());
        out.extend_from_slice(&self.hash_key.to_le_bytes());
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.workers.to_le_bytes());
        out.extend_from_slice(&self.lane.to_le_bytes());
        out.extend_from_slice(&self.dial.to_le_bytes());
        compact::put_text(self.id.as_str(), out);
        compact::put_addresses(&self.addresses, out);
        compact::put_text(&self.client[..self.client.floor_char_boundary(NODE_TEXT_BYTES_MAX)], out);
        let length = (out.len() - start) as u16;
        out[length_at..start].copy_from_slice(&length.to_le_bytes());
    }

    /// Reads a HELLO from the beginning of a stream: `None` while it is not whole, else how many bytes it took.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Hello, usize)>, HelloError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(HelloError::NotSkein);
        }
        let Some(&[l0, l1]) = bytes.get(MAGIC.len()..PREFIX_BYTES).and_then(<[u8]>::first_chunk::<2>) else {
            return Ok(None);
        };
        let whole = PREFIX_BYTES + usize::from(u16::from_le_bytes([l0, l1]));
        if whole > HELLO_BYTES_MAX {
            return Err(HelloError::TooLong);
        }
        match bytes.get(PREFIX_BYTES..whole) {
            Some(body) => Ok(Some((Self::body(body)?, whole))),
            None => Ok(None),
        }
    }

    fn body(bytes: &[u8]) -> Result<Hello, Malformed> {
        let mut reader = Reader::new(bytes);
        // Fields in the order in which they lie.
        Ok(Hello {
            version_min: reader.u8()?,
            version_max: reader.u8()?,
            layout: reader.u64()?,
            hash_key: reader.u64()?,
            generation: Generation(reader.u64()?),
            workers: reader.u16()?,
            lane: reader.u16()?,
            dial: reader.u64()?,
            id: reader.node_id()?,
            addresses: reader.addresses()?,
            client: reader.text()?.to_owned(),
        })
    }

    /// Whether we take the node that said this, given what we say on the same lane and the names in its certificate.
    pub fn check(&self, ours: &Hello, certificate_names: &[String]) -> Result<(), Refused> {
        if self.version_max < ours.version_min || self.version_min > ours.version_max {
            return Err(Refused::Version);
        }
        if self.layout != ours.layout {
            return Err(Refused::Layout);
        }
        if self.hash_key != ours.hash_key {
            return Err(Refused::HashKey);
        }
        if !certificate_names.iter().any(|name| name == self.id.as_str()) {
            return Err(Refused::NameNotInCertificate);
        }
        if self.id == ours.id {
            return Err(if self.generation == ours.generation { Refused::Myself } else { Refused::Duplicate });
        }
        if self.workers == 0 || self.workers > WORKERS_MAX {
            return Err(Refused::Malformed);
        }
        if self.lane != ours.lane || self.lane >= self.workers.max(ours.workers) {
            return Err(Refused::LaneOutOfRange);
        }
        Ok(())
    }
}

/// The first bytes are no HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloError {
    NotSkein,
    TooLong,
    Malformed(Malformed),
}

impl From<Malformed> for HelloError {
    fn from(malformed: Malformed) -> Self {
        HelloError::Malformed(malformed)
    }
}

/// Why a node is not taken as a peer. The code travels in the close of the lane, so that both ends can say the sentence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Refused {
    NotSkein = 16,
    Malformed = 17,
    Version = 18,
    Layout = 19,
    HashKey = 20,
    NameNotInCertificate = 21,
    /// We dialled ourselves.
    Myself = 22,
    /// A second live node has our name.
    Duplicate = 23,
    LaneOutOfRange = 24,
    /// No HELLO in time.
    TooLate = 25,
    /// The pair has a lane already, and that one stays.
    Redundant = 26,
}

impl Refused {
    const ALL: [Refused; 11] = [
        Refused::NotSkein,
        Refused::Malformed,
        Refused::Version,
        Refused::Layout,
        Refused::HashKey,
        Refused::NameNotInCertificate,
        Refused::Myself,
        Refused::Duplicate,
        Refused::LaneOutOfRange,
        Refused::TooLate,
        Refused::Redundant,
    ];

    pub const fn code(self) -> u32 {
        self as u32
    }

    /// What a peer's close code says, when it is a refusal.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|refused| u64::from(refused.code()) == code)
    }

    pub const fn sentence(self) -> &'static str {
        match self {
            Refused::NotSkein => "the other end does not speak Skein's mesh protocol",
            Refused::Malformed => "the other end's greeting cannot be read",
            Refused::Version => "the nodes have no version of the mesh protocol in common: upgrade the older one",
            Refused::Layout => {
                "the nodes come from different builds that lay out frames differently: upgrade one of them"
            }
            Refused::HashKey => "the nodes' certificate bundles hold different hash keys: make both with the same CA",
            Refused::NameNotInCertificate => "the node's name is not the name in its certificate",
            Refused::Myself => "the node dialled itself",
            Refused::Duplicate => "a second live node has the same name: give each node its own name and certificate",
            Refused::LaneOutOfRange => "the nodes disagree on their lanes",
            Refused::TooLate => "no greeting came in time",
            Refused::Redundant => "the two nodes have a lane already",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl From<HelloError> for Refused {
    fn from(error: HelloError) -> Self {
        match error {
            HelloError::NotSkein => Refused::NotSkein,
            HelloError::TooLong | HelloError::Malformed(_) => Refused::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(id: &str) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            layout: 0x0102_0304_0506_0708,
            hash_key: 0x1112_1314_1516_1718,
            generation: Generation(0x2122),
            workers: 2,
            lane: 1,
            dial: 5,
            id: NodeId::parse(id).unwrap(),
            addresses: vec!["127.0.0.1:7001".parse().unwrap(), "[::1]:7002".parse().unwrap()],
            client: "127.0.0.1:8000".to_owned(),
        }
    }

    fn encoded(hello: &Hello) -> Vec<u8> {
        let mut out = Vec::new();
        hello.encode(&mut out);
        out
    }

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn a_hello_is_written_as_it_always_was() {
        let hex: String = encoded(&hello("a")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "534b45494e5200\
             01010807060504030201181716151413121122210000000000000200010005000000000000000161\
             02047f000001591b06000000000000000000000000000000015a1b\
             0e3132372e302e302e313a38303030"
        );
    }

    #[test]
    fn a_hello_is_asked_for_until_it_is_whole() {
        let bytes = encoded(&hello("a"));
        for cut in 0..bytes.len() {
            assert_eq!(Hello::parse(&bytes[..cut]), Ok(None));
        }
        let mut more = bytes.clone();
        more.extend_from_slice(b"what follows");
        assert_eq!(Hello::parse(&more), Ok(Some((hello("a"), bytes.len()))));
    }

    #[test]
    fn what_a_later_version_appends_is_ignored() {
        let mut bytes = encoded(&hello("a"));
        bytes.extend_from_slice(&[1, 2, 3]);
        bytes[5] += 3;
        assert_eq!(Hello::parse(&bytes), Ok(Some((hello("a"), bytes.len()))));
    }

    #[test]
    fn strangers_and_giants_are_refused_at_once() {
        assert_eq!(Hello::parse(b"G"), Err(HelloError::NotSkein));
        assert_eq!(Hello::parse(b"SKEIM"), Err(HelloError::NotSkein));
        assert_eq!(Hello::parse(b"SKEIN\xff\xff"), Err(HelloError::TooLong));
        assert_eq!(Hello::parse(b"SKEIN\x01\x00\x01"), Err(HelloError::Malformed(Malformed::Truncated)));
    }

    #[test]
    fn the_longest_hello_fits_and_a_long_client_address_is_cut() {
        let mut long = hello(&"a".repeat(63));
        long.addresses = vec!["[::1]:7002".parse().unwrap(); NODE_ADDRESSES_MAX];
        long.client = "ü".repeat(200);
        let (read, _) = Hello::parse(&encoded(&long)).unwrap().unwrap();
        assert_eq!(read.client, "ü".repeat(127));
        assert_eq!(read.addresses, long.addresses);
    }

    #[test]
    fn each_reason_to_refuse_is_found() {
        let ours = hello("b");
        let check = |change: fn(&mut Hello)| {
            let mut theirs = hello("a");
            change(&mut theirs);
            theirs.check(&ours, &names("a"))
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|theirs| (theirs.version_min, theirs.version_max) = (2, 3)), Err(Refused::Version));
        assert_eq!(check(|theirs| (theirs.version_min, theirs.version_max) = (0, 0)), Err(Refused::Version));
        assert_eq!(check(|theirs| (theirs.version_min, theirs.version_max) = (0, 3)), Ok(()));
        assert_eq!(check(|theirs| theirs.layout ^= 1), Err(Refused::Layout));
        assert_eq!(check(|theirs| theirs.hash_key ^= 1), Err(Refused::HashKey));
        assert_eq!(check(|theirs| theirs.id = NodeId::parse("c").unwrap()), Err(Refused::NameNotInCertificate));
        assert_eq!(check(|theirs| theirs.lane = 0), Err(Refused::LaneOutOfRange));
        assert_eq!(check(|theirs| theirs.workers = 0), Err(Refused::Malformed));
        assert_eq!(check(|theirs| theirs.workers = WORKERS_MAX + 1), Err(Refused::Malformed));

        let mut twin = ours.clone();
        assert_eq!(twin.check(&ours, &names("b")), Err(Refused::Myself));
        twin.generation.0 += 1;
        assert_eq!(twin.check(&ours, &names("b")), Err(Refused::Duplicate));
        assert_eq!(twin.check(&ours, &[]), Err(Refused::NameNotInCertificate));
        let beyond = Hello { lane: 2, ..ours.clone() };
        assert_eq!(Hello { lane: 2, ..hello("a") }.check(&beyond, &names("a")), Err(Refused::LaneOutOfRange));
    }

    #[test]
    fn a_refusal_survives_its_code() {
        for refused in Refused::ALL {
            assert_eq!(Refused::from_code(refused.code().into()), Some(refused));
        }
        assert_eq!(Refused::from_code(0), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_not(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && bytes.len() > 7 {
                bytes[..5].copy_from_slice(MAGIC);
                let rest = bytes.len() - 7;
                bytes[5..7].copy_from_slice(&(rest as u16).to_le_bytes());
            }
            if let Ok(Some((hello, taken))) = Hello::parse(&bytes) {
                prop_assert!(taken <= bytes.len());
                prop_assert_eq!(Hello::parse(&encoded(&hello)).unwrap().unwrap().0, hello);
            }
        }

        #[test]
        fn a_damaged_hello_is_a_hello_or_not(at in 0..90usize, byte in any::<u8>()) {
            let mut bytes = encoded(&hello("a"));
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(Some((hello, _))) = Hello::parse(&bytes) {
                prop_assert_eq!(Hello::parse(&encoded(&hello)).unwrap().unwrap().0, hello);
            }
        }
    }
}
