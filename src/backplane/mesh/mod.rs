//! The peer-to-peer mesh, from the first bytes of a lane to the knowledge of the whole cluster.
//!
//! `handshake` is what two nodes say first, `membership` wraps the gossip, `cluster` decides whom to dial, who is
//! there and when this node is ready. Lanes and flows of publications lie beside them; none of them knows sockets.
