//! Every compile-time bound, and what must hold between them.

/// A DNS label's length, since a certificate's name holds it.
pub const NODE_ID_BYTES_MAX: usize = 63;
/// Workers of one node.
pub const WORKERS_MAX: u16 = 128;
/// What one `recv` may bring: one scratch buffer of this size per worker.
pub const READ_BYTES_MAX: usize = 256 * 1024;
/// Messages merged into one WebSocket frame; the official clients' own parsers are happiest with few.
pub const MESSAGES_PER_FRAME_MAX: usize = 16;
/// A frame between nodes, header and body. Refused before anything is allocated for it.
pub const MESH_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// A control datagram between nodes.
pub const MESH_DATAGRAM_BYTES_MAX: usize = 1150;
/// Peers of one node.
pub const PEERS_MAX: usize = 256;
/// Addresses under which one node can be reached.
pub const NODE_ADDRESSES_MAX: usize = 4;
/// Channel hashes in one frame of interest or GAP.
pub const HASHES_PER_FRAME_MAX: usize = 32 * 1024;
/// The first message on a lane.
pub const HELLO_BYTES_MAX: usize = 1024;
/// Free text that nodes tell each other for people to read: a version, a client address.
pub const NODE_TEXT_BYTES_MAX: usize = 255;
/// Bytes of one HTTP request head, upgrade or plain.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Text of a close frame: 125 bytes less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

const _: () = assert!(CLOSE_REASON_BYTES_MAX + 2 <= 125);
const _: () = assert!(HTTP_HEAD_BYTES_MAX <= READ_BYTES_MAX);
const _: () = assert!(HASHES_PER_FRAME_MAX * 8 * 2 + 1024 <= MESH_FRAME_BYTES_MAX);
const _: () = assert!(PEERS_MAX * (64 + NODE_ID_BYTES_MAX + NODE_ADDRESSES_MAX * 19) <= MESH_FRAME_BYTES_MAX);
